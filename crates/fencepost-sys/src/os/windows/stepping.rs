//! Running one instruction by itself is not done here yet: after a report that is to go on, the page stays open.

use windows_sys::Win32::System::Threading::SwitchToThread;

use super::Host;
use super::teb::Kept;
use crate::{OnStep, Protection, Range, Stepping, Steps, VmError, VmResult};

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
        let _kept = Kept::new();
        // SAFETY: the call has no arguments.
        unsafe { SwitchToThread() };
    }
}
