//! Huge pages, names of mappings, residency.
//!
//! Sources: the kernel's `admin-guide/mm/hugetlbpage.rst` and `transhuge.rst`, `PR_SET_VMA_ANON_NAME` of prctl(2),
//! mincore(2).

use core::ffi::CStr;

use super::raw::{File, map_huge, syscall};
use super::{Host, limits, memory, probe, refusal, stack};
use crate::{Limit, Memory, Pages, Range, VmResult, Wish};

/// Explicit huge pages of every system lie between these: 64 KiB and 16 GiB.
const HUGE_SHIFTS: core::ops::RangeInclusive<u32> = 16..=34;
/// Pages that one question about residency covers: a byte of stack each.
const PAGES_ASKED: usize = 4096;

// SAFETY: the kernel keeps this by mmap(2), mprotect(2) and madvise(2).
unsafe impl Pages for Host {
    fn huge_page_sizes(&self, into: &mut [usize]) -> usize {
        let known = HUGE_SHIFTS.filter_map(|shift| 1usize.checked_shl(shift)).filter(|size| {
            let mut path = [0; 96];
            pool_file(*size, b"nr_hugepages", &mut path).is_some_and(|path| File::open(path).is_ok())
        });
        let mut count = 0usize;
        for (place, size) in into.iter_mut().zip(known) {
            *place = size;
            count = count.saturating_add(1);
        }
        count
    }

    fn transparent_page_size(&self) -> Option<usize> {
        let mut buffer = [0; 64];
        let enabled = limits::read_file(c"/sys/kernel/mm/transparent_hugepage/enabled", &mut buffer)?;
        if enabled.windows(7).any(|word| word == b"[never]") {
            return None;
        }
        let mut buffer = [0; 32];
        let size = limits::read_file(c"/sys/kernel/mm/transparent_hugepage/hpage_pmd_size", &mut buffer)?;
        usize::try_from(super::maps::decimal(size)?).ok()
    }

    unsafe fn huge_pages(&self, range: Range) -> VmResult {
        memory::advise(range, libc::MADV_HUGEPAGE)
    }

    unsafe fn commit_huge(&self, range: Range, page: usize) -> VmResult {
        memory::count();
        let made = map_huge(range.start, range.len, page.trailing_zeros());
        if made.is_err() {
            // Some kernels have unmapped the range by then: it must not stay free for others. Where it is still
            // ours, this answers that it is taken.
            let _ = self.reserve_at(range);
        }
        made
    }

    unsafe fn set_name(&self, range: Range, name: &CStr) -> VmResult {
        const PR_SET_VMA: i32 = 0x5356_4d41;
        const PR_SET_VMA_ANON_NAME: i32 = 0;
        memory::count();
        // SAFETY: the kernel copies the zero-ended name; the mapping's content and protection stay as they are.
        unsafe {
            syscall!(
                libc::SYS_prctl,
                PR_SET_VMA,
                PR_SET_VMA_ANON_NAME,
                range.start,
                range.len,
                name.as_ptr()
            )?
        };
        Ok(())
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
            unsafe { syscall!(libc::SYS_mincore, start, len, present.as_mut_ptr())? };
            pages = pages.saturating_add(present.iter().filter(|byte| **byte & 1 != 0).count());
        }
        Ok(pages.saturating_mul(page))
    }

    fn why_refused(&self, wish: Wish, len: usize) -> Limit {
        refusal::why(wish, len as u64)
    }

    unsafe fn run_on_stack(&self, stack: Range, work: extern "C" fn(usize), argument: usize) {
        // SAFETY: the caller's promises.
        unsafe { stack::run(stack.end(), work, argument) }
    }
}

/// The path of a file about the huge pages of one size.
pub(super) fn pool_file<'a>(size: usize, name: &[u8], into: &'a mut [u8; 96]) -> Option<&'a CStr> {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut kilobytes = size.checked_div(1024)?;
    while kilobytes > 0 {
        at = at.checked_sub(1)?;
        *digits.get_mut(at)? = b'0'.wrapping_add(kilobytes.wrapping_rem(10) as u8);
        kilobytes /= 10;
    }
    let parts: [&[u8]; 4] = [b"/sys/kernel/mm/hugepages/hugepages-", digits.get(at..)?, b"kB/", name];
    let mut len = 0usize;
    for part in parts {
        let end = len.checked_add(part.len())?;
        into.get_mut(len..end)?.copy_from_slice(part);
        len = end;
    }
    *into.get_mut(len)? = 0;
    CStr::from_bytes_until_nul(into).ok()
}

/// Free pages of one size; `None` where the system does not know the size.
pub(super) fn pool_free(size: usize) -> Option<u64> {
    let mut path = [0; 96];
    let mut buffer = [0; 32];
    let text = limits::read_file(pool_file(size, b"free_hugepages", &mut path)?, &mut buffer)?;
    super::maps::decimal(text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_a_pool_names_its_size_in_kilobytes() {
        let mut path = [0; 96];
        let got = pool_file(2 << 20, b"free_hugepages", &mut path).unwrap();
        assert_eq!(got, c"/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
        let got = pool_file(1 << 30, b"nr_hugepages", &mut path).unwrap();
        assert_eq!(got, c"/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages");
    }

    #[test]
    fn huge_page_sizes_are_powers_of_two_in_order() {
        let mut sizes = [0; 8];
        let count = Host.huge_page_sizes(&mut sizes);
        let sizes = sizes.get(..count).unwrap();
        assert!(sizes.iter().all(|size| size.is_power_of_two()));
        assert!(sizes.is_sorted());
    }
}
