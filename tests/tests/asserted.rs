//! `assert_faults!` in tests that run side by side, under the test runner of the language. The guard is this binary's own
//! allocator.

use std::hint::black_box;

#[global_allocator]
static ALLOC: fencepost::GuardedAlloc = fencepost::GuardedAlloc::new();

fn message(end: Box<dyn std::any::Any + Send>) -> String {
    match end.downcast::<String>() {
        Ok(text) => *text,
        Err(end) => (*end.downcast::<&str>().expect("a message")).to_owned(),
    }
}

/// The message of the panic in which something ends.
fn panics(body: impl FnOnce()) -> String {
    message(std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).expect_err("it must panic"))
}

fn overruns() {
    let block = vec![1u8; 24].into_boxed_slice();
    let end = black_box(block.as_ptr()).wrapping_add(24);
    // SAFETY: none: it is the bug.
    black_box(unsafe { end.read_volatile() });
}

fn uses_freed() {
    let block = Box::new(7u64);
    let stale = black_box(&raw const *block);
    drop(block);
    // SAFETY: none: as above.
    black_box(unsafe { stale.read_volatile() });
}

/// One test a thread, and the same again and again in each, so that they meet.
macro_rules! many {
    ($($name:ident)*) => { $(
        #[test]
        fn $name() {
            for _ in 0..100 {
                fencepost::assert_faults!("heap-buffer-overflow", { overruns() });
                fencepost::assert_faults!("use-after-free", { uses_freed() });
            }
        }
    )* };
}
many! { here and_here as_well_as_here or_here or_there and_there at_last the_eighth }

#[test]
fn errors_without_a_fault_are_expected_too() {
    fencepost::assert_faults!("double-free", {
        let layout = std::alloc::Layout::new::<u64>();
        // SAFETY: none: the second free is the bug.
        unsafe {
            let block = black_box(std::alloc::alloc(layout));
            std::alloc::dealloc(block, layout);
            std::alloc::dealloc(black_box(block), layout);
        }
    });
    fencepost::assert_faults!("seal-violation", {
        let mut block = vec![1u8; 64];
        let at = black_box(block.as_mut_ptr());
        let seal = fencepost::seal(&block[..]).expect("sealed");
        // SAFETY: none: as above.
        unsafe { at.write_volatile(2) };
        drop(seal);
        assert_eq!(block[0], 2, "the write has its effect");
    });
}

#[test]
fn an_error_of_another_thread_is_not_this_ones() {
    let said = panics(|| {
        fencepost::assert_faults!("heap-buffer-overflow", {
            let other = std::thread::spawn(|| fencepost::assert_faults!("use-after-free", { uses_freed() }));
            other.join().expect("the other thread's own expectation is met");
        });
    });
    assert!(said.contains("heap-buffer-overflow, and found was nothing"), "{said}");
}

#[test]
fn what_is_not_exactly_that_kind_fails() {
    let said = panics(|| fencepost::assert_faults!("use-after-free", { overruns() }));
    assert!(said.contains("use-after-free, and found was heap-buffer-overflow"), "{said}");
    let said = panics(|| {
        fencepost::assert_faults!("use-after-free", {
            overruns();
            uses_freed();
        });
    });
    assert!(said.contains("found was heap-buffer-overflow, use-after-free"), "{said}");
    let said = panics(|| fencepost::assert_faults!("use-after-free", {}));
    assert!(said.contains("found was nothing"), "{said}");
}

#[test]
fn a_panic_in_the_block_ends_it() {
    assert_eq!(
        panics(|| fencepost::assert_faults!("use-after-free", { panic!("of its own") })),
        "of its own"
    );
    fencepost::assert_faults!("use-after-free", { uses_freed() });
}

#[test]
fn nothing_is_told_of_what_is_expected() {
    fencepost::assert_faults!("use-after-free", { uses_freed() });
    assert!(fencepost::drain_reports().is_empty());
    assert_eq!(fencepost::stats().reports, 0);
}

/// This binary again, with options: whatever they say, the blocks of an expectation are guarded; unless nothing is.
#[test]
fn modes_and_filters_do_not_matter() {
    let run = |options: &str| {
        std::process::Command::new(std::env::current_exe().expect("this binary"))
            .args(["--exact", "here", "nothing_is_told_of_what_is_expected"])
            .env("FENCEPOST_OPTIONS", options)
            .env("RUST_BACKTRACE", "0")
            .output()
            .expect("it runs")
    };
    for options in
        ["mode=sample,sample_rate=100000", "only_size=100000-200000", "on_error=exit", "engine=mprotect"]
    {
        let ran = run(options);
        assert!(
            ran.status.success(),
            "{options}: {}{}",
            String::from_utf8_lossy(&ran.stdout),
            String::from_utf8_lossy(&ran.stderr)
        );
        assert!(!String::from_utf8_lossy(&ran.stderr).contains("fencepost: ERROR"), "{options}");
    }
    let ran = run("mode=off");
    let said = String::from_utf8_lossy(&ran.stdout).into_owned() + &String::from_utf8_lossy(&ran.stderr);
    assert!(!ran.status.success() && said.contains("not guarded"), "{said}");
}
