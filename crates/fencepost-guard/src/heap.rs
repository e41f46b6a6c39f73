//! The guarded heap: one reservation cut into spans, and the tables that describe them.
//!
//! Taking a run of spans and giving it up are slow paths under one lock; finding what an address belongs to takes
//! none and may run in the fault handler. Addresses are handed out from the start of the reservation to its end and
//! only then, or once the quarantine is full, used again, oldest first.
//!
//! Invariants:
//! - the heap never holds more mappings for dead runs than `holes_max` allows: a run that dies alone keeps its
//!   closed pages; it is retired later, when a neighbour is;
//! - the records of freed blocks are kept for the youngest dead runs only (`kept_max`); an address in an older one
//!   is still known to be freed, and says that its record is gone, never a wrong stack.

mod chunks;
mod extent;
mod quarantine;
mod records;

use fencepost_record::Unguarded;
use fencepost_sys::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use fencepost_sys::{Memory, Threads, VmResult};

use crate::engine::{Closed, Engine};
use crate::geometry::{Geometry, Place, SLOTS_STRIDE, SMALL_PAGES, SPAN_BYTES};
use crate::lock::{Held, Lock};
use crate::region::Region;
use crate::slot::{LargeSlot, Linked, Slot};
use crate::span::{Life, Span, Use, Zone};
use chunks::Chunks;

/// Spans opened at once when the heap grows: 64 MiB of addresses.
const EXTEND_SPANS: usize = 32;
/// The smallest heap that is worth having, in spans.
const SPANS_MIN: usize = 16;
/// Dead runs looked at for one that is long enough.
const REUSE_LOOKS: usize = 64;
/// And those of other kinds that are passed over meanwhile.
const REUSE_STEPS: usize = 4096;
/// Bytes of the tables and of page table that a span costs while it is known.
pub(crate) const SPAN_OVERHEAD: u64 = (RECORDS_BYTES + 4096) as u64;
/// Bytes of a span's records.
const RECORDS_BYTES: usize = SLOTS_STRIDE * size_of::<Slot>();

/// What does not change after the start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeapSetup {
    pub(crate) engine: Engine,
    /// What serves memory that engine move does not: large blocks, and all of it where userfaultfd is lost.
    pub(crate) lazy: Engine,
    pub(crate) geometry: Geometry,
    /// Dead address space that stays dead, in spans.
    pub(crate) quarantine: usize,
    /// Inaccessible mappings that dead runs may cost.
    pub(crate) holes_max: usize,
    /// Dead spans whose records are kept.
    pub(crate) kept_max: usize,
}

impl HeapSetup {
    /// What makes pages trap in a zone.
    #[inline]
    pub(crate) const fn engine_in(&self, zone: Zone) -> Engine {
        match zone {
            Zone::Missing => Engine::Move,
            Zone::Lazy => self.lazy,
        }
    }
}

/// The guarded heap.
pub(crate) struct Heap {
    range: Region,
    /// The first address of the first span, and the bytes of all of them: asked for several times in each call.
    first: AtomicUsize,
    bytes: AtomicUsize,
    spans: Region,
    slots: Region,
    /// The records of large blocks: one a span, so that they lie close together.
    larges: Region,
    /// What lists and searches keep of each block.
    linked: Region,
    lock: Lock,
    /// Spans ever handed out; those below it are described in the table.
    frontier: AtomicUsize,
    chunks: Chunks,
    /// Oldest and youngest dead run, and the oldest whose records are kept: number plus 1.
    oldest: AtomicU32,
    youngest: AtomicU32,
    remembered: AtomicU32,
    /// Spans that chunks may have, where the program limits what may be opened.
    fence: AtomicUsize,
    /// For each zone: how many dead spans there were when none was found for an early end of the quarantine, and for how
    /// long a run.
    barren: [[AtomicUsize; 2]; 2],
    dead_spans: AtomicUsize,
    kept_spans: AtomicUsize,
    holes: AtomicUsize,
    /// Runs whose addresses somebody else has taken.
    lost: AtomicUsize,
    /// Spans whose thread has ended, by data pages: number plus 1.
    orphans: [AtomicU32; SMALL_PAGES + 1],
    /// Bytes that tables and page tables hold.
    pub(crate) overhead: AtomicU64,
    /// Calls that the kernel refused and that another way was found for.
    pub(crate) fallbacks: AtomicU64,
    /// Whether a closed page ever kept content that a step left in it.
    kept: AtomicU32,
}

/// What an address belongs to.
pub(crate) enum Found {
    /// Not in the heap.
    Outside,
    /// In the heap, where nothing was ever handed out.
    Unused,
    /// In a run that died long ago.
    Forgotten,
    /// In a span of small slots.
    Small { index: usize, pages: usize, place: Place },
    /// In the run of a large block.
    Large { index: usize },
}

impl Heap {
    pub(crate) const fn new() -> Self {
        Heap {
            range: Region::new(),
            first: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            spans: Region::new(),
            slots: Region::new(),
            larges: Region::new(),
            linked: Region::new(),
            lock: Lock::new(),
            frontier: AtomicUsize::new(0),
            chunks: Chunks::new(),
            oldest: AtomicU32::new(0),
            youngest: AtomicU32::new(0),
            remembered: AtomicU32::new(0),
            fence: AtomicUsize::new(usize::MAX),
            barren: [const { [const { AtomicUsize::new(usize::MAX) }; 2] }; 2],
            dead_spans: AtomicUsize::new(0),
            kept_spans: AtomicUsize::new(0),
            holes: AtomicUsize::new(0),
            lost: AtomicUsize::new(0),
            orphans: [const { AtomicU32::new(0) }; SMALL_PAGES + 1],
            overhead: AtomicU64::new(0),
            fallbacks: AtomicU64::new(0),
            kept: AtomicU32::new(0),
        }
    }

    /// Reserves `bytes` for the heap, and its tables.
    pub(crate) fn start<M: Memory>(&self, memory: &M, engine: Engine, bytes: usize) -> VmResult {
        let spans = (bytes / SPAN_BYTES).clamp(SPANS_MIN, u32::MAX as usize / 2).saturating_add(1);
        // One span more than asked for, so that the heap can start at a multiple of the span.
        self.range.reserve(memory, spans.saturating_mul(SPAN_BYTES))?;
        self.spans.reserve(memory, spans.saturating_mul(size_of::<Span>()))?;
        self.slots.reserve(memory, spans.saturating_mul(SLOTS_STRIDE).saturating_mul(size_of::<Slot>()))?;
        self.larges.reserve(memory, spans.saturating_mul(size_of::<LargeSlot>()))?;
        self.linked
            .reserve(memory, spans.saturating_mul(SLOTS_STRIDE).saturating_mul(size_of::<Linked>()))?;
        self.measure();
        // SAFETY: the range was reserved just now and nobody else knows it.
        unsafe { engine.adopt(memory, self.range.range()) };
        Ok(())
    }

    /// Gives everything back; only while no block was ever handed out.
    pub(crate) fn release<M: Memory>(&self, memory: &M) {
        self.range.release(memory);
        self.bytes.store(0, Ordering::Relaxed);
        self.spans.release(memory);
        self.slots.release(memory);
        self.larges.release(memory);
        self.linked.release(memory);
    }

    /// Spans ever handed out.
    #[inline(always)]
    pub(crate) fn spans_used(&self) -> usize {
        self.frontier.load(Ordering::Acquire)
    }

    /// Bytes of freed address space that stays dead.
    pub(crate) fn quarantined_bytes(&self) -> u64 {
        (self.dead_spans.load(Ordering::Relaxed) as u64).wrapping_mul(SPAN_BYTES as u64)
    }

    #[inline(always)]
    pub(crate) fn span(&self, index: usize) -> Option<&'static Span> {
        // SAFETY: the region holds a table of `Span` only, which is made of atomics and valid when zeroed.
        unsafe { self.spans.get::<Span>(index) }
    }

    /// Notes that somebody else has taken addresses of a run: nothing of it is touched again.
    pub(crate) fn lose_run(&self, index: usize) {
        self.set_run_life(index, Life::Lost);
        self.lost.fetch_add(1, Ordering::Relaxed);
        self.fallbacks.fetch_add(1, Ordering::Relaxed);
    }

    /// What an address belongs to. Takes no lock.
    #[inline]
    pub(crate) fn find(&self, geometry: &Geometry, address: usize) -> Found {
        let addresses = self.addresses();
        if !self.owns(address) {
            return Found::Outside;
        }
        let offset = address.wrapping_sub(addresses.start);
        let index = offset / SPAN_BYTES;
        if index >= self.spans_used() {
            return Found::Unused;
        }
        let Some(head) = self.head_of(index) else { return Found::Unused };
        let Some(span) = self.span(head) else { return Found::Unused };
        if span.forgotten.load(Ordering::Acquire) != 0 {
            return Found::Forgotten;
        }
        match span.usage() {
            Use::Unused => Found::Unused,
            Use::Large => Found::Large { index: head },
            Use::Small(pages) => {
                let place = geometry.locate(pages, offset & SPAN_BYTES.wrapping_sub(1));
                Found::Small { index: head, pages, place }
            }
        }
    }

    /// The head of the run that a span belongs to.
    #[inline]
    pub(crate) fn head_of(&self, index: usize) -> Option<usize> {
        index.checked_sub(self.span(index)?.back.load(Ordering::Acquire) as usize)
    }

    /// A span with free small slots, closed but for those that are ready.
    pub(crate) fn take_small<P: Memory + Threads>(
        &self,
        platform: &P,
        setup: &HeapSetup,
        pages: usize,
        zone: Zone,
        thread: u32,
    ) -> Result<usize, Unguarded> {
        let held = self.lock.hold(platform);
        if let Some(index) = self.adopt(pages) {
            return Ok(index);
        }
        let index = self.take_run(platform, setup, 1, zone, thread, &held)?;
        drop(held);
        let range = self.run_range(index, 1);
        // SAFETY: the run was taken just now: it holds no block.
        match unsafe { setup.engine_in(zone).prepare_span(platform, range) } {
            Ok(closed) => {
                self.note(closed);
                let unmarked = u32::from(closed == Closed::Fallback);
                self.span(index).ok_or(Unguarded::Disabled)?.unmarked.store(unmarked, Ordering::Relaxed);
            }
            Err(_) => {
                self.bury(platform, setup, index);
                return Err(Unguarded::Kernel);
            }
        }
        self.span(index).ok_or(Unguarded::Disabled)?.set_usage(Use::Small(pages));
        self.overhead.fetch_add(SPAN_OVERHEAD, Ordering::Relaxed);
        Ok(index)
    }

    /// A run for one large block; its pages are not closed yet.
    pub(crate) fn take_large<P: Memory + Threads>(
        &self,
        platform: &P,
        setup: &HeapSetup,
        spans: usize,
    ) -> Result<usize, Unguarded> {
        let held = self.lock.hold(platform);
        let index = self.take_run(platform, setup, spans, Zone::Lazy, 0, &held)?;
        self.span(index).ok_or(Unguarded::Disabled)?.set_usage(Use::Large);
        Ok(index)
    }

    /// Keeps a span whose thread has ended for the next thread that needs one of its kind.
    pub(crate) fn orphan<P: Threads>(&self, platform: &P, index: usize, pages: usize) {
        let held = self.lock.hold(platform);
        if let (Some(list), Some(span)) = (self.orphans.get(pages), self.span(index)) {
            span.next.store(list.load(Ordering::Relaxed), Ordering::Relaxed);
            list.store(link(index), Ordering::Relaxed);
        }
        drop(held);
    }

    fn adopt(&self, pages: usize) -> Option<usize> {
        let list = self.orphans.get(pages)?;
        let index = (list.load(Ordering::Relaxed) as usize).checked_sub(1)?;
        let span = self.span(index)?;
        list.store(span.next.swap(0, Ordering::Relaxed), Ordering::Relaxed);
        Some(index)
    }

    fn take_run<P: Memory + Threads>(
        &self,
        platform: &P,
        setup: &HeapSetup,
        spans: usize,
        zone: Zone,
        thread: u32,
        held: &Held<'_, P>,
    ) -> Result<usize, Unguarded> {
        let full = self.dead_spans.load(Ordering::Relaxed) > setup.quarantine;
        let reused = if full { self.reuse(platform, setup, spans, zone, held) } else { None };
        let index = match reused {
            Some(index) => index,
            None => match self.advance(platform, setup, spans, zone, thread) {
                Ok(index) => index,
                Err(why) => self.reuse_early(platform, setup, spans, zone, held).ok_or(why)?,
            },
        };
        for offset in 0..spans {
            let span = self.span(index.wrapping_add(offset)).ok_or(Unguarded::Disabled)?;
            span.reset();
            span.back.store(u32::try_from(offset).unwrap_or(0), Ordering::Release);
        }
        let head = self.span(index).ok_or(Unguarded::Disabled)?;
        head.run.store(u32::try_from(spans).unwrap_or(1), Ordering::Relaxed);
        Ok(index)
    }

    /// A run whose only block was freed, or every block of a full span: it joins the quarantine.
    pub(crate) fn bury<P: Memory + Threads>(&self, platform: &P, setup: &HeapSetup, index: usize) {
        let held = self.lock.hold(platform);
        self.lay_to_rest(platform, setup, index, &held);
    }

    fn lay_to_rest<P: Memory + Threads>(
        &self,
        platform: &P,
        setup: &HeapSetup,
        index: usize,
        _held: &Held<'_, P>,
    ) {
        let Some(span) = self.span(index) else { return };
        let spans = span.run.load(Ordering::Relaxed) as usize;
        self.set_run_life(index, Life::Dead);
        span.next.store(0, Ordering::Relaxed);
        let last = (self.youngest.swap(link(index), Ordering::Relaxed) as usize).checked_sub(1);
        match last.and_then(|last| self.span(last)) {
            Some(last) => last.next.store(link(index), Ordering::Relaxed),
            None => self.oldest.store(link(index), Ordering::Relaxed),
        }
        if self.remembered.load(Ordering::Relaxed) == 0 {
            self.remembered.store(link(index), Ordering::Relaxed);
        }
        self.dead_spans.fetch_add(spans, Ordering::Relaxed);
        self.kept_spans.fetch_add(Self::records_of(span), Ordering::Relaxed);
        self.retire_with_neighbours(platform, setup, index);
        self.forget_oldest(platform, setup);
    }

    fn set_run_life(&self, index: usize, life: Life) {
        let spans = self.span(index).map_or(0, |span| span.run.load(Ordering::Relaxed) as usize);
        for offset in 0..spans {
            if let Some(span) = self.span(index.wrapping_add(offset)) {
                span.set_life(life);
            }
        }
    }

    /// Runs `work` while no chunk can come or go.
    pub(crate) fn with_lock<P: Threads, R>(&self, platform: &P, work: impl FnOnce() -> R) -> R {
        let held = self.lock.hold(platform);
        let result = work();
        drop(held);
        result
    }

    /// Before a fork, and on both sides after it.
    pub(crate) fn lock_for_fork(&self) -> &Lock {
        &self.lock
    }
}

/// A span's number as a list holds it; 0 ends a list.
fn link(index: usize) -> u32 {
    u32::try_from(index.wrapping_add(1)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fencepost_sys::sim::Sim;

    #[test]
    fn the_heap_never_reaches_past_its_reservation() {
        for bytes in [SPAN_BYTES * 17, SPAN_BYTES * 1000 + 12345, 5_000_000_001] {
            let (sim, heap) = (Sim::new(), Heap::new());
            heap.start(&sim, Engine::Marker, bytes).expect("room");
            let (addresses, reserved) = (heap.addresses(), heap.range.range());
            assert!(addresses.start >= reserved.start && addresses.end() <= reserved.end(), "{bytes}");
            assert!(addresses.len >= bytes - SPAN_BYTES, "{bytes}");
            let spans = addresses.len / SPAN_BYTES;
            assert!(heap.spans.range().len >= spans * size_of::<Span>(), "{bytes}");
            assert!(heap.slots.range().len >= spans * SLOTS_STRIDE * size_of::<Slot>(), "{bytes}");
        }
    }
}
