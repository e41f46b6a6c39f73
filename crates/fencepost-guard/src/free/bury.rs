//! The end of a block: its redzones are checked, its pages closed, and its run buried with its last block.

use core::sync::atomic::Ordering;

use fencepost_record::AccessType;
use fencepost_sys::{Platform, Range};

use super::Named;
use crate::engine::Closed;
use crate::limits::{MAPPINGS_BY_PROTECTION, MAPPINGS_BY_RUN};
use crate::options::OnError;
use crate::report::Frames;
use crate::runtime::{Guard, Setup};
use crate::slot::Act;
use crate::span::{Life, Span, Zone};
use crate::threads::{Counters, ThreadState};

impl<P: Platform> Guard<P> {
    #[expect(clippy::too_many_arguments, reason = "one free's facts, each of another type")]
    /// Checks the redzones of a block that is ours to free, closes its pages and counts it dead.
    pub(super) fn bury_block(
        &self,
        setup: &Setup,
        state: Option<&ThreadState>,
        nested: bool,
        named: &Named,
        act: Act,
        how: AccessType,
        frames: &Frames<'_>,
    ) {
        let data = self.data_of(setup, named);
        if setup.options.on_error == OnError::Continue && !self.was_moved(named.index) {
            // SAFETY: the block is alive to all but the program, and winning `begin_free` made it ours to free.
            unsafe { self.remains.keep(Range { start: named.view.pointer, len: named.view.size }) };
        }
        // Of pages that were moved it was looked at before.
        let damage =
            if self.was_moved(named.index) { None } else { self.damage(setup, &named.view, data, how) };
        if let Some(case) = &damage {
            self.report(setup, case, frames);
        }
        named.slot.note_free(act);
        if let Some(state) = state.filter(|_| !nested)
            && self.let_wait(setup, state, named, frames)
        {
            return;
        }
        let zone = self.heap.span(named.index).map_or(Zone::Lazy, Span::zone);
        if zone == Zone::Missing {
            let whole = damage.is_some() || !setup.options.fill;
            let own = Range { start: named.view.pointer, len: named.view.size };
            let state = state.filter(|_| !nested);
            self.close_slot(setup, state, named.pages, data, if whole { data } else { own });
        } else {
            self.close(setup, named, data);
        }
        named.slot.end_free();
        self.limits.give_mappings(setup.heap.engine_in(zone).mappings_per_block());
        let page = setup.geometry().page();
        let held = match named.pages {
            0 if self.is_counted(named.index) => self.whole_of(setup, named.view.size),
            0 => page as u64,
            pages => pages.wrapping_mul(page) as u64,
        };
        match state {
            Some(state) => {
                Counters::bump(&state.counters.freed, 1);
                self.count_held(state, 0u64.wrapping_sub(held), u64::MAX);
            }
            None => {
                self.threads.shared.freed.fetch_add(1, Ordering::Relaxed);
                self.limits.add_held(0u64.wrapping_sub(held));
                self.limits.add_live(u64::MAX, 0);
            }
        }
        self.count_dead(setup, nested, named.index, named.pages);
    }

    /// Closes the pages of a block that is being freed.
    fn close(&self, setup: &Setup, named: &Named, data: Range) {
        let Some(head) = self.heap.span(named.index).filter(|span| span.mapped.load(Ordering::Relaxed) != 0)
        else {
            return self.close_small(setup, named.index, data);
        };
        self.limits.give_mappings(MAPPINGS_BY_RUN);
        if self.is_lost(named.index) {
            return self.heap.lose_run(named.index);
        }
        let data = if self.was_moved(named.index) { Range::default() } else { data };
        let run = self.heap.run_range(named.index, head.run.load(Ordering::Relaxed) as usize);
        // SAFETY: the block is being freed, winning `begin_free` made its pages ours, and a block whose run is closed by
        // mappings is alone in it.
        let closed = unsafe { setup.heap.lazy.close_large(&self.platform, run, data) };
        head.shut.store(u32::from(closed == Ok(Closed::AsMeant)), Ordering::Relaxed);
        // What could not be closed stays open: an access to it goes unseen, and the summary counts it.
        self.heap.note(closed.unwrap_or(Closed::Fallback));
    }

    /// Closes pages of a freed block that has no mappings of its own.
    pub(crate) fn close_small(&self, setup: &Setup, index: usize, data: Range) {
        let engine = setup.heap.engine_in(self.heap.span(index).map_or(Zone::Lazy, Span::zone));
        // SAFETY: the callers free the block.
        let closed = unsafe { engine.close(&self.platform, data) };
        // What could not be closed stays open: an access to it goes unseen, and the summary counts it.
        self.heap.note(closed.unwrap_or(Closed::Fallback));
        if let Ok(closed) = closed {
            self.count_fallback(closed, index);
        }
    }

    /// Memory that takes no markers (it is locked) costs mappings: for its open blocks where the whole span is so, and
    /// for its dead ones where the rest of the span has markers.
    fn count_fallback(&self, closed: Closed, index: usize) {
        if closed == Closed::AsMeant {
            return;
        }
        match self.heap.span(index) {
            Some(span) if span.unmarked.load(Ordering::Relaxed) != 0 => {
                self.limits.give_mappings(MAPPINGS_BY_PROTECTION);
            }
            _ => self.limits.take_mappings(MAPPINGS_BY_PROTECTION),
        }
    }

    /// The last block of a run takes the run with it.
    pub(crate) fn count_dead(&self, setup: &Setup, nested: bool, index: usize, pages: usize) {
        let Some(span) = self.heap.span(index).filter(|span| span.life() != Life::Lost) else { return };
        let slots = if pages == 0 { 1 } else { setup.geometry().slots_per_span(pages) };
        let dead = span.dead.fetch_add(1, Ordering::AcqRel).wrapping_add(1);
        // A signal handler that interrupted us may hold the lock we would wait for: the run then stays as it is,
        // closed page by page.
        if dead as usize >= slots && !nested {
            self.heap.bury(&self.platform, &setup.heap, index);
        }
    }
}
