//! Simulated watchpoints: what is armed is noted, and the test says what is written.

use std::vec::Vec;

use super::{Sim, lock};
use crate::watchpoints_of;
use crate::{Fault, Hit, OnHit, Range, VmError, VmResult, WATCHPOINTS, WatchpointOffer, Watchpoints};

/// The watchpoints of one instance.
pub(super) struct State {
    on_hit: Option<OnHit>,
    armed: Vec<(u32, Range)>,
}

impl State {
    pub(super) const fn new() -> State {
        State { on_hit: None, armed: Vec::new() }
    }
}

impl Sim {
    /// What is watched now: tags and single watchpoints.
    pub fn watchpoints(&self) -> Vec<(u32, Range)> {
        lock(&self.watchpoints).armed.clone()
    }

    /// Acts as a program that closes what watchpoints need, or as a child after a fork.
    pub fn lose_watchpoints(&self) {
        lock(&self.watchpoints).armed.clear();
    }

    /// Tells of a write to `written` that the test has made; says whether a watchpoint saw it.
    pub fn sees_write(&self, written: Range, after: &Fault, late: bool) -> bool {
        let state = lock(&self.watchpoints);
        let seen = |(_, part): &&(u32, Range)| part.start < written.end() && written.start < part.end();
        let found = state.armed.iter().find(seen).copied();
        let on_hit = state.on_hit;
        drop(state);
        let (Some((tag, part)), Some(on_hit)) = (found, on_hit) else { return false };
        on_hit(&Hit { tag, address: part.start, after: *after, late });
        true
    }
}

impl Watchpoints for Sim {
    fn ready_to_watch(&self, on_hit: OnHit) -> WatchpointOffer {
        lock(&self.watchpoints).on_hit = Some(on_hit);
        self.options.watchpoints
    }

    fn arm_watchpoints(&self, range: Range, tag: u32) -> VmResult {
        lock(&self.memory).begin()?;
        let parts = watchpoints_of(range).ok_or(VmError::Unsupported)?;
        let mut state = lock(&self.watchpoints);
        let wanted = parts.iter().filter(|part| part.len > 0);
        if state.armed.len().saturating_add(wanted.clone().count()) > WATCHPOINTS {
            return Err(VmError::OutOfMemory);
        }
        let wanted: Vec<_> = wanted.map(|part| (tag, *part)).collect();
        state.armed.extend(wanted);
        Ok(())
    }

    fn disarm_watchpoints(&self, tag: u32) {
        lock(&self.watchpoints).armed.retain(|(armed, _)| *armed != tag);
    }

    fn is_armed(&self, tag: u32) -> bool {
        lock(&self.watchpoints).armed.iter().any(|(armed, _)| *armed == tag)
    }
}
