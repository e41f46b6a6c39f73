//! Slots of one type, with handles that know which tenant of a slot they mean.
//!
//! Every slot has a generation: odd while a value is in it, and one higher with every change. A handle is good as long as
//! the generation is the one that it was made with, so a stale one finds nothing, also when the slot has a new tenant. A
//! slot whose generations are used up retires. The generations lie apart from the values, because in strict mode each
//! value has pages of its own, at the end of them and with a closed page behind, which are closed while it is free.
//!
//! Which slots are free is a stack of their numbers, which shares its memory with the generations: there are never more
//! of them than slots.

use core::marker::PhantomData;
use core::mem::{self, MaybeUninit};
use core::ptr::NonNull;
use core::sync::atomic::Ordering::Relaxed;
use core::{fmt, hash};

use super::{Ground, GrowVec, Options, Refused};
use crate::regions::RegionKind;
use crate::{Host, MemoryError, System, round_up};

/// No slot.
const NONE: u32 = u32::MAX;
/// The most slots that are made at once.
const BATCH: usize = 64;

/// A pool of values of one type. See the [module](super) for how it grows.
///
/// ```
/// use fencepost_memory::growing::Pool;
///
/// let mut pool = Pool::reserve(1_000_000)?;
/// let ada = pool.insert("Ada")?;
/// assert_eq!(pool.remove(ada), Some("Ada"));
/// let bob = pool.insert("Bob")?; // in the same slot
/// assert_eq!((pool.get(ada), pool.get(bob)), (None, Some(&"Bob")));
/// # Ok::<(), fencepost_memory::MemoryError>(())
/// ```
#[derive(Debug)]
pub struct Pool<T, M: System + 'static = Host> {
    ground: Ground<M>,
    base: NonNull<u8>,
    slots: GrowVec<Slot, M>,
    /// How many slots are free. Their numbers are a stack, in the first elements of `slots`.
    free: usize,
    /// A value goes in without more ado where more slots than this are free: 0, and in strict mode all there can be.
    floor: usize,
    /// Slots whose generations are used up.
    retired: usize,
    /// Bytes from one slot to the next.
    stride: usize,
    /// Bytes of a stride before the value.
    lead: usize,
    /// Freed slots that the system would not close.
    open: usize,
    values: PhantomData<T>,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    /// An element of the stack of free slots, which has nothing to do with this one. A list through the free slots
    /// themselves would make each insertion wait for what the one before it loads.
    free: u32,
}

/// Which value of a [`Pool`]. As small as a pointer, and copied freely: a stale one finds nothing. One of another pool
/// of the same type finds nothing or a value of that pool: keep them apart.
pub struct Handle<T> {
    index: u32,
    generation: u32,
    value: PhantomData<fn() -> T>,
}

impl<T> Clone for Handle<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Handle<T> {}

impl<T> PartialEq for Handle<T> {
    fn eq(&self, other: &Self) -> bool {
        (self.index, self.generation) == (other.index, other.generation)
    }
}

impl<T> Eq for Handle<T> {}

impl<T> hash::Hash for Handle<T> {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        (self.index, self.generation).hash(state);
    }
}

impl<T> fmt::Debug for Handle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handle({}, generation {})", self.index, self.generation)
    }
}

// SAFETY: a pool owns its values alone and changes through `&mut self` only.
unsafe impl<T: Send, M: System + 'static> Send for Pool<T, M> {}
// SAFETY: as above.
unsafe impl<T: Sync, M: System + 'static> Sync for Pool<T, M> {}

impl<T> Pool<T> {
    /// A pool that may grow to `bound` values.
    ///
    /// # Errors
    /// As [`crate::Builder::reserve`]; [`MemoryError::BadSize`] where that many have no size.
    pub fn reserve(bound: usize) -> Result<Pool<T>, MemoryError> {
        let bytes = bound.max(1).checked_mul(mem::size_of::<T>().max(1)).ok_or(MemoryError::BadSize)?;
        Options::new(bytes).pool()
    }
}

impl<T, M: System + 'static> Pool<T, M> {
    /// Under `strict` the bound holds for the values; their pages take more addresses.
    pub(super) fn with(mut options: Options<'_, M>) -> Result<Self, MemoryError> {
        const { assert!(mem::align_of::<T>() <= 4096, "values are aligned to a page at most") };
        let page = options.memory.page_size();
        let size = mem::size_of::<T>();
        let bound = (options.bound / size.max(1)).min(NONE as usize - 1).max(1);
        let (mut stride, mut lead) = (size, 0);
        if options.strict {
            let data = round_up(size.max(1), page).ok_or(MemoryError::BadSize)?;
            stride = data.checked_add(page).ok_or(MemoryError::BadSize)?;
            lead = data - size;
            options.bound = bound.checked_mul(stride).ok_or(MemoryError::BadSize)?;
        }
        let slots = Options::on(options.memory, bound * mem::size_of::<Slot>());
        let floor = if options.strict { usize::MAX } else { 0 };
        let mut ground = options.ground(RegionKind::Pool)?;
        if ground.is_strict() {
            ground.entry().set_slots(stride, size, page);
            ground.committed = ground.space().len();
        }
        let base = NonNull::new(ground.space().as_ptr()).unwrap_or(NonNull::dangling());
        let slots = slots.name("slots of a pool").vec()?;
        Ok(Pool {
            ground,
            base,
            slots,
            free: 0,
            floor,
            retired: 0,
            stride,
            lead,
            open: 0,
            values: PhantomData,
        })
    }

    /// Puts a value in.
    ///
    /// # Errors
    /// [`Refused`] with the value: past the bound, or the system refused.
    #[inline]
    pub fn insert(&mut self, value: T) -> Result<Handle<T>, Refused<T>> {
        if self.free <= self.floor
            && let Err(error) = self.make_ready()
        {
            return Err(Refused { value, error });
        }
        let last = self.free - 1;
        // SAFETY: some slot is free by now, and what the stack has are numbers of slots, fewer than there are slots.
        let (index, slot) = unsafe {
            let index = self.slots.get_unchecked(last).free;
            (index, self.slots.get_unchecked_mut(index as usize))
        };
        let generation = slot.generation + 1;
        slot.generation = generation;
        self.free = last;
        // SAFETY: a slot that was free is committed, and no value is in it.
        unsafe { self.place(index).write(MaybeUninit::new(value)) };
        Ok(Handle { index, generation, value: PhantomData })
    }

    /// Sees to it that a free slot is there, committed and open. Apart, and without the value, so that the
    /// common case moves the value once.
    #[cold]
    #[inline(never)]
    fn make_ready(&mut self) -> Result<(), MemoryError> {
        let Some(last) = self.free.checked_sub(1) else { return self.extend() };
        let pages = self.pages(self.slots[last].free);
        self.ground.open(pages)
    }

    /// Makes more slots, and puts them on the stack, which is empty: as many as memory is committed for, up to a batch.
    fn extend(&mut self) -> Result<(), MemoryError> {
        let index = self.slots.len();
        let end = (index + 1).checked_mul(self.stride);
        // Where slots have no size or no number, the bound is that of the numbers.
        let end = if index < NONE as usize { end } else { None };
        if end.is_none_or(|end| end > self.ground.committed()) {
            self.ground.grow(end, index * self.stride)?;
        }
        let mut count = 1;
        if self.ground.is_strict() {
            let pages = self.pages(index as u32);
            self.ground.commit_range(pages)?;
        } else {
            let room = self.ground.committed().min(self.ground.space().len());
            let fit = (room - index * self.stride).checked_div(self.stride).unwrap_or(BATCH);
            count = fit.clamp(1, BATCH).min(NONE as usize - index);
        }
        self.slots.append_with(count, |_| Slot { generation: 0, free: 0 })?;
        for (slot, new) in self.slots.iter_mut().zip((index..index + count).rev()) {
            slot.free = new as u32;
        }
        let used = self.ground.start() + (index + count) * self.stride;
        self.ground.entry().frontier.store(used, Relaxed);
        self.free = count;
        Ok(())
    }

    /// The pages of a slot's value, in strict mode.
    fn pages(&self, index: u32) -> core::ops::Range<usize> {
        let start = index as usize * self.stride;
        start..start + self.lead + mem::size_of::<T>()
    }

    #[inline]
    fn place(&self, index: u32) -> NonNull<MaybeUninit<T>> {
        // Of a size that the compiler knows, where it may: it multiplies faster.
        let offset = match self.ground.is_strict() {
            true => self.strict_offset(index),
            false => index as usize * mem::size_of::<T>(),
        };
        // SAFETY: a slot that exists lies within the reservation.
        unsafe { self.base.add(offset).cast() }
    }

    #[cold]
    fn strict_offset(&self, index: u32) -> usize {
        index as usize * self.stride + self.lead
    }

    #[inline]
    fn is_good(&self, handle: Handle<T>) -> bool {
        self.slots.get(handle.index as usize).is_some_and(|slot| slot.generation == handle.generation)
    }

    /// The value, if it is still there.
    #[inline]
    pub fn get(&self, handle: Handle<T>) -> Option<&T> {
        // SAFETY: a handle's generation is odd, and a slot of an odd generation holds a value.
        self.is_good(handle).then(|| unsafe { self.place(handle.index).as_ref().assume_init_ref() })
    }

    /// The value to change, if it is still there.
    #[inline]
    pub fn get_mut(&mut self, handle: Handle<T>) -> Option<&mut T> {
        // SAFETY: as in `get`, and nobody else has it.
        self.is_good(handle).then(|| unsafe { self.place(handle.index).as_mut().assume_init_mut() })
    }

    /// Whether the value is still there.
    pub fn contains(&self, handle: Handle<T>) -> bool {
        self.is_good(handle)
    }

    /// Takes a value out. In strict mode the slot's pages trap from here, until it has a new tenant.
    #[inline]
    pub fn remove(&mut self, handle: Handle<T>) -> Option<T> {
        let slot = self.slots.get_mut(handle.index as usize)?;
        if slot.generation != handle.generation {
            return None;
        }
        let generation = handle.generation.wrapping_add(1);
        slot.generation = generation;
        // Generations that begin anew would make old handles good again: the slot retires.
        if generation == 0 {
            self.retired += 1;
        } else {
            // SAFETY: this slot was not free, so fewer slots are than there are.
            unsafe { self.slots.get_unchecked_mut(self.free) }.free = handle.index;
            self.free += 1;
        }
        // SAFETY: the slot held a value, and its new generation says that it does no more.
        let value = unsafe { self.place(handle.index).read().assume_init() };
        if self.ground.is_strict() {
            self.close(handle.index);
        }
        Some(value)
    }

    #[cold]
    fn close(&mut self, index: u32) {
        let pages = self.pages(index);
        if !self.ground.close(pages) {
            self.open += 1;
        }
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free - self.retired
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values and their handles, in the order of their slots.
    pub fn iter(&self) -> impl Iterator<Item = (Handle<T>, &T)> {
        self.handles().filter_map(|handle| Some((handle, self.get(handle)?)))
    }

    fn handles(&self) -> impl Iterator<Item = Handle<T>> {
        let live = self.slots.iter().enumerate().filter(|(_, slot)| slot.generation & 1 == 1);
        live.map(|(index, slot)| Handle {
            index: index as u32,
            generation: slot.generation,
            value: PhantomData,
        })
    }

    /// Drops all values.
    pub fn clear(&mut self) {
        let all: Vec<Handle<T>> = self.handles().collect();
        all.into_iter().for_each(|handle| drop(self.remove(handle)));
    }

    /// The bound in values.
    pub fn bound(&self) -> usize {
        self.ground.space().len().checked_div(self.stride).unwrap_or(NONE as usize).min(NONE as usize)
    }

    /// Bytes of memory committed for values.
    pub fn committed(&self) -> usize {
        self.ground.space().committed()
    }

    /// Freed slots that do not trap although the pool is strict, because the system would not close them (it allows so
    /// many mappings only).
    pub fn left_open(&self) -> usize {
        self.open
    }
}

impl<T, M: System + 'static> Drop for Pool<T, M> {
    fn drop(&mut self) {
        if mem::needs_drop::<T>() {
            for (index, slot) in self.slots.iter().enumerate() {
                if slot.generation & 1 == 1 {
                    // SAFETY: the slot holds a value, and nobody looks at it after this.
                    unsafe { self.place(index as u32).as_mut().assume_init_drop() };
                }
            }
        }
    }
}
