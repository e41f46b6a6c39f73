//! The short way of a block that nobody guards: under `mode=sample`, nearly every one.
//!
//! A thread has an *allowance*: how many of its next allocations go to the inner allocator without anybody being asked.
//! Allocating then is to find the thread's state, take one off the allowance, and go. What is counted is the allowance
//! when it is given (`Guard::grant`); whoever reads the counts takes off what is left of it.
//!
//! Freeing is a comparison: an address outside the *hull*, the least range that holds the guarded heap and the arena, is
//! the inner allocator's. The hull lies in a line of its own that is written once, at the start.
//!
//! Where C's allocation functions are exported over this runtime, an inner allocator that calls them comes back here. What is
//! given then bears the mark [`TO_ASK`], which makes it negative, so that [`Guard::passes_at_once`] finds out by the same
//! comparison that it has nothing to say.
//!
//! Both answer "ask" in doubt: before the start, in a thread without a state, while the runtime is at work on this
//! thread, while a report resolves names (`Guard::set_rendering` takes the allowance away), and in every other mode.

use fencepost_record::Unguarded;
use fencepost_sys::atomic::{AtomicU32, AtomicUsize, Ordering};
use fencepost_sys::{Platform, Range};

use crate::contexts::Door;
use crate::filter::{ask_for_stack, ask_for_thread};
use crate::options::Options;
use crate::runtime::Guard;
use crate::threads::{Counters, ThreadState};

/// Addresses below this are no block's: null pointers with an offset.
pub(crate) const LOWEST: usize = 64 << 10;
/// One past the addresses that a program can have.
const HIGHEST: usize = 1 << 47;
/// The bit of an allowance that is not for [`Guard::passes_at_once`].
const TO_ASK: u32 = 1 << 31;

/// What the short ways ask of the runtime as a whole. Written at the start only, and apart from what is written later.
#[repr(C, align(128))]
pub(crate) struct Quick {
    /// Addresses from [`LOWEST`] on that are below the hull.
    below: AtomicUsize,
    hull_end: AtomicUsize,
    /// Addresses from the hull's end on.
    above: AtomicUsize,
    /// Not 0 when nothing is guarded and nobody counts.
    idle: AtomicU32,
    /// Not 0 when C's allocation functions are exported over this runtime, so that an inner allocator may come back here.
    exported: AtomicU32,
    /// What can be steady (`steady.rs`).
    pub(crate) steady: AtomicU32,
}

impl Quick {
    pub(crate) const fn new() -> Quick {
        Quick {
            below: AtomicUsize::new(0),
            hull_end: AtomicUsize::new(0),
            above: AtomicUsize::new(0),
            idle: AtomicU32::new(0),
            exported: AtomicU32::new(0),
            steady: AtomicU32::new(0),
        }
    }

    /// Whether an address is the inner allocator's for sure.
    #[inline(always)]
    fn is_foreign(&self, address: usize) -> bool {
        address.wrapping_sub(LOWEST) < self.below.load(Ordering::Relaxed)
            || address.wrapping_sub(self.hull_end.load(Ordering::Relaxed))
                < self.above.load(Ordering::Relaxed)
    }

    /// From here addresses outside of all `ours` are the inner allocator's.
    pub(crate) fn set_hull(&self, ours: [Range; 2]) {
        let start = ours.iter().map(|range| range.start).min().unwrap_or(LOWEST);
        let end = ours.iter().map(|range| range.end()).max().unwrap_or(HIGHEST);
        self.below.store(start.saturating_sub(LOWEST), Ordering::Relaxed);
        self.hull_end.store(end, Ordering::Relaxed);
        self.above.store(HIGHEST.saturating_sub(end), Ordering::Relaxed);
    }

    /// From here every block is the inner allocator's, and nobody counts.
    pub(crate) fn set_idle(&self) {
        self.below.store(usize::MAX, Ordering::Relaxed);
        self.idle.store(1, Ordering::Relaxed);
    }
}

impl<P: Platform> Guard<P> {
    /// Whether this thread's next block is the inner allocator's by the thread's allowance alone; then it has been counted.
    /// Else [`Guard::passes`] is to be asked. Never where the inner allocator may come back here.
    ///
    /// It is not asked whether the runtime is at work on this thread: it allocates nothing itself, and what a signal handler
    /// of the program's allocates meanwhile is the inner allocator's in any case.
    #[inline(always)]
    pub fn passes_at_once(&self) -> bool {
        let Some(state) = ThreadState::of_word(self.platform.thread_word()) else { return self.is_idle() };
        let left = state.allowance.load(Ordering::Relaxed);
        // Not 0, and not marked.
        if left.cast_signed() <= 0 {
            return false;
        }
        state.allowance.store(left.wrapping_sub(1), Ordering::Relaxed);
        true
    }

    /// Whether this thread's next block, of `size` bytes, is the inner allocator's without further questions; then it has
    /// been counted. Else [`Guard::allocate`] is to be asked, and nobody before it.
    ///
    /// `door` is the function of ours that was called, and `here` gives an address in its frame, or in that of a caller
    /// of ours that is always the same; it is asked for under `mode=budget` only.
    #[inline(always)]
    pub fn passes(&self, size: usize, door: Door, here: impl FnOnce() -> usize) -> bool {
        let Some(state) = ThreadState::of_word(self.platform.thread_word()) else { return self.is_idle() };
        if state.depth.load(Ordering::Relaxed) != 0 {
            return false;
        }
        let left = state.allowance.load(Ordering::Relaxed);
        if left & !TO_ASK != 0 {
            state.allowance.store(left.wrapping_sub(1), Ordering::Relaxed);
            return true;
        }
        state.front.load(Ordering::Relaxed) != 0
            && state.reporting.load(Ordering::Relaxed) == 0
            && state.expected.load(Ordering::Relaxed) == 0
            && self.passes_budget(state, size, door, here())
    }

    /// Whether a block is the inner allocator's for sure, by its address.
    #[inline(always)]
    pub fn is_foreign(&self, address: usize) -> bool {
        self.quick.is_foreign(address)
    }

    /// Whether nothing is guarded and nobody counts.
    #[inline(always)]
    pub fn is_idle(&self) -> bool {
        self.quick.idle.load(Ordering::Relaxed) != 0
    }

    /// Notes that C's allocation functions are exported over this runtime.
    #[inline]
    pub fn note_exported(&self) {
        if !self.is_exported() {
            self.quick.exported.store(1, Ordering::Relaxed);
            // What was given before, if the program's first call of C's came late.
            for state in self.threads.owned() {
                state.allowance.fetch_or(TO_ASK, Ordering::Relaxed);
            }
        }
    }

    /// Whether C's allocation functions are exported over this runtime.
    #[inline(always)]
    pub fn is_exported(&self) -> bool {
        self.quick.exported.load(Ordering::Relaxed) != 0
    }

    /// Lets a thread's next `blocks` allocations pass, and counts them as passed.
    pub(crate) fn grant(&self, state: &ThreadState, blocks: u32) {
        let blocks = blocks.min(!TO_ASK);
        state.count_passed(u64::from(blocks));
        let mark = if self.is_exported() { TO_ASK } else { 0 };
        state.allowance.store(blocks | mark, Ordering::Relaxed);
    }
}

impl ThreadState {
    /// What may still pass without a question.
    pub(crate) fn may_pass(&self) -> u32 {
        self.allowance.load(Ordering::Relaxed) & !TO_ASK
    }

    /// While this thread resolves names, everything it allocates is the arena's.
    pub(crate) fn hold_allowance(&self) {
        let left = self.allowance.fetch_and(TO_ASK, Ordering::Relaxed) & !TO_ASK;
        self.held_allowance.fetch_add(left, Ordering::Relaxed);
    }

    /// The end of [`ThreadState::hold_allowance`].
    pub(crate) fn give_allowance_back(&self) {
        let held = self.held_allowance.swap(0, Ordering::Relaxed);
        self.allowance.fetch_add(held, Ordering::Relaxed);
    }

    /// What is counted as passed and has not passed yet.
    pub(crate) fn counted_ahead(&self) -> u64 {
        u64::from(self.may_pass()).wrapping_add(u64::from(self.held_allowance.load(Ordering::Relaxed)))
    }

    /// The thread ends: what it did not use is no longer counted.
    pub(crate) fn settle(&self) {
        let ahead = self.counted_ahead();
        self.allowance.store(0, Ordering::Relaxed);
        self.held_allowance.store(0, Ordering::Relaxed);
        self.count_passed(0u64.wrapping_sub(ahead));
    }

    /// Why blocks of this thread pass.
    pub(crate) fn passes_by(&self) -> Unguarded {
        if self.front.load(Ordering::Relaxed) == 0 { Unguarded::Sample } else { Unguarded::Budget }
    }

    /// Counts passes, or with a wrapping number takes them off.
    pub(crate) fn count_passed(&self, blocks: u64) {
        if let Some(counter) = self.counters.unguarded.get(self.passes_by() as usize) {
            Counters::bump(counter, blocks);
        }
    }
}

/// Whether these options let blocks pass unseen: nothing about a block that is not chosen has to be known.
pub(crate) fn lets_pass(options: &Options) -> bool {
    let unfiltered = options.only_size.is_empty()
        && options.skip_size.is_empty()
        && options.only_align.is_empty()
        && options.skip_align.is_empty()
        && !ask_for_thread(options)
        && !ask_for_stack(options);
    options.mode.leaves_most() && unfiltered && options.fail_at == 0 && options.fail_rate == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outside_the_hull_is_foreign_and_nonsense_is_asked_about() {
        let quick = Quick::new();
        for address in [0, 8, LOWEST, 1 << 30, usize::MAX] {
            assert!(!quick.is_foreign(address), "{address:#x} before the start");
        }
        let (low, high) = (0x7000_0000_0000, 0x7100_0000_0000);
        quick.set_hull([Range { start: high, len: 4096 }, Range { start: low, len: 4096 }]);
        for address in [LOWEST, 0x5555_0000_1000, low - 1, high + 4096, HIGHEST - 1] {
            assert!(quick.is_foreign(address), "{address:#x}");
        }
        for address in [0, 16, LOWEST - 1, low, low + 8192, high, high + 4095, HIGHEST, usize::MAX] {
            assert!(!quick.is_foreign(address), "{address:#x}");
        }
        quick.set_idle();
        assert!(quick.is_foreign(low), "with nothing guarded every block is the inner allocator's");
    }
}
