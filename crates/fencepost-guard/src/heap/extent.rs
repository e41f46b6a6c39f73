//! Where the heap's addresses are, and what lies at them.

use core::sync::atomic::Ordering;

use fencepost_sys::Range;

use super::Heap;
use crate::geometry::{SLOTS_STRIDE, SPAN_BYTES, align_up};
use crate::region::Region;
use crate::slot::Slot;
use crate::span::{Life, Span};

impl Heap {
    /// The memory that it keeps: blocks', and the tables about them.
    pub(crate) fn regions(&self) -> [&Region; 5] {
        [&self.range, &self.spans, &self.slots, &self.larges, &self.linked]
    }

    /// Bytes of the heap that were opened, for blocks that have been or will be.
    pub(crate) fn opened_bytes(&self) -> u64 {
        (self.chunks.claimed() as u64).saturating_mul(SPAN_BYTES as u64)
    }

    /// From here as many bytes more may be opened; `None`: as many as there are.
    pub(crate) fn fence(&self, more: Option<u64>) {
        let spans = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX) / SPAN_BYTES;
        let fence = more.map_or(usize::MAX, |bytes| self.chunks.claimed().saturating_add(spans(bytes)));
        self.fence.store(fence, Ordering::Relaxed);
    }

    /// Works out where the spans lie in the reservation: once, since it is asked for several times in each call.
    pub(super) fn measure(&self) {
        let range = self.range.range();
        let first = align_up(range.start, SPAN_BYTES).unwrap_or(0);
        self.first.store(first, Ordering::Relaxed);
        let whole = range.end().saturating_sub(first) / SPAN_BYTES;
        self.bytes.store(whole.wrapping_mul(SPAN_BYTES), Ordering::Relaxed);
    }

    /// First address of the first span.
    #[inline(always)]
    pub(super) fn base(&self) -> usize {
        self.first.load(Ordering::Relaxed)
    }

    /// Whole spans in the reservation. (The tables may have room for a few more: they end on a page.)
    pub(super) fn spans_max(&self) -> usize {
        self.bytes.load(Ordering::Relaxed) / SPAN_BYTES
    }

    /// All addresses that blocks can have.
    #[inline(always)]
    pub(crate) fn addresses(&self) -> Range {
        Range { start: self.base(), len: self.bytes.load(Ordering::Relaxed) }
    }

    /// A span that was ever handed out, or lies below such a one.
    #[inline(always)]
    pub(crate) fn known_span(&self, index: usize) -> Option<&'static Span> {
        if index >= self.spans_used() {
            return None;
        }
        // SAFETY: as for `span`; the tables were made long enough before the frontier passed the span (`Heap::advance`).
        Some(unsafe { self.spans.at::<Span>(index) })
    }

    /// The record of a slot of a span of small ones.
    ///
    /// # Safety
    /// [`Heap::known_span`] must know the span, and `slot` be less than [`SLOTS_STRIDE`].
    #[inline(always)]
    pub(crate) unsafe fn known_slot(&self, span: usize, slot: usize) -> &'static Slot {
        // SAFETY: as for `small_slot`; the tables are long enough by the caller's word, as above.
        unsafe { self.slots.at::<Slot>(span.wrapping_mul(SLOTS_STRIDE).wrapping_add(slot)) }
    }

    /// Whether an address is one that blocks can have. Takes no lock.
    #[inline(always)]
    pub(crate) fn owns(&self, address: usize) -> bool {
        self.addresses().contains(address)
            && (self.lost.load(Ordering::Relaxed) == 0 || !self.is_lost(address))
    }

    #[cold]
    fn is_lost(&self, address: usize) -> bool {
        let index = address.wrapping_sub(self.addresses().start) / SPAN_BYTES;
        self.span(index).is_some_and(|span| span.life() == Life::Lost)
    }

    /// The addresses of a run.
    #[inline(always)]
    pub(crate) fn run_range(&self, index: usize, spans: usize) -> Range {
        Range {
            start: self.base().wrapping_add(index.wrapping_mul(SPAN_BYTES)),
            len: spans.wrapping_mul(SPAN_BYTES),
        }
    }
}
