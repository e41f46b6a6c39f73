//! The allocator type that programs name.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;
use std::alloc::System;

use fencepost_guard::{Content, Door, Family, Freed, Placed, Resize, options};
use fencepost_record::AccessType;

use crate::runtime::{GUARD, begin, here};

/// A global allocator that guards every block, over an inner one that serves what is not guarded.
///
/// All values share one runtime: it starts with the first allocation through any of them, with that one's options.
#[derive(Debug, Default)]
pub struct GuardedAlloc<A = System> {
    inner: A,
    options: &'static str,
}

impl GuardedAlloc {
    /// An allocator over [`System`], with the default options.
    pub const fn new() -> Self {
        GuardedAlloc::over(System)
    }
}

impl<A> GuardedAlloc<A> {
    /// An allocator over another one, which serves every block that is not guarded.
    pub const fn over(inner: A) -> Self {
        GuardedAlloc { inner, options: "" }
    }

    /// The same allocator with options of its own, in the syntax of `FENCEPOST_OPTIONS`, which still goes before
    /// them.
    ///
    /// # Panics
    /// When the text does not parse: in a `static`, that is an error of the compiler's.
    ///
    /// ```compile_fail
    /// static ALLOC: fencepost::GuardedAlloc = fencepost::GuardedAlloc::new().with_options("plase=left");
    /// ```
    #[must_use]
    pub const fn with_options(mut self, options: &'static str) -> Self {
        options::check(options);
        self.options = options;
        self
    }
}

impl<A: GlobalAlloc> GuardedAlloc<A> {
    /// What is not allocated at once.
    #[inline(never)]
    fn allocate(&self, layout: Layout, zeroed: bool, anchor: usize) -> *mut u8 {
        if !GUARD.has_begun() {
            begin(self.options);
        }
        match GUARD.allocate_or_not(layout, zeroed, anchor) {
            Placed::Here(block) => block.as_ptr(),
            Placed::Fail => core::ptr::null_mut(),
            Placed::Inner => {
                let block = self.allocate_inner(layout, zeroed);
                if !block.is_null() {
                    GUARD.inner_block();
                }
                block
            }
        }
    }

    /// A block of the inner allocator's.
    #[inline(always)]
    fn allocate_inner(&self, layout: Layout, zeroed: bool) -> *mut u8 {
        // SAFETY: the caller of `GlobalAlloc` promises a layout that is not of size zero, and it is passed on.
        let allocate =
            || unsafe { if zeroed { self.inner.alloc_zeroed(layout) } else { self.inner.alloc(layout) } };
        if GUARD.is_exported() { GUARD.call_inner(allocate) } else { allocate() }
    }

    // What does not pass at once. Never inlined, for two reasons. Frames younger than the anchor are left out of stacks,
    // and the anchor lies in these frames: in the caller's own frame it would hide the caller. And what passes at once
    // needs no frame at all as long as all the rest is elsewhere: it takes its arguments in the order in which they came
    // and is jumped to, so that on the short way not even a register is saved.

    #[inline(never)]
    fn allocate_here(size: usize, align: usize, this: &Self) -> *mut u8 {
        this.ask(size, align, false, Door::Alloc, here())
    }

    #[inline(never)]
    fn allocate_zeroed_here(size: usize, align: usize, this: &Self) -> *mut u8 {
        this.ask(size, align, true, Door::Zeroed, here())
    }

    #[inline(always)]
    fn ask(&self, size: usize, align: usize, zeroed: bool, door: Door, anchor: usize) -> *mut u8 {
        // SAFETY: both are of the layout that the caller of `GlobalAlloc` gave.
        let layout = unsafe { Layout::from_size_align_unchecked(size, align) };
        if let Some(block) = GUARD.allocate_at_once(layout, zeroed, Family::Rust, anchor) {
            return block.as_ptr();
        }
        if GUARD.passes(size, door, || anchor) {
            return self.allocate_inner(layout, zeroed);
        }
        self.allocate(layout, zeroed, anchor)
    }

    /// # Safety
    /// As [`GlobalAlloc::dealloc`].
    #[inline(never)]
    unsafe fn free_here(block: *mut u8, size: usize, align: usize, this: &Self) {
        let anchor = here();
        // SAFETY: it is the caller's layout.
        let layout = unsafe { Layout::from_size_align_unchecked(size, align) };
        let Some(present) = NonNull::new(block) else { return };
        if GUARD.free_at_once(present, &layout.into(), anchor) {
            return;
        }
        // SAFETY: passed on to the caller.
        unsafe { this.free(block, layout, AccessType::Free, anchor) };
    }

    /// # Safety
    /// As [`GlobalAlloc::realloc`].
    #[inline(never)]
    unsafe fn resize_here(
        block: *mut u8,
        size: usize,
        align: usize,
        new_size: usize,
        this: &Self,
    ) -> *mut u8 {
        let anchor = here();
        // SAFETY: both are of the layout that the caller of `GlobalAlloc` gave.
        let layout = unsafe { Layout::from_size_align_unchecked(size, align) };
        if GUARD.is_foreign(block.addr()) && GUARD.passes(new_size, Door::Resize, || anchor) {
            let grow = || {
                // SAFETY: the block is the inner allocator's; the rest is the caller's word.
                unsafe { this.inner.realloc(block, layout, new_size) }
            };
            return if GUARD.is_exported() { GUARD.call_inner(grow) } else { grow() };
        }
        // SAFETY: passed on to the caller.
        unsafe { this.resize(block, layout, new_size, anchor) }
    }

    /// # Safety
    /// As [`GlobalAlloc::realloc`].
    unsafe fn resize(&self, block: *mut u8, layout: Layout, new_size: usize, anchor: usize) -> *mut u8 {
        let Some(present) = NonNull::new(block) else { return core::ptr::null_mut() };
        let (Ok(new), false) = (Layout::from_size_align(new_size, layout.align()), new_size == 0) else {
            return core::ptr::null_mut();
        };
        let old = match GUARD.check_resize(present, layout, anchor) {
            Resize::Refuse => return core::ptr::null_mut(),
            // With nothing guarded the inner allocator may grow blocks in place.
            Resize::Inner if GUARD.is_off() => {
                // SAFETY: the block is the inner allocator's; the rest is the caller's word.
                return unsafe { self.inner.realloc(block, layout, new_size) };
            }
            Resize::Inner => layout,
            Resize::Move(old) => old,
        };
        let at_once = GUARD.allocate_at_once(new, false, Family::Rust, anchor);
        let moved = at_once.map_or_else(|| self.allocate(new, false, anchor), NonNull::as_ptr);
        let Some(target) = NonNull::new(moved) else { return moved };
        match GUARD.move_content(present, target, [old.size(), new_size], anchor) {
            Content::Moved => {}
            // SAFETY: both blocks are alive and hold at least as many bytes as are copied; the new one was allocated
            // just now, so they do not overlap.
            Content::Stays => unsafe {
                core::ptr::copy_nonoverlapping(block, moved, old.size().min(new_size));
            },
            Content::Refused => {
                // SAFETY: the new block was allocated just now with this layout, and nobody has it.
                unsafe { self.free(moved, new, AccessType::Free, anchor) };
                return core::ptr::null_mut();
            }
        }
        // SAFETY: the old block is alive, and is freed with its true layout.
        unsafe { self.free(block, old, AccessType::Realloc, anchor) };
        moved
    }

    /// What is not freed at once.
    ///
    /// # Safety
    /// As [`GlobalAlloc::dealloc`].
    #[inline(never)]
    unsafe fn free(&self, block: *mut u8, layout: Layout, how: AccessType, anchor: usize) {
        let Some(present) = NonNull::new(block) else { return };
        if GUARD.free_given(present, layout.into(), how, anchor) == Freed::Inner {
            // SAFETY: the runtime says that the inner allocator gave this block out; the rest is the caller's word.
            unsafe { self.inner.dealloc(block, layout) };
        }
    }
}

// SAFETY: `allocate` gives either a block that the runtime made for this layout and keeps until it is freed, or one
// of the inner allocator's; `free` and `realloc` ask the runtime whose a block is before they pass it on.
unsafe impl<A: GlobalAlloc> GlobalAlloc for GuardedAlloc<A> {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if GUARD.passes_at_once() {
            // SAFETY: passed on to the caller.
            return unsafe { self.inner.alloc(layout) };
        }
        Self::allocate_here(layout.size(), layout.align(), self)
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if GUARD.passes_at_once() {
            // SAFETY: passed on to the caller.
            return unsafe { self.inner.alloc_zeroed(layout) };
        }
        Self::allocate_zeroed_here(layout.size(), layout.align(), self)
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if GUARD.is_foreign(block.addr()) {
            // SAFETY: the runtime says that the inner allocator gave this block out; the rest is the caller's word.
            return unsafe { self.inner.dealloc(block, layout) };
        }
        // SAFETY: passed on to the caller.
        unsafe { Self::free_here(block, layout.size(), layout.align(), self) };
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // A block of the inner allocator's may grow in place, unless it is this one's turn to be guarded.
        if GUARD.is_foreign(block.addr()) && GUARD.passes_at_once() {
            // SAFETY: the block is the inner allocator's; the rest is the caller's word.
            return unsafe { self.inner.realloc(block, layout, new_size) };
        }
        // SAFETY: passed on to the caller.
        unsafe { Self::resize_here(block, layout.size(), layout.align(), new_size, self) }
    }
}
