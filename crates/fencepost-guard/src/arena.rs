//! The private arena: memory for the reporter, which allocates while the program's heap cannot be trusted.
//!
//! Blocks of a power of two from a region that only grows, with one list of free blocks a size. Slow and simple:
//! it serves one reporter at a time, and the few objects that the reporter's libraries keep between reports.
//!
//! The region is cut into chunks, each with blocks of one size, and a table at its start says which: `free` in C is
//! told no size, so the address must tell it.

use core::alloc::Layout;
use core::ptr::{NonNull, null_mut};

use fencepost_sys::atomic::{AtomicPtr, AtomicU8, AtomicUsize, Ordering};
use fencepost_sys::{Memory, Range, Threads, VmResult};

use crate::lock::Lock;
use crate::region::Region;

/// The smallest block, as a power of two.
const SMALLEST: u32 = 4;
const CLASSES: usize = 48;
/// A chunk, as a power of two. Larger blocks have several to themselves.
const CHUNK: u32 = 16;

/// Memory for the reporter.
pub(crate) struct Arena {
    region: Region,
    lock: Lock,
    used: AtomicUsize,
    free: [AtomicPtr<u8>; CLASSES],
    /// For each size below a chunk's, where the next block of its newest chunk lies; a chunk's end when it is full.
    next: [AtomicUsize; CHUNK as usize],
}

impl Arena {
    pub(crate) const fn new() -> Self {
        Arena {
            region: Region::new(),
            lock: Lock::new(),
            used: AtomicUsize::new(0),
            free: [const { AtomicPtr::new(null_mut()) }; CLASSES],
            next: [const { AtomicUsize::new(0) }; CHUNK as usize],
        }
    }

    /// Takes `room` bytes of address space: a bound on what resolving names can use.
    pub(crate) fn start<M: Memory>(&self, memory: &M, room: usize) -> VmResult {
        self.region.reserve(memory, room)?;
        let table = self.chunks();
        self.region.ensure(memory, table)?;
        self.used.store(table, Ordering::Relaxed);
        Ok(())
    }

    /// The memory that it keeps.
    pub(crate) fn regions(&self) -> [&Region; 1] {
        [&self.region]
    }

    pub(crate) fn release<M: Memory>(&self, memory: &M) {
        self.region.release(memory);
    }

    /// All its addresses.
    pub(crate) fn addresses(&self) -> Range {
        self.region.range()
    }

    /// Whether an address is the arena's.
    #[inline]
    pub(crate) fn owns(&self, address: usize) -> bool {
        self.region.range().contains(address)
    }

    /// A block, or `None` when the arena is full.
    pub(crate) fn allocate<P: Memory + Threads>(&self, platform: &P, layout: Layout) -> Option<NonNull<u8>> {
        let class = class_of(layout)?;
        let list = self.free.get(class as usize)?;
        let held = self.lock.hold(platform);
        let block = match NonNull::new(list.load(Ordering::Relaxed)) {
            Some(block) => {
                // SAFETY: a free block holds the address of the next one in its first word, and is at least 16
                // bytes, aligned to its size.
                list.store(unsafe { block.cast::<*mut u8>().read() }, Ordering::Relaxed);
                Some(block)
            }
            None => self.grow(platform, class),
        };
        drop(held);
        block
    }

    fn grow<M: Memory>(&self, memory: &M, class: u32) -> Option<NonNull<u8>> {
        let size = 1usize.checked_shl(class)?;
        let Some(next) = self.next.get(class as usize) else {
            return NonNull::new(self.take(memory, class, size)? as *mut u8);
        };
        let mut place = next.load(Ordering::Relaxed);
        if place.trailing_zeros() >= CHUNK {
            place = self.take(memory, class, 1 << CHUNK)?;
        }
        next.store(place.checked_add(size)?, Ordering::Relaxed);
        NonNull::new(place as *mut u8)
    }

    /// Takes chunks for blocks of a size, and gives the address of the first.
    fn take<M: Memory>(&self, memory: &M, class: u32, bytes: usize) -> Option<usize> {
        let base = self.region.range().start;
        let next = base.checked_add(self.used.load(Ordering::Relaxed))?;
        let start = crate::geometry::align_up(next, bytes)?;
        let end = start.checked_sub(base)?.checked_add(bytes)?;
        self.region.ensure(memory, end).ok()?;
        self.chunk(start)?.store(u8::try_from(class).ok()?, Ordering::Relaxed);
        self.used.store(end, Ordering::Relaxed);
        Some(start)
    }

    /// Chunks that the region reaches into. They are counted by address, since blocks are aligned by it.
    fn chunks(&self) -> usize {
        (self.region.range().len >> CHUNK).wrapping_add(1)
    }

    /// The size of the blocks at an address, as a power of two.
    fn chunk(&self, address: usize) -> Option<&'static AtomicU8> {
        let index = (address >> CHUNK).checked_sub(self.region.range().start >> CHUNK)?;
        if index >= self.chunks() {
            return None;
        }
        // SAFETY: the region begins with a table of bytes, one a chunk, of which `index` is one. Any byte is valid.
        unsafe { self.region.get::<AtomicU8>(index) }
    }

    /// Takes a block back.
    ///
    /// # Safety
    /// `block` must come from [`Arena::allocate`], and must not be used any more.
    pub(crate) unsafe fn free<T: Threads>(&self, threads: &T, block: NonNull<u8>) {
        let class = self.chunk(block.as_ptr() as usize).map(|class| class.load(Ordering::Relaxed));
        let Some(list) = class.and_then(|class| self.free.get(usize::from(class))) else { return };
        let held = self.lock.hold(threads);
        // SAFETY: the block is ours again by the caller's word, at least 16 bytes and aligned to its size.
        unsafe { block.cast::<*mut u8>().write(list.load(Ordering::Relaxed)) };
        list.store(block.as_ptr(), Ordering::Relaxed);
        drop(held);
    }

    /// The bytes that the block at an address has room for, as a layout.
    pub(crate) fn layout_of(&self, address: usize) -> Option<Layout> {
        let class = self.chunk(address)?.load(Ordering::Relaxed);
        Layout::from_size_align(1usize.checked_shl(u32::from(class))?, 1 << SMALLEST).ok()
    }

    /// The arena's lock, for both sides of a fork.
    pub(crate) fn lock_for_fork(&self) -> &Lock {
        &self.lock
    }
}

/// The power of two that holds a layout.
fn class_of(layout: Layout) -> Option<u32> {
    let size = layout.size().max(layout.align()).checked_next_power_of_two()?;
    Some(size.trailing_zeros().max(SMALLEST))
}
