//! Where a new block lies: its slot or run, opened, and what is written around it.

use core::alloc::Layout;
use core::sync::atomic::Ordering;

use fencepost_record::Unguarded;
use fencepost_sys::{Platform, Range};

use crate::engine::{Engine, open_by_commit};
use crate::geometry::{SMALL_PAGES, SPAN_BYTES, Side, align_down};
use crate::limits::{MAPPINGS_BY_PROTECTION, MAPPINGS_BY_RUN};
use crate::runtime::{Guard, Setup};
use crate::slot::Slot;
use crate::span::{Span, Zone};
use crate::threads::ThreadState;

/// Slots up to this size, in bytes, get their memory when they are opened, the rest at first use.
const POPULATE_MAX: usize = 16 << 10;

/// The pages of a new block.
pub(super) struct Home {
    data: Range,
    /// The part of them that does not hold the redzone pattern.
    stale: Range,
    /// Missing pages that were put there or moved; lazy ones are zero.
    pub(super) zone: Zone,
}

/// Writes the redzone around a block, and the fill into it if it is wanted.
///
/// # Safety
/// `home` must be opened pages that belong to the block at `block` alone.
#[inline]
pub(super) unsafe fn lay_patterns(setup: &Setup, block: usize, size: usize, home: &Home, fill: bool) {
    if !setup.options.fill || home.data.len == 0 {
        return;
    }
    let [before, after] = redzones(block, size, home.data);
    // SAFETY: all three parts lie within `data`, which is the block's alone, and no byte of it is in use yet.
    unsafe {
        setup.patterns.lay_redzone(before.meet(home.stale));
        setup.patterns.lay_redzone(after.meet(home.stale));
        if fill {
            setup.patterns.lay_new(block, size);
        }
    }
}

/// The redzones of a block: before it and after it.
#[inline]
pub(crate) fn redzones(block: usize, size: usize, data: Range) -> [Range; 2] {
    let end = block.wrapping_add(size);
    [
        Range { start: data.start, len: block.wrapping_sub(data.start) },
        Range { start: end, len: data.end().wrapping_sub(end) },
    ]
}

const _: () = assert!(Engine::Marker.batch_max() <= SMALL_PAGES, "a batch fits the array of ranges");

impl<P: Platform> Guard<P> {
    pub(super) fn place_small(
        &self,
        setup: &Setup,
        state: &ThreadState,
        pages: usize,
        layout: Layout,
        side: Side,
    ) -> Result<(usize, &'static Slot, Home), Unguarded> {
        let (index, number, zone) = self.take_slot(setup, state, pages)?;
        let data = self.data_of_small(setup, index, pages, number);
        let slot = self.heap.slot(index, number).ok_or(Unguarded::Disabled)?;
        let stale = if zone == Zone::Missing { slot.stale(align_down(data.start, SPAN_BYTES)) } else { data };
        let block = setup.geometry().place(data, layout.size(), layout.align(), side);
        Ok((block, slot, Home { data, stale, zone }))
    }

    /// The next slot of this thread's span of that kind, opened.
    fn take_slot(
        &self,
        setup: &Setup,
        state: &ThreadState,
        pages: usize,
    ) -> Result<(usize, usize, Zone), Unguarded> {
        let word = state.spans.get(pages).ok_or(Unguarded::Disabled)?;
        let current = (word.load(Ordering::Relaxed) as usize).checked_sub(1);
        let has_ready = |index: &usize| {
            let ready = |span: &Span| span.used.load(Ordering::Relaxed) != span.ready.load(Ordering::Relaxed);
            self.heap.span(*index).is_some_and(ready)
        };
        let stocked = match current.filter(has_ready) {
            Some(_) => None,
            None => self.restock(setup, state, pages, current),
        };
        let index = match stocked.or(current) {
            Some(index) => index,
            None => self.next_span(setup, state, pages)?,
        };
        let span = self.heap.span(index).ok_or(Unguarded::Disabled)?;
        let used = span.used.load(Ordering::Relaxed);
        let zone = span.zone();
        if used == span.ready.load(Ordering::Relaxed)
            && let Err(why) = self.open_batch(setup, state, index, pages)
        {
            // Markers that a filter keeps us from removing, or pages that can no longer be put in place: the next block
            // asks for a span that is closed otherwise.
            let filtered = self.filtered.load(Ordering::Relaxed) != 0;
            if zone != self.moving.zone() || filtered && span.unmarked.load(Ordering::Relaxed) == 0 {
                word.store(0, Ordering::Relaxed);
            }
            return Err(why);
        }
        span.used.store(used.wrapping_add(1), Ordering::Relaxed);
        if used.wrapping_add(1) as usize >= setup.geometry().slots_per_span(pages) {
            word.store(0, Ordering::Relaxed);
        }
        Ok((index, used as usize, zone))
    }

    /// A span that this thread takes its next slots of a kind from.
    pub(crate) fn next_span(
        &self,
        setup: &Setup,
        state: &ThreadState,
        pages: usize,
    ) -> Result<usize, Unguarded> {
        let thread = state.number.load(Ordering::Relaxed);
        let take = |zone| self.heap.take_small(&self.platform, &setup.heap, pages, zone, thread);
        let index = match (self.moving.zone(), take(self.moving.zone())) {
            (Zone::Missing, Err(Unguarded::Kernel)) => take(Zone::Lazy),
            (_, taken) => taken,
        }?;
        let word = state.spans.get(pages).ok_or(Unguarded::Disabled)?;
        word.store(u32::try_from(index.wrapping_add(1)).unwrap_or(0), Ordering::Relaxed);
        Ok(index)
    }

    /// Opens the next slots of a span: one at first, twice as many each time, up to what the engine does well.
    fn open_batch(
        &self,
        setup: &Setup,
        state: &ThreadState,
        index: usize,
        pages: usize,
    ) -> Result<(), Unguarded> {
        const BATCH: usize = SMALL_PAGES;
        let geometry = setup.geometry();
        let span = self.heap.span(index).ok_or(Unguarded::Disabled)?;
        let batch = state.batches.get(pages).ok_or(Unguarded::Disabled)?;
        let used = span.used.load(Ordering::Relaxed) as usize;
        let engine = setup.heap.engine_in(span.zone());
        if engine == Engine::Move {
            self.put_slot(setup, self.data_of_small(setup, index, pages, used))?;
            if let Some(stock) = state.stocks.get(pages) {
                stock.bring();
            }
            batch.store(1, Ordering::Relaxed);
            span.ready.store(u32::try_from(used.wrapping_add(1)).unwrap_or(0), Ordering::Relaxed);
            return Ok(());
        }
        let most = engine.batch_max().checked_div(pages).unwrap_or(1).clamp(1, BATCH);
        let wanted = (batch.load(Ordering::Relaxed) as usize).saturating_mul(2).clamp(1, most);
        let count = wanted.min(geometry.slots_per_span(pages).saturating_sub(used));
        let start = self.heap.run_range(index, 1).start;
        let mut ranges = [Range::default(); BATCH];
        for (offset, range) in ranges.iter_mut().take(count).enumerate() {
            let data = geometry.slot_data(pages, used.wrapping_add(offset));
            *range = Range { start: start.wrapping_add(data.start), len: data.len };
        }
        let ranges = ranges.get(..count).unwrap_or(&[]);
        let whole = pages.saturating_mul(geometry.page()) <= POPULATE_MAX;
        let opened = if span.unmarked.load(Ordering::Relaxed) != 0 {
            self.limits.take_mappings(MAPPINGS_BY_PROTECTION.saturating_mul(count));
            open_by_commit(&self.platform, ranges)
        } else {
            // SAFETY: these slots of our own span are closed, and `used` says that nobody has them yet.
            unsafe { engine.open(&self.platform, ranges, whole) }
        };
        opened.map_err(|_| Unguarded::Kernel)?;
        batch.store(u32::try_from(wanted).unwrap_or(1), Ordering::Relaxed);
        span.ready.store(u32::try_from(used.wrapping_add(count)).unwrap_or(0), Ordering::Relaxed);
        Ok(())
    }

    pub(super) fn place_large(
        &self,
        setup: &Setup,
        spans: usize,
        layout: Layout,
        side: Side,
        whole: bool,
    ) -> Result<(usize, &'static Slot, Home), Unguarded> {
        let geometry = setup.geometry();
        let index = self.heap.take_large(&self.platform, &setup.heap, spans)?;
        let run = self.heap.run_range(index, spans);
        let block = geometry.place_large(run, layout.size(), layout.align(), side);
        let data = geometry.pages_of(block, layout.size());
        let engine = setup.heap.lazy;
        let mapped = engine == Engine::Marker && self.limits.allow_run(&setup.bounds);
        // SAFETY: the run was taken just now and holds no block; `data` lies within it by `Geometry::house`.
        match unsafe { engine.prepare_large(&self.platform, run, data, mapped) } {
            Ok(closed) => self.heap.note(closed),
            Err(_) => {
                self.heap.bury(&self.platform, &setup.heap, index);
                return Err(Unguarded::Kernel);
            }
        }
        let slot = self.heap.slot(index, 0).ok_or(Unguarded::Disabled)?;
        let head = self.heap.span(index).ok_or(Unguarded::Disabled)?;
        head.counted.store(u32::from(whole), Ordering::Relaxed);
        if mapped {
            head.mapped.store(1, Ordering::Relaxed);
            self.limits.take_mappings(MAPPINGS_BY_RUN);
        }
        Ok((block, slot, Home { data, stale: data, zone: Zone::Lazy }))
    }
}
