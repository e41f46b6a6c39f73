//! Bugs with C between the frames.

use crate::stacks::victim_recurses;
use crate::{Touch, armed, victim_allocates, victim_frees, victim_touches};
use std::hint::black_box;

#[inline(never)]
fn victim_copies(into: *mut u8, from: *const u8, len: usize) -> usize {
    // SAFETY: none: `from` has fewer than `len` bytes. This is the bug.
    unsafe { libc::memcpy(black_box(into).cast(), black_box(from).cast(), black_box(len)) };
    black_box(len)
}

/// Copies more than a block has, in C's own `memcpy`.
#[inline(never)]
pub fn memcpy_overrun() {
    let from = victim_allocates(1000, 1);
    let into = victim_allocates(5000, 1);
    armed();
    // The use of the result keeps these calls from being jumps.
    black_box(victim_copies(into, from, 4500));
}

extern "C" fn victim_compares(left: *const libc::c_void, right: *const libc::c_void) -> libc::c_int {
    let block = victim_allocates(24, 1);
    victim_touches(block.wrapping_add(24), Touch::Read);
    victim_frees(block, 24, 1);
    black_box(left.addr().cmp(&right.addr()) as libc::c_int)
}

#[inline(never)]
fn victim_sorts(numbers: &mut [u64]) -> usize {
    // SAFETY: the slice is the callee's for the call, and the comparison has the type that qsort asks for.
    unsafe { libc::qsort(numbers.as_mut_ptr().cast(), numbers.len(), 8, Some(victim_compares)) };
    black_box(numbers.len())
}

/// Allocates and overruns in a function that C calls back.
#[inline(never)]
pub fn qsort_overrun() {
    let mut numbers = [3, 1, 2];
    armed();
    black_box(victim_sorts(&mut numbers));
}

/// Overruns in a child, after a fork; prints the signal that ended it.
pub fn fork_overrun() {
    let block = victim_allocates(24, 1);
    armed();
    // SAFETY: the process has one thread, so the child may do what the parent may.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0);
    if pid == 0 {
        let own = victim_allocates(40, 1);
        victim_frees(block, 24, 1);
        victim_touches(own.wrapping_add(40), Touch::Write);
        // SAFETY: ends the child without running what belongs to the parent.
        unsafe { libc::_exit(0) };
    }
    let mut status = 0;
    // SAFETY: the child is this process's own and is waited for once.
    assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
    println!(
        "child {pid} ended by signal {}",
        if libc::WIFSIGNALED(status) { libc::WTERMSIG(status) } else { 0 }
    );
    victim_frees(block, 24, 1);
}

extern "C" fn on_c_thread(_: *mut libc::c_void) -> *mut libc::c_void {
    // An allocation is what makes the guard know this thread.
    let block = victim_allocates(24, 8);
    victim_frees(block, 24, 8);
    armed();
    black_box(victim_recurses(0));
    std::ptr::null_mut()
}

/// Overflows the stack of a thread that C made.
pub fn overflow_c_thread() {
    let mut thread = 0;
    // SAFETY: the attribute may be null, and the function has the type that pthreads ask for.
    let made =
        unsafe { libc::pthread_create(&mut thread, std::ptr::null(), on_c_thread, std::ptr::null_mut()) };
    assert_eq!(made, 0);
    // SAFETY: the thread was made just now and is joined once.
    assert_eq!(unsafe { libc::pthread_join(thread, std::ptr::null_mut()) }, 0);
}
