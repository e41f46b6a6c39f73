//! Which pages are written to: not asked here.

use super::Host;
use crate::{Noting, Range, VmError, VmResult, Written};

impl Written for Host {
    unsafe fn note_written(&self, _range: Range) -> VmResult<Noting> {
        Err(VmError::Unsupported)
    }

    fn each_written(&self, _noting: &Noting, _each: &mut dyn FnMut(Range)) -> VmResult {
        Err(VmError::Unsupported)
    }

    fn end_noting(&self, _noting: Noting) {}
}
