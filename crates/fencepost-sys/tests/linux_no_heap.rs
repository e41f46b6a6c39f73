//! Nothing of the host's reaches the heap: this program's `malloc` counts.
#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![allow(clippy::disallowed_types, clippy::disallowed_macros, clippy::disallowed_methods)]

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use fencepost_sys::{Faults, Host, Memory, Output, Platform, Protection, Range, Threads, Verdict};

/// The thread whose calls count; 0 for none.
static WATCHED: AtomicU32 = AtomicU32::new(0);
static COUNT: AtomicU64 = AtomicU64::new(0);

fn count() {
    let watched = WATCHED.load(Ordering::Relaxed);
    if watched != 0 && watched == Host.thread_id() {
        COUNT.fetch_add(1, Ordering::Relaxed);
    }
}

unsafe extern "C" {
    fn __libc_malloc(size: usize) -> *mut libc::c_void;
    fn __libc_calloc(count: usize, size: usize) -> *mut libc::c_void;
    fn __libc_realloc(pointer: *mut libc::c_void, size: usize) -> *mut libc::c_void;
}

/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn malloc(size: usize) -> *mut libc::c_void {
    count();
    // SAFETY: the caller's promises.
    unsafe { __libc_malloc(size) }
}

/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn calloc(number: usize, size: usize) -> *mut libc::c_void {
    count();
    // SAFETY: the caller's promises.
    unsafe { __libc_calloc(number, size) }
}

/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn realloc(pointer: *mut libc::c_void, size: usize) -> *mut libc::c_void {
    count();
    // SAFETY: the caller's promises.
    unsafe { __libc_realloc(pointer, size) }
}

extern "C" fn nothing(_: usize) {}
extern "C" fn nothing_at_all() {}

/// What `work` took from the heap on this thread.
fn taken_by(work: impl FnOnce()) -> u64 {
    COUNT.store(0, Ordering::SeqCst);
    WATCHED.store(Host.thread_id(), Ordering::SeqCst);
    work();
    WATCHED.store(0, Ordering::SeqCst);
    COUNT.load(Ordering::SeqCst)
}

fn every_memory_call() {
    let page = Host.page_size();
    let range = Range { start: Host.reserve(8 * page, 4 * page).unwrap(), len: 8 * page };
    // SAFETY: the range is ours.
    unsafe {
        Host.commit(range).unwrap();
        let _ = Host.guard_install(range);
        let _ = Host.guard_remove_each(&[range]);
        let _ = Host.guard_remove(range);
        let _ = Host.populate(range);
        let _ = Host.no_huge_pages(range);
        Host.protect(range, Protection::Read).unwrap();
        Host.discard(range).unwrap();
        Host.decommit(range).unwrap();
        Host.release(range).unwrap();
    }
    let _ = Host.reserve_at(range);
    assert!(Host.offers().mappings_now > 0 && Host.available().is_some() && Host.calls() > 0);
    assert!(Host.is_mapped(Range { start: (&raw const COUNT).addr(), len: 8 }));
    assert_eq!(Host.read_checked((&raw const COUNT).addr(), &mut [0; 8]), 8);
}

fn every_other_call() {
    Host.set_thread_word(Host.thread_word() + 1);
    Host.at_thread_exit(nothing, 1);
    assert!(Host.thread_name(&mut [0; 16]) > 0 && Host.process_id() > 0);
    let _ = (Host.leads_its_job(), Host.now_ms(), Host.random());
    let word = AtomicU32::new(0);
    Host.wait(&word, 1);
    Host.wake(&word);
    let file = Host.open_append(b"/dev/null").unwrap();
    Host.write(file, b"x").unwrap();
    let _ = (Host.file_len(file), Host.is_terminal(file), Host.lock(file));
    Host.unlock(file);
    let mut modules = 0;
    Host.each_module(&mut |_| modules += 1);
    assert!(modules > 0);
    let mut buffer = [0; 256];
    assert!(Host.executable(&mut buffer) > 0 && Host.arguments(&mut buffer) > 0);
    assert!(Host.environment(c"PATH").is_some());
    Host.install(|_| Verdict::Pass).unwrap();
    assert!(Host.is_installed());
    let stack = Host.ensure_alternate_stack();
    // SAFETY: nobody runs on the stack.
    unsafe {
        assert!(Host.call_on_stack(stack, nothing, 0));
        Host.drop_alternate_stack(stack);
    }
    Host.watchdog(1_000_000);
    Host.watchdog(0);
    Host.at_fork(nothing_at_all, nothing_at_all, nothing_at_all).unwrap();
    Host.at_exit(nothing_at_all).unwrap();
    Host.flush_streams();
}

#[test]
fn no_call_reaches_the_heap() {
    assert_eq!(taken_by(|| drop(std::hint::black_box(Vec::<u8>::with_capacity(100)))), 1, "the count counts");
    assert_eq!(taken_by(|| Host.probe()), 0);
    assert_eq!(taken_by(every_memory_call), 0);
    assert_eq!(taken_by(every_other_call), 0);
    assert!(taken_by(|| assert!(Host.stack_bounds().is_some())) < 10, "the one exception, as it says");
}
