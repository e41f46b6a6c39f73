//! Allocation: where a block goes, and what is written around it.

use core::alloc::Layout;
use core::ptr::NonNull;
use core::sync::atomic::{Ordering, compiler_fence};

use fencepost_record::{FRAMES_MAX, Unguarded};
use fencepost_sys::{Platform, Range};

mod place;

use place::lay_patterns;
pub(crate) use place::redzones;

use crate::calls::INNER_CALL;
use crate::family::Family;
use crate::geometry::{House, Side};
use crate::hooks::Tracing;
use crate::limits::{HELD_STEP, LIVE_STEP};
use crate::options::{Mode, Place};
use crate::runtime::{Guard, Setup};
use crate::slot::Act;
use crate::span::Zone;
use crate::threads::{BUSY, Counters, ThreadState};

/// After which part of its guarded blocks so far a thread looks again whether the handlers are still in force, and after how
/// many at most: often at first, because programs install their own near their start, then rarely, because asking costs a
/// system call a signal.
const CHECK_PART: u64 = 16;
const CHECK_RARELY: u32 = 256;
/// Guarded blocks of a thread after which its name is written down again: giving it one may take a block first.
const NAMED_AFTER: u64 = 2;

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
    #[inline(always)]
    pub fn allocate(&self, layout: Layout, zeroed: bool, anchor: usize) -> Placed {
        match self.allocate_at_once(layout, zeroed, Family::Rust, anchor) {
            Some(block) => Placed::Here(block),
            None => self.allocate_or_not(layout, zeroed, anchor),
        }
    }

    /// [`Guard::allocate`] after [`Guard::allocate_at_once`] had nothing.
    #[inline(never)]
    pub fn allocate_or_not(&self, layout: Layout, zeroed: bool, anchor: usize) -> Placed {
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
        if let Some(placed) = self.allocate_if_steady(setup, state, layout, zeroed, anchor) {
            return Ok(placed);
        }
        self.look_after_handlers(state);
        let house = setup.geometry().house(layout.size(), layout.align()).ok_or(Unguarded::AddressSpace)?;
        // In a program that limits itself they count: the limit does not know of them.
        let whole = matches!(house, House::Large(_)) && self.limits.is_tight();
        let held = match house {
            House::Small(pages) => pages.wrapping_mul(setup.geometry().page()) as u64,
            // Its pages come as the program touches them, as they would without us: only the edges are ours.
            House::Large(_) if !whole => setup.geometry().page() as u64,
            House::Large(_) => self.whole_of(setup, layout.size()),
        };
        self.allow(setup, state, held)?;
        let act = self.act(setup, anchor);
        let side = side_of(setup, &act);
        let (block, slot, home) = match house {
            House::Small(pages) => self.place_small(setup, state, pages, layout, side)?,
            House::Large(spans) => self.place_large(setup, spans, layout, side, whole)?,
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
        self.heap.birth(slot, block, layout.size(), layout.align(), act);
        let block = NonNull::new(block as *mut u8).ok_or(Unguarded::Disabled)?;
        Ok((block, trace))
    }

    /// Who does what now: this thread, its stack, the time.
    pub(crate) fn act(&self, setup: &Setup, anchor: usize) -> Act {
        self.act_of(setup, self.thread_if_known(), anchor)
    }

    /// The same where this thread's state is known.
    #[inline]
    pub(crate) fn act_of(&self, setup: &Setup, state: Option<&ThreadState>, anchor: usize) -> Act {
        let depth = usize::from(setup.options.stack_depth).min(FRAMES_MAX);
        let trace = if depth == 0 { 0 } else { self.trace(state, anchor, depth) };
        let thread = state.map_or(0, |state| state.number.load(Ordering::Relaxed));
        Act { trace, thread, ms: self.now(setup) }
    }

    /// Keeps this thread's stack, and gives its number.
    pub(crate) fn trace(&self, state: Option<&ThreadState>, anchor: usize, depth: usize) -> u32 {
        let mut tracing = Tracing { anchor, depth, stack: Range::default(), memory: Range::default() };
        if let Some(state) = state {
            tracing.stack = state.stack();
            tracing.memory = self.threads.trace_memory(&self.platform, state, self.hooks.trace_memory);
        }
        (self.hooks.trace)(&tracing, &|frames| self.depot.keep(&self.platform, frames))
    }

    /// Adds to what this thread holds, and now and then to what all hold. Both may be negative, as wrapping numbers.
    #[inline(always)]
    pub(crate) fn count_held(&self, state: &ThreadState, held: u64, blocks: u64) {
        let held = state.held_delta.load(Ordering::Relaxed).wrapping_add(held);
        let live = state.live_delta.load(Ordering::Relaxed).wrapping_add(blocks);
        state.held_delta.store(held, Ordering::Relaxed);
        state.live_delta.store(live, Ordering::Relaxed);
        // A block that goes never makes the most that there were.
        let grows = blocks.cast_signed() > 0;
        if grows && live.cast_signed() > state.live_peak.load(Ordering::Relaxed).cast_signed() {
            state.live_peak.store(live, Ordering::Relaxed);
        }
        if is_as_far_as(held, HELD_STEP) || is_as_far_as(live, LIVE_STEP) {
            self.share_counts(state);
        }
    }

    #[inline(never)]
    fn share_counts(&self, state: &ThreadState) {
        if is_as_far_as(state.held_delta.load(Ordering::Relaxed), HELD_STEP) {
            self.limits.add_held(state.held_delta.swap(0, Ordering::Relaxed));
        }
        if is_as_far_as(state.live_delta.load(Ordering::Relaxed), LIVE_STEP) {
            self.add_live(state);
        }
    }

    /// Adds a thread's own count of live blocks to the common one.
    pub(crate) fn add_live(&self, state: &ThreadState) {
        let peak = state.live_peak.swap(0, Ordering::Relaxed);
        self.limits.add_live(state.live_delta.swap(0, Ordering::Relaxed), peak);
    }

    /// Steps in front again when somebody has put a handler in our place.
    fn look_after_handlers(&self, state: &ThreadState) {
        let left = state.until_check.load(Ordering::Relaxed);
        if left != 0 {
            state.until_check.store(left.wrapping_sub(1), Ordering::Relaxed);
            return;
        }
        let guarded = state.counters.guarded.load(Ordering::Relaxed);
        if guarded == NAMED_AFTER {
            self.threads.remember(&self.platform, state);
        }
        let gap = u32::try_from(guarded / CHECK_PART).unwrap_or(u32::MAX).min(CHECK_RARELY);
        state.until_check.store(gap, Ordering::Relaxed);
        // A process that ends by its signal has given up its handlers for good.
        if self.platform.is_installed() || self.reporter.dying.load(Ordering::Relaxed) != 0 {
            return;
        }
        if self.platform.install(self.hooks.on_fault).is_err() {
            self.disable("the fault handler could not be installed again");
        }
    }
}

/// Whether a wrapping difference is at least this far from zero.
#[inline(always)]
const fn is_as_far_as(delta: u64, step: u64) -> bool {
    let within = step.wrapping_sub(1);
    delta.wrapping_add(within) > within.wrapping_mul(2)
}

/// Which end of a block sits on the guard page.
#[inline]
pub(crate) fn side_of(setup: &Setup, act: &Act) -> Side {
    match setup.options.place {
        Place::Right => Side::Right,
        Place::Left => Side::Left,
        Place::Alternate if crate::pattern::mix(setup.seed ^ u64::from(act.trace)) & 1 == 0 => Side::Right,
        Place::Alternate => Side::Left,
    }
}
