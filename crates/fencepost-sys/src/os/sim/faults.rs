//! Simulated faults: nothing happens by itself; what was asked for is written down, and the test raises faults.

use std::vec::Vec;

use super::{Sim, lock};
use crate::{Fault, Faults, OnFault, Range, Verdict, VmResult};

/// The handlers of one instance.
pub(super) struct State {
    on_fault: Option<OnFault>,
    in_force: bool,
    watchdogs: Vec<u64>,
    forks: Vec<[extern "C" fn(); 3]>,
    exits: Vec<extern "C" fn()>,
    flushes: usize,
}

impl State {
    pub(super) const fn new() -> State {
        State {
            on_fault: None,
            in_force: false,
            watchdogs: Vec::new(),
            forks: Vec::new(),
            exits: Vec::new(),
            flushes: 0,
        }
    }
}

impl Sim {
    /// Asks the installed handler about a fault; `None` when none is in force.
    pub fn raise(&self, fault: &Fault) -> Option<Verdict> {
        let on_fault = {
            let state = lock(&self.faults);
            state.on_fault.filter(|_| state.in_force)
        };
        on_fault.map(|on_fault| on_fault(fault))
    }

    /// Acts as a program that puts its own handler in the place of ours.
    pub fn replace_handler(&self) {
        lock(&self.faults).in_force = false;
    }

    /// What [`Faults::watchdog`] was asked for, in order.
    pub fn watchdogs(&self) -> Vec<u64> {
        lock(&self.faults).watchdogs.clone()
    }

    /// Runs what [`Faults::at_fork`] registered, around `in_child`, which stands for the child's life.
    pub fn fork(&self, in_child: impl FnOnce()) {
        let forks = lock(&self.faults).forks.clone();
        forks.iter().rev().for_each(|[prepare, ..]| prepare());
        forks.iter().for_each(|[_, _, child]| child());
        in_child();
    }

    /// As [`Sim::fork`], on the parent's side.
    pub fn fork_as_parent(&self) {
        let forks = lock(&self.faults).forks.clone();
        forks.iter().rev().for_each(|[prepare, ..]| prepare());
        forks.iter().for_each(|[_, parent, _]| parent());
    }

    /// Runs what [`Faults::at_exit`] registered, last first.
    pub fn exit(&self) {
        let exits = core::mem::take(&mut lock(&self.faults).exits);
        exits.iter().rev().for_each(|exit| exit());
    }

    /// How often [`Faults::flush_streams`] was called.
    pub fn flushes(&self) -> usize {
        lock(&self.faults).flushes
    }
}

impl Faults for Sim {
    fn install(&self, on_fault: OnFault) -> VmResult {
        let mut state = lock(&self.faults);
        state.on_fault = Some(on_fault);
        state.in_force = true;
        Ok(())
    }

    fn is_installed(&self) -> bool {
        lock(&self.faults).in_force
    }

    fn ensure_alternate_stack(&self) -> Range {
        Range::default()
    }

    unsafe fn drop_alternate_stack(&self, _stack: Range) {}

    /// Runs `work` where it is.
    unsafe fn call_on_stack(&self, _stack: Range, work: extern "C" fn(usize), argument: usize) -> bool {
        work(argument);
        true
    }

    /// Panics with "simulated end of a call".
    unsafe fn abandon_call(&self) -> ! {
        panic!("simulated end of a call")
    }

    fn watchdog(&self, milliseconds: u64) {
        lock(&self.faults).watchdogs.push(milliseconds);
    }

    /// Panics with "simulated abort".
    fn die_by_abort(&self) -> ! {
        panic!("simulated abort")
    }

    /// Panics with "simulated exit" and the status.
    fn exit_now(&self, status: i32) -> ! {
        panic!("simulated exit with status {status}")
    }

    fn at_fork(&self, prepare: extern "C" fn(), parent: extern "C" fn(), child: extern "C" fn()) -> VmResult {
        lock(&self.faults).forks.push([prepare, parent, child]);
        Ok(())
    }

    fn at_exit(&self, exit: extern "C" fn()) -> VmResult {
        lock(&self.faults).exits.push(exit);
        Ok(())
    }

    fn flush_streams(&self) {
        let mut state = lock(&self.faults);
        state.flushes = state.flushes.saturating_add(1);
    }
}
