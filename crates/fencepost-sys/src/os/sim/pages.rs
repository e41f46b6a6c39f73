//! Simulated huge pages, names and residency: as on a system that has no free explicit huge page and shows no names,
//! unless the options say so.

use core::ffi::CStr;

use super::memory::Needs;
use super::{PageState, Sim, beneath::Beneath, lock};
use crate::{Limit, Memory, Pages, Protection, Range, VmError, VmResult, Wish};

/// Bytes in a simulated huge page.
const HUGE: usize = 2 << 20;

// SAFETY: the memory is the host's, which is used through it alone.
unsafe impl Pages for Sim {
    fn huge_page_sizes(&self, into: &mut [usize]) -> usize {
        into.first_mut().map_or(0, |place| {
            *place = HUGE;
            1
        })
    }

    fn transparent_page_size(&self) -> Option<usize> {
        self.options.transparent.then_some(HUGE)
    }

    unsafe fn huge_pages(&self, range: Range) -> VmResult {
        self.begin("huge_pages", range, Needs::Reserved).map(|_| ())
    }

    fn reserve_huge(&self, [head, len, tail]: [usize; 3], align: usize, page: usize) -> VmResult<usize> {
        if !self.options.huge_reserves || page != HUGE {
            return Err(VmError::Unsupported);
        }
        let whole = head.saturating_add(len).saturating_add(tail);
        let start = self.reserve(whole, align.max(page))?;
        let middle = Range { start: start.wrapping_add(head), len };
        // SAFETY: the range was reserved just now, and nothing refers to it.
        unsafe {
            let made = self.commit(middle).and_then(|()| self.protect(middle, Protection::None));
            if made.is_err() {
                self.release(Range { start, len: whole })?;
            }
            made.map(|()| start)
        }
    }

    unsafe fn commit_huge(&self, range: Range, page: usize) -> VmResult {
        drop(self.begin("commit_huge", range, Needs::Reserved)?);
        if self.options.huge_reserves {
            // What came with its addresses is closed; where it is not, it came without.
            if self.page_state(range.start) != PageState::NoAccess {
                return Err(VmError::Unsupported);
            }
            // SAFETY: the caller's promise.
            return unsafe { self.protect(range, Protection::ReadWrite) };
        }
        let low = page.wrapping_sub(1);
        if page != HUGE || range.start & low != 0 || range.len & low != 0 {
            return Err(VmError::Unsupported);
        }
        if !self.options.huge_pages {
            return Err(VmError::OutOfMemory);
        }
        // SAFETY: the caller's promises; ordinary pages do as well here.
        unsafe { self.commit(range) }
    }

    unsafe fn set_name(&self, range: Range, _name: &CStr) -> VmResult {
        self.begin("set_name", range, Needs::Reserved).map(|_| ())
    }

    fn resident(&self, range: Range) -> VmResult<usize> {
        Beneath.resident(range)
    }

    fn why_refused(&self, _wish: Wish, len: usize) -> Limit {
        match lock(&self.memory).available {
            Some(available) if len as u64 > available => Limit::Memory { available },
            _ => Limit::Unknown,
        }
    }

    unsafe fn run_on_stack(&self, stack: Range, work: extern "C" fn(usize), argument: usize) {
        // SAFETY: the caller's promises; simulated memory is real memory underneath.
        unsafe { Beneath.run_on_stack(stack, work, argument) }
    }
}
