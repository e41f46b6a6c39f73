//! The allocator type that programs name.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;
use std::alloc::System;

use fencepost_guard::{Content, Door, Placed, Resize, options};
use fencepost_record::AccessType;

use crate::entry;
use crate::runtime::{GUARD, here};

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
    ///
    /// # Safety
    /// Size and alignment must be those of a layout that is not of size zero.
    #[inline(never)]
    unsafe fn allocate(&self, size: usize, align: usize, zeroed: bool, anchor: usize) -> *mut u8 {
        // SAFETY: passed on to the caller.
        match unsafe { entry::allocate(size, align, zeroed, anchor, self.options) } {
            Placed::Here(block) => block.as_ptr(),
            Placed::Fail => core::ptr::null_mut(),
            Placed::Inner => {
                // SAFETY: as above.
                let block = unsafe { self.allocate_inner(size, align, zeroed) };
                if !block.is_null() {
                    GUARD.inner_block();
                }
                block
            }
        }
    }

    /// A block of the inner allocator's.
    ///
    /// # Safety
    /// As [`GuardedAlloc::allocate`].
    #[inline(always)]
    unsafe fn allocate_inner(&self, size: usize, align: usize, zeroed: bool) -> *mut u8 {
        // SAFETY: the caller's promise, which is also the inner allocator's condition.
        let allocate = || unsafe {
            let layout = Layout::from_size_align_unchecked(size, align);
            if zeroed { self.inner.alloc_zeroed(layout) } else { self.inner.alloc(layout) }
        };
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
        // SAFETY: both are of the layout that the caller of `GlobalAlloc` gave, which is not of size zero.
        unsafe {
            if let Some(block) = entry::allocate_at_once(size, align, zeroed, anchor) {
                return block.as_ptr();
            }
            if entry::passes(size, door, anchor) {
                return self.allocate_inner(size, align, zeroed);
            }
            self.allocate(size, align, zeroed, anchor)
        }
    }

    /// # Safety
    /// As [`GlobalAlloc::dealloc`].
    #[inline(never)]
    unsafe fn free_here(block: *mut u8, size: usize, align: usize, this: &Self) {
        let anchor = here();
        // SAFETY: both are of the caller's layout, and all is passed on.
        unsafe {
            if !entry::free_at_once(block, size, align, anchor) {
                this.free(block, size, align, AccessType::Free, anchor);
            }
        }
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
        if GUARD.is_foreign(block.addr()) && entry::passes(new_size, Door::Resize, anchor) {
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
        let old = match entry::check_resize(present, layout, anchor) {
            Resize::Refuse => return core::ptr::null_mut(),
            // With nothing guarded the inner allocator may grow blocks in place.
            Resize::Inner if GUARD.is_off() => {
                // SAFETY: the block is the inner allocator's; the rest is the caller's word.
                return unsafe { self.inner.realloc(block, layout, new_size) };
            }
            Resize::Inner => layout,
            Resize::Move(old) => old,
        };
        // SAFETY: of a layout, which is not of size zero, as was seen above.
        let moved = unsafe {
            entry::allocate_at_once(new.size(), new.align(), false, anchor)
                .map_or_else(|| self.allocate(new.size(), new.align(), false, anchor), NonNull::as_ptr)
        };
        let Some(target) = NonNull::new(moved) else { return moved };
        match entry::move_content(present, target, [old.size(), new_size], anchor) {
            Content::Moved => {}
            // SAFETY: both blocks are alive and hold at least as many bytes as are copied; the new one was allocated
            // just now, so they do not overlap.
            Content::Stays => unsafe {
                core::ptr::copy_nonoverlapping(block, moved, old.size().min(new_size));
            },
            Content::Refused => {
                // SAFETY: the new block was allocated just now with this layout, and nobody has it.
                unsafe { self.free(moved, new.size(), new.align(), AccessType::Free, anchor) };
                return core::ptr::null_mut();
            }
        }
        // SAFETY: the old block is alive, and is freed with its true layout.
        unsafe { self.free(block, old.size(), old.align(), AccessType::Realloc, anchor) };
        moved
    }

    /// What is not freed at once.
    ///
    /// # Safety
    /// As [`GlobalAlloc::dealloc`].
    #[inline(never)]
    unsafe fn free(&self, block: *mut u8, size: usize, align: usize, how: AccessType, anchor: usize) {
        // SAFETY: both are of the layout that the caller gave.
        if unsafe { entry::free(block, size, align, how, anchor) } {
            // SAFETY: the runtime says that the inner allocator gave this block out; the rest is the caller's word.
            unsafe { self.inner.dealloc(block, Layout::from_size_align_unchecked(size, align)) };
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
