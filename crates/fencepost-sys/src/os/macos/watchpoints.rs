//! Watchpoints of the processor: the system gives a thread none of its own to set from within.

use super::Host;
use crate::{NoWatchpoints, OnHit, Range, VmError, VmResult, WatchpointOffer, Watchpoints};

impl Watchpoints for Host {
    fn ready_to_watch(&self, _on_hit: OnHit) -> WatchpointOffer {
        WatchpointOffer::Nothing(NoWatchpoints::Absent)
    }

    fn arm_watchpoints(&self, _range: Range, _tag: u32) -> VmResult {
        Err(VmError::Unsupported)
    }

    fn disarm_watchpoints(&self, _tag: u32) {}

    fn is_armed(&self, _tag: u32) -> bool {
        false
    }
}
