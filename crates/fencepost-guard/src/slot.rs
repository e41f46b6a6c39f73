//! The record of one block, kept apart from the program's memory and readable from the fault handler.
//!
//! All fields are atomic: the handler of any thread may read a record while its owner writes it. `state` is the
//! gate: whoever wins the change from live to freeing owns the other fields until it says freed, and a zeroed
//! record is a valid one that says "never handed out".
//!
//! A record outlives its block by far, and a program has many more dead blocks than live ones. So it is half a cache line
//! long: a block is put down by its distance from the start of its span, which a record's own place tells
//! ([`crate::heap::Heap::view`]), and what lists and searches keep of a block is a table of its own ([`Linked`]).

use fencepost_sys::Range;
use fencepost_sys::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use crate::family::Family;
use crate::geometry::{SLOTS_STRIDE, SPAN_BYTES};

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

const EMPTY: u8 = 0;
const LIVE: u8 = 1;
const FREEING: u8 = 2;
const FREED: u8 = 3;
/// Alive, and a check reads its redzones: a free waits.
const CHECKED: u8 = 4;

/// Bits of an address within a span, and of a size that a small slot has room for.
const WITHIN_BITS: u32 = SPAN_BYTES.trailing_zeros();
const WITHIN: u64 = SPAN_BYTES as u64 - 1;
/// Bits of a thread's number.
pub(crate) const THREAD_BITS: u32 = u64::BITS - 2 * WITHIN_BITS;

/// The lower bits of a record's kind are the block's alignment, as a power of two; the upper ones its family.
const ALIGN_BITS: u32 = 5;
const ALIGN: u8 = (1 << ALIGN_BITS) - 1;

/// The record of one block.
#[repr(C, align(32))]
pub(crate) struct Slot {
    state: AtomicU8,
    /// Alignment, and which functions handed the block out.
    kind: AtomicU8,
    /// Seals that hold some part of the block.
    pub(crate) seals: AtomicU16,
    free_thread: AtomicU32,
    /// Where the block lies in its span, its size, and the thread that allocated it: see [`Lies`].
    place: AtomicU64,
    alloc_trace: AtomicU32,
    alloc_ms: AtomicU32,
    free_trace: AtomicU32,
    free_ms: AtomicU32,
}

const _: () = assert!(size_of::<Slot>() == 32, "half a cache line a block");

/// The record of a large block: its span is its own, and neither its address nor its size is short.
#[repr(C, align(64))]
pub(crate) struct LargeSlot {
    /// What it has in common with small ones; where the block lies stands below.
    pub(crate) slot: Slot,
    pointer: AtomicUsize,
    size: AtomicUsize,
    align_log2: AtomicU8,
}

/// What lists and searches keep of a block: only few programs ever use it, so that its table takes addresses and no memory.
#[repr(C)]
pub(crate) struct Linked {
    /// The next block in the list that this one is in, while it is in one: see [`crate::defer`] and [`crate::leaks`].
    pub(crate) next: AtomicU32,
    /// What a search for leaks has found out: see [`crate::leaks`].
    pub(crate) reached: AtomicU32,
}

/// A block's number, by which lists know it: its slot among those of all spans.
pub(crate) const fn number_of(span: usize, slot: usize) -> usize {
    span.wrapping_mul(SLOTS_STRIDE).wrapping_add(slot)
}

/// A stretch within a span, packed, with a thread's number.
#[derive(Clone, Copy)]
struct Lies(u64);

impl Lies {
    /// `len` is less than a span, and `thread` has at most [`THREAD_BITS`].
    #[inline(always)]
    const fn new(start: usize, len: usize, thread: u32) -> Lies {
        Lies((start as u64 & WITHIN) | (len as u64) << WITHIN_BITS | (thread as u64) << (2 * WITHIN_BITS))
    }

    #[inline(always)]
    const fn range(self, span_start: usize) -> Range {
        Range { start: span_start.wrapping_add((self.0 & WITHIN) as usize), len: self.len() }
    }

    #[inline(always)]
    const fn len(self) -> usize {
        (self.0 >> WITHIN_BITS & WITHIN) as usize
    }

    #[inline]
    const fn thread(self) -> u32 {
        (self.0 >> (2 * WITHIN_BITS)) as u32
    }
}

/// Who did something to a block, and when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Act {
    /// Number of the stack in the depot; 0 when it was not kept.
    pub(crate) trace: u32,
    /// Number of the thread in the thread table, of [`THREAD_BITS`]; 0 when it is not known.
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
    /// Makes an empty slot hold a block. The caller owns the slot. Of a large block, where it lies is said by
    /// [`LargeSlot::birth`].
    #[inline(always)]
    pub(crate) fn birth(&self, pointer: usize, size: usize, align: usize, act: Act) {
        self.place.store(Lies::new(pointer, size, act.thread).0, Ordering::Relaxed);
        self.kind.store(align.trailing_zeros().to_le_bytes()[0] & ALIGN, Ordering::Relaxed);
        self.seals.store(0, Ordering::Relaxed);
        self.alloc_trace.store(act.trace, Ordering::Relaxed);
        self.alloc_ms.store(act.ms, Ordering::Relaxed);
        self.free_trace.store(0, Ordering::Relaxed);
        // Release: whoever sees the block live sees what is above.
        self.state.store(LIVE, Ordering::Release);
    }

    /// Notes which part of a page that is ready for this empty slot does not hold the redzone pattern.
    #[inline(always)]
    pub(crate) fn set_stale(&self, range: Range) {
        self.place.store(Lies::new(range.start, range.len, 0).0, Ordering::Relaxed);
    }

    /// What [`Slot::set_stale`] noted, in the span that starts there; nothing in a slot that was never used. For its owner,
    /// before the slot's birth.
    #[inline(always)]
    pub(crate) fn stale(&self, span_start: usize) -> Range {
        Lies(self.place.load(Ordering::Relaxed)).range(span_start)
    }

    /// Notes which functions handed the block out. The caller has not given its address to anyone yet.
    #[inline(always)]
    pub(crate) fn set_family(&self, family: Family) {
        let align = self.kind.load(Ordering::Relaxed) & ALIGN;
        self.kind.store(align | (family as u8) << ALIGN_BITS, Ordering::Relaxed);
    }

    /// Which functions handed the block out.
    #[inline(always)]
    pub(crate) fn family(&self) -> Family {
        Family::of_number(self.kind.load(Ordering::Relaxed) >> ALIGN_BITS)
    }

    /// Size and alignment of the small block, if it is alive, begins here and no part of it is sealed.
    #[inline(always)]
    pub(crate) fn plain_block(&self, address: usize) -> Option<(usize, usize)> {
        let is_live = self.state.load(Ordering::Acquire) == LIVE;
        let lies = Lies(self.place.load(Ordering::Relaxed));
        let is_plain =
            is_live && (lies.0 ^ address as u64) & WITHIN == 0 && self.seals.load(Ordering::Acquire) == 0;
        if is_plain { Some((lies.len(), self.align())) } else { None }
    }

    #[inline]
    fn align(&self) -> usize {
        1usize.wrapping_shl(u32::from(self.kind.load(Ordering::Relaxed) & ALIGN))
    }

    /// Takes the right to free the block; false when it is not alive (any more). Waits out a check.
    #[inline(always)]
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
    #[inline(always)]
    pub(crate) fn note_free(&self, act: Act) {
        self.free_trace.store(act.trace, Ordering::Relaxed);
        self.free_thread.store(act.thread, Ordering::Relaxed);
        self.free_ms.store(act.ms, Ordering::Release);
    }

    /// Ends the free.
    #[inline(always)]
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

    /// A copy of the whole record, of a block in the span that starts there.
    #[inline]
    pub(crate) fn view(&self, span_start: usize) -> SlotView {
        let state = self.state();
        let lies = Lies(self.place.load(Ordering::Relaxed));
        let range = lies.range(span_start);
        SlotView {
            state,
            pointer: range.start,
            size: range.len,
            align: self.align(),
            sealed: self.seals.load(Ordering::Relaxed) != 0,
            allocated: Act {
                trace: self.alloc_trace.load(Ordering::Relaxed),
                thread: lies.thread(),
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

impl LargeSlot {
    /// Makes an empty slot hold a large block. The caller owns the slot.
    pub(crate) fn birth(&self, pointer: usize, size: usize, align: usize, act: Act) {
        self.pointer.store(pointer, Ordering::Relaxed);
        self.size.store(size, Ordering::Relaxed);
        self.align_log2.store(align.trailing_zeros().to_le_bytes()[0], Ordering::Relaxed);
        self.slot.birth(0, 0, 1, act);
    }

    /// A copy of the whole record.
    pub(crate) fn view(&self) -> SlotView {
        // The state comes first: who sees the block live sees where it lies.
        let view = self.slot.view(0);
        SlotView {
            pointer: self.pointer.load(Ordering::Relaxed),
            size: self.size.load(Ordering::Relaxed),
            align: 1usize.checked_shl(u32::from(self.align_log2.load(Ordering::Relaxed))).unwrap_or(1),
            ..view
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Geometry;

    const ACT: Act = Act { trace: u32::MAX, thread: (1 << THREAD_BITS) - 1, ms: u32::MAX - 1 };

    fn empty() -> Slot {
        // SAFETY: a record is made of atomic numbers, and valid when zeroed.
        unsafe { core::mem::zeroed() }
    }

    #[test]
    fn a_record_holds_every_small_block_of_every_page_size() {
        let span = 0x7000_0000_0000;
        for page in [4096, 16384, 65536] {
            let geometry = Geometry::new(page);
            for pages in 1..=geometry.small_pages_max() {
                let last = geometry.slot_data(pages, geometry.slots_per_span(pages) - 1);
                for (start, size) in [(last.start, last.len), (last.end(), 0), (last.end() - 1, 1), (page, 0)]
                {
                    let slot = empty();
                    slot.birth(span + start, size, page, ACT);
                    slot.set_family(Family::Any);
                    let view = slot.view(span);
                    assert_eq!((view.pointer, view.size, view.align), (span + start, size, page), "{pages}");
                    assert_eq!((view.state, view.allocated), (SlotState::Live, ACT));
                    assert_eq!(slot.family(), Family::Any);
                    assert_eq!(slot.plain_block(span + start), Some((size, page)));
                    assert_eq!(slot.plain_block(span + start + 1), None);
                }
            }
        }
    }

    #[test]
    fn the_life_of_a_record() {
        let (slot, span) = (empty(), 4 * SPAN_BYTES);
        assert_eq!((slot.state(), slot.stale(span).len), (SlotState::Empty, 0));
        let stale = Range { start: span + SPAN_BYTES - 5000, len: 300 };
        slot.set_stale(stale);
        assert_eq!((slot.state(), slot.stale(span)), (SlotState::Empty, stale));
        slot.birth(span + 4096, 24, 8, ACT);
        assert!(slot.begin_check() && !slot.begin_check());
        assert_eq!(
            (slot.state(), slot.plain_block(span + 4096)),
            (SlotState::Live, None),
            "a check is under way"
        );
        slot.end_check();
        assert!(slot.begin_free() && !slot.begin_free());
        assert_eq!(slot.view(span).state, SlotState::Freeing);
        let freed = Act { trace: 5, thread: 6, ms: 7 };
        slot.note_free(freed);
        slot.end_free();
        let view = slot.view(span);
        assert_eq!((view.state, view.allocated, view.freed), (SlotState::Freed, ACT, freed));
        assert_eq!((view.pointer, view.size, view.align), (span + 4096, 24, 8));
        slot.clear();
        assert_eq!((slot.state(), slot.stale(span).len), (SlotState::Empty, 0));
    }

    #[test]
    fn a_large_block_lies_anywhere_and_is_of_any_size() {
        // SAFETY: as in `empty`.
        let large: LargeSlot = unsafe { core::mem::zeroed() };
        large.birth(0x7fff_ffe0_0000, isize::MAX as usize, 1 << 46, ACT);
        let view = large.view();
        assert_eq!((view.pointer, view.size, view.align), (0x7fff_ffe0_0000, isize::MAX as usize, 1 << 46));
        assert_eq!((view.state, view.allocated), (SlotState::Live, ACT));
    }
}
