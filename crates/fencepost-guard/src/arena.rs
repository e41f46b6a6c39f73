//! The private arena: memory for the reporter, which allocates while the program's heap cannot be trusted.
//!
//! Blocks of a power of two from a region that only grows, with one list of free blocks a size. Slow and simple:
//! it serves one reporter at a time, and the few objects that the reporter's libraries keep between reports.

use core::alloc::Layout;
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use fencepost_sys::{Memory, Threads, VmResult};

use crate::lock::Lock;
use crate::region::Region;

/// The smallest block, as a power of two.
const SMALLEST: u32 = 4;
const CLASSES: usize = 48;

/// Memory for the reporter.
pub(crate) struct Arena {
    region: Region,
    lock: Lock,
    used: AtomicUsize,
    free: [AtomicPtr<u8>; CLASSES],
}

impl Arena {
    pub(crate) const fn new() -> Self {
        Arena {
            region: Region::new(),
            lock: Lock::new(),
            used: AtomicUsize::new(0),
            free: [const { AtomicPtr::new(null_mut()) }; CLASSES],
        }
    }

    /// Takes `room` bytes of address space: a bound on what resolving names can use.
    pub(crate) fn start<M: Memory>(&self, memory: &M, room: usize) -> VmResult {
        self.region.reserve(memory, room)
    }

    pub(crate) fn release<M: Memory>(&self, memory: &M) {
        self.region.release(memory);
    }

    /// Whether an address is the arena's.
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
        let base = self.region.range().start;
        let next = base.checked_add(self.used.load(Ordering::Relaxed))?;
        let start = crate::geometry::align_up(next, size)?.checked_sub(base)?;
        let end = start.checked_add(size)?;
        self.region.ensure(memory, end).ok()?;
        self.used.store(end, Ordering::Relaxed);
        NonNull::new(base.wrapping_add(start) as *mut u8)
    }

    /// Takes a block back.
    ///
    /// # Safety
    /// `block` must come from [`Arena::allocate`] with this layout, and must not be used any more.
    pub(crate) unsafe fn free<T: Threads>(&self, threads: &T, block: NonNull<u8>, layout: Layout) {
        let Some(list) = class_of(layout).and_then(|class| self.free.get(class as usize)) else { return };
        let held = self.lock.hold(threads);
        // SAFETY: the block is ours again by the caller's word, at least 16 bytes and aligned to its size.
        unsafe { block.cast::<*mut u8>().write(list.load(Ordering::Relaxed)) };
        list.store(block.as_ptr(), Ordering::Relaxed);
        drop(held);
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
