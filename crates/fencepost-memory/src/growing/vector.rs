//! A vector whose elements never move.
//!
//! The hot path is that of the standard library's vector: compare the length with the capacity, write, add one. Where
//! that finds no room, memory is committed behind what there is. The table of regions knows its end by pages only.

use core::marker::PhantomData;
use core::mem;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use core::sync::atomic::Ordering::Relaxed;

use super::{Ground, Options, Refused};
use crate::{Host, MemoryError, System};

/// A vector that grows in place up to its bound. It is a slice to look at.
///
/// ```
/// use fencepost_memory::growing::GrowVec;
///
/// let mut numbers = GrowVec::reserve(1 << 32)?; // addresses for 4 Gi elements
/// numbers.push(1u64)?;
/// let first: *const u64 = &numbers[0];
/// for n in 2..=100_000 {
///     numbers.push(n)?;
/// }
/// assert_eq!(first, &numbers[0], "it has not moved");
/// assert_eq!(numbers.iter().sum::<u64>(), 5_000_050_000);
/// # Ok::<(), fencepost_memory::MemoryError>(())
/// ```
#[derive(Debug)]
pub struct GrowVec<T, M: System + 'static = Host> {
    base: NonNull<T>,
    len: usize,
    /// Elements that there is memory for.
    room: usize,
    /// Apart: nothing on the hot path takes the address of the vector, so that a loop keeps its length in a register.
    ground: Box<Ground<M>>,
    elements: PhantomData<T>,
}

// SAFETY: a vector owns its elements alone and changes through `&mut self` only, as the standard library's.
unsafe impl<T: Send, M: System + 'static> Send for GrowVec<T, M> {}
// SAFETY: as above.
unsafe impl<T: Sync, M: System + 'static> Sync for GrowVec<T, M> {}

impl<T> GrowVec<T> {
    /// A vector that may grow to `bound` elements.
    ///
    /// # Errors
    /// As [`crate::Builder::reserve`]; [`MemoryError::BadSize`] where that many have no size.
    pub fn reserve(bound: usize) -> Result<GrowVec<T>, MemoryError> {
        let bytes = bound.max(1).checked_mul(mem::size_of::<T>().max(1)).ok_or(MemoryError::BadSize)?;
        Options::new(bytes).vec()
    }
}

impl<T, M: System + 'static> GrowVec<T, M> {
    pub(super) fn over(ground: Ground<M>) -> Self {
        const { assert!(mem::align_of::<T>() <= 4096, "elements are aligned to a page at most") };
        let base = match mem::size_of::<T>() {
            0 => NonNull::dangling(),
            _ => NonNull::new(ground.space().as_ptr().cast()).unwrap_or(NonNull::dangling()),
        };
        let room = if mem::size_of::<T>() == 0 { usize::MAX } else { 0 };
        GrowVec { base, len: 0, room, ground: Box::new(ground), elements: PhantomData }
    }

    /// Appends an element.
    ///
    /// # Errors
    /// [`Refused`] with the element: past the bound, or the system refused.
    #[inline]
    pub fn push(&mut self, value: T) -> Result<(), Refused<T>> {
        // Read once: for all that the compiler knows, the element could be written over it.
        let len = self.len;
        if len == self.room {
            match Self::room_for(&mut self.ground, len, 1) {
                Ok(room) => self.room = room,
                Err(error) => return Err(Refused { value, error }),
            }
        }
        // SAFETY: there is committed room for `room` elements, more than `len` of them.
        unsafe { self.base.add(len).write(value) };
        self.len = len + 1;
        Ok(())
    }

    /// Commits memory for more elements than `len`, and says how many there is memory for then.
    #[cold]
    #[inline(never)]
    fn room_for(ground: &mut Ground<M>, len: usize, more: usize) -> Result<usize, MemoryError> {
        let size = mem::size_of::<T>();
        let end = len.checked_add(more).and_then(|len| len.checked_mul(size));
        let committed = ground.grow(end, len.saturating_mul(size))?;
        Ok(Self::noted(ground, committed))
    }

    /// Takes note of what is committed, and says for how many elements that is.
    fn noted(ground: &Ground<M>, committed: usize) -> usize {
        let Some(room) = committed.checked_div(mem::size_of::<T>()) else { return usize::MAX };
        let entry = ground.entry();
        let end = ground.start() + committed;
        if end < entry.frontier.load(Relaxed) {
            entry.wind_back(end);
        } else {
            entry.frontier.store(end, Relaxed);
        }
        room
    }

    /// Commits room for `more` elements now, so that as many pushes cannot fail.
    ///
    /// # Errors
    /// Past the bound, or the system refused.
    pub fn reserve_more(&mut self, more: usize) -> Result<(), MemoryError> {
        if self.room - self.len < more {
            self.room = Self::room_for(&mut self.ground, self.len, more)?;
        }
        Ok(())
    }

    /// Appends copies of all elements of a slice.
    ///
    /// # Errors
    /// Past the bound, or the system refused; nothing is appended then.
    pub fn extend_from_slice(&mut self, values: &[T]) -> Result<(), MemoryError>
    where
        T: Copy,
    {
        self.reserve_more(values.len())?;
        // SAFETY: there is room for all, and a slice of somebody else's cannot overlap memory that is ours alone.
        unsafe {
            let end = self.base.add(self.len);
            core::ptr::copy_nonoverlapping(values.as_ptr(), end.as_ptr(), values.len());
        }
        self.len += values.len();
        Ok(())
    }

    /// Appends `count` elements, each made by `value` from its index.
    ///
    /// # Errors
    /// Past the bound, or the system refused; nothing is appended then.
    pub(super) fn append_with(
        &mut self,
        count: usize,
        mut value: impl FnMut(usize) -> T,
    ) -> Result<(), MemoryError> {
        self.reserve_more(count)?;
        let (base, len) = (self.base, self.len);
        for index in len..len + count {
            // SAFETY: there is committed room for `count` elements past the first `len`.
            unsafe { base.add(index).write(value(index)) };
        }
        self.len = len + count;
        Ok(())
    }

    /// Where the first element lies, now and always.
    pub(super) fn base(&self) -> NonNull<T> {
        self.base
    }

    /// Takes the last element off.
    pub fn pop(&mut self) -> Option<T> {
        self.len = self.len.checked_sub(1)?;
        // SAFETY: the element was written and is not counted any more, so that it is moved out once.
        let value = unsafe { self.base.add(self.len).read() };
        if self.ground.is_strict() {
            self.settle();
        }
        Some(value)
    }

    /// Drops all elements from `len` on. In strict mode the whole pages past the rest trap from here.
    pub fn truncate(&mut self, len: usize) {
        if len >= self.len {
            return;
        }
        let (from, count) = (len, self.len - len);
        // Should a destructor panic, the rest leaks.
        self.len = len;
        // SAFETY: the elements were written and are not counted any more, so that they are dropped once.
        unsafe {
            core::ptr::slice_from_raw_parts_mut(self.base.as_ptr().add(from), count).drop_in_place();
        }
        self.settle();
    }

    /// Drops all elements.
    pub fn clear(&mut self) {
        self.truncate(0);
    }

    fn settle(&mut self) {
        self.ground.settle(self.len.saturating_mul(mem::size_of::<T>()));
        self.room = Self::noted(&self.ground, self.ground.committed());
    }

    /// Gives all memory past the last element back to the system.
    ///
    /// # Errors
    /// The system's; nothing is changed then.
    pub fn shrink_to_fit(&mut self) -> Result<(), MemoryError> {
        self.ground.shrink(self.len.saturating_mul(mem::size_of::<T>()))?;
        self.room = Self::noted(&self.ground, self.ground.committed());
        Ok(())
    }

    /// The bound in elements.
    pub fn bound(&self) -> usize {
        self.ground.space().len().checked_div(mem::size_of::<T>()).unwrap_or(usize::MAX)
    }

    /// Bytes of memory committed.
    pub fn committed(&self) -> usize {
        self.ground.committed()
    }

    /// Bytes that are in memory now.
    ///
    /// # Errors
    /// The system's.
    pub fn resident(&self) -> Result<usize, MemoryError> {
        self.ground.space().resident()
    }

    /// The elements.
    #[inline]
    pub fn as_slice(&self) -> &[T] {
        // SAFETY: the first `len` elements were written, in one piece of memory that is borrowed with `self`.
        unsafe { core::slice::from_raw_parts(self.base.as_ptr(), self.len) }
    }

    /// The elements to change.
    #[inline]
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        // SAFETY: as in `as_slice`, and nobody else has them.
        unsafe { core::slice::from_raw_parts_mut(self.base.as_ptr(), self.len) }
    }
}

impl<T, M: System + 'static> Deref for GrowVec<T, M> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        self.as_slice()
    }
}

impl<T, M: System + 'static> DerefMut for GrowVec<T, M> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        self.as_mut_slice()
    }
}

impl<'a, T, M: System + 'static> IntoIterator for &'a GrowVec<T, M> {
    type Item = &'a T;
    type IntoIter = core::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<T, M: System + 'static> Drop for GrowVec<T, M> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: every element is dropped once, and the memory goes after this.
        unsafe { core::ptr::from_mut(self.as_mut_slice()).drop_in_place() };
    }
}
