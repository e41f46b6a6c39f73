//! Allocation: where a block goes, and what is written around it.

use core::alloc::Layout;
use core::ptr::NonNull;
use core::sync::atomic::{Ordering, compiler_fence};

use fencepost_record::{FRAMES_MAX, Unguarded};
use fencepost_sys::{Platform, Range};

use crate::calls::INNER_CALL;
use crate::engine::{Engine, open_by_commit};
use crate::geometry::{House, SMALL_PAGES, Side};
use crate::limits::{HELD_STEP, LIVE_STEP, MAPPINGS_BY_PROTECTION, MAPPINGS_BY_RUN};
use crate::options::{Mode, Place};
use crate::runtime::{Guard, Setup};
use crate::slot::{Act, Slot};
use crate::span::Zone;
use crate::threads::{BUSY, Counters, ThreadState};

/// Guarded blocks of a thread after which it looks whether the handlers are still in force: often at first, because
/// programs install their own near their start, then rarely, because asking costs a system call a signal.
const CHECK_OFTEN: u64 = 1000;
const CHECK_RARELY: u32 = 64;

/// New memory of a block that is filled, in bytes: more would touch pages that the program may never use.
const FILL_MAX: usize = 4 << 10;
/// Slots up to this size, in bytes, get their memory when they are opened, the rest at first use.
const POPULATE_MAX: usize = 16 << 10;

/// What became of an allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    /// A guarded block (or memory of the reporter's own).
    Here(NonNull<u8>),
    /// The inner allocator is to serve it.
    Inner,
    /// It is to fail, because `fail_at` or `fail_rate` says so, or because the reporter's memory is used up.
    Fail,
}

impl<P: Platform> Guard<P> {
    /// Allocates a guarded block, or says who else is to serve it. `anchor` is an address in the caller's stack
    /// frame: younger frames are left out of the allocation's stack.
    #[inline]
    pub fn allocate(&self, layout: Layout, zeroed: bool, anchor: usize) -> Placed {
        let Some(setup) = self.ready() else { return self.not_ready() };
        let Some(state) = self.thread(setup) else {
            if self.is_rendering_here() {
                return self.serve_by_arena(layout);
            }
            let word = self.platform.thread_word();
            if word != BUSY {
                self.count_unguarded(None, if word == 0 { Unguarded::Kernel } else { Unguarded::Reentrant });
            }
            return Placed::Inner;
        };
        if state.reporting.load(Ordering::Relaxed) != 0 {
            return self.serve_by_arena(layout);
        }
        let depth = state.depth.load(Ordering::Relaxed);
        if depth != 0 {
            if depth < INNER_CALL {
                state.counters.not_guarded(Unguarded::Reentrant);
            }
            return Placed::Inner;
        }
        state.depth.store(1, Ordering::Relaxed);
        // A signal handler of the program that interrupts us must see the depth.
        compiler_fence(Ordering::SeqCst);
        let placed = self.allocate_on(setup, state, layout, zeroed, anchor);
        compiler_fence(Ordering::SeqCst);
        state.depth.store(0, Ordering::Relaxed);
        placed
    }

    /// Whether this thread is resolving names for a report.
    #[cold]
    fn is_rendering_here(&self) -> bool {
        self.reporter.rendering.load(Ordering::Relaxed) != 0
            && self.reporter.owner.load(Ordering::Relaxed) == self.platform.thread_id()
    }

    #[cold]
    fn serve_by_arena(&self, layout: Layout) -> Placed {
        let block = self.arena.allocate(&self.platform, layout);
        if block.is_none()
            && self.is_rendering_here()
            && self.reporter.rendering.swap(0, Ordering::SeqCst) != 0
        {
            // The language ends a process that is out of memory: rather give up the names.
            //
            // SAFETY: `rendering` is set only around the call on the report stack, by the thread that owns the report,
            // which is this one; the arena's lock is free again.
            unsafe { self.platform.abandon_call() }
        }
        block.map_or(Placed::Fail, Placed::Here)
    }

    #[cold]
    fn not_ready(&self) -> Placed {
        match self.decided() {
            None => self.count_unguarded(None, Unguarded::Reentrant),
            // Off: counted only where somebody will read it.
            Some(setup) if setup.is_account_wanted() => {
                let off = setup.options.mode == Mode::Off;
                self.count_unguarded(None, if off { Unguarded::ModeOff } else { Unguarded::AddressSpace });
            }
            Some(_) => {}
        }
        Placed::Inner
    }

    /// Notes that the inner allocator gave a block out: from now on an unknown address may be one of its blocks.
    #[inline]
    pub fn inner_block(&self) {
        if self.inner_used.load(Ordering::Relaxed) == 0 {
            self.inner_used.store(1, Ordering::Relaxed);
        }
    }

    fn allocate_on(
        &self,
        setup: &Setup,
        state: &ThreadState,
        layout: Layout,
        zeroed: bool,
        anchor: usize,
    ) -> Placed {
        if self.is_to_fail(setup) {
            return Placed::Fail;
        }
        match self.guard_or_not(setup, state, layout, zeroed, anchor) {
            Ok(block) => {
                Counters::bump(&state.counters.guarded, 1);
                Placed::Here(block)
            }
            Err(why) => {
                state.counters.not_guarded(why);
                Placed::Inner
            }
        }
    }

    /// The guarded block and the number of its stack.
    pub(crate) fn try_guard(
        &self,
        setup: &Setup,
        state: &ThreadState,
        layout: Layout,
        zeroed: bool,
        anchor: usize,
    ) -> Result<(NonNull<u8>, u32), Unguarded> {
        self.look_after_handlers(state);
        let house = setup.geometry().house(layout.size(), layout.align()).ok_or(Unguarded::AddressSpace)?;
        let held = match house {
            House::Small(pages) => pages.wrapping_mul(setup.geometry().page()) as u64,
            // Its pages come as the program touches them, as they would without us: only the edges are ours.
            House::Large(_) => setup.geometry().page() as u64,
        };
        self.allow(setup, state, held)?;
        let act = self.act(setup, anchor);
        let side = side_of(setup, &act);
        let (block, slot, home) = match house {
            House::Small(pages) => self.place_small(setup, state, pages, layout, side)?,
            House::Large(spans) => self.place_large(setup, spans, layout, side)?,
        };
        let fill = !zeroed && matches!(house, House::Small(_));
        // SAFETY: the pages were opened just now for this block alone.
        unsafe { lay_patterns(setup, block, layout.size(), &home, fill) };
        if zeroed && home.zone == Zone::Missing {
            // SAFETY: as above, and the block lies within them.
            unsafe { core::ptr::write_bytes(block as *mut u8, 0, layout.size()) };
        }
        self.limits.take_mappings(setup.heap.engine_in(home.zone).mappings_per_block());
        self.count_held(state, held, 1);
        let trace = act.trace;
        slot.birth(block, layout.size(), layout.align(), act);
        let block = NonNull::new(block as *mut u8).ok_or(Unguarded::Disabled)?;
        Ok((block, trace))
    }

    fn place_small(
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
        let stale = if zone == Zone::Missing { slot.stale() } else { data };
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
        let index = match (word.load(Ordering::Relaxed) as usize).checked_sub(1) {
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

    fn place_large(
        &self,
        setup: &Setup,
        spans: usize,
        layout: Layout,
        side: Side,
    ) -> Result<(usize, &'static Slot, Home), Unguarded> {
        let geometry = setup.geometry();
        let index = self.heap.take_large(&self.platform, &setup.heap, spans)?;
        let run = self.heap.run_range(index, spans);
        let block = geometry.place(geometry.large_room(run), layout.size(), layout.align(), side);
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
        if mapped {
            self.heap.span(index).ok_or(Unguarded::Disabled)?.mapped.store(1, Ordering::Relaxed);
            self.limits.take_mappings(MAPPINGS_BY_RUN);
        }
        Ok((block, slot, Home { data, stale: data, zone: Zone::Lazy }))
    }

    /// Who does what now: this thread, its stack, the time.
    pub(crate) fn act(&self, setup: &Setup, anchor: usize) -> Act {
        let mut frames = [0u64; FRAMES_MAX];
        let depth = usize::from(setup.options.stack_depth).min(FRAMES_MAX);
        let kept = match frames.get_mut(..depth) {
            Some(room) if depth != 0 => (self.hooks.capture)(anchor, room).min(depth),
            _ => 0,
        };
        let trace = self.depot.keep(&self.platform, frames.get(..kept).unwrap_or(&[]));
        let thread = self.thread_if_known().map_or(0, |state| state.number.load(Ordering::Relaxed));
        Act { trace, thread, ms: self.now(setup) }
    }

    /// Adds to what this thread holds, and now and then to what all hold.
    pub(crate) fn count_held(&self, state: &ThreadState, held: u64, blocks: u64) {
        Counters::bump(&state.held_delta, held);
        Counters::bump(&state.live_delta, blocks);
        let delta = state.held_delta.load(Ordering::Relaxed);
        if delta.cast_signed().unsigned_abs() >= HELD_STEP {
            self.limits.add_held(state.held_delta.swap(0, Ordering::Relaxed));
        }
        let delta = state.live_delta.load(Ordering::Relaxed);
        if delta.cast_signed().unsigned_abs() >= LIVE_STEP {
            self.limits.add_live(state.live_delta.swap(0, Ordering::Relaxed));
        }
    }

    /// Steps in front again when somebody has put a handler in our place.
    fn look_after_handlers(&self, state: &ThreadState) {
        let left = state.until_check.load(Ordering::Relaxed);
        if left != 0 {
            state.until_check.store(left.wrapping_sub(1), Ordering::Relaxed);
            return;
        }
        if state.counters.guarded.load(Ordering::Relaxed) > CHECK_OFTEN {
            state.until_check.store(CHECK_RARELY, Ordering::Relaxed);
        }
        // A process that ends by its signal has given up its handlers for good.
        if self.platform.is_installed() || self.reporter.dying.load(Ordering::Relaxed) != 0 {
            return;
        }
        if self.platform.install(self.hooks.on_fault).is_err() {
            self.disable("the fault handler could not be installed again");
        }
    }
}

/// Which end of a block sits on the guard page.
fn side_of(setup: &Setup, act: &Act) -> Side {
    match setup.options.place {
        Place::Right => Side::Right,
        Place::Left => Side::Left,
        Place::Alternate if crate::pattern::mix(setup.seed ^ u64::from(act.trace)) & 1 == 0 => Side::Right,
        Place::Alternate => Side::Left,
    }
}

/// The pages of a new block.
struct Home {
    data: Range,
    /// The part of them that does not hold the redzone pattern.
    stale: Range,
    /// Missing pages that were put there or moved; lazy ones are zero.
    zone: Zone,
}

/// Writes the redzone around a block, and the fill into it if it is wanted.
///
/// # Safety
/// `home` must be opened pages that belong to the block at `block` alone.
unsafe fn lay_patterns(setup: &Setup, block: usize, size: usize, home: &Home, fill: bool) {
    if !setup.options.fill || home.data.len == 0 {
        return;
    }
    let [before, after] = redzones(block, size, home.data);
    // SAFETY: all three parts lie within `data`, which is the block's alone, and no byte of it is in use yet.
    unsafe {
        setup.patterns.lay_redzone(before.meet(home.stale));
        setup.patterns.lay_redzone(after.meet(home.stale));
        if fill {
            setup.patterns.lay_fill(Range { start: block, len: size.min(FILL_MAX) });
        }
    }
}

/// The redzones of a block: before it and after it.
pub(crate) fn redzones(block: usize, size: usize, data: Range) -> [Range; 2] {
    let end = block.wrapping_add(size);
    [
        Range { start: data.start, len: block.wrapping_sub(data.start) },
        Range { start: end, len: data.end().wrapping_sub(end) },
    ]
}

const _: () = assert!(Engine::Marker.batch_max() <= SMALL_PAGES, "a batch fits the array of ranges");
