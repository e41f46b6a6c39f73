//! `mode=budget`: which blocks are guarded, so that guarding takes a given share of the program's CPU time and finds most.
//!
//! What may be spent and what was is the account's to know (`budget/account.rs`). What is decided follows from the *pressure*:
//! how near what was spent is to what may be spent by now.
//!
//! # What is guarded
//! - The first block of a new calling context (`contexts.rs`), as long as it can be paid for, and as long as such first
//!   blocks have not taken more than three quarters of all that may be spent: a program of endless new contexts leaves the
//!   rest for the old ones.
//! - Every block, while the pressure is low: very short programs are guarded whole.
//! - Else a context's blocks at growing distances: after its u-th block about `u * spread` more pass, give or take half
//!   of it by chance. So each context is guarded about equally often in every doubling of its uses, whether it is hot or
//!   rare, early and late. `spread` grows with the pressure, from a 256th to a half, which is how the share is held: a
//!   program that goes on earns, the pressure falls, the distances shrink, and late errors have the same chance as early ones.
//!   Not to more than a half: a context that passes for longer than it was there before misses a whole doubling. Where
//!   that is too much for the time there is, some that are due are put off, for a quarter of their uses so far.
//!
//! # Looking costs too
//! A context is looked up in 12 ns where that is done often, in 60 and more where it is rare and finds the caches cold; a
//! visit to the table counts as some further looks. A thread that allocates so often that this alone would take more than
//! an eighth of the share looks at one block in `stride` only; the others pass by its allowance, as under `mode=sample`.
//! It looks at [`BURST`] blocks one after the other and then at none for `stride` times as many, on average: the first
//! look of these warms the caches for the others.
//!
//! Everything is Relaxed: the numbers steer, nothing else is reached through them.

mod account;

use fencepost_record::Unguarded;
use fencepost_sys::Platform;
use fencepost_sys::atomic::{AtomicU64, Ordering};

use account::FULL;
pub(crate) use account::{Budget, Work};

use crate::contexts::{Context, Door};
use crate::front::Pass;
use crate::runtime::{Guard, Setup};
use crate::threads::ThreadState;

/// Below this every block is guarded.
const FREE: u64 = 192;
/// Pressure that doubles the spread.
const DOUBLING: u64 = 64;
/// What looking a context up takes, in nanoseconds, when every block is looked at (see [`look_ns`]): in a dev build some
/// six times what it takes where fencepost is optimised.
const LOOK_NS: u64 = if cfg!(debug_assertions) { 72 } else { 12 };
/// The part of the share that looks may take: one in so many.
const LOOK_PART: u64 = 8;
/// Blocks that are looked at one after the other.
const BURST: u32 = 16;
/// Looks that one visit to the table takes as long as.
const VISIT_LOOKS: u32 = 3;
/// Looks between two measurements of how often a thread allocates.
const LOOKS: u32 = 1024;
/// The most blocks that one look stands for.
const STRIDE_MAX: u32 = 64;
/// The fewest blocks that pass after one that could not be paid for.
const REFUSED_GAP: u64 = 64;

/// A block that is to be guarded.
#[derive(Clone, Copy)]
pub(crate) struct Choice {
    context: usize,
    key: u64,
    /// Blocks of the context that pass after it.
    gap: u32,
    is_first: bool,
    begun_ns: u64,
}

/// What one look takes: the rarer the bursts are, the colder are the caches that their first ones find.
fn look_ns(stride: u32) -> u64 {
    LOOK_NS.saturating_mul(u64::from(stride.max(1).ilog2()).saturating_add(4)) / 4
}

/// How many blocks of a context pass on average, after `uses` of them and under this pressure.
fn mean_gap(uses: u64, pressure: u64) -> u64 {
    let above = pressure.saturating_sub(FREE).min(DOUBLING.saturating_mul(8));
    if above == 0 {
        return 0;
    }
    let (doublings, rest) = (above / DOUBLING, above % DOUBLING);
    let spread = 1u64.checked_shl(u32::try_from(doublings).unwrap_or(u32::MAX)).unwrap_or(u64::MAX);
    let spread = spread.saturating_mul(DOUBLING.saturating_add(rest)) / DOUBLING;
    (uses.saturating_mul(spread) >> 8).min(uses / 2)
}

impl<P: Platform> Guard<P> {
    /// Whether a block of this context passes on this thread. Else the call is noted for [`Guard::choose`].
    #[inline(never)]
    pub(crate) fn passes_budget(&self, state: &ThreadState, size: usize, door: Door, here: usize) -> bool {
        let key = self.contexts.fingerprint(here, state.stack(), size, door);
        if Pass::take_one(state, key) {
            self.stride_on(state);
            return true;
        }
        state.call_key.store(key, Ordering::Relaxed);
        state.call_here.store(here, Ordering::Relaxed);
        state.call_door.store(door as u32, Ordering::Relaxed);
        false
    }

    /// Lets the next blocks of a thread that allocates very often pass without a look.
    #[inline(always)]
    fn stride_on(&self, state: &ThreadState) {
        let left = state.looks.load(Ordering::Relaxed);
        if left == 0 {
            return self.pace(state);
        }
        state.looks.store(left.wrapping_sub(1), Ordering::Relaxed);
        let stride = state.stride.load(Ordering::Relaxed);
        if stride > 1 {
            let burst = state.burst.load(Ordering::Relaxed);
            if burst == 0 {
                return self.pause(state, stride);
            }
            state.burst.store(burst.wrapping_sub(1), Ordering::Relaxed);
        }
    }

    /// The end of a burst of looks: some blocks pass without any.
    #[inline(never)]
    fn pause(&self, state: &ThreadState, stride: u32) {
        state.burst.store(BURST.wrapping_sub(1), Ordering::Relaxed);
        // By chance, so that no rhythm of the program is missed for good.
        let span =
            u64::from(BURST.saturating_mul(stride.saturating_sub(1))).saturating_mul(2).saturating_add(1);
        let blocks = state.next_random().checked_rem(span).unwrap_or(0);
        self.grant(state, u32::try_from(blocks).unwrap_or(0));
    }

    /// Measures how often this thread looks, and sets its stride.
    #[cold]
    fn pace(&self, state: &ThreadState) {
        let since = |last: &AtomicU64, now: u64| match last.swap(now, Ordering::Relaxed) {
            // The first look of the thread.
            0 => u64::MAX,
            before => now.saturating_sub(before),
        };
        // Other processes' time makes the clock run ahead of this thread, and its process's other threads their common time.
        let [clock, process] = &state.paced_ns;
        let taken = since(clock, self.platform.now_ns()).min(since(process, self.platform.cpu_ns()));
        let percent = self.decided().map_or(1, |setup| u64::from(setup.options.budget));
        let stride = state.stride.load(Ordering::Relaxed).max(1);
        let looks_ns = u64::from(LOOKS).saturating_mul(look_ns(stride));
        let wanted = looks_ns.saturating_mul(LOOK_PART * 100).checked_div(percent).unwrap_or(u64::MAX);
        let stride = match taken {
            taken if taken < wanted => stride.saturating_mul(2).min(STRIDE_MAX),
            taken if taken / 4 > wanted => (stride / 2).max(1),
            _ => stride,
        };
        self.budget.charge(looks_ns, Work::Look);
        state.stride.store(stride, Ordering::Relaxed);
        state.looks.store(LOOKS, Ordering::Relaxed);
    }

    /// Decides about a block of a context that may not pass unseen.
    pub(crate) fn choose(
        &self,
        setup: &Setup,
        state: &ThreadState,
        size: usize,
    ) -> Result<Choice, Unguarded> {
        // A caller that did not ask first tells nothing about its context but the size.
        let key = match state.call_key.swap(0, Ordering::Relaxed) {
            0 => crate::pattern::mix(size as u64) | 1,
            key => key,
        };
        self.look_at_the_time(setup);
        let index = self.contexts.find(key, size);
        let context = self.contexts.at(index).ok_or(Unguarded::Budget)?;
        let uses = self.contexts.use_one(context);
        let is_first = context.guarded.load(Ordering::Relaxed) == 0;
        let pressure = self.budget.pressure();
        let due = context.next.load(Ordering::Relaxed);
        if !is_first && uses < due {
            self.let_pass(setup, state, key, index, due.saturating_sub(uses).saturating_sub(1));
            return Err(Unguarded::Budget);
        }
        let affordable = if is_first { self.budget.allows_first() } else { pressure < FULL };
        let mean = match affordable {
            true => mean_gap(uses, pressure).max(self.budget.least_gap(uses)),
            // Uses are counted by looks, and one may stand for many blocks.
            false => {
                let stride = state.stride.load(Ordering::Relaxed).max(1);
                (uses / 4).max(REFUSED_GAP.checked_div(stride.into()).unwrap_or(REFUSED_GAP))
            }
        };
        let chance = state.next_random().checked_rem(mean.saturating_add(1)).unwrap_or(0);
        let gap = (mean / 2).saturating_add(chance);
        context.next.store(uses.saturating_add(gap).saturating_add(1), Ordering::Relaxed);
        if !affordable {
            self.let_pass(setup, state, key, index, gap);
            return Err(Unguarded::Budget);
        }
        let gap = u32::try_from(gap).unwrap_or(u32::MAX);
        Ok(Choice { context: index, key, gap, is_first, begun_ns: self.platform.now_ns() })
    }

    fn let_pass(&self, setup: &Setup, state: &ThreadState, key: u64, context: usize, blocks: u64) {
        // What the table took counts as so many looks, which bring the next measurement nearer.
        let looks = state.looks.load(Ordering::Relaxed);
        state.looks.store(looks.saturating_sub(VISIT_LOOKS), Ordering::Relaxed);
        if setup.lets_pass
            && let Some(place) = Pass::place_for(state, key)
        {
            place.give(state, &self.contexts, key, context, u32::try_from(blocks).unwrap_or(u32::MAX));
            self.stride_on(state);
        }
    }

    /// A chosen block is in place: learns from its stack, notes its context as covered, and pays.
    pub(crate) fn settle_choice(
        &self,
        setup: &Setup,
        state: &ThreadState,
        choice: Choice,
        trace: u32,
        size: usize,
    ) {
        let here = state.call_here.swap(0, Ordering::Relaxed);
        let door = Door::of(state.call_door.load(Ordering::Relaxed));
        let (mut index, mut key) = (choice.context, choice.key);
        if here != 0
            && let Some(frames) = self.depot.frames(trace)
            && self.contexts.learn(here, state.stack(), door, frames)
        {
            key = self.contexts.fingerprint(here, state.stack(), size, door);
            index = self.contexts.rename(index, key, size);
        }
        if let Some(context) = self.contexts.at(index) {
            self.contexts.cover(context, trace);
        }
        self.let_pass(setup, state, key, index, u64::from(choice.gap));
        let spent = self.platform.now_ns().saturating_sub(choice.begun_ns);
        let work = if choice.is_first { Work::First } else { Work::Block };
        self.budget.charge(spent, work);
    }

    /// Asks for the process's time when a coarse clock has moved.
    fn look_at_the_time(&self, setup: &Setup) {
        let now = self.now(setup);
        if self.budget.is_due(now) {
            self.budget.earn(self.platform.cpu_ns(), u64::from(setup.options.budget));
        }
    }
}

/// Contexts of which more than one was taken for one, for the summary.
pub(crate) fn is_confused(context: &Context) -> bool {
    context.confused.load(Ordering::Relaxed) != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_grow_with_uses_and_with_pressure() {
        assert_eq!(mean_gap(1_000_000, FREE), 0, "little was spent: everything is guarded");
        assert_eq!(mean_gap(100, FREE + 1), 0, "and the first blocks of each context still");
        assert_eq!(mean_gap(2560, FREE + DOUBLING * 7), 1280);
        assert_eq!(mean_gap(2560, FREE + DOUBLING * 6), 640);
        assert_eq!(mean_gap(2560, FREE + DOUBLING * 6 + DOUBLING / 2), 960);
        assert_eq!(mean_gap(2560, FULL), 1280, "never for longer than half of what was");
        assert!(mean_gap(u64::MAX, u64::MAX) > 0 && mean_gap(0, FULL) == 0 && mean_gap(99, FULL) == 49);
        let gaps: std::vec::Vec<u64> = (0..2 * FULL).map(|pressure| mean_gap(10_000, pressure)).collect();
        assert!(gaps.is_sorted());
    }

    #[test]
    fn a_rare_look_is_taken_to_cost_more() {
        assert_eq!([1, 2, 16, STRIDE_MAX].map(look_ns), [4, 5, 8, 10].map(|quarters| LOOK_NS * quarters / 4));
        assert_eq!(look_ns(0), LOOK_NS, "a thread that has not been measured");
    }
}
