//! Simulated notes of written pages: what a page held at the beginning is compared with what it holds.

use std::vec::Vec;

use super::{Sim, lock};
use crate::{Memory, Noting, Range, VmError, VmResult, Written};

/// What noted ranges held, by number.
pub(super) type State = Vec<(i32, Vec<u8>)>;

impl Sim {
    fn bytes(&self, range: Range) -> Vec<u8> {
        let mut bytes = std::vec![0; range.len];
        let got = self.read_checked(range.start, &mut bytes);
        bytes.truncate(got);
        bytes
    }
}

impl Written for Sim {
    unsafe fn note_written(&self, range: Range) -> VmResult<Noting> {
        lock(&self.memory).begin()?;
        if !self.options.notes_writes {
            return Err(VmError::Unsupported);
        }
        let registered = |page: &super::space::Page| page.registered;
        if lock(&self.memory).space.page(range.start).as_ref().is_some_and(registered) {
            return Err(VmError::Unsupported);
        }
        let bytes = self.bytes(range);
        let mut state = lock(&self.written);
        let number = state.iter().map(|(number, _)| *number).max().unwrap_or(0).wrapping_add(1);
        state.push((number, bytes));
        Ok(Noting { range, number })
    }

    fn each_written(&self, noting: &Noting, each: &mut dyn FnMut(Range)) -> VmResult {
        let state = lock(&self.written);
        let Some((_, before)) = state.iter().find(|(number, _)| *number == noting.number) else {
            return Err(VmError::Unsupported);
        };
        let now = self.bytes(noting.range);
        let page = self.page_size();
        for (index, (before, now)) in before.chunks(page).zip(now.chunks(page)).enumerate() {
            if before != now {
                each(Range { start: noting.range.start.wrapping_add(index.wrapping_mul(page)), len: page });
            }
        }
        Ok(())
    }

    fn end_noting(&self, noting: Noting) {
        lock(&self.written).retain(|(number, _)| *number != noting.number);
    }
}
