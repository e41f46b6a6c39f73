//! The heap's dead: retiring runs where that is cheap, and using the oldest again. The caller holds the lock.

use core::sync::atomic::Ordering;

use fencepost_sys::{Memory, Threads};

use super::{Heap, HeapSetup, REUSE_LOOKS, REUSE_STEPS, link};
use crate::engine::Closed;
use crate::geometry::SPAN_BYTES;
use crate::lock::Held;
use crate::span::{Life, Span, Use, Zone};

impl Heap {
    /// Notes a call for which the next engine's way was taken.
    pub(crate) fn note(&self, closed: Closed) {
        if closed == Closed::Fallback {
            self.fallbacks.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether an address lies in memory that was opened for the engine of lazy memory.
    pub(crate) fn is_opened(&self, address: usize) -> bool {
        let index = address.wrapping_sub(self.addresses().start) / SPAN_BYTES;
        self.chunks.stretches(Zone::Lazy).any(|(start, end)| (start..end).contains(&index))
    }

    /// Notes that a closed page keeps content.
    pub(crate) fn note_kept(&self) {
        self.kept.store(1, Ordering::Relaxed);
    }

    /// Retires a dead run if the mappings allow, and then those dead neighbours that now join it for nothing.
    pub(super) fn retire_with_neighbours<M: Memory>(&self, memory: &M, setup: &HeapSetup, index: usize) {
        if !self.retire(memory, setup, index) {
            return;
        }
        let mut left = index;
        while let Some(next) = left.checked_sub(1).and_then(|before| self.dead_run_at(before)) {
            if !self.retire(memory, setup, next) {
                break;
            }
            left = next;
        }
        let mut right = self.after(index);
        while let Some(next) = self.dead_run_at(right) {
            if !self.retire(memory, setup, next) {
                break;
            }
            right = self.after(next);
        }
    }

    /// Replaces a dead run by an inaccessible mapping, if it joins one or a new one may be made.
    fn retire<M: Memory>(&self, memory: &M, setup: &HeapSetup, index: usize) -> bool {
        let Some(span) = self.span(index) else { return false };
        if span.zone() == Zone::Missing {
            // Its pages are gone already; this gives the page table back, costs no mapping, and needs no neighbour.
            let run = self.run_range(index, 1);
            // SAFETY: every block of the run has been freed, and its memory is in the quarantine.
            let dropped = unsafe { memory.drop_pages(run) };
            // What stays behind is a page of page table.
            let _ = dropped;
            return false;
        }
        let joins = self.retired_neighbours(index);
        let holes = self.holes.load(Ordering::Relaxed);
        if span.shut.load(Ordering::Relaxed) == 0 {
            if joins == 0 && holes >= setup.holes_max {
                return false;
            }
            let run = self.run_range(index, span.run.load(Ordering::Relaxed) as usize);
            // SAFETY: every block of the run has been freed, and its memory is in the quarantine.
            if unsafe { setup.lazy.retire(memory, run) }.is_err() {
                return false;
            }
        }
        self.set_run_life(index, Life::Retired);
        self.holes.store(holes.saturating_add(1).saturating_sub(joins), Ordering::Relaxed);
        true
    }

    fn retired_neighbours(&self, index: usize) -> usize {
        let retired = |index: usize| {
            index < self.spans_used() && self.span(index).is_some_and(|span| span.life() == Life::Retired)
        };
        let before = index.checked_sub(1).is_some_and(retired);
        usize::from(before).wrapping_add(usize::from(retired(self.after(index))))
    }

    /// The dead, not retired run that a span belongs to.
    fn dead_run_at(&self, index: usize) -> Option<usize> {
        let dead = |span: &Span| span.life() == Life::Dead && span.zone() == Zone::Lazy;
        if index >= self.spans_used() || !dead(self.span(index)?) {
            return None;
        }
        self.head_of(index)
    }

    /// The span that follows a run.
    fn after(&self, index: usize) -> usize {
        index.saturating_add(self.span(index).map_or(1, |span| span.run.load(Ordering::Relaxed) as usize))
    }

    /// Takes the oldest dead run that is long enough, or the front of it.
    pub(super) fn reuse<P: Memory + Threads>(
        &self,
        platform: &P,
        setup: &HeapSetup,
        spans: usize,
        zone: Zone,
        _held: &Held<'_, P>,
    ) -> Option<usize> {
        let mut before: Option<&Span> = None;
        let mut at = self.oldest.load(Ordering::Relaxed);
        let mut looks = REUSE_LOOKS;
        for _ in 0..REUSE_STEPS {
            let index = (at as usize).checked_sub(1)?;
            let span = self.span(index)?;
            let run = span.run.load(Ordering::Relaxed) as usize;
            if span.zone() == zone {
                looks = looks.checked_sub(1)?;
            }
            if run >= spans && span.zone() == zone {
                let retired = span.life() == Life::Retired;
                let range = self.run_range(index, spans);
                // SAFETY: the run is the oldest dead one that fits: its quarantine ends here.
                unsafe { setup.engine_in(zone).reuse(platform, range, retired) }.ok()?;
                if self.kept.load(Ordering::Relaxed) != 0 {
                    // SAFETY: as above.
                    unsafe { setup.engine_in(zone).forget(platform, range) }.ok()?;
                }
                self.unlink(platform, setup, index, spans, before);
                return Some(index);
            }
            before = Some(span);
            at = span.next.load(Ordering::Relaxed);
        }
        None
    }

    /// The same before the quarantine is full, because there are no fresh addresses. Where nothing was found, it is not
    /// looked for again until some run has died or come back: every block that is asked for may come here.
    pub(super) fn reuse_early<P: Memory + Threads>(
        &self,
        platform: &P,
        setup: &HeapSetup,
        spans: usize,
        zone: Zone,
        held: &Held<'_, P>,
    ) -> Option<usize> {
        let [dead, least] = self.barren.get(zone as usize)?;
        let now = self.dead_spans.load(Ordering::Relaxed);
        if dead.load(Ordering::Relaxed) == now && least.load(Ordering::Relaxed) <= spans {
            return None;
        }
        let found = self.reuse(platform, setup, spans, zone, held);
        if found.is_none() {
            dead.store(now, Ordering::Relaxed);
            least.store(spans, Ordering::Relaxed);
        }
        found
    }

    /// Takes the first `spans` of a dead run out of the list; what is left of it stays in its place.
    fn unlink<M: Memory>(
        &self,
        memory: &M,
        _setup: &HeapSetup,
        index: usize,
        spans: usize,
        before: Option<&Span>,
    ) {
        let Some(span) = self.span(index) else { return };
        let run = span.run.load(Ordering::Relaxed) as usize;
        let next = span.next.load(Ordering::Relaxed);
        let retired = span.life() == Life::Retired;
        if span.forgotten.load(Ordering::Relaxed) == 0 {
            self.kept_spans.fetch_sub(Self::records_of(span), Ordering::Relaxed);
            if self.remembered.load(Ordering::Relaxed) == link(index) {
                self.remembered.store(next, Ordering::Relaxed);
            }
            self.drop_records(memory, index);
        }
        if retired {
            let joins = self.retired_sides(index, spans);
            let holes = self.holes.load(Ordering::Relaxed).saturating_add(joins).saturating_sub(1);
            self.holes.store(holes, Ordering::Relaxed);
        }
        let rest = run.saturating_sub(spans);
        let follow = if rest == 0 { next } else { self.split(index.wrapping_add(spans), rest, next) };
        match before {
            Some(before) => before.next.store(follow, Ordering::Relaxed),
            None => self.oldest.store(follow, Ordering::Relaxed),
        }
        if self.youngest.load(Ordering::Relaxed) == link(index) {
            let last = if rest == 0 { before.map_or(0, |span| self.number_of(span)) } else { follow };
            self.youngest.store(last, Ordering::Relaxed);
        }
        self.dead_spans.fetch_sub(spans, Ordering::Relaxed);
    }

    /// Makes the rest of a run a run of its own, which nothing is remembered of.
    fn split(&self, index: usize, spans: usize, next: u32) -> u32 {
        for offset in 0..spans {
            if let Some(span) = self.span(index.wrapping_add(offset)) {
                span.back.store(u32::try_from(offset).unwrap_or(0), Ordering::Release);
                span.forgotten.store(1, Ordering::Release);
                span.set_usage(Use::Large);
            }
        }
        if let Some(head) = self.span(index) {
            head.run.store(u32::try_from(spans).unwrap_or(1), Ordering::Relaxed);
            head.next.store(next, Ordering::Relaxed);
        }
        link(index)
    }

    /// How many separate retired stretches are left and right of the first `spans` of a run once they are taken out.
    fn retired_sides(&self, index: usize, spans: usize) -> usize {
        let retired = |index: usize| {
            index < self.spans_used() && self.span(index).is_some_and(|span| span.life() == Life::Retired)
        };
        let before = index.checked_sub(1).is_some_and(retired);
        usize::from(before).wrapping_add(usize::from(retired(index.wrapping_add(spans))))
    }

    fn number_of(&self, span: &Span) -> u32 {
        let start = self.spans.range().start;
        let offset = (core::ptr::from_ref(span) as usize).wrapping_sub(start);
        link(offset.checked_div(size_of::<Span>()).unwrap_or(0))
    }
}
