//! The Windows calls themselves. On other systems there is nothing here.
#![cfg(windows)]

use std::sync::atomic::{AtomicUsize, Ordering};

use fencepost_sys::{
    Faults, Host, Limit, Memory, Pages, Platform, Protection, Range, Threads, VmError, Wish,
};

const HOST: Host = Host::new();

fn readable(address: usize) -> bool {
    HOST.read_checked(address, &mut [0]) == 1
}

#[test]
fn memory_goes_through_its_states() {
    HOST.probe();
    let (page, unit) = (HOST.page_size(), HOST.granularity());
    assert!(unit.is_multiple_of(page) && unit >= page);
    for align in [1, 2 << 20] {
        let start = HOST.reserve(1 << 20, align).expect("addresses");
        assert!(start.is_multiple_of(align.max(unit)));
        let whole = Range { start, len: 1 << 20 };
        let middle = Range { start: start + 4 * page, len: 2 * page };
        assert!(!readable(start) && !HOST.is_mapped(whole));
        // SAFETY: the reservation is this test's own, and only these calls touch it.
        unsafe {
            HOST.commit(middle).expect("memory");
            assert!(readable(middle.start) && !readable(middle.end()) && HOST.is_mapped(middle));
            core::slice::from_raw_parts_mut(middle.start as *mut u8, middle.len).fill(7);
            HOST.protect(middle, Protection::Read).expect("closed to writing");
            let mut bytes = vec![0; 3 * page];
            assert_eq!(HOST.read_checked(middle.start, &mut bytes), 2 * page, "up to the first closed page");
            assert!(bytes[..2 * page].iter().all(|byte| *byte == 7));
            HOST.commit(middle).expect("open again, with its content");
            HOST.protect(middle, Protection::None).expect("closed");
            assert!(!readable(middle.start));
            HOST.discard(middle).expect("zero");
            assert_eq!((middle.start as *const u64).read(), 0);
            HOST.populate(middle).expect("filled");
            assert_eq!(HOST.resident(middle), Ok(2 * page));
            HOST.decommit(middle).expect("given back");
            assert!(!readable(middle.start));
            HOST.release(whole).expect("released");
        }
    }
    assert!(HOST.calls() > 10 && HOST.available() > Some(1 << 20));
}

#[test]
fn the_threads_word_name_and_stack() {
    HOST.probe();
    assert_eq!(HOST.thread_word(), 0);
    HOST.set_thread_word(77);
    let other = std::thread::Builder::new().name("named".into());
    let other = other.spawn(|| {
        let mut name = [0; 32];
        let len = HOST.thread_name(&mut name);
        let bounds = HOST.stack_bounds().expect("bounds");
        assert!(bounds.contains((&raw const len).addr()));
        (HOST.thread_word(), name[..len].to_vec(), HOST.thread_id())
    });
    let (word, name, id) = other.expect("a thread").join().expect("no panic");
    assert_eq!((word, &name[..]), (0, &b"named"[..]));
    assert!(id != HOST.thread_id() && HOST.process_id() == std::process::id());
    assert_eq!(HOST.thread_word(), 77, "another thread's word is its own");
    let (before, random) = (HOST.now_ns(), HOST.random());
    assert!(HOST.now_ns() >= before && HOST.random() != random);
}

static ENDED: AtomicUsize = AtomicUsize::new(0);

extern "C" fn on_end(word: usize) {
    ENDED.store(word, Ordering::SeqCst);
}

#[test]
fn the_end_of_a_thread_is_told() {
    HOST.probe();
    std::thread::spawn(|| HOST.at_thread_exit(on_end, 0x1234)).join().expect("no panic");
    assert_eq!(ENDED.load(Ordering::SeqCst), 0x1234);
}

#[test]
fn last_errors_are_left_alone() {
    HOST.probe();
    let error = || std::io::Error::last_os_error().raw_os_error();
    // A call that fails, and then ours, which fail as well.
    assert!(std::fs::metadata("no such file").is_err());
    let before = error();
    assert!(HOST.reserve(1 << 60, 1).is_err());
    let _ = (HOST.thread_word(), HOST.thread_id(), HOST.read_checked(8, &mut [0]));
    assert_eq!(error(), before);
}

extern "C" fn deep(sum: usize) {
    fn descend(depth: usize) -> usize {
        let frame = std::hint::black_box([depth; 64]);
        if depth == 0 { 0 } else { descend(depth - 1) + frame[depth % 64] }
    }
    // SAFETY: the test gives the address of its own number.
    unsafe { (sum as *mut usize).write(descend(500)) };
}

#[test]
fn a_stack_grows_by_its_guard_page() {
    HOST.probe();
    let start = HOST.reserve(1 << 20, 1).expect("addresses");
    let stack = Range { start, len: 1 << 20 };
    let mut sum = 0usize;
    // SAFETY: the reservation is this test's own; the stack is prepared as the contract says.
    unsafe {
        HOST.commit(stack).expect("memory");
        HOST.prepare_stack(stack).expect("a guard");
        let before = HOST.resident(stack).expect("countable");
        HOST.run_on_stack(stack, deep, (&raw mut sum).addr());
        let after = HOST.resident(stack).expect("countable");
        assert_eq!(sum, 500 * 501 / 2);
        assert!(before <= 72 << 10 && after >= 250 << 10, "{before} and then {after}");
        HOST.release(stack).expect("released");
    }
}

#[test]
fn too_many_addresses_are_named() {
    let limit = HOST.why_refused(Wish::Reserve, 1 << 50);
    assert!(limit.to_string().contains("the processor addresses"), "{limit}");
}

/// Large pages are given with their addresses, or it is said why not.
#[test]
fn large_pages_are_given_or_refused_with_a_reason() {
    HOST.probe();
    let mut sizes = [0; 4];
    let count = HOST.huge_page_sizes(&mut sizes);
    let (size, unit) = (if count == 0 { 2 << 20 } else { sizes[0] }, HOST.granularity());
    assert_eq!(HOST.reserve_huge([0, 3 * size, 0], 1, size / 2), Err(VmError::Unsupported), "no such size");
    let start = match HOST.reserve_huge([size, 2 * size, unit], size, size) {
        Ok(start) => start,
        Err(error) => {
            let limit = HOST.why_refused(Wish::HugePages(size), 2 * size);
            assert!(error != VmError::Denied || limit == Limit::LockRight, "{error}: {limit}");
            println!("skipped: no large pages here: {error}: {limit}");
            return;
        }
    };
    println!("large pages of {size} bytes were given");
    let middle = Range { start: start + size, len: 2 * size };
    assert!(!readable(middle.start) && !readable(start) && !readable(middle.end()));
    // SAFETY: the reservation is this test's own, and only these calls touch it.
    unsafe {
        HOST.commit_huge(middle, size).expect("opened");
        core::slice::from_raw_parts_mut(middle.start as *mut u8, middle.len).fill(7);
        HOST.decommit(middle).expect("emptied");
        assert!(!readable(middle.start));
        HOST.commit_huge(middle, size).or_else(|_| HOST.commit(middle)).expect("opened again");
        assert_eq!((middle.start as *const u64).read(), 0);
        HOST.release(Range { start, len: 3 * size + unit }).expect("released");
    }
}

/// How often a call on the other stack was seen to begin, and to end by itself.
static BEGUN: AtomicUsize = AtomicUsize::new(0);
static ENDED_ITSELF: AtomicUsize = AtomicUsize::new(0);

extern "C" fn spins(_: usize) {
    BEGUN.fetch_add(1, Ordering::SeqCst);
    HOST.watchdog(50);
    loop {
        core::hint::spin_loop();
    }
}

extern "C" fn waits_for_ever(_: usize) {
    BEGUN.fetch_add(1, Ordering::SeqCst);
    HOST.watchdog(50);
    // As a lock waits that nobody gives back.
    let word = std::sync::atomic::AtomicU32::new(0);
    loop {
        HOST.wait(&word, 0);
    }
}

extern "C" fn reads_for_ever(pipe: usize) {
    use std::io::Read;
    BEGUN.fetch_add(1, Ordering::SeqCst);
    HOST.watchdog(50);
    // SAFETY: the test gives the address of its own end of a pipe.
    let pipe = unsafe { &mut *(pipe as *mut std::io::PipeReader) };
    loop {
        let read = pipe.read(&mut [0]);
        let _ = read;
    }
}

extern "C" fn comes_back(_: usize) {
    HOST.watchdog(3_600_000);
    HOST.watchdog(100);
    HOST.watchdog(0);
    ENDED_ITSELF.fetch_add(1, Ordering::SeqCst);
}

#[test]
fn a_call_that_hangs_is_ended() {
    HOST.probe();
    let start = HOST.reserve(1 << 20, 1).expect("addresses");
    let stack = Range { start, len: 1 << 20 };
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    let bounds = HOST.stack_bounds();
    let mark = [0x5a_u8; 64];
    // SAFETY: the stack is this test's own, and one call runs at a time.
    unsafe {
        HOST.commit(stack).expect("memory");
        for work in [spins, waits_for_ever, reads_for_ever] as [extern "C" fn(usize); 3] {
            let whole = HOST.call_on_stack(stack, work, (&raw mut reader).addr());
            assert!(!whole, "it was given up");
            HOST.watchdog(0);
            assert_eq!((HOST.stack_bounds(), core::hint::black_box(&mark)), (bounds, &[0x5a; 64]));
            assert!(HOST.call_on_stack(stack, comes_back, 0), "it ends by itself");
        }
        HOST.release(stack).expect("released");
    }
    drop(writer);
    assert_eq!((BEGUN.load(Ordering::SeqCst), ENDED_ITSELF.load(Ordering::SeqCst)), (3, 3));
    // None of those that were taken back ends anything later.
    std::thread::sleep(std::time::Duration::from_millis(150));
}
