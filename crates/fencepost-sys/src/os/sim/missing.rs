//! Simulated missing pages: registered, there or not, shared since a fork; and the right to work on them, which a test
//! can take away.

use super::memory::Needs;
use super::space::{Page, PageState};
use super::{Sim, beneath::Beneath, lock};
use crate::{Memory, Missing, MissingError, MissingOffer, Partly, Range, VmError, VmResult};
use std::vec::Vec;

/// The right to work on missing pages.
pub(super) struct State {
    open: bool,
    /// The program's process borrows its parent's memory.
    borrowed: bool,
    /// What the next calls that put or move answer, and after how many bytes.
    next: Vec<Partly>,
    /// How often the right was taken.
    opened: usize,
}

impl State {
    pub(super) const fn new() -> State {
        State { open: false, borrowed: false, next: Vec::new(), opened: 0 }
    }
}

impl super::memory::State {
    /// The pages of a range, as runs.
    pub(super) fn within(&self, range: Range) -> Vec<(Range, Option<Page>)> {
        self.space.within(range)
    }

    /// Changes pages in a way that makes no mapping.
    pub(super) fn update(&mut self, range: Range, change: impl FnMut(Page) -> Page) {
        if range.len > 0 {
            self.space.update(range, usize::MAX, change);
        }
    }

    fn update_all(&mut self, change: impl Fn(Page) -> Page) {
        let all: Vec<_> = self.space.taken().map(|(range, _)| range).collect();
        for range in all {
            self.update(range, &change);
        }
    }

    /// Ends every registration. What nobody put there comes at first use from here on.
    pub(super) fn unregister_all(&mut self) {
        self.update_all(|page| Page { registered: false, writes_trap: false, ..page });
    }

    /// Marks every page as shared with a child.
    pub(super) fn share_all(&mut self) {
        self.update_all(|page| Page { shared: page.present, ..page });
    }
}

impl Sim {
    /// Acts as a program that closes all its descriptors: nothing traps for being missing any more.
    pub fn close_descriptors(&self) {
        lock(&self.missing).open = false;
        lock(&self.memory).unregister_all();
    }

    /// Acts as a fork does, seen from the child: the right is not inherited, and every page is shared.
    pub fn become_child(&self) {
        self.close_descriptors();
        self.share_pages();
    }

    /// Acts as a fork does, seen from the parent: every page is shared until it is written to.
    pub fn share_pages(&self) {
        lock(&self.memory).share_all();
    }

    /// Makes this process one that borrows its parent's memory, with no descriptor of its own.
    pub fn borrow_memory(&self, borrowed: bool) {
        lock(&self.missing).borrowed = borrowed;
    }

    /// Makes the next call that puts or moves pages stop after `done` bytes for a reason. Several calls queue up.
    pub fn refuse_missing(&self, done: usize, why: MissingError) {
        lock(&self.missing).next.push(Partly { done, why });
    }

    /// How often the right to work on missing pages was taken.
    pub fn missing_opened(&self) -> usize {
        lock(&self.missing).opened
    }

    /// What was asked to go wrong with this call, if it has the right at all.
    fn may_work(&self, len: usize) -> Result<Option<Partly>, Partly> {
        let mut state = lock(&self.missing);
        if state.borrowed {
            return Err(Partly { done: 0, why: MissingError::Borrowed });
        }
        if !state.open {
            return Err(Partly { done: 0, why: MissingError::Lost });
        }
        let asked = (!state.next.is_empty()).then(|| state.next.remove(0));
        Ok(asked.map(|asked| Partly { done: asked.done.min(len), ..asked }))
    }

    /// The length that is done before a page is not `fit`, and why it stops there.
    fn fit(
        &self,
        range: Range,
        fit: impl Fn(Page) -> Result<(), MissingError>,
    ) -> (usize, Option<MissingError>) {
        let mut done = 0usize;
        for (part, page) in lock(&self.memory).within(range) {
            let answer = page.filter(|page| page.registered).map_or(Err(MissingError::Absent), &fit);
            if let Err(why) = answer {
                return (done, Some(why));
            }
            done = done.saturating_add(part.len);
        }
        (done, None)
    }

    fn finish(asked: Option<Partly>, stopped: (usize, Option<MissingError>)) -> (usize, Result<(), Partly>) {
        match (asked, stopped) {
            (Some(asked), (done, _)) if asked.done <= done => (asked.done, Err(asked)),
            (_, (done, Some(why))) => (done, Err(Partly { done, why })),
            (_, (done, None)) => (done, Ok(())),
        }
    }
}

fn refused(_: VmError) -> Partly {
    Partly { done: 0, why: MissingError::NoMemory }
}

impl Missing for Sim {
    fn open_missing(&self) -> Result<MissingOffer, MissingError> {
        lock(&self.memory).begin().map_err(|_| MissingError::Denied)?;
        let mut state = lock(&self.missing);
        if state.borrowed {
            return Err(MissingError::Borrowed);
        }
        if self.options.missing == MissingOffer::Nothing {
            return Err(MissingError::Denied);
        }
        state.open = true;
        state.opened = state.opened.saturating_add(1);
        drop(state);
        lock(&self.memory).unregister_all();
        Ok(self.options.missing)
    }

    fn close_inherited(&self) {}

    fn has_missing(&self) -> bool {
        lock(&self.missing).open
    }

    unsafe fn register_missing(&self, range: Range) -> VmResult {
        let mut state = self.begin("register_missing", range, Needs::Reserved)?;
        if !lock(&self.missing).open {
            return Err(VmError::Unsupported);
        }
        state.update(range, |page| Page { registered: true, ..page });
        Ok(())
    }

    unsafe fn unregister_missing(&self, range: Range) -> VmResult {
        let mut state = self.begin("unregister_missing", range, Needs::Committed)?;
        if !lock(&self.missing).open {
            return Err(VmError::Unsupported);
        }
        state.update(range, |page| Page { registered: false, writes_trap: false, ..page });
        Ok(())
    }

    unsafe fn put_missing(&self, range: Range, from: usize) -> Result<(), Partly> {
        drop(self.begin("put_missing", range, Needs::Committed).map_err(refused)?);
        let asked = self.may_work(range.len)?;
        let fit = |page: Page| match page.state() {
            PageState::Missing => Ok(()),
            _ => Err(MissingError::Taken),
        };
        let (done, answer) = Sim::finish(asked, self.fit(range, fit));
        let part = Range { len: done, ..range };
        copy(from, part);
        lock(&self.memory).update(part, |page| Page { present: true, shared: false, ..page });
        answer
    }

    unsafe fn move_pages(&self, from: Range, to: usize) -> Result<(), Partly> {
        let target = Range { start: to, len: from.len };
        drop(self.begin("move_pages", from, Needs::Committed).map_err(refused)?);
        if self.options.missing != MissingOffer::Moves {
            return Err(Partly { done: 0, why: MissingError::Denied });
        }
        let asked = self.may_work(from.len)?;
        let source = self.fit(from, |page| match page {
            Page { shared: true, present: true, .. } => Err(MissingError::Shared),
            Page { present: true, .. } => Ok(()),
            _ => Err(MissingError::Absent),
        });
        let place = self.fit(target, |page| match page.state() {
            PageState::Missing => Ok(()),
            _ => Err(MissingError::Taken),
        });
        let least = if place.0 < source.0 { place } else { source };
        let (done, answer) = Sim::finish(asked, least);
        copy(from.start, Range { start: to, len: done });
        let mut memory = lock(&self.memory);
        memory.update(Range { start: to, len: done }, |page| Page { present: true, shared: false, ..page });
        memory.update(Range { len: done, ..from }, |page| Page {
            present: false,
            writes_trap: false,
            ..page
        });
        answer
    }

    unsafe fn drop_pages(&self, range: Range) -> VmResult {
        // SAFETY: the caller's promises.
        unsafe { self.discard(range) }
    }

    unsafe fn trap_writes(&self, range: Range, trap: bool) -> VmResult {
        let mut state = self.begin("trap_writes", range, Needs::Committed)?;
        let is_fit = |(_, page): &(Range, Option<Page>)| page.is_some_and(|page| page.registered);
        if !self.options.write_protect || !state.within(range).iter().all(is_fit) {
            return Err(VmError::Unsupported);
        }
        state.update(range, |page| Page { writes_trap: trap && page.present, ..page });
        Ok(())
    }
}

/// Copies between places of this system, which are real memory underneath.
fn copy(from: usize, to: Range) {
    let mut done = 0usize;
    while done < to.len {
        let mut piece = [0u8; 4096];
        let len = piece.len().min(to.len.saturating_sub(done));
        let Some(room) = piece.get_mut(..len) else { return };
        let got = Beneath.read_checked(from.wrapping_add(done), room);
        assert_eq!(got, len, "the source is readable");
        let target = to.start.wrapping_add(done) as *mut u8;
        // SAFETY: the target lies in committed memory of this system, which the callers have checked; the piece is ours.
        unsafe { core::ptr::copy_nonoverlapping(room.as_ptr(), target, len) };
        done = done.saturating_add(len);
    }
}
