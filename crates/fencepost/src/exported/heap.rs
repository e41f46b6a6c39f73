//! C's allocation functions.
#![allow(clippy::missing_safety_doc, reason = "each has the rules of the C function of its name")]
#![allow(missing_docs, reason = "documented by the C standard, POSIX and the glibc manual")]

use core::ffi::{c_int, c_void};

use fencepost_guard::{Family, Given};
use fencepost_sys::ErrorNumber;

use super::{MALLOC, behind, given, resized};
use crate::c_heap::free_keeping_errno;
use crate::runtime::{GUARD, here};

// Never inlined: frames younger than the anchor are left out of stacks, and the anchor lies in these frames.

#[inline(never)]
pub unsafe extern "C" fn reallocarray(block: *mut c_void, count: usize, size: usize) -> *mut c_void {
    if MALLOC.stands_back() {
        // SAFETY: the caller's promise to reallocarray.
        let there = unsafe {
            behind!(c"reallocarray", "C" (block => *mut c_void, count => usize, size => usize) -> *mut c_void)
        };
        if let Some(block) = there {
            return block;
        }
    }
    // SAFETY: the caller's promise to reallocarray.
    resized(unsafe { MALLOC.reallocarray(block.cast(), count, size, here()) })
}

#[inline(never)]
pub unsafe extern "C" fn cfree(block: *mut c_void) {
    // SAFETY: the caller's promise to cfree, which is free.
    unsafe { free_keeping_errno(block, Given::nothing(Family::C), here()) };
}

#[inline(never)]
pub unsafe extern "C" fn free_sized(block: *mut c_void, size: usize) {
    let told = Given { size: Some(size), ..Given::nothing(Family::C) };
    // SAFETY: the caller's promise to free_sized.
    unsafe { free_keeping_errno(block, told, here()) };
}

#[inline(never)]
pub unsafe extern "C" fn free_aligned_sized(block: *mut c_void, _align: usize, size: usize) {
    // A block may be aligned to more than was asked: only the size can be compared.
    let told = Given { size: Some(size), ..Given::nothing(Family::C) };
    // SAFETY: the caller's promise to free_aligned_sized.
    unsafe { free_keeping_errno(block, told, here()) };
}

#[inline(never)]
pub unsafe extern "C" fn memalign(align: usize, size: usize) -> *mut c_void {
    given(MALLOC.memalign(align, size, here()))
}

#[inline(never)]
pub unsafe extern "C" fn pvalloc(size: usize) -> *mut c_void {
    given(MALLOC.pages(size, true, here()))
}

#[inline(never)]
pub unsafe extern "C" fn malloc_usable_size(block: *mut c_void) -> usize {
    // SAFETY: the caller's promise to malloc_usable_size.
    unsafe { MALLOC.usable_size(block.cast(), here()) }
}

/// What `mallinfo` answers: of the C library's own heap, and what guarded blocks hold on top of the bytes from the system
/// and of those in use.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Mallinfo<T>([T; 10]);

impl<T: Copy> Mallinfo<T> {
    /// The places of the bytes from the system (`arena`) and of those in use (`uordblks`).
    const GUARDED: [usize; 2] = [0, 7];

    fn with_guarded(mut self, add: impl Fn(T, u64) -> T) -> Mallinfo<T> {
        let held = GUARD.held_by_blocks();
        for place in Mallinfo::<T>::GUARDED {
            if let Some(figure) = self.0.get_mut(place) {
                *figure = add(*figure, held);
            }
        }
        self
    }
}

pub unsafe extern "C" fn mallinfo() -> Mallinfo<c_int> {
    // SAFETY: the C library's function has this type.
    let own = unsafe { behind!(c"mallinfo", "C" () -> Mallinfo<c_int>) }.unwrap_or_default();
    // Larger figures than fit wrap around, as the C library's do.
    own.with_guarded(|figure, held| figure.wrapping_add(held as c_int))
}

pub unsafe extern "C" fn mallinfo2() -> Mallinfo<usize> {
    // SAFETY: the C library's function has this type.
    let own = unsafe { behind!(c"mallinfo2", "C" () -> Mallinfo<usize>) }.unwrap_or_default();
    own.with_guarded(|figure, held| figure.wrapping_add(held as usize))
}

/// Tells of the C library's own heap.
pub unsafe extern "C" fn malloc_info(options: c_int, stream: *mut c_void) -> c_int {
    // SAFETY: the C library's function has this type, and the caller gives an open stream.
    let told =
        unsafe { behind!(c"malloc_info", "C-unwind" (options => c_int, stream => *mut c_void) -> c_int) };
    told.unwrap_or_else(|| {
        ErrorNumber::NOT_THERE.set();
        -1
    })
}

/// Tells of the C library's own heap: what is known of the guarded one is in the summary.
pub unsafe extern "C-unwind" fn malloc_stats() {
    // SAFETY: the C library's function has this type. A thread may be cancelled in it.
    let _ = unsafe { behind!(c"malloc_stats", "C-unwind"()) };
}

/// Nothing was given back to the system.
pub unsafe extern "C" fn malloc_trim(_pad: usize) -> c_int {
    0
}

/// Every setting is taken, and none changes anything.
pub unsafe extern "C" fn mallopt(_parameter: c_int, _value: c_int) -> c_int {
    1
}
