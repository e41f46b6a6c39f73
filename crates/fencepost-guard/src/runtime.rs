//! The runtime as a whole: its parts, its start, and what it is told about threads, forks and the end.
//!
//! One [`Guard`] exists per program, in a static. It starts with the first allocation, which the facade makes before
//! `main`; until then and while it starts, allocations go to the inner allocator. Everything it decides at the start
//! is in [`Setup`], which never changes after.

mod fork;

use core::cell::UnsafeCell;

use fencepost_record::{Text, Unguarded};
use fencepost_sys::atomic::{AtomicU32, AtomicU64, Ordering};
use fencepost_sys::{Platform, Range};

use crate::arena::Arena;
use crate::budget::{Budget, Work};
use crate::contexts::Contexts;
use crate::defer::Poison;
use crate::depot::Depot;
use crate::engine::Engine;
use crate::filter::Filters;
use crate::front::Pass;
use crate::geometry::Geometry;
use crate::heap::{Heap, HeapSetup};
use crate::hooks::Hooks;
use crate::limits::{Bounds, Limits};
use crate::moving::Moving;
use crate::options::{Options, When};
use crate::pattern::Patterns;
use crate::quick::Quick;
use crate::region::Region;
use crate::remains::Remains;
use crate::report::{Frames, Reporter};
use crate::seal::{Audits, Ring, Seals};
use crate::steady::Lane;
use crate::step::Stepping;
use crate::threads::{BUSY, GONE, ThreadState, ThreadTable};

/// What the start decided.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) options: Options,
    /// Whether a block that is not chosen passes without being looked at.
    pub(crate) lets_pass: bool,
    /// What can be steady, and what that asks (`steady.rs`).
    pub(crate) steady: u32,
    pub(crate) lane: Lane,
    /// Whether filters ask for a thread's name, and for an allocation's stack.
    pub(crate) by_thread: bool,
    pub(crate) by_stack: bool,
    pub(crate) heap: HeapSetup,
    pub(crate) bounds: Bounds,
    pub(crate) patterns: Patterns,
    pub(crate) seed: u64,
    pub(crate) started_ms: u64,
    /// The options in force, as text.
    pub(crate) options_text: Text<1024>,
    /// A stack for rendering reports.
    pub(crate) report_stack: Range,
    /// Whether the addresses around the fill pattern are kept unmapped.
    pub(crate) keeps_fill: bool,
}

const UNSTARTED: u32 = 0;
const STARTING: u32 = 1;
const READY: u32 = 2;
/// `mode=off`, or the start failed: nothing is guarded and nothing ever was.
const OFF: u32 = 3;

/// The runtime.
pub struct Guard<P: Platform> {
    pub(crate) platform: P,
    pub(crate) quick: Quick,
    pub(crate) budget: Budget,
    pub(crate) contexts: Contexts,
    pub(crate) filters: Filters,
    pub(crate) hooks: Hooks,
    state: AtomicU32,
    /// After a fault of our own: no new block is guarded.
    disabled: AtomicU32,
    /// Whether a system call filter came into force after the start.
    pub(crate) filtered: AtomicU32,
    /// Whether the inner allocator ever gave out a block.
    pub(crate) inner_used: AtomicU32,
    setup: UnsafeCell<Option<Setup>>,
    pub(crate) heap: Heap,
    pub(crate) moving: Moving,
    pub(crate) depot: Depot,
    pub(crate) threads: ThreadTable,
    pub(crate) limits: Limits,
    pub(crate) arena: Arena,
    pub(crate) seals: Seals,
    pub(crate) stepping: Stepping,
    pub(crate) remains: Remains,
    /// What watches have noted.
    pub(crate) log: Ring,
    pub(crate) audits: Audits,
    pub(crate) reporter: Reporter,
    pub(crate) misc: Region,
    /// Allocations so far, where `fail_at` or `fail_rate` counts them.
    pub(crate) countdown: AtomicU64,
    /// Not 0 while this runtime's own start asks for blocks ([`Guard::apart_from_account`]).
    pub(crate) apart: AtomicU32,
    /// Not 0 when another runtime guards this process ([`Guard::stand_aside`]).
    pub(crate) aside: AtomicU32,
    /// The locks that the fork under way took. Belongs to who has the turn.
    held_for_fork: AtomicU32,
}

// SAFETY: `setup` is written once, by the thread that won the change from UNSTARTED to STARTING, before the Release
// store of READY or OFF, and read only after an Acquire load of one of these. Every other field is atomic or locked, or
// belongs to who has the turn.
unsafe impl<P: Platform> Sync for Guard<P> {}

impl<P: Platform> Guard<P> {
    /// A runtime that has not started.
    pub const fn new(platform: P, hooks: Hooks) -> Self {
        Guard {
            platform,
            quick: Quick::new(),
            budget: Budget::new(),
            contexts: Contexts::new(),
            filters: Filters::new(),
            hooks,
            state: AtomicU32::new(UNSTARTED),
            disabled: AtomicU32::new(0),
            filtered: AtomicU32::new(0),
            inner_used: AtomicU32::new(0),
            setup: UnsafeCell::new(None),
            heap: Heap::new(),
            moving: Moving::new(),
            depot: Depot::new(),
            threads: ThreadTable::new(),
            limits: Limits::new(),
            arena: Arena::new(),
            seals: Seals::new(),
            stepping: Stepping::new(),
            remains: Remains::new(),
            log: Ring::new(),
            audits: Audits::new(),
            reporter: Reporter::new(),
            misc: Region::new(),
            countdown: AtomicU64::new(0),
            apart: AtomicU32::new(0),
            aside: AtomicU32::new(0),
            held_for_fork: AtomicU32::new(0),
        }
    }

    /// The system underneath.
    pub fn platform(&self) -> &P {
        &self.platform
    }

    /// What the start decided, once it has.
    #[inline(always)]
    pub(crate) fn ready(&self) -> Option<&Setup> {
        if self.state.load(Ordering::Acquire) != READY {
            return None;
        }
        self.decided()
    }

    /// The same for a runtime that is off.
    #[inline(always)]
    pub(crate) fn decided(&self) -> Option<&Setup> {
        if self.state.load(Ordering::Acquire) < READY {
            return None;
        }
        self.decided_now()
    }

    /// The same, for the thread that starts the runtime and has decided.
    #[inline(always)]
    fn decided_now(&self) -> Option<&Setup> {
        // SAFETY: the only write to `setup` lies behind us: it comes before READY and OFF are stored, and the thread that
        // starts the runtime has made it itself.
        unsafe { (*self.setup.get()).as_ref() }
    }

    /// What the start decided.
    ///
    /// # Safety
    /// The setup must have been stored, and the caller know of it by an Acquire load.
    #[inline(always)]
    pub(crate) unsafe fn stored_setup(&self) -> &Setup {
        // SAFETY: as for `decided_now`; the setup is there by the caller's word.
        unsafe { (*self.setup.get()).as_ref().unwrap_unchecked() }
    }

    /// Whether nothing was ever guarded and nothing will be.
    #[inline]
    pub fn is_off(&self) -> bool {
        self.state.load(Ordering::Acquire) == OFF
    }

    /// Whether the runtime has been started, is starting, or has been found to be off.
    pub fn has_begun(&self) -> bool {
        self.state.load(Ordering::Acquire) != UNSTARTED
    }

    /// Whether new blocks are no longer guarded after a fault of our own.
    #[inline(always)]
    pub(crate) fn is_disabled(&self) -> bool {
        self.disabled.load(Ordering::Relaxed) != 0
    }

    /// Stops guarding new blocks, and says so once. Blocks that are guarded stay so.
    pub(crate) fn disable(&self, why: &str) {
        self.end_steady();
        if self.disabled.swap(1, Ordering::Relaxed) == 0 {
            self.complain(format_args!(
                "fault of its own ({why}): no further blocks are guarded; the program goes on"
            ));
        }
    }

    /// Starts the runtime: reads the options, chooses an engine, takes its memory, puts its handlers in force.
    /// Does nothing when it has begun. `compiled` holds the options that the program was built with.
    pub fn start(&self, compiled: &str) {
        if self.state.compare_exchange(UNSTARTED, STARTING, Ordering::AcqRel, Ordering::Acquire).is_err() {
            return;
        }
        let begun = self.platform.now_ns();
        self.platform.probe();
        let state = match self.set_up(compiled) {
            Some(()) => READY,
            None => OFF,
        };
        if state == OFF && !self.decided_now().is_some_and(Setup::is_account_wanted) {
            self.quick.set_idle();
        }
        self.state.store(state, Ordering::Release);
        if state == READY && self.moving.moves() {
            self.begin_steady(self.decided().map_or(0, |setup| setup.steady));
        }
        if let Some(setup) = self.decided() {
            self.write_start_line(setup);
        }
        if state == READY {
            self.put_handlers_in_force();
            self.budget.charge(self.platform.now_ns().saturating_sub(begun), Work::Start);
        } else if self.decided().is_some_and(Setup::is_account_wanted)
            && self.platform.at_exit(self.hooks.at_exit).is_err()
        {
            self.complain(format_args!("no notice of the exit could be had: there will be no summary"));
        }
    }

    fn put_handlers_in_force(&self) {
        let hooks = &self.hooks;
        if let Err(error) = self.platform.install(hooks.on_fault) {
            self.complain(format_args!(
                "the fault handler could not be installed ({error}): errors end without a report"
            ));
        }
        let fork = self.platform.at_fork(hooks.fork_prepare, hooks.fork_parent, hooks.fork_child);
        if let Err(error) = fork.and_then(|()| self.platform.at_exit(hooks.at_exit)) {
            self.complain(format_args!("no notice of fork and exit could be had ({error})"));
        }
    }

    pub(crate) fn store_setup(&self, setup: Setup) {
        // SAFETY: only `set_up` calls this, on the one thread that won the change to STARTING, and readers wait for
        // the Release store that follows.
        unsafe { *self.setup.get() = Some(setup) };
    }

    /// This thread's state, made if it has none; `None` while it is being made, after the thread's end, or when
    /// there are too many threads.
    #[inline(always)]
    pub(crate) fn thread(&self, setup: &Setup) -> Option<&'static ThreadState> {
        let word = self.platform.thread_word();
        match ThreadState::of_word(word) {
            Some(state) => Some(state),
            None if word == BUSY || word == GONE => None,
            None => self.enter_thread(setup),
        }
    }

    /// This thread's state if it has one.
    #[inline(always)]
    pub(crate) fn thread_if_known(&self) -> Option<&'static ThreadState> {
        ThreadState::of_word(self.platform.thread_word())
    }

    #[cold]
    fn enter_thread(&self, setup: &Setup) -> Option<&'static ThreadState> {
        self.platform.set_thread_word(BUSY);
        let Some(state) = self.threads.take(&self.platform, setup.seed, self.now(setup)) else {
            // Too many threads at once, or no memory for one more: this one asks again with its next allocation.
            self.platform.set_thread_word(0);
            return None;
        };
        state.set_alternate_stack(self.platform.ensure_alternate_stack());
        state.set_stack(self.platform.stack_bounds().unwrap_or_default());
        self.platform.drop_inherited_leave();
        self.platform.set_thread_word(core::ptr::from_ref(state) as usize);
        self.platform.at_thread_exit(self.hooks.thread_exit, core::ptr::from_ref(state) as usize);
        Some(state)
    }

    /// A thread ends: hands its spans over and gives its state back. What it still allocates after that, in
    /// destructors that run later, is served unguarded.
    pub fn thread_exit(&self, word: usize) {
        let (Some(setup), Some(state)) = (self.ready(), ThreadState::of_word(word)) else { return };
        self.enter();
        self.close_waiting(setup, state, Poison::Compared, &Frames::Here(0));
        self.leave();
        self.platform.set_thread_word(BUSY);
        self.hand_over(setup, state);
        let alternate = state.alternate_stack();
        state.set_alternate_stack(Range::default());
        if alternate.len != 0 {
            // SAFETY: `ensure_alternate_stack` gave it to this thread, which runs its exit code on its own stack.
            unsafe { self.platform.drop_alternate_stack(alternate) };
        }
        Pass::settle_all(state, &self.contexts);
        self.threads.give_back(&self.platform, state);
        self.platform.set_thread_word(GONE);
    }

    /// Gives a thread's counts and spans to the common stock.
    fn hand_over(&self, setup: &Setup, state: &ThreadState) {
        self.limits.add_held(state.held_delta.swap(0, Ordering::Relaxed));
        self.add_live(state);
        self.hand_spans_over(setup, state);
    }

    /// Counts a block that the inner allocator serves.
    pub(crate) fn count_unguarded(&self, state: Option<&ThreadState>, why: Unguarded) {
        match state {
            Some(state) => state.counters.not_guarded(why),
            None => {
                if let Some(counter) = self.threads.shared.unguarded.get(why as usize) {
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    /// Milliseconds since the start, as the records keep them.
    #[inline(always)]
    pub(crate) fn now(&self, setup: &Setup) -> u32 {
        self.now_since(setup.started_ms)
    }

    /// The same, given when that was.
    #[inline(always)]
    pub(crate) fn now_since(&self, started_ms: u64) -> u32 {
        let since = self.platform.now_ms().saturating_sub(started_ms);
        if since < u64::from(u32::MAX) { since as u32 } else { u32::MAX }
    }
}

impl Setup {
    /// Whether the user has asked for the summary, in either form.
    pub(crate) fn is_account_wanted(&self) -> bool {
        self.options.report.is_some() || self.options.summary == When::On
    }

    #[inline(always)]
    pub(crate) fn geometry(&self) -> &Geometry {
        &self.heap.geometry
    }

    #[inline(always)]
    pub(crate) fn engine(&self) -> Engine {
        self.heap.engine
    }
}
