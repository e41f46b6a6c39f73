//! Processes: fork, panic and what the program asks of the guard.

use std::sync::atomic::{AtomicBool, Ordering};

/// Forks while other threads allocate; each child allocates, frees what it inherited, and ends with its own status.
pub fn fork_threaded(children: usize) {
    static STOP: AtomicBool = AtomicBool::new(false);
    let workers: Vec<_> = (0..3)
        .map(|index| {
            std::thread::spawn(move || {
                let mut kept: Vec<String> = Vec::new();
                while !STOP.load(Ordering::Relaxed) {
                    kept.push(format!("worker {index} {}", kept.len()));
                    if kept.len() > 200 {
                        kept.clear();
                    }
                }
            })
        })
        .collect();
    for child in 0..children {
        let inherited: Vec<String> = (0..20).map(|n| format!("inherited {child} {n}")).collect();
        // SAFETY: the child calls nothing but the allocator, which has to work after a fork, and `_exit`.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0);
        if pid == 0 {
            let own: Vec<String> = inherited.iter().map(|line| line.to_uppercase()).collect();
            let good = own.iter().all(|line| line.starts_with("INHERITED"));
            drop(inherited);
            drop(own);
            // SAFETY: ends the child without running what belongs to the parent.
            unsafe { libc::_exit(if good { 40 + (child % 10) as i32 } else { 1 }) };
        }
        let mut status = 0;
        // SAFETY: the child is this process's own and is waited for once.
        assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
        assert!(libc::WIFEXITED(status), "child {child} ended with status {status:#x}");
        assert_eq!(libc::WEXITSTATUS(status), 40 + (child % 10) as i32);
    }
    STOP.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.join().expect("a thread that ends");
    }
    println!("{children} children");
}

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
