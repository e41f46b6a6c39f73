//! Simulated memory: the calls, their failures, and what tests may ask.

use std::format;
use std::string::String;
use std::sync::MutexGuard;
use std::vec::Vec;

use super::space::{Page, PageState, RESERVED, Space};
use super::{Sim, beneath::Beneath, lock};
use crate::{Memory, Moved, Offers, Protection, Range, VmError, VmResult};

/// Why a page cannot be populated (`EFAULT`).
const BAD_ADDRESS: VmError = VmError::Other(14);

/// The memory of one instance.
pub(super) struct State {
    pub(super) space: Space,
    /// What was given by one call and not given back.
    reservations: Vec<Range>,
    violations: Vec<String>,
    pub(super) available: Option<u64>,
    calls: u64,
    /// The first call that fails, and whether all after it do.
    fail: Option<(u64, bool)>,
}

impl State {
    pub(super) const fn new(available: Option<u64>) -> State {
        State {
            space: Space::new(),
            reservations: Vec::new(),
            violations: Vec::new(),
            available,
            calls: 0,
            fail: None,
        }
    }

    /// Counts a call that may fail, and fails it if that was asked for.
    pub(super) fn begin(&mut self) -> VmResult {
        self.calls = self.calls.wrapping_add(1);
        match self.fail {
            Some((at, rest)) if self.calls == at || (rest && self.calls > at) => Err(VmError::OutOfMemory),
            _ => Ok(()),
        }
    }

    fn violation(&mut self, call: &str, range: Range, what: &str) {
        self.violations.push(format!("{call} of {:#x}+{:#x}: {what}", range.start, range.len));
    }

    /// Checks that a range lies within one reservation, and that its pages are as the call needs them.
    pub(super) fn check(&mut self, call: &str, range: Range, needs: Needs) -> VmResult {
        let holds = |reservation: &Range| {
            range.start >= reservation.start && range.end() <= reservation.end() && range.end() > range.start
        };
        if !self.reservations.iter().any(holds) {
            let parts = self.space.within(range);
            let what = if parts.iter().all(|(_, page)| page.is_some()) && !parts.is_empty() {
                "crosses from one reservation into another"
            } else {
                "is not reserved"
            };
            self.violation(call, range, what);
            return Err(VmError::OutOfMemory);
        }
        if needs == Needs::Committed {
            let fine = |(_, page): &(Range, Option<Page>)| page.is_some_and(|page| page.committed);
            if !self.space.within(range).iter().all(fine) {
                self.violation(call, range, "is not committed");
                return Err(VmError::OutOfMemory);
            }
        }
        Ok(())
    }

    pub(super) fn give_back(&mut self, range: Range) {
        let all = core::mem::take(&mut self.reservations);
        for reservation in all {
            let low = range.start.clamp(reservation.start, reservation.end());
            let high = range.end().clamp(low, reservation.end());
            let parts = [(reservation.start, low), (high, reservation.end())];
            if low == high {
                self.reservations.push(reservation);
                continue;
            }
            for (from, to) in parts {
                if to > from {
                    self.reservations.push(Range { start: from, len: to.wrapping_sub(from) });
                }
            }
        }
    }
}

/// What a call needs the pages of its range to be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Needs {
    Reserved,
    Committed,
}

impl Sim {
    /// Makes the `n`-th call that may fail, counted from 1 from here on, return [`VmError::OutOfMemory`].
    pub fn fail_at(&self, n: u64) {
        let mut state = lock(&self.memory);
        state.fail = Some((state.calls.wrapping_add(n), false));
    }

    /// As [`Sim::fail_at`], and all calls after it too.
    pub fn fail_from(&self, n: u64) {
        let mut state = lock(&self.memory);
        state.fail = Some((state.calls.wrapping_add(n), true));
    }

    /// Makes no further call fail.
    pub fn fail_never(&self) {
        lock(&self.memory).fail = None;
    }

    /// What a page is.
    pub fn page_state(&self, address: usize) -> PageState {
        lock(&self.memory).space.page(address).map_or(PageState::Released, Page::state)
    }

    /// Whether a read of this byte would trap.
    pub fn would_trap(&self, address: usize) -> bool {
        !matches!(self.page_state(address), PageState::Committed | PageState::ReadOnly)
    }

    /// Whether a write to this byte would trap.
    pub fn would_trap_write(&self, address: usize) -> bool {
        self.page_state(address) != PageState::Committed
    }

    /// What is reserved now.
    pub fn reserved(&self) -> Vec<Range> {
        lock(&self.memory).reservations.clone()
    }

    /// Bytes committed now, guarded ones included.
    pub fn committed(&self) -> usize {
        let state = lock(&self.memory);
        let committed = state.space.taken().filter(|(_, page)| page.committed);
        committed.fold(0, |sum, (range, _)| sum.wrapping_add(range.len))
    }

    /// Mappings that the runtime causes now.
    pub fn mappings(&self) -> usize {
        lock(&self.memory).space.mappings()
    }

    /// What was done that a correct caller does not do.
    pub fn violations(&self) -> Vec<String> {
        lock(&self.memory).violations.clone()
    }

    /// Panics unless everything was given back.
    pub fn assert_all_released(&self) {
        let left = self.reserved();
        assert!(left.is_empty(), "still reserved: {left:x?}");
    }

    /// Panics if anything was done that a correct caller does not do.
    pub fn assert_no_violations(&self) {
        let violations = self.violations();
        assert!(violations.is_empty(), "violations: {violations:#?}");
    }

    /// Sets what [`Memory::available`] answers.
    pub fn set_available(&self, bytes: Option<u64>) {
        lock(&self.memory).available = bytes;
    }

    fn is_aligned(&self, range: Range) -> bool {
        let low = self.options.page_size.wrapping_sub(1);
        range.start & low == 0 && range.len & low == 0 && range.len != 0
    }

    fn mappings_room(&self) -> usize {
        self.options.mappings_max.map_or(usize::MAX, |max| max.saturating_sub(self.options.mappings_other))
    }

    /// Begins a call on a range: counts it, fails it if asked to, and checks it.
    pub(super) fn begin(&self, call: &str, range: Range, needs: Needs) -> VmResult<MutexGuard<'_, State>> {
        let mut state = lock(&self.memory);
        state.begin()?;
        if !self.is_aligned(range) {
            state.violation(call, range, "is not a whole number of pages");
            return Err(VmError::Unsupported);
        }
        state.check(call, range, needs)?;
        Ok(state)
    }

    fn begin_marker(&self, call: &str, range: Range) -> VmResult<MutexGuard<'_, State>> {
        if !self.options.markers {
            lock(&self.memory).begin()?;
            return Err(VmError::Unsupported);
        }
        self.begin(call, range, Needs::Committed)
    }

    fn take(&self, state: &mut State, range: Range) -> VmResult {
        // SAFETY: the host has just reserved the range for us, and nobody else knows it.
        let opened = unsafe { Beneath.commit(range) };
        if opened.is_err() || !state.space.set(range, Some(RESERVED), self.mappings_room()) {
            // SAFETY: as above.
            unsafe { Beneath.release(range)? };
            return Err(VmError::OutOfMemory);
        }
        state.reservations.push(range);
        Ok(())
    }

    /// Makes pages usable with a protection, whatever they were; guards stay.
    pub(super) fn set_protection(&self, range: Range, protection: Protection) -> VmResult {
        let mut state = lock(&self.memory);
        let usable = |page: Page| Page { committed: true, protection, ..page };
        if state.space.update(range, self.mappings_room(), usable) {
            Ok(())
        } else {
            Err(VmError::OutOfMemory)
        }
    }

    /// One call where ranges may be given together, else one for each; when it fails, half of them are done.
    fn mark_each(&self, call: &str, ranges: &[Range], mark: impl Fn(&mut State, Range)) -> VmResult {
        let batches = if self.options.vectored { ranges.len().max(1) } else { 1 };
        for batch in ranges.chunks(batches) {
            let failed = batch.first().and_then(|first| self.begin_marker(call, *first).err());
            let mut state = lock(&self.memory);
            let done = if failed.is_some() { batch.len() / 2 } else { batch.len() };
            for range in batch.iter().take(done) {
                state.check(call, *range, Needs::Committed)?;
                if self.options.markers {
                    mark(&mut state, *range);
                }
            }
            if let Some(error) = failed {
                return Err(error);
            }
        }
        Ok(())
    }

    fn shut(&self, state: &mut State, range: Range) {
        zero(range);
        state.space.update(range, usize::MAX, |page| Page { guarded: true, ..page });
    }

    fn open(&self, state: &mut State, range: Range) {
        for (part, page) in state.space.within(range) {
            if page.is_some_and(|page| page.guarded) {
                zero(part);
            }
        }
        state.space.update(range, usize::MAX, |page| Page { guarded: false, ..page });
    }
}

/// Makes host memory zero.
pub(super) fn zero(range: Range) {
    // SAFETY: the range lies within a reservation of this simulated system, checked by the callers.
    let done = unsafe { Beneath.discard(range) };
    assert!(done.is_ok(), "the host cannot drop pages: {done:?}");
}

impl Memory for Sim {
    fn page_size(&self) -> usize {
        self.options.page_size
    }

    fn offers(&self) -> Offers {
        Offers {
            guard_markers: self.options.markers,
            commits_pages: self.options.commits_pages,
            vectored: self.options.vectored,
            missing: self.options.missing,
            mappings_max: self.options.mappings_max,
            mappings_now: self.mappings().wrapping_add(self.options.mappings_other),
        }
    }

    fn reserve(&self, len: usize, align: usize) -> VmResult<usize> {
        let mut state = lock(&self.memory);
        state.begin()?;
        let wish = Range { start: 0, len };
        if !self.is_aligned(wish) || !align.is_power_of_two() {
            state.violation("reserve", wish, "is not a whole number of pages, or not a power of two");
            return Err(VmError::Unsupported);
        }
        let start = Beneath.reserve(len, align.max(self.options.page_size))?;
        self.take(&mut state, Range { start, len })?;
        Ok(start)
    }

    fn reserve_at(&self, range: Range) -> VmResult {
        let mut state = lock(&self.memory);
        state.begin()?;
        if !self.is_aligned(range) {
            state.violation("reserve_at", range, "is not a whole number of pages");
            return Err(VmError::Unsupported);
        }
        Beneath.reserve_at(range)?;
        self.take(&mut state, range)
    }

    unsafe fn commit(&self, range: Range) -> VmResult {
        let mut state = self.begin("commit", range, Needs::Reserved)?;
        let committed = |page: Page| Page { committed: true, protection: Protection::ReadWrite, ..page };
        for (part, page) in state.space.within(range) {
            if page.is_some_and(|page| !page.committed) {
                zero(part);
            }
        }
        if state.space.update(range, self.mappings_room(), committed) {
            Ok(())
        } else {
            Err(VmError::OutOfMemory)
        }
    }

    unsafe fn protect(&self, range: Range, protection: Protection) -> VmResult {
        let mut state = self.begin("protect", range, Needs::Committed)?;
        if state.space.update(range, self.mappings_room(), |page| Page { protection, ..page }) {
            Ok(())
        } else {
            Err(VmError::OutOfMemory)
        }
    }

    unsafe fn decommit(&self, range: Range) -> VmResult {
        let mut state = self.begin("decommit", range, Needs::Reserved)?;
        self.steps_end_in(range);
        if !state.space.update(range, self.mappings_room(), |_| RESERVED) {
            return Err(VmError::OutOfMemory);
        }
        zero(range);
        Ok(())
    }

    unsafe fn release(&self, range: Range) -> VmResult {
        let mut state = self.begin("release", range, Needs::Reserved)?;
        if !state.space.set(range, None, self.mappings_room()) {
            return Err(VmError::OutOfMemory);
        }
        state.give_back(range);
        // SAFETY: the range was within a reservation, which `take` got from the host.
        unsafe { Beneath.release(range) }
    }

    unsafe fn discard(&self, range: Range) -> VmResult {
        let mut state = self.begin("discard", range, Needs::Committed)?;
        zero(range);
        state.update(range, |page| Page { present: false, shared: false, writes_trap: false, ..page });
        Ok(())
    }

    unsafe fn guard_install(&self, range: Range) -> VmResult {
        let mut state = self.begin_marker("guard_install", range)?;
        self.shut(&mut state, range);
        Ok(())
    }

    unsafe fn guard_install_each(&self, ranges: &[Range]) -> VmResult {
        self.mark_each("guard_install_each", ranges, |state, range| self.shut(state, range))
    }

    unsafe fn guard_remove(&self, range: Range) -> VmResult {
        let mut state = self.begin_marker("guard_remove", range)?;
        self.open(&mut state, range);
        Ok(())
    }

    unsafe fn guard_remove_each(&self, ranges: &[Range]) -> VmResult {
        self.mark_each("guard_remove_each", ranges, |state, range| self.open(state, range))
    }

    unsafe fn remap(&self, from: Range, to: Range) -> VmResult<Moved> {
        self.move_content(from, to)
    }

    unsafe fn populate(&self, range: Range) -> VmResult {
        let mut state = self.begin("populate", range, Needs::Committed)?;
        let usable =
            |(_, page): &(Range, Option<Page>)| page.is_some_and(|page| page.state() == PageState::Committed);
        if !state.space.within(range).iter().all(usable) {
            return Err(BAD_ADDRESS);
        }
        state.update(range, |page| Page { present: true, ..page });
        Ok(())
    }

    unsafe fn no_huge_pages(&self, range: Range) -> VmResult {
        self.begin("no_huge_pages", range, Needs::Reserved).map(|_| ())
    }

    fn is_mapped(&self, range: Range) -> bool {
        let parts = lock(&self.memory).space.within(range);
        parts.into_iter().all(|(part, page)| page.is_some() || Beneath.is_mapped(part))
    }

    fn read_checked(&self, address: usize, into: &mut [u8]) -> usize {
        let mut done = 0usize;
        let range = Range { start: address, len: into.len() };
        let parts = lock(&self.memory).space.within(range);
        for (part, page) in parts {
            let Some(room) = into.get_mut(done..done.saturating_add(part.len)) else { break };
            if page.is_some_and(|page| !matches!(page.state(), PageState::Committed | PageState::ReadOnly)) {
                break;
            }
            let got = Beneath.read_checked(part.start, room);
            done = done.saturating_add(got);
            if got != part.len {
                break;
            }
        }
        done
    }

    fn available(&self) -> Option<u64> {
        lock(&self.memory).available
    }

    /// The calls that may fail, so far: what [`Sim::fail_at`] counts.
    fn calls(&self) -> u64 {
        lock(&self.memory).calls
    }
}
