//! Slots of one type, with handles that know which tenant of a slot they mean.
//!
//! Every slot has a generation: odd while a value is in it, and one higher with every change. A handle is good as long as
//! the generation is the one that it was made with, so a stale one finds nothing, also when the slot has a new tenant. A
//! slot whose generations are used up retires. The generations lie apart from the values, because in strict mode each
//! value has pages of its own, at the end of them and with a closed page behind, which are closed while it is free.
//!
//! Which slots are free is a stack of their numbers, which lies apart from the generations as well: what is loaded with
//! either is more of the same, which the next calls want. A list through the free slots would make each insertion wait
//! for what the one before it loads.

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
    /// The value of the first slot, and its generation. Neither ever moves.
    first: NonNull<u8>,
    generations: NonNull<u32>,
    /// Bytes from one slot to the next.
    stride: usize,
    /// How many slots there are.
    slots: usize,
    /// Past the last number on the stack of free slots.
    top: NonNull<u32>,
    /// A value goes in without more ado where `top` lies past this: the start of the stack, and in strict mode the end of
    /// all addresses.
    floor: *mut u32,
    /// A value goes out without more ado where its generation is less than this: the last there is, and in strict mode 0.
    ceiling: u32,
    /// Apart: nothing on the hot path takes the address of the pool, so that a loop keeps its numbers in registers.
    rest: Box<Rest<M>>,
    values: PhantomData<T>,
}

/// What a pool needs where a slot is made, closed or opened.
#[derive(Debug)]
struct Rest<M: System + 'static> {
    ground: Ground<M>,
    /// One for each slot there is.
    generations: GrowVec<u32, M>,
    /// The numbers of free slots, a stack of which the first `free` elements count. As long as `generations`.
    vacant: GrowVec<u32, M>,
    stride: usize,
    /// Bytes of a slot's pages up to the end of its value, in strict mode.
    data: usize,
    /// Slots whose generations are used up.
    retired: usize,
    /// Freed slots that the system would not close.
    open: usize,
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
        let numbers = |name| Options::on(options.memory, bound * mem::size_of::<u32>()).name(name).vec();
        let (generations, vacant) = (numbers("generations of a pool")?, numbers("free slots of a pool")?);
        let (floor, ceiling) = match options.strict {
            true => (core::ptr::without_provenance_mut(usize::MAX), 0),
            false => (vacant.base().as_ptr(), u32::MAX),
        };
        let mut ground = options.ground(RegionKind::Pool)?;
        if ground.is_strict() {
            ground.entry().set_slots(stride, size, page);
            ground.committed = ground.space().len();
        }
        let first = ground.space().as_ptr().wrapping_add(lead);
        Ok(Pool {
            first: NonNull::new(first).unwrap_or(NonNull::dangling()),
            generations: generations.base(),
            stride,
            slots: 0,
            top: vacant.base(),
            floor,
            ceiling,
            rest: Box::new(Rest {
                ground,
                generations,
                vacant,
                stride,
                data: lead + size,
                retired: 0,
                open: 0,
            }),
            values: PhantomData,
        })
    }

    /// Puts a value in.
    ///
    /// # Errors
    /// [`Refused`] with the value: past the bound, or the system refused.
    #[inline]
    pub fn insert(&mut self, value: T) -> Result<Handle<T>, Refused<T>> {
        if self.top.as_ptr() <= self.floor {
            match Rest::make_ready(&mut self.rest, self.top) {
                Ok(top) => (self.top, self.slots) = (top, self.rest.generations.len()),
                Err(error) => return Err(Refused { value, error }),
            }
        }
        // SAFETY: some slot is free by now, so that there is a number below the top, of a slot; each has a generation.
        let (index, generation) = unsafe {
            self.top = self.top.sub(1);
            let index = self.top.read();
            let generation = self.generations.add(index as usize);
            generation.write(generation.read() + 1);
            (index, generation.read())
        };
        // SAFETY: a slot that was free is committed, and no value is in it.
        unsafe { self.place(index).write(MaybeUninit::new(value)) };
        Ok(Handle { index, generation, value: PhantomData })
    }

    #[inline]
    fn place(&self, index: u32) -> NonNull<MaybeUninit<T>> {
        // SAFETY: a slot that exists lies within the reservation.
        unsafe { self.first.add(index as usize * self.stride).cast() }
    }

    #[inline]
    fn is_good(&self, handle: Handle<T>) -> bool {
        let index = handle.index as usize;
        // SAFETY: each slot has a generation.
        index < self.slots && unsafe { self.generations.add(index).read() } == handle.generation
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
        if !self.is_good(handle) {
            return None;
        }
        // SAFETY: the handle is good, so that it names a slot; each has a generation.
        unsafe { self.generations.add(handle.index as usize).write(handle.generation.wrapping_add(1)) };
        // SAFETY: the slot held a value, and its new generation says that it does no more.
        let value = unsafe { self.place(handle.index).read().assume_init() };
        if handle.generation >= self.ceiling {
            self.top = Rest::let_go(&mut self.rest, handle.index, self.top);
        } else {
            // SAFETY: this slot was not free, so fewer slots are than there are, and the stack has room for all of them.
            unsafe {
                self.top.write(handle.index);
                self.top = self.top.add(1);
            }
        }
        Some(value)
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.slots - self.rest.free(self.top) - self.rest.retired
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
        let live = self.rest.generations.iter().enumerate().filter(|(_, generation)| **generation & 1 == 1);
        live.map(|(index, generation)| Handle {
            index: index as u32,
            generation: *generation,
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
        self.rest.ground.space().len().checked_div(self.stride).unwrap_or(NONE as usize).min(NONE as usize)
    }

    /// Bytes of memory committed for values.
    pub fn committed(&self) -> usize {
        self.rest.ground.space().committed()
    }

    /// Freed slots that do not trap although the pool is strict, because the system would not close them (it allows so
    /// many mappings only).
    pub fn left_open(&self) -> usize {
        self.rest.open
    }
}

/// What changes the stack of free slots is given its top, and says where that is afterwards.
impl<M: System + 'static> Rest<M> {
    /// How many slots are free.
    fn free(&self, top: NonNull<u32>) -> usize {
        (top.addr().get() - self.vacant.base().addr().get()) / mem::size_of::<u32>()
    }

    /// Sees to it that the newest free slot is there, committed and open. Apart, and without the value, so that the common
    /// case moves the value once.
    #[cold]
    #[inline(never)]
    fn make_ready(&mut self, top: NonNull<u32>) -> Result<NonNull<u32>, MemoryError> {
        let Some(last) = self.free(top).checked_sub(1) else { return self.extend() };
        let pages = self.pages(self.vacant[last]);
        self.ground.open(pages)?;
        Ok(top)
    }

    /// Makes more slots, and puts them on the stack, which is empty: as many as memory is committed for, up to a batch.
    fn extend(&mut self) -> Result<NonNull<u32>, MemoryError> {
        let index = self.generations.len();
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
        self.vacant.reserve_more(count)?;
        self.generations.append_with(count, |_| 0)?;
        self.vacant.append_with(count, |_| 0)?;
        for (place, new) in self.vacant.iter_mut().zip((index..index + count).rev()) {
            *place = new as u32;
        }
        let used = self.ground.start() + (index + count) * self.stride;
        self.ground.entry().frontier.store(used, Relaxed);
        // SAFETY: the stack is at least as long.
        Ok(unsafe { self.vacant.base().add(count) })
    }

    /// The pages of a slot's value, in strict mode.
    fn pages(&self, index: u32) -> core::ops::Range<usize> {
        let start = index as usize * self.stride;
        start..start + self.data
    }

    /// Takes a slot back whose value is gone, in strict mode or where its generations may be used up.
    #[cold]
    #[inline(never)]
    fn let_go(&mut self, index: u32, top: NonNull<u32>) -> NonNull<u32> {
        if self.ground.is_strict() {
            let pages = self.pages(index);
            if !self.ground.close(pages) {
                self.open += 1;
            }
        }
        // Generations that begin anew would make old handles good again: the slot retires.
        if self.generations[index as usize] == 0 {
            self.retired += 1;
            return top;
        }
        let free = self.free(top);
        self.vacant[free] = index;
        // SAFETY: the number at the old top is within the stack.
        unsafe { top.add(1) }
    }
}

impl<T, M: System + 'static> Drop for Pool<T, M> {
    fn drop(&mut self) {
        if mem::needs_drop::<T>() {
            for (index, generation) in self.rest.generations.iter().enumerate() {
                if generation & 1 == 1 {
                    // SAFETY: the slot holds a value, and nobody looks at it after this.
                    unsafe { self.place(index as u32).as_mut().assume_init_drop() };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fencepost_sys::sim::Sim;

    #[test]
    fn a_slot_whose_generations_are_used_up_retires() {
        for strict in [false, true] {
            let system: &'static Sim = Box::leak(Box::new(Sim::new()));
            let mut pool = Options::on(system, 1 << 16).strict(strict).pool::<u64>().expect("memory");
            let first = pool.insert(1).expect("memory");
            assert_eq!(pool.remove(first), Some(1));
            // SAFETY: slot 0 exists, so that it has a generation; it is free, so that the number is even.
            unsafe { pool.generations.write(u32::MAX - 1) };
            // The free slot on top is the one that was given back last.
            let last = pool.insert(2).expect("memory");
            assert_eq!((last.index, last.generation, pool.get(last)), (0, u32::MAX, Some(&2)));
            assert_eq!((pool.remove(last), pool.remove(last), pool.len()), (Some(2), None, 0));
            let next = pool.insert(3).expect("memory");
            assert_ne!(next.index, 0, "it is never used again, or old handles would be good");
            assert_eq!((pool.get(last), pool.get(next), pool.len()), (None, Some(&3), 1));
        }
    }
}
