//! The record of one block, kept apart from the program's memory and readable from the fault handler.
//!
//! All fields are atomic: the handler of any thread may read a record while its owner writes it. `state` is the
//! gate: whoever wins the change from live to freeing owns the other fields until it says freed, and a zeroed
//! record is a valid one that says "never handed out".

use fencepost_sys::Range;
use fencepost_sys::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicUsize, Ordering};

use crate::family::Family;

/// What a slot is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SlotState {
    /// Never handed out, or its record has been dropped.
    Empty,
    /// Holds a block.
    Live,
    /// Its block is being freed.
    Freeing,
    /// Its block was freed; it stays dead.
    Freed,
}

const EMPTY: u32 = 0;
const LIVE: u32 = 1;
const FREEING: u32 = 2;
const FREED: u32 = 3;
/// Alive, and a check reads its redzones: a free waits.
const CHECKED: u32 = 4;

/// The record of one block.
#[repr(C, align(64))]
pub(crate) struct Slot {
    state: AtomicU32,
    pub(crate) alloc_trace: AtomicU32,
    pub(crate) free_trace: AtomicU32,
    pub(crate) alloc_thread: AtomicU32,
    pub(crate) free_thread: AtomicU32,
    pub(crate) alloc_ms: AtomicU32,
    pub(crate) free_ms: AtomicU32,
    align_log2: AtomicU8,
    /// Which functions handed the block out, as [`Family`] numbers them.
    family: AtomicU8,
    /// Seals that hold some part of the block.
    pub(crate) seals: AtomicU16,
    /// The next block that waits to be closed, while this one does: see [`crate::defer`].
    pub(crate) waits_before: AtomicU32,
    /// What a search for leaks has found out: see [`crate::leaks`].
    pub(crate) reached: AtomicU32,
    pointer: AtomicUsize,
    size: AtomicUsize,
}

const _: () = assert!(size_of::<Slot>() == 64, "one cache line a block");

/// Who did something to a block, and when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Act {
    /// Number of the stack in the depot; 0 when it was not kept.
    pub(crate) trace: u32,
    /// Number of the thread in the thread table; 0 when it is not known.
    pub(crate) thread: u32,
    /// Milliseconds since the runtime started.
    pub(crate) ms: u32,
}

/// A copy of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlotView {
    pub(crate) state: SlotState,
    pub(crate) pointer: usize,
    pub(crate) size: usize,
    pub(crate) align: usize,
    pub(crate) sealed: bool,
    pub(crate) allocated: Act,
    pub(crate) freed: Act,
}

impl SlotView {
    /// One past the block's last byte.
    #[inline]
    pub(crate) const fn end(&self) -> usize {
        self.pointer.wrapping_add(self.size)
    }

    /// The block's bytes.
    pub(crate) const fn range(&self) -> Range {
        Range { start: self.pointer, len: self.size }
    }
}

impl Slot {
    /// Makes an empty slot hold a block. The caller owns the slot.
    #[inline]
    pub(crate) fn birth(&self, pointer: usize, size: usize, align: usize, act: Act) {
        self.pointer.store(pointer, Ordering::Relaxed);
        self.size.store(size, Ordering::Relaxed);
        self.align_log2.store(align.trailing_zeros().to_le_bytes()[0], Ordering::Relaxed);
        self.family.store(0, Ordering::Relaxed);
        self.seals.store(0, Ordering::Relaxed);
        self.alloc_trace.store(act.trace, Ordering::Relaxed);
        self.alloc_thread.store(act.thread, Ordering::Relaxed);
        self.alloc_ms.store(act.ms, Ordering::Relaxed);
        self.free_trace.store(0, Ordering::Relaxed);
        // Release: whoever sees the block live sees what is above.
        self.state.store(LIVE, Ordering::Release);
    }

    /// Notes which part of a page that is ready for this empty slot does not hold the redzone pattern.
    #[inline]
    pub(crate) fn set_stale(&self, range: Range) {
        self.pointer.store(range.start, Ordering::Relaxed);
        self.size.store(range.len, Ordering::Relaxed);
    }

    /// What [`Slot::set_stale`] noted; nothing in a slot that was never used. For its owner, before the slot's birth.
    #[inline]
    pub(crate) fn stale(&self) -> Range {
        Range { start: self.pointer.load(Ordering::Relaxed), len: self.size.load(Ordering::Relaxed) }
    }

    /// Notes which functions handed the block out. The caller has not given its address to anyone yet.
    #[inline]
    pub(crate) fn set_family(&self, family: Family) {
        self.family.store(family as u8, Ordering::Relaxed);
    }

    /// Which functions handed the block out.
    #[inline]
    pub(crate) fn family(&self) -> Family {
        Family::of_number(self.family.load(Ordering::Relaxed))
    }

    /// Size and alignment of the block, if it is alive, begins here and no part of it is sealed.
    #[inline]
    pub(crate) fn plain_block(&self, address: usize) -> Option<(usize, usize)> {
        let is_plain = self.state.load(Ordering::Acquire) == LIVE
            && self.pointer.load(Ordering::Relaxed) == address
            && self.seals.load(Ordering::Acquire) == 0;
        let align = 1usize.wrapping_shl(u32::from(self.align_log2.load(Ordering::Relaxed)));
        is_plain.then(|| (self.size.load(Ordering::Relaxed), align))
    }

    /// Takes the right to free the block; false when it is not alive (any more). Waits out a check.
    #[inline]
    pub(crate) fn begin_free(&self) -> bool {
        loop {
            match self.state.compare_exchange(LIVE, FREEING, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return true,
                // A check compares at most a page and makes no system call.
                Err(CHECKED) => core::hint::spin_loop(),
                Err(_) => return false,
            }
        }
    }

    /// Keeps a live block from being freed while its redzones are read; false when it is not alive.
    pub(crate) fn begin_check(&self) -> bool {
        self.state.compare_exchange(LIVE, CHECKED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Ends the check.
    pub(crate) fn end_check(&self) {
        self.state.store(LIVE, Ordering::Release);
    }

    /// Gives that right back, with nothing done: the block is alive again.
    #[cold]
    pub(crate) fn give_up_free(&self) {
        self.state.store(LIVE, Ordering::Release);
    }

    /// Notes who frees it, before the memory closes: a fault in between finds the stack.
    #[inline]
    pub(crate) fn note_free(&self, act: Act) {
        self.free_trace.store(act.trace, Ordering::Relaxed);
        self.free_thread.store(act.thread, Ordering::Relaxed);
        self.free_ms.store(act.ms, Ordering::Release);
    }

    /// Ends the free.
    #[inline]
    pub(crate) fn end_free(&self) {
        self.state.store(FREED, Ordering::Release);
    }

    /// Makes the record say "never handed out". Nobody may use the slot.
    pub(crate) fn clear(&self) {
        self.free_trace.store(0, Ordering::Relaxed);
        self.seals.store(0, Ordering::Relaxed);
        self.set_stale(Range::default());
        self.state.store(EMPTY, Ordering::Release);
    }

    /// The state now.
    #[inline]
    pub(crate) fn state(&self) -> SlotState {
        match self.state.load(Ordering::Acquire) {
            LIVE | CHECKED => SlotState::Live,
            FREEING => SlotState::Freeing,
            FREED => SlotState::Freed,
            EMPTY => SlotState::Empty,
            _ => SlotState::Empty,
        }
    }

    /// A copy of the whole record.
    #[inline]
    pub(crate) fn view(&self) -> SlotView {
        let state = self.state();
        SlotView {
            state,
            pointer: self.pointer.load(Ordering::Relaxed),
            size: self.size.load(Ordering::Relaxed),
            align: 1usize.checked_shl(u32::from(self.align_log2.load(Ordering::Relaxed))).unwrap_or(1),
            sealed: self.seals.load(Ordering::Relaxed) != 0,
            allocated: Act {
                trace: self.alloc_trace.load(Ordering::Relaxed),
                thread: self.alloc_thread.load(Ordering::Relaxed),
                ms: self.alloc_ms.load(Ordering::Relaxed),
            },
            freed: Act {
                trace: self.free_trace.load(Ordering::Relaxed),
                thread: self.free_thread.load(Ordering::Relaxed),
                ms: self.free_ms.load(Ordering::Relaxed),
            },
        }
    }
}
