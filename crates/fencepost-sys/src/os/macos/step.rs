//! Running one instruction by itself is not done here: after a report that is to go on, the page stays open.

use super::Host;
use super::chain::Delivery;
use crate::{Keys, OnStep, Protection, Range, Stepping, Steps, VmError, VmResult};

impl Stepping for Host {
    fn ready_to_step(&self, _on_step: OnStep) -> Steps {
        Steps::Impossible
    }

    unsafe fn open_for_step(&self, _range: Range) -> VmResult<Steps> {
        Err(VmError::Unsupported)
    }

    unsafe fn close_after_step(&self, _range: Range, _protection: Protection) -> VmResult {
        Err(VmError::Unsupported)
    }

    fn pause(&self) {
        // SAFETY: the call has no arguments, and cannot fail.
        unsafe { libc::sched_yield() };
    }
}

/// There are no protection keys.
impl Keys for Host {}

/// Never asked for, since steps are impossible.
pub(super) fn arm(_delivery: &Delivery) {}

/// There is never anything to undo.
pub(super) fn disarm(_delivery: &Delivery) {}

/// No trap is ours.
pub(super) fn on_trap(_delivery: &Delivery) -> bool {
    false
}

/// There are none.
pub(super) fn has_watchpoints() -> bool {
    false
}

/// No key forbids reading.
pub(super) fn let_read(_delivery: &Delivery) -> bool {
    false
}
