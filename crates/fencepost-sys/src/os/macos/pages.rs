//! Residency, and which limit stood behind a refusal. There are no large pages on Apple's processors, and no names.

use core::ffi::CStr;

use super::raw::kept;
use super::{Host, memory, probe, stack};
use crate::{Limit, Pages, Range, VmError, VmResult, Wish};

/// What a process can address: 47 bits.
const ADDRESSES: u64 = 1 << 47;
/// Pages that one question about residency covers: a byte of stack each.
const PAGES_ASKED: usize = 4096;

// SAFETY: the kernel keeps this by mmap(2), mprotect(2) and madvise(2).
unsafe impl Pages for Host {
    fn huge_page_sizes(&self, _into: &mut [usize]) -> usize {
        0
    }

    fn transparent_page_size(&self) -> Option<usize> {
        None
    }

    unsafe fn huge_pages(&self, _range: Range) -> VmResult {
        Err(VmError::Unsupported)
    }

    unsafe fn commit_huge(&self, _range: Range, _page: usize) -> VmResult {
        Err(VmError::Unsupported)
    }

    unsafe fn set_name(&self, _range: Range, _name: &CStr) -> VmResult {
        Err(VmError::Unsupported)
    }

    fn resident(&self, range: Range) -> VmResult<usize> {
        let page = probe::page_size();
        let step = PAGES_ASKED.saturating_mul(page);
        let mut pages = 0usize;
        for start in (range.start..range.end()).step_by(step) {
            let mut present = [0u8; PAGES_ASKED];
            let len = step.min(range.end().saturating_sub(start));
            memory::count();
            // SAFETY: mincore writes a byte for each page of the range, of which there are at most PAGES_ASKED.
            let place = present.as_mut_ptr().cast();
            kept(|| unsafe { libc::mincore(start as *const _, len, place) } as isize)?;
            pages = pages.saturating_add(present.iter().filter(|byte| **byte & 1 != 0).count());
        }
        Ok(pages.saturating_mul(page))
    }

    fn why_refused(&self, wish: Wish, len: usize) -> Limit {
        match wish {
            Wish::Reserve if len as u64 >= ADDRESSES => Limit::Addresses { limit: ADDRESSES },
            Wish::HugePages(page) => Limit::HugePages { page, free: 0 },
            _ => Limit::Unknown,
        }
    }

    unsafe fn run_on_stack(&self, stack: Range, work: extern "C" fn(usize), argument: usize) {
        // SAFETY: the caller's promises.
        unsafe { stack::run(stack.end(), work, argument) }
    }
}
