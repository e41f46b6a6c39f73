//! The records of blocks: those of dead ones, how many are kept, and how the oldest are dropped (the caller holds the lock).

use core::sync::atomic::Ordering;

use fencepost_sys::{Memory, Range};

use super::{Heap, HeapSetup, RECORDS_BYTES, SPAN_OVERHEAD};
use crate::geometry::SLOTS_STRIDE;
use crate::slot::{Act, LargeSlot, Linked, Slot, SlotView};
use crate::span::{Span, Use};

impl Heap {
    /// The tables of the blocks' records.
    pub(crate) fn record_tables(&self) -> [Range; 3] {
        [self.slots.range(), self.larges.range(), self.linked.range()]
    }

    /// The record of a slot; for the head of a large block's run and slot 0, that block's.
    #[inline]
    pub(crate) fn slot(&self, span: usize, slot: usize) -> Option<&'static Slot> {
        if slot >= SLOTS_STRIDE {
            return None;
        }
        if slot == 0 && self.span(span)?.usage() == Use::Large {
            return self.large_slot(span).map(|large| &large.slot);
        }
        self.small_slot(span, slot)
    }

    /// The record of a slot of a span of small ones; `slot` is less than [`SLOTS_STRIDE`].
    #[inline(always)]
    pub(crate) fn small_slot(&self, span: usize, slot: usize) -> Option<&'static Slot> {
        if span >= usize::MAX / SLOTS_STRIDE {
            return None;
        }
        // SAFETY: the region holds a table of `Slot` only, which is made of atomics and valid when zeroed.
        unsafe { self.slots.get::<Slot>(span.wrapping_mul(SLOTS_STRIDE).wrapping_add(slot)) }
    }

    /// The record of a large block, by the head of its run.
    pub(super) fn large_slot(&self, span: usize) -> Option<&'static LargeSlot> {
        // SAFETY: the region holds a table of `LargeSlot` only, which is made of atomics and valid when zeroed.
        unsafe { self.larges.get::<LargeSlot>(span) }
    }

    /// The same for any record, if it is one.
    fn as_large(&self, slot: &Slot) -> Option<&'static LargeSlot> {
        let table = self.larges.range();
        let address = core::ptr::from_ref(slot) as usize;
        table.contains(address).then(|| self.large_slot(offset_in::<LargeSlot>(table, address)))?
    }

    /// What lists and searches keep of a block, by its number.
    pub(crate) fn linked(&self, number: usize) -> Option<&'static Linked> {
        // SAFETY: the region holds a table of `Linked` only, which is made of atomics and valid when zeroed.
        unsafe { self.linked.get::<Linked>(number) }
    }

    /// A copy of a record. Takes no lock.
    pub(crate) fn view(&self, slot: &Slot) -> SlotView {
        match self.as_large(slot) {
            Some(large) => large.view(),
            None => {
                let address = core::ptr::from_ref(slot) as usize;
                let index = offset_in::<Slot>(self.slots.range(), address) / SLOTS_STRIDE;
                slot.view(self.run_range(index, 1).start)
            }
        }
    }

    /// Makes an empty slot hold a block. The caller owns the slot.
    pub(crate) fn birth(&self, slot: &Slot, pointer: usize, size: usize, align: usize, act: Act) {
        match self.as_large(slot) {
            Some(large) => large.birth(pointer, size, align, act),
            None => slot.birth(pointer, size, align, act),
        }
    }

    /// Drops the records of the oldest dead runs past what is kept.
    pub(super) fn forget_oldest<M: Memory>(&self, memory: &M, setup: &HeapSetup) {
        while self.kept_spans.load(Ordering::Relaxed) > setup.kept_max {
            let remembered = (self.remembered.load(Ordering::Relaxed) as usize).checked_sub(1);
            let Some((index, span)) = remembered.and_then(|index| Some((index, self.span(index)?))) else {
                return;
            };
            self.remembered.store(span.next.load(Ordering::Relaxed), Ordering::Relaxed);
            // What was left of a run when its front was used again has no records any more.
            if span.forgotten.swap(1, Ordering::AcqRel) == 0 {
                self.kept_spans.fetch_sub(Self::records_of(span), Ordering::Relaxed);
                self.drop_records(memory, index);
            }
        }
    }

    /// In how many spans a run has records of small slots. The one of a large block takes next to nothing.
    pub(super) fn records_of(span: &Span) -> usize {
        usize::from(span.usage() != Use::Large)
    }

    /// Makes the records of a dead run's slots say "never handed out", and gives their memory back.
    pub(super) fn drop_records<M: Memory>(&self, memory: &M, index: usize) {
        if self.span(index).is_some_and(|span| span.usage() == Use::Large) {
            if let Some(slot) = self.slot(index, 0) {
                slot.clear();
            }
            return;
        }
        // Where a page is larger than a span's records, it goes with the last of the spans that share it.
        let sharing = memory.page_size().checked_div(RECORDS_BYTES).unwrap_or(1).max(1);
        let first = index.wrapping_sub(index.checked_rem(sharing).unwrap_or(0));
        let mut others = (first..first.wrapping_add(sharing)).filter(|other| *other != index);
        let records = Range {
            start: self.slots.range().start.wrapping_add(first.wrapping_mul(RECORDS_BYTES)),
            len: sharing.wrapping_mul(RECORDS_BYTES),
        };
        // SAFETY: these are records in our own table, on pages of their own, of dead runs that nobody uses before their
        // spans are reset, for which the lock is needed.
        if !others.all(|other| self.has_no_records(other)) || unsafe { memory.discard(records) }.is_err() {
            for slot in (0..SLOTS_STRIDE).filter_map(|slot| self.slot(index, slot)) {
                slot.clear();
            }
        }
        self.overhead.fetch_sub(SPAN_OVERHEAD, Ordering::Relaxed);
    }

    /// Whether nothing is kept in the records of a span's small slots, and nothing will be before it is taken anew.
    fn has_no_records(&self, index: usize) -> bool {
        self.span(index).is_some_and(|span| {
            span.forgotten.load(Ordering::Acquire) != 0 || span.back.load(Ordering::Acquire) != 0
        })
    }

    /// Calls `each` with every record of a block that was handed out and is known: how its span is used, the span's
    /// number, and its own within it. Takes no lock.
    pub(crate) fn each_record(&self, mut each: impl FnMut(&'static Slot, Use, usize, usize)) {
        for index in 0..self.spans_used() {
            let Some(span) = self.span(index) else { break };
            if span.back.load(Ordering::Acquire) != 0 || span.forgotten.load(Ordering::Acquire) != 0 {
                continue;
            }
            let usage = span.usage();
            let slots = match usage {
                Use::Unused => continue,
                Use::Large => 1,
                Use::Small(_) => span.used.load(Ordering::Acquire) as usize,
            };
            for number in 0..slots {
                if let Some(slot) = self.slot(index, number) {
                    each(slot, usage, index, number);
                }
            }
        }
    }
}

/// The place of an address in a table.
fn offset_in<T>(table: Range, address: usize) -> usize {
    address.wrapping_sub(table.start).checked_div(size_of::<T>()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use fencepost_sys::sim::{Sim, SimOptions};

    use super::*;
    use crate::engine::Engine;
    use crate::geometry::{Geometry, SPAN_BYTES};
    use crate::slot::SlotState;
    use crate::span::Zone;

    const KEPT: usize = 2;

    /// What is left in a slot's record: cleared ones keep the number of a stack, and memory given back does not.
    fn left(heap: &Heap, span: usize) -> (SlotState, u32) {
        let view = heap.view(heap.slot(span, 3).expect("a record"));
        (view.state, view.allocated.trace)
    }

    #[test]
    fn the_oldest_records_give_their_memory_back_whatever_the_page() {
        for page in [4096, 16384, 65536] {
            let (sim, heap) = (Sim::with(SimOptions { page_size: page, ..SimOptions::new() }), Heap::new());
            let engine = Engine::Mprotect;
            let geometry = Geometry::new(page);
            let (quarantine, holes_max) = (usize::MAX, usize::MAX);
            let setup = HeapSetup { engine, lazy: engine, geometry, quarantine, holes_max, kept_max: KEPT };
            heap.start(&sim, engine, 64 * SPAN_BYTES).expect("room");
            let take = |_| heap.take_small(&sim, &setup, 1, Zone::Lazy, 1).expect("a span");
            let spans: Vec<usize> = (0..16 + KEPT).map(take).collect();
            for span in &spans {
                let slot = heap.slot(*span, 3).expect("a record");
                let start = heap.run_range(*span, 1).start + 7 * page;
                slot.birth(start, 24, 8, Act { trace: 9, thread: 1, ms: 1 });
                assert_eq!(heap.view(slot).pointer, start, "{page}");
                assert!(slot.begin_free());
                slot.end_free();
                heap.bury(&sim, &setup, *span);
            }
            let (gone, kept) = spans.split_at(16);
            assert!(gone.iter().all(|span| left(&heap, *span) == (SlotState::Empty, 0)), "{page}");
            assert!(kept.iter().all(|span| left(&heap, *span) == (SlotState::Freed, 9)), "{page}");
            heap.release(&sim);
            sim.assert_no_violations();
        }
    }
}
