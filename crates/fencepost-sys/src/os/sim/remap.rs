//! Simulated moves of pages between two ranges.

use super::Sim;
use super::memory::{Needs, zero};
use super::space::RESERVED;
use crate::{Moved, Range, VmError, VmResult};

impl Sim {
    /// Counts as two calls: the move, and taking the addresses again. When the second fails, another has them.
    pub(super) fn move_content(&self, from: Range, to: Range) -> VmResult<Moved> {
        let mut state = self.begin("remap", from, Needs::Committed)?;
        state.check("remap", to, Needs::Committed)?;
        zero(to);
        let (source, target) = (from.start as *const u8, to.start as *mut u8);
        // SAFETY: both ranges are memory of this simulated system's, and as the caller says do not overlap.
        unsafe { core::ptr::copy_nonoverlapping(source, target, from.len.min(to.len)) };
        if !state.space.update(from, usize::MAX, |_| RESERVED) {
            return Err(VmError::OutOfMemory);
        }
        zero(from);
        if state.begin().is_err() {
            state.space.set(from, None, usize::MAX);
            state.give_back(from);
            return Ok(Moved::FromLost);
        }
        Ok(Moved::Whole)
    }
}
