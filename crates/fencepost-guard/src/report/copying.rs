//! The copy that a fault is part of, where it is known.
//!
//! Known means: the call of the copying function is on the stack with its arguments, or the processor's registers count
//! what is left; and the address of the fault lies in what is then copied.

use fencepost_record::{AccessType, CopyInfo};
use fencepost_sys::Fault;

/// A call that is under way, as [`crate::Hooks::copy`] finds it on the stack.
#[derive(Clone, Copy, Debug)]
pub struct Copying {
    /// Which frame is the facade's own, and not to be shown.
    pub frame: usize,
    /// What is copied.
    pub copy: CopyInfo,
}

/// What of a call and of the instruction's own count holds the address of the fault.
pub(super) fn known(fault: &Fault, call: Option<CopyInfo>) -> Option<CopyInfo> {
    let repeated = fault.repeated.filter(|copy| holds(fault, copy, copy.left));
    let called = call.filter(|copy| holds(fault, copy, copy.size));
    match (called, repeated) {
        (Some(called), Some(repeated)) => Some(CopyInfo { left: repeated.left, ..called }),
        (called, repeated) => called.or(repeated),
    }
}

fn holds(fault: &Fault, copy: &CopyInfo, len: Option<u64>) -> bool {
    let start = match fault.access {
        AccessType::Write => Some(copy.to),
        AccessType::Read => copy.from,
        _ => None,
    };
    match (start, fault.address, len) {
        (Some(start), Some(address), Some(len)) => (address as u64).wrapping_sub(start) < len,
        _ => false,
    }
}
