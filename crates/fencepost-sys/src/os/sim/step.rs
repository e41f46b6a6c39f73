//! Simulated steps: pages open for one are noted, and the test says when the instruction has run.

use std::vec::Vec;

use super::memory::Needs;
use super::{Sim, lock};
use crate::{AfterStep, Keys, Memory, OnStep, Protection, Range, Stepping, Steps, Threads, VmResult};

/// The steps of one instance.
pub(super) struct State {
    on_step: Option<OnStep>,
    open: Vec<Range>,
    /// Threads that may write to pages of the write key.
    writers: Vec<u32>,
}

impl State {
    pub(super) const fn new() -> State {
        State { on_step: None, open: Vec::new(), writers: Vec::new() }
    }
}

impl Sim {
    /// Says that the instruction of a step has run and which is next; `None` when nobody wished to know.
    pub fn step_ends(&self, next: usize) -> Option<AfterStep> {
        let on_step = lock(&self.steps).on_step;
        on_step.map(|on_step| on_step(next))
    }

    /// What the mapping of a page allows; `None` where nothing is committed.
    pub fn protection(&self, address: usize) -> Option<Protection> {
        let page = lock(&self.memory).space.page(address)?;
        page.committed.then_some(page.protection)
    }

    /// Notes that pages of steps are closed by fresh addresses in their place.
    pub(super) fn steps_end_in(&self, range: Range) {
        lock(&self.steps).open.retain(|open| !range.contains(open.start));
    }

    /// The pages that are open for a step now.
    pub fn open_for_steps(&self) -> Vec<Range> {
        lock(&self.steps).open.clone()
    }
}

impl Stepping for Sim {
    fn ready_to_step(&self, on_step: OnStep) -> Steps {
        lock(&self.steps).on_step = Some(on_step);
        self.options.steps
    }

    unsafe fn open_for_step(&self, range: Range) -> VmResult<Steps> {
        // A page that was only reserved may be opened as well: its content is zero then.
        drop(self.begin("open_for_step", range, Needs::Reserved)?);
        self.set_protection(range, Protection::ReadWrite)?;
        lock(&self.steps).open.push(range);
        Ok(self.options.steps)
    }

    unsafe fn close_after_step(&self, range: Range, protection: Protection) -> VmResult {
        lock(&self.steps).open.retain(|open| *open != range);
        // SAFETY: the caller's promises.
        unsafe { self.protect(range, protection) }
    }

    fn pause(&self) {
        std::thread::yield_now();
    }
}

impl Keys for Sim {
    fn has_write_key(&self) -> bool {
        self.options.write_key
    }

    fn open_writes(&self) -> bool {
        let could_before = self.can_write();
        if !could_before {
            lock(&self.steps).writers.push(self.thread_id());
        }
        could_before
    }

    fn close_writes(&self, could_before: bool) {
        if !could_before {
            lock(&self.steps).writers.retain(|writer| *writer != self.thread_id());
        }
    }

    fn can_write(&self) -> bool {
        lock(&self.steps).writers.contains(&self.thread_id())
    }
}
