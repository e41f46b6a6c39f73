//! Values that die in the opposite order of their birth.
//!
//! Every value is known by a [`Place`], which cannot be copied: taking the value out consumes it, and works for the newest
//! value only. A place names its stack and the life of the stack's content, so that a place of another stack, or from
//! before a `clear`, finds nothing.

use core::alloc::Layout;
use core::marker::PhantomData;
use core::ptr::NonNull;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;
use core::{fmt, mem};

use super::{Ground, Options, Refused};
use crate::{Host, MemoryError, System};

/// Numbers that no two lives of a stack's content share.
static LIVES: AtomicU64 = AtomicU64::new(1);

/// A stack of values of any types.
///
/// ```
/// use fencepost_memory::growing::{Stack, StackError};
///
/// let mut stack = Stack::reserve(1 << 20)?;
/// let below = stack.push(String::from("below"))?;
/// let above = stack.push([1, 2, 3])?;
/// let error = stack.pop(below).unwrap_err(); // not its turn
/// let StackError::NotTheNewest(below) = error else { panic!("{error:?}") };
/// assert_eq!(stack.pop(above).unwrap(), [1, 2, 3]);
/// assert_eq!(stack.pop(below).unwrap(), "below");
/// # Ok::<(), fencepost_memory::MemoryError>(())
/// ```
///
/// A value whose [`Place`] is lost is not dropped; [`Stack::clear`] takes its memory back.
#[derive(Debug)]
pub struct Stack<M: System + 'static = Host> {
    ground: Ground<M>,
    life: u64,
    /// The offset past the newest value.
    top: usize,
    depth: usize,
    /// Values are of any type, also of those that stay on their thread.
    values: PhantomData<*mut ()>,
}

/// Where a value of type `T` lies in a [`Stack`].
#[must_use = "without its place a value cannot be taken out again"]
pub struct Place<T> {
    life: u64,
    offset: usize,
    end: usize,
    /// The top before this value.
    before: usize,
    /// Exactly this type: of a place for a longer lifetime none for a shorter may be made, because `get_mut` writes.
    value: PhantomData<*mut T>,
}

impl<T> fmt::Debug for Place<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Place({}..{})", self.offset, self.end)
    }
}

/// Why a value could not be taken out. The place comes back.
#[non_exhaustive]
pub enum StackError<T> {
    /// Values that were pushed later are still there.
    NotTheNewest(Place<T>),
    /// The place is another stack's, or from before a `clear`.
    Foreign(Place<T>),
}

impl<T> fmt::Debug for StackError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StackError::NotTheNewest(place) => f.debug_tuple("NotTheNewest").field(place).finish(),
            StackError::Foreign(place) => f.debug_tuple("Foreign").field(place).finish(),
        }
    }
}

impl<T> fmt::Display for StackError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StackError::NotTheNewest(_) => "pop a value while later ones are still on the stack",
            StackError::Foreign(_) => "pop a value of another stack, or from before it was cleared",
        })
    }
}

impl<T> std::error::Error for StackError<T> {}

impl Stack {
    /// A stack that may grow to `bound` bytes.
    ///
    /// # Errors
    /// As [`crate::Builder::reserve`].
    pub fn reserve(bound: usize) -> Result<Stack, MemoryError> {
        Options::new(bound).stack()
    }
}

impl<M: System + 'static> Stack<M> {
    pub(super) fn over(ground: Ground<M>) -> Self {
        Stack { ground, life: LIVES.fetch_add(1, Relaxed), top: 0, depth: 0, values: PhantomData }
    }

    /// Puts a value on top.
    ///
    /// # Errors
    /// [`Refused`] with the value: past the bound, or the system refused.
    #[inline]
    pub fn push<T>(&mut self, value: T) -> Result<Place<T>, Refused<T>> {
        let layout = Layout::new::<T>();
        let base = self.ground.start();
        // Does not wrap: see `Arena::alloc_layout`.
        let low = layout.align().wrapping_sub(1);
        let offset = (base.wrapping_add(self.top).wrapping_add(low) & !low).wrapping_sub(base);
        let end = offset.wrapping_add(layout.size());
        if end > self.ground.committed()
            && let Err(error) = self.ground.grow(Some(end), self.top)
        {
            return Err(Refused { value, error });
        }
        let place = Place { life: self.life, offset, end, before: self.top, value: PhantomData };
        // SAFETY: the bytes from `offset` to `end` are committed, aligned, and past every value on the stack.
        unsafe { self.pointer(&place).write(value) };
        self.move_top(end);
        self.depth += 1;
        Ok(place)
    }

    fn move_top(&mut self, top: usize) {
        self.top = top;
        self.ground.entry().frontier.store(self.ground.start() + top, Relaxed);
    }

    fn pointer<T>(&self, place: &Place<T>) -> NonNull<T> {
        let address = self.ground.start() + place.offset;
        // SAFETY: an address within the reservation is not null.
        unsafe { NonNull::new_unchecked(self.ground.space().as_ptr().with_addr(address).cast()) }
    }

    /// The value at a place; `None` if the place is another stack's.
    pub fn get<T>(&self, place: &Place<T>) -> Option<&T> {
        // SAFETY: the place is of this life of the content, and places are not copied and are used up by `pop`, so that
        // the value is still there; it is borrowed with the stack.
        (place.life == self.life).then(|| unsafe { self.pointer(place).as_ref() })
    }

    /// The same to change.
    pub fn get_mut<T>(&mut self, place: &Place<T>) -> Option<&mut T> {
        // SAFETY: as in `get`, and the stack is borrowed for this alone.
        (place.life == self.life).then(|| unsafe { self.pointer(place).as_mut() })
    }

    /// Takes the newest value out.
    ///
    /// # Errors
    /// [`StackError`] when it is not the newest, or not of this stack.
    pub fn pop<T>(&mut self, place: Place<T>) -> Result<T, StackError<T>> {
        if place.life != self.life {
            return Err(StackError::Foreign(place));
        }
        // A value without a size may share its end with its neighbours: nothing of it can be harmed.
        if place.end != self.top && mem::size_of::<T>() != 0 {
            return Err(StackError::NotTheNewest(place));
        }
        // SAFETY: as in `get`; the place is used up, so the value is moved out once.
        let value = unsafe { self.pointer(&place).read() };
        if place.end == self.top {
            self.wind_back(place.before);
        }
        self.depth = self.depth.saturating_sub(1);
        Ok(value)
    }

    fn wind_back(&mut self, top: usize) {
        self.ground.entry().wind_back(self.ground.start() + top);
        self.top = top;
        self.ground.settle(top);
    }

    /// Gives everything back. Values that are still there are not dropped, and their places find nothing any more.
    pub fn clear(&mut self) {
        self.life = LIVES.fetch_add(1, Relaxed);
        self.depth = 0;
        self.wind_back(0);
    }

    /// How many values there are.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// Bytes in use, alignment gaps included.
    pub fn used(&self) -> usize {
        self.top
    }

    /// The bound in bytes.
    pub fn bound(&self) -> usize {
        self.ground.space().len()
    }

    /// Bytes of memory committed.
    pub fn committed(&self) -> usize {
        self.ground.committed()
    }
}
