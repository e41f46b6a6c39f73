//! The heap that serves what is not guarded.

use fencepost_sys::LibcHeap;

/// A heap with C's functions. Nothing in it may come back to the runtime.
pub trait Inner: Sync {
    /// A block of `size` bytes aligned to `align`, a power of two; null where there is no memory.
    fn allocate(&self, size: usize, align: usize, zeroed: bool) -> *mut u8;

    /// Resizes a block; null where there is no memory, and then the block is as it was.
    ///
    /// # Safety
    /// `block` must be one of this heap's, alive, and `size` not zero.
    unsafe fn resize(&self, block: *mut u8, size: usize) -> *mut u8;

    /// Frees a block.
    ///
    /// # Safety
    /// `block` must be one of this heap's, alive, and not be used any more.
    unsafe fn free(&self, block: *mut u8);

    /// Gets ready what [`Inner::room`] needs. May allocate.
    fn prepare(&self);

    /// The bytes that a block has room for; `None` while that is not known. Allocates nothing.
    ///
    /// # Safety
    /// `block` must be one of this heap's, alive.
    unsafe fn room(&self, block: *mut u8) -> Option<usize>;
}

impl Inner for LibcHeap {
    fn allocate(&self, size: usize, align: usize, zeroed: bool) -> *mut u8 {
        LibcHeap::allocate(*self, size, align, zeroed)
    }

    unsafe fn resize(&self, block: *mut u8, size: usize) -> *mut u8 {
        // SAFETY: passed on to the caller.
        unsafe { LibcHeap::resize(*self, block, size) }
    }

    unsafe fn free(&self, block: *mut u8) {
        // SAFETY: passed on to the caller.
        unsafe { LibcHeap::free(*self, block) };
    }

    fn prepare(&self) {
        LibcHeap::prepare(*self);
    }

    unsafe fn room(&self, block: *mut u8) -> Option<usize> {
        // SAFETY: passed on to the caller.
        unsafe { LibcHeap::room(*self, block) }
    }
}
