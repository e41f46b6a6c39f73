//! Missing pages: there is no such thing here.

use super::Host;
use crate::{Missing, MissingError, MissingOffer, Partly, Range, VmError, VmResult};

const NONE: Partly = Partly { done: 0, why: MissingError::Denied };

impl Missing for Host {
    fn open_missing(&self) -> Result<MissingOffer, MissingError> {
        Err(MissingError::Denied)
    }

    fn close_inherited(&self) {}

    fn has_missing(&self) -> bool {
        false
    }

    unsafe fn register_missing(&self, _range: Range) -> VmResult {
        Err(VmError::Unsupported)
    }

    unsafe fn put_missing(&self, _range: Range, _from: usize) -> Result<(), Partly> {
        Err(NONE)
    }

    unsafe fn move_pages(&self, _from: Range, _to: usize) -> Result<(), Partly> {
        Err(NONE)
    }

    unsafe fn drop_pages(&self, _range: Range) -> VmResult {
        Err(VmError::Unsupported)
    }

    unsafe fn trap_writes(&self, _range: Range, _trap: bool) -> VmResult {
        Err(VmError::Unsupported)
    }
}
