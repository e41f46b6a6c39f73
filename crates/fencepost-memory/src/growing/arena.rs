//! A linear allocator: a frontier that moves up, marks to wind it back to.
//!
//! The frontier lives in the table of regions, where the fault handler reads it; only this thread writes to it, so that
//! plain loads and stores of the atomic words do. Values are not dropped, so types that need it are refused by the
//! compiler.

use core::alloc::Layout;
use core::cell::RefCell;
use core::marker::PhantomData;
use core::ptr::NonNull;
use core::sync::atomic::Ordering::Relaxed;

use super::{Ground, Options};
use crate::regions::Entry;
use crate::{Host, MemoryError, System};

/// A linear allocator with marks. See the [module](super) for how it grows.
///
/// ```
/// use fencepost_memory::growing::Arena;
///
/// let mut arena = Arena::reserve(1 << 30)?;
/// let kept = arena.mark();
/// let number = arena.alloc(41)?;
/// *number += 1;
/// assert_eq!(*number, 42);
/// arena.rewind(kept); // `number` is gone, and the compiler knows
/// assert_eq!(arena.used(), 0);
/// # Ok::<(), fencepost_memory::MemoryError>(())
/// ```
#[derive(Debug)]
pub struct Arena<M: System + 'static = Host> {
    ground: RefCell<Ground<M>>,
    entry: &'static Entry,
    base: NonNull<u8>,
    /// Not `Sync`: the frontier moves without atomic operations.
    single: PhantomData<core::cell::Cell<()>>,
}

// SAFETY: an arena owns its memory alone, and what it gave out is borrowed from it, so it moves to another thread only
// when nothing is. The words of its entry are atomic.
unsafe impl<M: System + 'static> Send for Arena<M> {}

/// A place to wind an [`Arena`] back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    address: usize,
}

impl Arena {
    /// An arena that may grow to `bound` bytes.
    ///
    /// # Errors
    /// As [`crate::Builder::reserve`].
    pub fn reserve(bound: usize) -> Result<Arena, MemoryError> {
        Options::new(bound).arena()
    }
}

impl<M: System + 'static> Arena<M> {
    pub(super) fn over(ground: Ground<M>) -> Self {
        let entry = ground.entry();
        let base = NonNull::new(ground.space().as_ptr()).unwrap_or(NonNull::dangling());
        Arena { ground: RefCell::new(ground), entry, base, single: PhantomData }
    }

    /// Room for a layout: uninitialised, or with bytes of what was there before.
    ///
    /// # Errors
    /// [`MemoryError`]: past the bound, or the system refused.
    #[inline]
    pub fn alloc_layout(&self, layout: Layout) -> Result<NonNull<u8>, MemoryError> {
        // A layout's size and alignment together stay below 2^63, and addresses below 2^57: this does not wrap.
        let low = layout.align().wrapping_sub(1);
        let start = self.entry.frontier.load(Relaxed).wrapping_add(low) & !low;
        let end = start.wrapping_add(layout.size());
        if end > self.entry.limit.load(Relaxed) {
            self.grow(end)?;
        }
        self.entry.frontier.store(end, Relaxed);
        Ok(self.pointer(start))
    }

    #[inline]
    fn pointer(&self, address: usize) -> NonNull<u8> {
        // SAFETY: an address within the reservation, whose first byte is not null, is not null.
        unsafe { NonNull::new_unchecked(self.base.as_ptr().with_addr(address)) }
    }

    #[cold]
    #[inline(never)]
    fn grow(&self, end: usize) -> Result<(), MemoryError> {
        let mut ground = self.ground.borrow_mut();
        let start = ground.start();
        let committed = ground.grow(end.checked_sub(start), self.used())?;
        self.entry.limit.store(start + committed, Relaxed);
        Ok(())
    }

    /// Puts a value into the arena. It is not dropped, so it must not need to be.
    ///
    /// # Errors
    /// As [`Arena::alloc_layout`].
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

    /// Puts a copy of a slice into the arena.
    ///
    /// # Errors
    /// As [`Arena::alloc_layout`].
    #[expect(clippy::mut_from_ref, reason = "every call gives memory of its own")]
    #[inline]
    pub fn alloc_slice<T: Copy>(&self, values: &[T]) -> Result<&mut [T], MemoryError> {
        let place = self.alloc_layout(Layout::for_value(values))?.cast::<T>();
        // SAFETY: as in `alloc`; the new memory overlaps nothing that is in use.
        unsafe {
            core::ptr::copy_nonoverlapping(values.as_ptr(), place.as_ptr(), values.len());
            Ok(core::slice::from_raw_parts_mut(place.as_ptr(), values.len()))
        }
    }

    /// Puts `len` values into the arena, each made by `value` from its index.
    ///
    /// # Errors
    /// As [`Arena::alloc_layout`]; [`MemoryError::BadSize`] where they have no size.
    #[expect(clippy::mut_from_ref, reason = "every call gives memory of its own")]
    pub fn alloc_slice_with<T>(
        &self,
        len: usize,
        mut value: impl FnMut(usize) -> T,
    ) -> Result<&mut [T], MemoryError> {
        const { assert!(!core::mem::needs_drop::<T>(), "an arena does not drop its values") };
        let layout = Layout::array::<T>(len).map_err(|_| MemoryError::BadSize)?;
        let place = self.alloc_layout(layout)?.cast::<T>();
        for index in 0..len {
            // SAFETY: there is room for `len` values, and it is ours alone.
            unsafe { place.add(index).write(value(index)) };
        }
        // SAFETY: all `len` values have been written.
        Ok(unsafe { core::slice::from_raw_parts_mut(place.as_ptr(), len) })
    }

    /// Puts a copy of a string into the arena.
    ///
    /// # Errors
    /// As [`Arena::alloc_layout`].
    #[expect(clippy::mut_from_ref, reason = "every call gives memory of its own")]
    #[inline]
    pub fn alloc_str(&self, text: &str) -> Result<&mut str, MemoryError> {
        let bytes = self.alloc_slice(text.as_bytes())?;
        // SAFETY: the bytes are a copy of a string's.
        Ok(unsafe { core::str::from_utf8_unchecked_mut(bytes) })
    }

    /// Where the arena is now, to wind it back to.
    pub fn mark(&self) -> Mark {
        Mark { address: self.entry.frontier.load(Relaxed) }
    }

    /// Gives back everything that was put in since the mark. In strict mode the pages of it trap from here.
    ///
    /// # Panics
    /// When the mark is another arena's.
    pub fn rewind(&mut self, to: Mark) {
        let ground = self.ground.get_mut();
        let start = ground.start();
        let offset = to.address.wrapping_sub(start);
        assert!(offset <= ground.space().len(), "the mark is another arena's");
        if to.address >= self.entry.frontier.load(Relaxed) {
            return;
        }
        self.entry.wind_back(to.address);
        ground.settle(offset);
        self.entry.limit.store(start + ground.committed(), Relaxed);
    }

    /// Gives back everything.
    pub fn reset(&mut self) {
        let start = self.ground.get_mut().start();
        self.rewind(Mark { address: start });
    }

    /// Runs `work` with the arena, and winds it back after it.
    pub fn scope<R>(&mut self, work: impl FnOnce(&mut Self) -> R) -> R {
        let mark = self.mark();
        let result = work(self);
        self.rewind(mark);
        result
    }

    /// Gives all memory past what is in use back to the system.
    ///
    /// # Errors
    /// The system's; nothing is changed then.
    pub fn shrink_to_fit(&mut self) -> Result<(), MemoryError> {
        let used = self.used();
        let ground = self.ground.get_mut();
        ground.shrink(used)?;
        let limit = ground.start() + ground.committed();
        self.entry.limit.store(limit, Relaxed);
        Ok(())
    }

    /// Bytes in use, alignment gaps included.
    pub fn used(&self) -> usize {
        self.entry.frontier.load(Relaxed) - self.base.as_ptr().addr()
    }

    /// The bound in bytes.
    pub fn bound(&self) -> usize {
        self.ground.borrow().space().len()
    }

    /// Bytes of memory committed.
    pub fn committed(&self) -> usize {
        self.ground.borrow().committed()
    }

    /// Gives the last block back, or cuts it to `len` bytes; nothing if it is not the last.
    #[cfg(feature = "allocator-api2")]
    pub(super) fn cut_last(&self, block: NonNull<u8>, size: usize, len: usize) {
        let start = block.as_ptr().addr();
        if start + size == self.entry.frontier.load(Relaxed) {
            self.entry.frontier.store(start + len, Relaxed);
        }
    }

    /// Makes the last block longer where it lies; false if it is not the last, or the bound is reached.
    #[cfg(feature = "allocator-api2")]
    pub(super) fn extend_last(&self, block: NonNull<u8>, size: usize, len: usize) -> bool {
        let start = block.as_ptr().addr();
        let end = start.saturating_add(len);
        if start + size != self.entry.frontier.load(Relaxed) {
            return false;
        }
        if end > self.entry.limit.load(Relaxed) && self.grow(end).is_err() {
            return false;
        }
        self.entry.frontier.store(end, Relaxed);
        true
    }
}
