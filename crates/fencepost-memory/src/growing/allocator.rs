//! The arenas as allocators of collections, by the trait of the `allocator-api2` crate (which is the one that the
//! standard library is to have).
//!
//! A reference to an arena is the allocator. What is deallocated comes back if it was the last block, and stays until
//! the arena is wound back otherwise; the last block grows and shrinks where it lies.
#![cfg(feature = "allocator-api2")]

use core::alloc::Layout;
use core::ptr::NonNull;

use allocator_api2::alloc::{AllocError, Allocator};

use super::{AppendArena, Arena};
use crate::System;

/// The block of a layout.
fn whole(block: NonNull<u8>, layout: Layout) -> NonNull<[u8]> {
    NonNull::slice_from_raw_parts(block, layout.size())
}

/// Moves a block's content to a new place that is at least as large, or takes as much as fits.
///
/// # Safety
/// Both blocks must be allocated and apart, of at least `len` bytes.
unsafe fn carry(from: NonNull<u8>, to: NonNull<u8>, len: usize) {
    // SAFETY: the caller's promise.
    unsafe { core::ptr::copy_nonoverlapping(from.as_ptr(), to.as_ptr(), len) };
}

// SAFETY: blocks are given once, lie in memory that stays as long as the arena, which the reference keeps from being
// wound back or dropped, and copies of the reference are the same allocator.
unsafe impl<M: System + 'static> Allocator for &Arena<M> {
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        self.alloc_layout(layout).map(|block| whole(block, layout)).map_err(|_| AllocError)
    }

    unsafe fn deallocate(&self, block: NonNull<u8>, layout: Layout) {
        self.cut_last(block, layout.size(), 0);
    }

    unsafe fn grow(&self, block: NonNull<u8>, old: Layout, new: Layout) -> Result<NonNull<[u8]>, AllocError> {
        let aligned = block.as_ptr().addr().is_multiple_of(new.align());
        if aligned && self.extend_last(block, old.size(), new.size()) {
            return Ok(whole(block, new));
        }
        let moved = self.alloc_layout(new).map_err(|_| AllocError)?;
        // SAFETY: the caller gives a block of the old layout; the new one is no smaller, and another.
        unsafe { carry(block, moved, old.size()) };
        Ok(whole(moved, new))
    }

    unsafe fn shrink(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        if block.as_ptr().addr().is_multiple_of(new.align()) {
            self.cut_last(block, old.size(), new.size());
            return Ok(whole(block, new));
        }
        let moved = self.alloc_layout(new).map_err(|_| AllocError)?;
        // SAFETY: the caller gives a block of the old layout, which is no smaller; the new one is another.
        unsafe { carry(block, moved, new.size()) };
        Ok(whole(moved, new))
    }
}

// SAFETY: as above; nothing is ever taken back.
unsafe impl<M: System + 'static> Allocator for &AppendArena<M> {
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        self.alloc_layout(layout).map(|block| whole(block, layout)).map_err(|_| AllocError)
    }

    unsafe fn deallocate(&self, _block: NonNull<u8>, _layout: Layout) {}
}
