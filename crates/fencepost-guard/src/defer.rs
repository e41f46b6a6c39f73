//! `defer=N`: freed blocks that wait, so that one call closes many, and neighbours among them as one range.
//!
//! A waiting block is dead to the program: its record says freed, and a second free is reported at once. Its pages are
//! open and hold the redzone pattern in place of its content, which is compared before they are closed: what was written
//! meanwhile is a `write-after-free`.
//!
//! Each thread has a list of its own, which only it adds to, linked through the records of the blocks. Whoever closes
//! them takes the whole list away at once, so that the owner and a check on another thread cannot both have a block.

use core::sync::atomic::Ordering;

use fencepost_record::{AccessType, ErrorKind, Note, Unguarded};
use fencepost_sys::{Platform, Range};

use crate::diagnose::Beside;
use crate::free::Named;
use crate::geometry::SLOTS_STRIDE;
use crate::report::{Case, Frames};
use crate::runtime::{Guard, Setup};
use crate::slot::{Slot, number_of};
use crate::span::Use;
use crate::threads::{Counters, ThreadState};

/// Blocks of at most so many pages wait. Larger ones may hold pages that nobody touched, and poison would.
const PAGES_MAX: usize = 4;
/// Blocks that are sorted and closed together: 3 KiB of stack.
const BATCH: usize = 128;

/// What becomes of blocks that wait.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Poison {
    /// It is compared, and damage is reported.
    Compared,
    /// The blocks are another process's: in a forked child, those of the parent's other threads.
    Ignored,
}

/// A block that waits, found by its number.
struct Waiting {
    slot: &'static Slot,
    index: usize,
    pages: usize,
    data: Range,
}

impl<P: Platform> Guard<P> {
    /// Lets a block that has just been freed wait, if it may; its pages are then as they were, and stay so.
    pub(crate) fn let_wait(
        &self,
        setup: &Setup,
        state: &ThreadState,
        named: &Named,
        frames: &Frames<'_>,
    ) -> bool {
        if setup.options.defer == 0 || named.pages == 0 || named.pages > PAGES_MAX {
            return false;
        }
        let number = number_of(named.index, named.number);
        let (Ok(link), Some(linked)) = (u32::try_from(number.wrapping_add(1)), self.heap.linked(number))
        else {
            return false;
        };
        if setup.options.fill {
            let block = Range { start: named.view.pointer, len: named.view.size };
            // SAFETY: the block is being freed: its pages are open, and ours until they are closed.
            unsafe { setup.patterns.lay_redzone(block) };
        }
        named.slot.end_free();
        Counters::bump(&state.counters.freed, 1);
        self.count_held(state, 0, u64::MAX);
        let mut newest = state.waiting.load(Ordering::Relaxed);
        loop {
            linked.next.store(newest, Ordering::Relaxed);
            // Release: whoever takes the list sees the poison and the links.
            match state.waiting.compare_exchange(newest, link, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => break,
                Err(now) => newest = now,
            }
        }
        let count = state.waiting_count.load(Ordering::Relaxed).wrapping_add(1);
        state.waiting_count.store(count, Ordering::Relaxed);
        if count > setup.options.defer {
            self.close_waiting(setup, state, Poison::Compared, frames);
        }
        true
    }

    /// Closes every block that waits in a thread's list, and says how many were damaged.
    pub(crate) fn close_waiting(
        &self,
        setup: &Setup,
        owner: &ThreadState,
        poison: Poison,
        frames: &Frames<'_>,
    ) -> usize {
        if setup.options.defer == 0 {
            return 0;
        }
        owner.waiting_count.store(0, Ordering::Relaxed);
        let mut next = owner.waiting.swap(0, Ordering::Acquire);
        let mut damaged = 0usize;
        while next != 0 {
            let mut batch = [0usize; BATCH];
            let mut count = 0usize;
            for place in &mut batch {
                let Some(number) = (next as usize).checked_sub(1) else { break };
                let Some(linked) = self.heap.linked(number) else { break };
                *place = number;
                count = count.wrapping_add(1);
                next = linked.next.swap(0, Ordering::Relaxed);
            }
            let Some(batch) = batch.get_mut(..count).filter(|batch| !batch.is_empty()) else { break };
            batch.sort_unstable();
            if poison == Poison::Compared && setup.options.fill {
                damaged = damaged.wrapping_add(self.report_damaged(setup, batch, frames));
            }
            self.close_batch(setup, batch);
        }
        damaged
    }

    /// Closes the waiting blocks of every thread.
    pub(crate) fn close_all_waiting(&self, setup: &Setup, anchor: usize) -> usize {
        if setup.options.defer == 0 {
            return 0;
        }
        let frames = Frames::Here(anchor);
        let close = |state: &ThreadState| self.close_waiting(setup, state, Poison::Compared, &frames);
        self.threads.owned().fold(0, |sum, state| sum.wrapping_add(close(state)))
    }

    fn waiting(&self, setup: &Setup, number: usize) -> Option<Waiting> {
        let (index, within) = (number / SLOTS_STRIDE, number % SLOTS_STRIDE);
        let slot = self.heap.slot(index, within)?;
        let Use::Small(pages) = self.heap.span(index)?.usage() else { return None };
        Some(Waiting { slot, index, pages, data: self.data_of_small(setup, index, pages, within) })
    }

    fn report_damaged(&self, setup: &Setup, batch: &[usize], frames: &Frames<'_>) -> usize {
        let mut damaged = 0usize;
        for block in batch.iter().filter_map(|number| self.waiting(setup, *number)) {
            // SAFETY: a waiting block's pages are open until `close_batch`.
            let Some(damage) = (unsafe { setup.patterns.find_damage(block.data) }) else { continue };
            damaged = damaged.wrapping_add(1);
            let mut case = Case::of(ErrorKind::WriteAfterFree, AccessType::None, damage.start);
            case.block = Some(Beside::of(self.heap.view(block.slot), damage.start));
            case.damage = Some((damage.start as u64, damage.len as u64));
            case.notes.add(Note::FoundLater);
            self.report(setup, &case, frames);
        }
        damaged
    }

    /// Closes blocks whose numbers are in order: those of one span that follow each other as one range, together with
    /// the guard pages between them.
    fn close_batch(&self, setup: &Setup, batch: &[usize]) {
        let mut ranges = [Range::default(); BATCH];
        let mut count = 0usize;
        let mut before: Option<usize> = None;
        for number in batch {
            let Some(block) = self.waiting(setup, *number) else { continue };
            let follows = before.is_some_and(|before| before.wrapping_add(1) == *number)
                && !number.is_multiple_of(SLOTS_STRIDE);
            before = Some(*number);
            let last = count.checked_sub(1).filter(|_| follows).and_then(|last| ranges.get_mut(last));
            match last {
                Some(last) => last.len = block.data.end().wrapping_sub(last.start),
                None => {
                    if let Some(place) = ranges.get_mut(count) {
                        *place = block.data;
                        count = count.wrapping_add(1);
                    }
                }
            }
        }
        // Those that are closed otherwise, because the engine could not serve them.
        let own = self.moving.zone_of_choice(setup);
        let unmarked = |number: &usize| {
            let span = self.heap.span(number / SLOTS_STRIDE);
            span.is_none_or(|span| span.unmarked.load(Ordering::Relaxed) != 0 || span.zone() != own)
        };
        let ranges = ranges.get(..count).unwrap_or(&[]);
        // SAFETY: the blocks were freed and are ours to close, and between two that follow each other lies a guard page.
        let together = !batch.iter().any(unmarked)
            && unsafe { setup.engine().close_each(&self.platform, ranges) }.is_ok();
        for number in batch {
            let Some(block) = self.waiting(setup, *number) else { continue };
            if !together {
                self.close_small(setup, block.index, block.data);
            }
            self.limits.give_mappings(self.engine_at(setup, block.index).mappings_per_block());
            self.limits.add_held(0u64.wrapping_sub(block.data.len as u64));
            self.count_dead(setup, false, block.index, block.pages);
        }
    }

    /// Whether a block that holds so much may be guarded. Blocks that wait are closed before the answer is no, and pages
    /// that are kept for later are dropped.
    pub(crate) fn allow(&self, setup: &Setup, state: &ThreadState, held: u64) -> Result<(), Unguarded> {
        let ask = || self.limits.allow(&setup.bounds, self.table_bytes(), held, || state.next_random());
        match ask() {
            Err(_) if state.waiting_count.load(Ordering::Relaxed) != 0 => {
                self.close_waiting(setup, state, Poison::Compared, &Frames::Here(0));
                ask()
            }
            Err(Unguarded::Memory) if self.clear_stocks(setup, state) => ask(),
            answer => answer,
        }
    }
}
