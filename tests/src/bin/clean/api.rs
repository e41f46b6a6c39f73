//! Panics, and what the program asks of the guard.

/// A panic that is caught, and one in a thread.
pub fn panics() {
    std::panic::set_hook(Box::new(|_| {}));
    let caught = std::panic::catch_unwind(|| {
        let kept: Vec<String> = vec!["on the heap".into()];
        std::panic::panic_any(kept.len());
    });
    let thread = std::thread::spawn(|| std::panic::panic_any(String::from("in a thread"))).join();
    println!("{} {}", caught.is_err(), thread.is_err());
}

/// What `describe`, `check` and `stats` say about a healthy program.
pub fn api() {
    let block = vec![7u8; 1000].into_boxed_slice();
    let info = fencepost::describe(block[500..].as_ptr()).expect("a block that the guard knows");
    assert_eq!(info.size, 1000);
    assert_eq!(info.address, block.as_ptr().addr());
    assert!(fencepost::describe(std::ptr::without_provenance::<u8>(8)).is_none());
    let local = 5u8;
    assert!(fencepost::describe(&raw const local).is_none());
    let before = fencepost::stats();
    let more: Vec<Box<u64>> = (0..100).map(Box::new).collect();
    let during = fencepost::stats();
    assert!(during.guarded >= before.guarded + 100, "{before:?} {during:?}");
    assert!(during.live >= before.live + 100, "{before:?} {during:?}");
    drop(more);
    assert!(fencepost::stats().live <= during.live - 100);
    assert_eq!(fencepost::check(), 0);
    assert!(fencepost::drain_reports().is_empty());
    let stale = block.as_ptr();
    drop(block);
    let dead = fencepost::describe(stale).expect("a block that was freed");
    assert_eq!(dead.size, 1000);
    println!("described");
}
