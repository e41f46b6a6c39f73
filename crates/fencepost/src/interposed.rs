//! C's allocation functions, as the library to insert puts them in the C library's place on macOS.
//!
//! There the loader reads a table of pairs, *ours in place of theirs*, from a library named in `DYLD_INSERT_LIBRARIES`, and
//! binds every call of the process accordingly, but for those of that library itself. So nothing has to be looked up behind
//! ours: the plain names mean the C library's functions here. C++'s `new` calls `malloc`. Compiled, and never run.
//!
//! What is missing beside [`export_libc!`](https://docs.rs/fencepost) on Linux: buffers given to the kernel, the program's
//! questions about its signals, blocks from zones (`malloc_zone_malloc` and its like are the C library's; what is asked of a
//! zone about one of our blocks is answered), and giving way to a program that guards itself.
#![allow(clippy::missing_safety_doc, reason = "each has the rules of the C function of its name")]
#![allow(missing_docs, reason = "documented by the C standard, POSIX and malloc(3)")]

use core::ffi::c_void;

use crate::c_heap::{MALLOC, resized};
pub use crate::c_heap::{aligned_alloc, calloc, free, malloc, posix_memalign, realloc, valloc};
use crate::runtime::here;

/// Runs when the library is loaded, which is before the program's own code.
pub extern "C" fn on_load() {
    MALLOC.start();
}

/// Guards no further block.
pub extern "C" fn step_back() {
    MALLOC.stand_back();
}

// Never inlined: frames younger than the anchor are left out of stacks, and the anchor lies in these frames.

#[inline(never)]
pub unsafe extern "C" fn reallocf(block: *mut c_void, size: usize) -> *mut c_void {
    // SAFETY: the caller's promise to reallocf.
    let moved = unsafe { MALLOC.realloc(block.cast(), size, here()) };
    if moved.is_err() {
        // SAFETY: as above; a block that could not be resized is still alive.
        unsafe { free(block) };
    }
    resized(moved)
}

#[inline(never)]
pub unsafe extern "C" fn malloc_size(block: *const c_void) -> usize {
    // SAFETY: the caller's promise to malloc_size.
    unsafe { MALLOC.usable_size(block.cast_mut().cast(), here()) }
}

/// Which zone a block is from: for one of ours the default one, whose functions below know it.
#[inline(never)]
pub unsafe extern "C" fn malloc_zone_from_ptr(block: *const c_void) -> *mut c_void {
    if MALLOC.owns(block.cast_mut().cast()) {
        // SAFETY: the function takes nothing and gives the address of the first zone.
        return unsafe { originals::malloc_default_zone() };
    }
    // SAFETY: the caller's promise to malloc_zone_from_ptr.
    unsafe { originals::malloc_zone_from_ptr(block) }
}

#[inline(never)]
pub unsafe extern "C" fn malloc_zone_free(zone: *mut c_void, block: *mut c_void) {
    if MALLOC.owns(block.cast()) {
        // SAFETY: the caller's promise to malloc_zone_free.
        unsafe { free(block) };
    } else {
        // SAFETY: as above.
        unsafe { originals::malloc_zone_free(zone, block) };
    }
}

#[inline(never)]
pub unsafe extern "C" fn malloc_zone_realloc(
    zone: *mut c_void,
    block: *mut c_void,
    size: usize,
) -> *mut c_void {
    if MALLOC.owns(block.cast()) {
        // SAFETY: the caller's promise to malloc_zone_realloc.
        return unsafe { realloc(block, size) };
    }
    // SAFETY: as above.
    unsafe { originals::malloc_zone_realloc(zone, block, size) }
}

/// A line of the loader's table.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    /// Ours.
    pub replacement: *const c_void,
    /// Theirs.
    pub original: *const c_void,
}

// SAFETY: two addresses of functions, which never change.
unsafe impl Sync for Pair {}

mod originals {
    use core::ffi::{c_int, c_void};

    unsafe extern "C" {
        pub(super) fn malloc(size: usize) -> *mut c_void;
        pub(super) fn calloc(count: usize, size: usize) -> *mut c_void;
        pub(super) fn realloc(block: *mut c_void, size: usize) -> *mut c_void;
        pub(super) fn reallocf(block: *mut c_void, size: usize) -> *mut c_void;
        pub(super) fn free(block: *mut c_void);
        pub(super) fn aligned_alloc(align: usize, size: usize) -> *mut c_void;
        pub(super) fn posix_memalign(into: *mut *mut c_void, align: usize, size: usize) -> c_int;
        pub(super) fn valloc(size: usize) -> *mut c_void;
        pub(super) fn malloc_size(block: *const c_void) -> usize;
        pub(super) fn malloc_default_zone() -> *mut c_void;
        pub(super) fn malloc_zone_from_ptr(block: *const c_void) -> *mut c_void;
        pub(super) fn malloc_zone_free(zone: *mut c_void, block: *mut c_void);
        pub(super) fn malloc_zone_realloc(zone: *mut c_void, block: *mut c_void, size: usize) -> *mut c_void;
    }
}

macro_rules! pairs {
    ($($name:ident)*) => {
        /// What the loader is told.
        pub const PAIRS: &[Pair] = &[$(Pair {
            replacement: $name as *const c_void,
            original: originals::$name as *const c_void,
        }),*];
    };
}

pairs!(malloc calloc realloc reallocf free aligned_alloc posix_memalign valloc malloc_size
       malloc_zone_from_ptr malloc_zone_free malloc_zone_realloc);

/// All that the library to insert tells the loader. (From an executable the loader would not take it.)
#[doc(hidden)]
#[macro_export]
macro_rules! __export_preload {
    () => {
        const _: () = {
            const PAIRS: &[$crate::exported::Pair] = $crate::exported::PAIRS;
            #[used]
            #[unsafe(link_section = "__DATA,__interpose")]
            static TABLE: [$crate::exported::Pair; PAIRS.len()] = match PAIRS.first_chunk() {
                Some(pairs) => *pairs,
                None => panic!("as many as there are"),
            };
            $crate::__at_load!($crate::exported::on_load);
        };
    };
}
