//! Large pages, residency, and which limit stood behind a refusal.

use core::ffi::CStr;

use windows_sys::Win32::System::ProcessStatus::{PSAPI_WORKING_SET_EX_INFORMATION, QueryWorkingSetEx};
use windows_sys::Win32::System::Threading::GetCurrentProcess;

use super::teb::Kept;
use super::{Host, large, memory, stack};
use crate::{Limit, Memory, Pages, Range, VmError, VmResult, Wish};

/// What a 64-bit process can address: 47 bits.
const ADDRESSES: u64 = 1 << 47;
/// What is committed of a stack that grows, in bytes.
const STACK_START: usize = 64 << 10;
/// Pages that one question about residency covers: 16 bytes of stack each.
const PAGES_ASKED: usize = 256;

// SAFETY: the system keeps this by VirtualAlloc and VirtualFree.
unsafe impl Pages for Host {
    /// The one size, if the processor has it. It takes a right (`SeLockMemoryPrivilege`) to have a page of it.
    fn huge_page_sizes(&self, into: &mut [usize]) -> usize {
        match (into.first_mut(), large::size()) {
            (Some(place), Some(size)) => {
                *place = size;
                1
            }
            _ => 0,
        }
    }

    fn transparent_page_size(&self) -> Option<usize> {
        None
    }

    unsafe fn huge_pages(&self, _range: Range) -> VmResult {
        Err(VmError::Unsupported)
    }

    fn reserve_huge(&self, parts: [usize; 3], align: usize, page: usize) -> VmResult<usize> {
        large::reserve(parts, align, page)
    }

    /// Large pages are committed with their reservation or not at all: so parts of such a one are opened.
    unsafe fn commit_huge(&self, range: Range, _page: usize) -> VmResult {
        large::open(range)
    }

    unsafe fn set_name(&self, _range: Range, _name: &CStr) -> VmResult {
        Err(VmError::Unsupported)
    }

    fn resident(&self, range: Range) -> VmResult<usize> {
        let _kept = Kept::new();
        let page = self.page_size();
        let mut present = 0usize;
        let mut at = range.start;
        while at < range.end() {
            // SAFETY: all-zero is a valid value of a structure of integers and pointers.
            let mut asked: [PSAPI_WORKING_SET_EX_INFORMATION; PAGES_ASKED] = unsafe { core::mem::zeroed() };
            let mut count = 0usize;
            for place in &mut asked {
                if at >= range.end() {
                    break;
                }
                place.VirtualAddress = at as *mut _;
                at = at.saturating_add(page);
                count = count.saturating_add(1);
            }
            memory::count();
            let bytes = count.saturating_mul(size_of::<PSAPI_WORKING_SET_EX_INFORMATION>()) as u32;
            // SAFETY: the call reads and writes as many entries as the bytes say.
            if unsafe { QueryWorkingSetEx(GetCurrentProcess(), asked.as_mut_ptr().cast(), bytes) } == 0 {
                return Err(memory::last_error());
            }
            // SAFETY: the call has filled in the flags, of which the lowest bit says that the page is valid.
            let valid =
                |entry: &&PSAPI_WORKING_SET_EX_INFORMATION| unsafe { entry.VirtualAttributes.Flags } & 1 != 0;
            present = present.saturating_add(asked.iter().take(count).filter(valid).count());
        }
        Ok(present.saturating_mul(page))
    }

    fn why_refused(&self, wish: Wish, len: usize) -> Limit {
        let len = len as u64;
        match (wish, memory::status()) {
            (Wish::Reserve, _) if len >= ADDRESSES => Limit::Addresses { limit: ADDRESSES },
            (Wish::Commit, Some(status)) if len > status.ullAvailPageFile => Limit::CommitCharge {
                limit: status.ullTotalPageFile,
                used: status.ullTotalPageFile.saturating_sub(status.ullAvailPageFile),
            },
            (Wish::HugePages(_), _) if large::is_forbidden() => Limit::LockRight,
            (Wish::HugePages(page), _) if large::size() == Some(page) => Limit::Pieces { page },
            (Wish::HugePages(page), _) => Limit::HugePages { page, free: 0 },
            _ => Limit::Unknown,
        }
    }

    /// As the system makes a thread's stack: the upper end is committed, and the page below it is a one-shot guard.
    unsafe fn prepare_stack(&self, stack: Range) -> VmResult {
        let guard = stack.len.checked_sub(STACK_START).and_then(|len| len.checked_sub(self.page_size()));
        let Some(guard) = guard.filter(|len| *len != 0) else { return Ok(()) };
        // SAFETY: the caller owns the stack, and its content may be lost.
        unsafe { self.decommit(Range { start: stack.start, len: guard.saturating_add(self.page_size()) })? };
        memory::commit_guard(stack.start.wrapping_add(guard), self.page_size())
    }

    unsafe fn run_on_stack(&self, stack: Range, work: extern "C" fn(usize), argument: usize) {
        // SAFETY: the caller's promises.
        unsafe { stack::run(stack, work, argument) }
    }
}
