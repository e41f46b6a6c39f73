//! The records of blocks: those of dead ones, how many are kept, and how the oldest are dropped (the caller holds the lock).

use core::sync::atomic::Ordering;

use fencepost_sys::{Memory, Range};

use super::{Heap, HeapSetup, SPAN_OVERHEAD};
use crate::geometry::{SLOTS_STRIDE, align_up};
use crate::slot::Slot;
use crate::span::{Span, Use};

impl Heap {
    /// The tables of the blocks' records.
    pub(crate) fn record_tables(&self) -> [Range; 2] {
        [self.slots.range(), self.larges.range()]
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
        let bytes = SLOTS_STRIDE.wrapping_mul(size_of::<Slot>());
        let start = self.slots.range().start.wrapping_add(index.wrapping_mul(bytes));
        let records = Range { start, len: bytes };
        let page = memory.page_size();
        let whole = align_up(start, page) == Some(start) && align_up(bytes, page) == Some(bytes);
        // SAFETY: these are the records of one dead run in our own table, on pages of their own.
        if !whole || unsafe { memory.discard(records) }.is_err() {
            // Pages larger than a span's records, or a refused call: one by one.
            for slot in (0..SLOTS_STRIDE).filter_map(|slot| self.slot(index, slot)) {
                slot.clear();
            }
        }
        self.overhead.fetch_sub(SPAN_OVERHEAD, Ordering::Relaxed);
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
