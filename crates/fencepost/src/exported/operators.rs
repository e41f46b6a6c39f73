//! C++'s allocation functions, by the names that the Itanium C++ ABI gives them on 64-bit systems.
//!
//! Where there is no memory, the C++ library's own function is called in turn: it asks `malloc`, which is ours, calls
//! the program's new-handler, and throws.
#![allow(clippy::missing_safety_doc, reason = "each has the rules of the C++ function of its name")]
#![allow(missing_docs, reason = "documented by the C++ standard, [new.delete]")]
#![allow(non_snake_case, reason = "names of the ABI")]

use core::ffi::c_void;
use core::ptr::NonNull;

use fencepost_guard::{Family, Given};
use fencepost_malloc::Result;
use fencepost_sys::{Faults, Host};

use super::{MALLOC, behind};
use crate::c_heap::free_keeping_errno;
use crate::runtime::{GUARD, here};

// Never inlined: frames younger than the anchor are left out of stacks, and the anchor lies in these frames.

/// A block of the C++ library's, which got it from `malloc`, becomes one of its family.
fn adopt(block: *mut c_void, family: Family) -> *mut c_void {
    if let Some(present) = NonNull::new(block.cast()) {
        GUARD.mark(present, family);
    }
    block
}

/// The end of a C++ program whose C++ library cannot be found: it can neither have memory nor throw.
fn no_library() -> *mut c_void {
    Host::new().die_by_abort()
}

fn plain(size: usize, family: Family, anchor: usize) -> Option<*mut c_void> {
    found(|| MALLOC.malloc(size, family, anchor))
}

fn aligned(size: usize, align: usize, family: Family, anchor: usize) -> Option<*mut c_void> {
    found(|| MALLOC.aligned(align, size, family, anchor))
}

/// While we stand back, and where there is no memory, the C++ library is asked.
fn found(ask: impl FnOnce() -> Result) -> Option<*mut c_void> {
    if MALLOC.stands_back() {
        MALLOC.count_left();
        return None;
    }
    ask().ok().map(|block| block.as_ptr().cast())
}

/// # Safety
/// As `operator delete`.
unsafe fn delete(block: *mut c_void, told: Given, anchor: usize) {
    // SAFETY: passed on to the caller.
    unsafe { free_keeping_errno(block, told, anchor) };
}

#[inline(never)]
pub unsafe extern "C-unwind" fn _Znwm(size: usize) -> *mut c_void {
    if let Some(block) = plain(size, Family::New, here()) {
        return block;
    }
    // SAFETY: the caller's promise to this operator.
    let there = unsafe { behind!(c"_Znwm", "C-unwind" (size => usize) -> *mut c_void) };
    adopt(there.unwrap_or_else(no_library), Family::New)
}

#[inline(never)]
pub unsafe extern "C-unwind" fn _Znam(size: usize) -> *mut c_void {
    if let Some(block) = plain(size, Family::NewArray, here()) {
        return block;
    }
    // SAFETY: the caller's promise to this operator.
    let there = unsafe { behind!(c"_Znam", "C-unwind" (size => usize) -> *mut c_void) };
    adopt(there.unwrap_or_else(no_library), Family::NewArray)
}

#[inline(never)]
pub unsafe extern "C-unwind" fn _ZnwmRKSt9nothrow_t(size: usize, nothrow: *const c_void) -> *mut c_void {
    if let Some(block) = plain(size, Family::New, here()) {
        return block;
    }
    // SAFETY: the caller's promise to this operator.
    let there = unsafe {
        behind!(c"_ZnwmRKSt9nothrow_t", "C-unwind" (size => usize, nothrow => *const c_void) -> *mut c_void)
    };
    adopt(there.unwrap_or_else(core::ptr::null_mut), Family::New)
}

#[inline(never)]
pub unsafe extern "C-unwind" fn _ZnamRKSt9nothrow_t(size: usize, nothrow: *const c_void) -> *mut c_void {
    if let Some(block) = plain(size, Family::NewArray, here()) {
        return block;
    }
    // SAFETY: the caller's promise to this operator.
    let there = unsafe {
        behind!(c"_ZnamRKSt9nothrow_t", "C-unwind" (size => usize, nothrow => *const c_void) -> *mut c_void)
    };
    adopt(there.unwrap_or_else(core::ptr::null_mut), Family::NewArray)
}

#[inline(never)]
pub unsafe extern "C-unwind" fn _ZnwmSt11align_val_t(size: usize, align: usize) -> *mut c_void {
    if let Some(block) = aligned(size, align, Family::New, here()) {
        return block;
    }
    // SAFETY: the caller's promise to this operator.
    let there = unsafe {
        behind!(c"_ZnwmSt11align_val_t", "C-unwind" (size => usize, align => usize) -> *mut c_void)
    };
    adopt(there.unwrap_or_else(no_library), Family::New)
}

#[inline(never)]
pub unsafe extern "C-unwind" fn _ZnamSt11align_val_t(size: usize, align: usize) -> *mut c_void {
    if let Some(block) = aligned(size, align, Family::NewArray, here()) {
        return block;
    }
    // SAFETY: the caller's promise to this operator.
    let there = unsafe {
        behind!(c"_ZnamSt11align_val_t", "C-unwind" (size => usize, align => usize) -> *mut c_void)
    };
    adopt(there.unwrap_or_else(no_library), Family::NewArray)
}

#[inline(never)]
pub unsafe extern "C-unwind" fn _ZnwmSt11align_val_tRKSt9nothrow_t(
    size: usize,
    align: usize,
    nothrow: *const c_void,
) -> *mut c_void {
    if let Some(block) = aligned(size, align, Family::New, here()) {
        return block;
    }
    // SAFETY: the caller's promise to this operator.
    let there = unsafe {
        behind!(c"_ZnwmSt11align_val_tRKSt9nothrow_t", "C-unwind" (size => usize, align => usize, nothrow => *const c_void) -> *mut c_void)
    };
    adopt(there.unwrap_or_else(core::ptr::null_mut), Family::New)
}

#[inline(never)]
pub unsafe extern "C-unwind" fn _ZnamSt11align_val_tRKSt9nothrow_t(
    size: usize,
    align: usize,
    nothrow: *const c_void,
) -> *mut c_void {
    if let Some(block) = aligned(size, align, Family::NewArray, here()) {
        return block;
    }
    // SAFETY: the caller's promise to this operator.
    let there = unsafe {
        behind!(c"_ZnamSt11align_val_tRKSt9nothrow_t", "C-unwind" (size => usize, align => usize, nothrow => *const c_void) -> *mut c_void)
    };
    adopt(there.unwrap_or_else(core::ptr::null_mut), Family::NewArray)
}

#[inline(never)]
pub unsafe extern "C" fn _ZdlPv(block: *mut c_void) {
    // SAFETY: the caller's promise to this operator.
    unsafe {
        if MALLOC.stands_back()
            && !MALLOC.owns(block.cast())
            && behind!(c"_ZdlPv", "C" (block => *mut c_void)).is_some()
        {
            return;
        }
        delete(block, Given::nothing(Family::New), here());
    }
}

#[inline(never)]
pub unsafe extern "C" fn _ZdaPv(block: *mut c_void) {
    // SAFETY: the caller's promise to this operator.
    unsafe {
        if MALLOC.stands_back()
            && !MALLOC.owns(block.cast())
            && behind!(c"_ZdaPv", "C" (block => *mut c_void)).is_some()
        {
            return;
        }
        delete(block, Given::nothing(Family::NewArray), here());
    }
}

#[inline(never)]
pub unsafe extern "C" fn _ZdlPvRKSt9nothrow_t(block: *mut c_void, _nothrow: *const c_void) {
    // SAFETY: the caller's promise to this operator.
    unsafe {
        if MALLOC.stands_back()
            && !MALLOC.owns(block.cast())
            && behind!(c"_ZdlPvRKSt9nothrow_t", "C" (block => *mut c_void, _nothrow => *const c_void))
                .is_some()
        {
            return;
        }
        delete(block, Given::nothing(Family::New), here());
    }
}

#[inline(never)]
pub unsafe extern "C" fn _ZdaPvRKSt9nothrow_t(block: *mut c_void, _nothrow: *const c_void) {
    // SAFETY: the caller's promise to this operator.
    unsafe {
        if MALLOC.stands_back()
            && !MALLOC.owns(block.cast())
            && behind!(c"_ZdaPvRKSt9nothrow_t", "C" (block => *mut c_void, _nothrow => *const c_void))
                .is_some()
        {
            return;
        }
        delete(block, Given::nothing(Family::NewArray), here());
    }
}

#[inline(never)]
pub unsafe extern "C" fn _ZdlPvm(block: *mut c_void, size: usize) {
    // SAFETY: the caller's promise to this operator.
    unsafe {
        if MALLOC.stands_back()
            && !MALLOC.owns(block.cast())
            && behind!(c"_ZdlPvm", "C" (block => *mut c_void, size => usize)).is_some()
        {
            return;
        }
        delete(block, Given { size: Some(size), ..Given::nothing(Family::New) }, here());
    }
}

#[inline(never)]
pub unsafe extern "C" fn _ZdaPvm(block: *mut c_void, size: usize) {
    // SAFETY: the caller's promise to this operator.
    unsafe {
        if MALLOC.stands_back()
            && !MALLOC.owns(block.cast())
            && behind!(c"_ZdaPvm", "C" (block => *mut c_void, size => usize)).is_some()
        {
            return;
        }
        delete(block, Given { size: Some(size), ..Given::nothing(Family::NewArray) }, here());
    }
}

#[inline(never)]
pub unsafe extern "C" fn _ZdlPvSt11align_val_t(block: *mut c_void, _align: usize) {
    // SAFETY: the caller's promise to this operator.
    unsafe {
        if MALLOC.stands_back()
            && !MALLOC.owns(block.cast())
            && behind!(c"_ZdlPvSt11align_val_t", "C" (block => *mut c_void, _align => usize)).is_some()
        {
            return;
        }
        delete(block, Given::nothing(Family::New), here());
    }
}

#[inline(never)]
pub unsafe extern "C" fn _ZdaPvSt11align_val_t(block: *mut c_void, _align: usize) {
    // SAFETY: the caller's promise to this operator.
    unsafe {
        if MALLOC.stands_back()
            && !MALLOC.owns(block.cast())
            && behind!(c"_ZdaPvSt11align_val_t", "C" (block => *mut c_void, _align => usize)).is_some()
        {
            return;
        }
        delete(block, Given::nothing(Family::NewArray), here());
    }
}

#[inline(never)]
pub unsafe extern "C" fn _ZdlPvSt11align_val_tRKSt9nothrow_t(
    block: *mut c_void,
    _align: usize,
    _nothrow: *const c_void,
) {
    // SAFETY: the caller's promise to this operator.
    unsafe {
        if MALLOC.stands_back()
            && !MALLOC.owns(block.cast())
            && behind!(c"_ZdlPvSt11align_val_tRKSt9nothrow_t", "C" (block => *mut c_void, _align => usize, _nothrow => *const c_void)).is_some()
        {
            return;
        }
        delete(block, Given::nothing(Family::New), here());
    }
}

#[inline(never)]
pub unsafe extern "C" fn _ZdaPvSt11align_val_tRKSt9nothrow_t(
    block: *mut c_void,
    _align: usize,
    _nothrow: *const c_void,
) {
    // SAFETY: the caller's promise to this operator.
    unsafe {
        if MALLOC.stands_back()
            && !MALLOC.owns(block.cast())
            && behind!(c"_ZdaPvSt11align_val_tRKSt9nothrow_t", "C" (block => *mut c_void, _align => usize, _nothrow => *const c_void)).is_some()
        {
            return;
        }
        delete(block, Given::nothing(Family::NewArray), here());
    }
}

#[inline(never)]
pub unsafe extern "C" fn _ZdlPvmSt11align_val_t(block: *mut c_void, size: usize, _align: usize) {
    // SAFETY: the caller's promise to this operator.
    unsafe {
        if MALLOC.stands_back()
            && !MALLOC.owns(block.cast())
            && behind!(c"_ZdlPvmSt11align_val_t", "C" (block => *mut c_void, size => usize, _align => usize))
                .is_some()
        {
            return;
        }
        delete(block, Given { size: Some(size), ..Given::nothing(Family::New) }, here());
    }
}

#[inline(never)]
pub unsafe extern "C" fn _ZdaPvmSt11align_val_t(block: *mut c_void, size: usize, _align: usize) {
    // SAFETY: the caller's promise to this operator.
    unsafe {
        if MALLOC.stands_back()
            && !MALLOC.owns(block.cast())
            && behind!(c"_ZdaPvmSt11align_val_t", "C" (block => *mut c_void, size => usize, _align => usize))
                .is_some()
        {
            return;
        }
        delete(block, Given { size: Some(size), ..Given::nothing(Family::NewArray) }, here());
    }
}
