//! An arena that only grows, through `&self` and from any thread: the memory of an interner.
//!
//! The frontier moves by compare-and-exchange; who finds it past what is committed takes the lock and commits. The limit
//! is stored with Release after the commit and read with Acquire, so that nobody is given memory that is not there yet.

use core::alloc::Layout;
use core::ptr::NonNull;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::{Mutex, PoisonError};

use super::{Ground, Options};
use crate::regions::Entry;
use crate::{Host, MemoryError, System};

/// An arena that gives nothing back before its end. What it gives out keeps its address and lives as long as the arena.
///
/// ```
/// use fencepost_memory::growing::AppendArena;
///
/// let names = AppendArena::reserve(1 << 30)?;
/// let (one, two) = (names.alloc_str("one")?, names.alloc_str("two")?);
/// std::thread::scope(|scope| scope.spawn(|| names.alloc_str("three").map(str::len)).join()).unwrap()?;
/// assert_eq!((one, two), ("one", "two"));
/// # Ok::<(), fencepost_memory::MemoryError>(())
/// ```
#[derive(Debug)]
pub struct AppendArena<M: System + 'static = Host> {
    ground: Mutex<Ground<M>>,
    entry: &'static Entry,
    base: NonNull<u8>,
}

// SAFETY: an arena owns its memory alone, and a block belongs to whoever it was given to.
unsafe impl<M: System + 'static> Send for AppendArena<M> {}
// SAFETY: the frontier moves by compare-and-exchange, so no two threads are given the same bytes, and memory is committed
// under the lock. Values of other threads are reached only through references that their owners share.
unsafe impl<M: System + 'static> Sync for AppendArena<M> {}

impl AppendArena {
    /// An arena that may grow to `bound` bytes.
    ///
    /// # Errors
    /// As [`crate::Builder::reserve`].
    pub fn reserve(bound: usize) -> Result<AppendArena, MemoryError> {
        Options::new(bound).append_arena()
    }
}

impl<M: System + 'static> AppendArena<M> {
    pub(super) fn over(ground: Ground<M>) -> Self {
        let entry = ground.entry();
        let base = NonNull::new(ground.space().as_ptr()).unwrap_or(NonNull::dangling());
        AppendArena { ground: Mutex::new(ground), entry, base }
    }

    /// Room for a layout: zeroes.
    ///
    /// # Errors
    /// [`MemoryError`]: past the bound, or the system refused.
    #[inline]
    pub fn alloc_layout(&self, layout: Layout) -> Result<NonNull<u8>, MemoryError> {
        let low = layout.align().wrapping_sub(1);
        let mut frontier = self.entry.frontier.load(Relaxed);
        loop {
            // Does not wrap: see `Arena::alloc_layout`.
            let start = frontier.wrapping_add(low) & !low;
            let end = start.wrapping_add(layout.size());
            if end > self.entry.limit.load(Acquire) {
                self.grow(end)?;
            }
            match self.entry.frontier.compare_exchange_weak(frontier, end, AcqRel, Relaxed) {
                // SAFETY: an address within the reservation, whose first byte is not null, is not null.
                Ok(_) => return Ok(unsafe { NonNull::new_unchecked(self.base.as_ptr().with_addr(start)) }),
                Err(now) => frontier = now,
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn grow(&self, end: usize) -> Result<(), MemoryError> {
        let mut ground = self.ground.lock().unwrap_or_else(PoisonError::into_inner);
        let start = ground.start();
        let committed = ground.grow(end.checked_sub(start), self.used())?;
        self.entry.limit.store(start + committed, Release);
        Ok(())
    }

    /// Puts a value into the arena, for good. It is not dropped, so it must not need to be.
    ///
    /// # Errors
    /// As [`AppendArena::alloc_layout`].
    #[expect(clippy::mut_from_ref, reason = "every call gives memory of its own")]
    #[inline]
    pub fn alloc<T>(&self, value: T) -> Result<&mut T, MemoryError> {
        const { assert!(!core::mem::needs_drop::<T>(), "an arena does not drop its values") };
        let place = self.alloc_layout(Layout::new::<T>())?.cast::<T>();
        // SAFETY: the place is fresh, large and aligned enough, and borrowed from `self` for as long as it is used.
        unsafe {
            place.write(value);
            Ok(&mut *place.as_ptr())
        }
    }

    /// Puts a copy of a slice into the arena, for good.
    ///
    /// # Errors
    /// As [`AppendArena::alloc_layout`].
    #[inline]
    pub fn alloc_slice<T: Copy>(&self, values: &[T]) -> Result<&[T], MemoryError> {
        let place = self.alloc_layout(Layout::for_value(values))?.cast::<T>();
        // SAFETY: as in `alloc`; the new memory overlaps nothing that is in use.
        unsafe {
            core::ptr::copy_nonoverlapping(values.as_ptr(), place.as_ptr(), values.len());
            Ok(core::slice::from_raw_parts(place.as_ptr(), values.len()))
        }
    }

    /// Puts a copy of a string into the arena, for good.
    ///
    /// # Errors
    /// As [`AppendArena::alloc_layout`].
    #[inline]
    pub fn alloc_str(&self, text: &str) -> Result<&str, MemoryError> {
        let bytes = self.alloc_slice(text.as_bytes())?;
        // SAFETY: the bytes are a copy of a string's.
        Ok(unsafe { core::str::from_utf8_unchecked(bytes) })
    }

    /// Bytes in use, alignment gaps included.
    pub fn used(&self) -> usize {
        self.entry.frontier.load(Relaxed) - self.base.as_ptr().addr()
    }

    /// The bound in bytes.
    pub fn bound(&self) -> usize {
        self.ground.lock().unwrap_or_else(PoisonError::into_inner).space().len()
    }

    /// Bytes of memory committed.
    pub fn committed(&self) -> usize {
        self.ground.lock().unwrap_or_else(PoisonError::into_inner).committed()
    }
}
