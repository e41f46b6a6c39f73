//! C's allocation functions, as every system with a C library has them: for the two ways in which they come into its
//! place (`exported`, `interposed.rs`).
#![allow(clippy::missing_safety_doc, reason = "each has the rules of the C function of its name")]
#![allow(missing_docs, reason = "documented by the C standard and POSIX")]

use core::ffi::{c_int, c_void};

use fencepost_guard::{Family, Given};
use fencepost_malloc::{Failure, Malloc, Result};
use fencepost_sys::{ErrorNumber, Host, LibcHeap};

use crate::runtime::{GUARD, here};

/// malloc's meaning over this program's runtime.
pub(crate) static MALLOC: Malloc<Host, LibcHeap> = Malloc::new(&GUARD, LibcHeap);

/// A block as C functions give it: null with `errno` set where there is none.
pub(crate) fn given(block: Result) -> *mut c_void {
    match block {
        Ok(block) => block.as_ptr().cast(),
        Err(failure) => refused(failure),
    }
}

/// The same of a resized block, which may be null without an error.
pub(crate) fn resized(block: Result<*mut u8>) -> *mut c_void {
    match block {
        Ok(block) => block.cast(),
        Err(failure) => refused(failure),
    }
}

pub(crate) fn refused(failure: Failure) -> *mut c_void {
    number(failure).set();
    core::ptr::null_mut()
}

pub(crate) fn number(failure: Failure) -> ErrorNumber {
    match failure {
        Failure::NoMemory => ErrorNumber::NO_MEMORY,
        Failure::Invalid => ErrorNumber::INVALID,
    }
}

// Never inlined: frames younger than the anchor are left out of stacks, and the anchor lies in these frames.

#[inline(never)]
pub unsafe extern "C" fn malloc(size: usize) -> *mut c_void {
    given(MALLOC.malloc(size, Family::C, here()))
}

#[inline(never)]
pub unsafe extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
    given(MALLOC.calloc(count, size, here()))
}

#[inline(never)]
pub unsafe extern "C" fn realloc(block: *mut c_void, size: usize) -> *mut c_void {
    // SAFETY: the caller's promise to realloc.
    resized(unsafe { MALLOC.realloc(block.cast(), size, here()) })
}

#[inline(never)]
pub unsafe extern "C" fn free(block: *mut c_void) {
    // SAFETY: the caller's promise to free.
    unsafe { free_keeping_errno(block, Given::nothing(Family::C), here()) };
}

#[inline(never)]
pub unsafe extern "C" fn aligned_alloc(align: usize, size: usize) -> *mut c_void {
    given(MALLOC.aligned(align, size, Family::C, here()))
}

#[inline(never)]
pub unsafe extern "C" fn posix_memalign(into: *mut *mut c_void, align: usize, size: usize) -> c_int {
    match MALLOC.posix_memalign(align, size, here()) {
        Ok(block) => {
            // SAFETY: the caller gives a place for the address.
            unsafe { into.write(block.as_ptr().cast()) };
            0
        }
        Err(failure) => number(failure).number(),
    }
}

#[inline(never)]
pub unsafe extern "C" fn valloc(size: usize) -> *mut c_void {
    given(MALLOC.pages(size, false, here()))
}

/// POSIX.1-2024: free leaves errno as it is.
///
/// # Safety
/// As `free`.
pub(crate) unsafe fn free_keeping_errno(block: *mut c_void, told: Given, anchor: usize) {
    if block.is_null() {
        return;
    }
    let errno = ErrorNumber::get();
    // SAFETY: passed on to the caller.
    unsafe { MALLOC.free(block.cast(), told, anchor) };
    errno.set();
}
