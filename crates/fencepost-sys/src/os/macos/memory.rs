//! Virtual memory.
//!
//! Reserved memory is one inaccessible mapping; committing changes its protection in place; decommitting and discarding
//! map fresh memory over the range, since advice that drops content for certain does not exist here.

use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use mach2::mach_init::mach_host_self;
use mach2::mach_port::mach_port_deallocate;
use mach2::traps::mach_task_self;

use super::{Host, probe, raw, read};
use crate::{Memory, Moved, Offers, Protection, Range, VmError, VmResult};

static CALLS: AtomicU64 = AtomicU64::new(0);

impl Memory for Host {
    fn page_size(&self) -> usize {
        probe::page_size()
    }

    /// The system has no limit on mappings that it would tell of.
    fn offers(&self) -> Offers {
        Offers::default()
    }

    fn reserve(&self, len: usize, align: usize) -> VmResult<usize> {
        let page = probe::page_size();
        if align <= page {
            return map(0, len, libc::PROT_NONE, 0);
        }
        if !align.is_power_of_two() {
            return Err(VmError::Unsupported);
        }
        let spare = align.wrapping_sub(page);
        let whole = len.checked_add(spare).ok_or(VmError::OutOfMemory)?;
        let start = map(0, whole, libc::PROT_NONE, 0)?;
        let aligned = start.wrapping_add(spare) & !align.wrapping_sub(1);
        let head = aligned.wrapping_sub(start);
        let tail = spare.wrapping_sub(head);
        // SAFETY: both ranges are parts of the mapping just made that the caller does not get.
        unsafe {
            unmap(start, head)?;
            unmap(aligned.wrapping_add(len), tail)?;
        }
        Ok(aligned)
    }

    /// A place that is asked for without `MAP_FIXED` is given if it is free, and another one if not.
    fn reserve_at(&self, range: Range) -> VmResult {
        let got = map(range.start, range.len, libc::PROT_NONE, 0)?;
        if got == range.start {
            return Ok(());
        }
        // SAFETY: the mapping was just made elsewhere, and nothing refers to it.
        unsafe { unmap(got, range.len)? };
        Err(VmError::OutOfMemory)
    }

    unsafe fn commit(&self, range: Range) -> VmResult {
        protect(range, libc::PROT_READ | libc::PROT_WRITE)
    }

    unsafe fn protect(&self, range: Range, protection: Protection) -> VmResult {
        protect(range, bits_of(protection))
    }

    unsafe fn decommit(&self, range: Range) -> VmResult {
        map(range.start, range.len, libc::PROT_NONE, libc::MAP_FIXED).map(|_| ())
    }

    unsafe fn release(&self, range: Range) -> VmResult {
        // SAFETY: the caller owns the range, and nothing refers to it.
        unsafe { unmap(range.start, range.len) }
    }

    unsafe fn discard(&self, range: Range) -> VmResult {
        let bits = libc::PROT_READ | libc::PROT_WRITE;
        map(range.start, range.len, bits, libc::MAP_FIXED).map(|_| ())
    }

    unsafe fn guard_install(&self, _range: Range) -> VmResult {
        Err(VmError::Unsupported)
    }

    unsafe fn guard_install_each(&self, _ranges: &[Range]) -> VmResult {
        Err(VmError::Unsupported)
    }

    unsafe fn guard_remove(&self, _range: Range) -> VmResult {
        Err(VmError::Unsupported)
    }

    unsafe fn guard_remove_each(&self, _ranges: &[Range]) -> VmResult {
        Err(VmError::Unsupported)
    }

    /// There is a call (`mach_vm_remap`), which leaves the pages in both places: not what is wanted.
    unsafe fn remap(&self, _from: Range, _to: Range) -> VmResult<Moved> {
        Err(VmError::Unsupported)
    }

    /// There is no call for it: each page is written to, in a way that changes nothing whoever else writes there.
    unsafe fn populate(&self, range: Range) -> VmResult {
        for page in (range.start..range.end()).step_by(probe::page_size()) {
            // SAFETY: the caller owns the range, which is committed; the operation leaves every value as it is.
            unsafe { AtomicU8::from_ptr(page as *mut u8) }.fetch_or(0, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Large pages are never given without being asked for.
    unsafe fn no_huge_pages(&self, _range: Range) -> VmResult {
        Ok(())
    }

    /// A flush that starts nothing looks whether each page has a mapping, and answers `ENOMEM` where one has not (msync(2)).
    fn is_mapped(&self, range: Range) -> bool {
        let start = range.start & !probe::page_size().wrapping_sub(1);
        let Some(len) = range.len.checked_add(range.start.wrapping_sub(start)) else { return false };
        count();
        // SAFETY: MS_ASYNC neither reads nor writes anonymous memory.
        raw::kept(|| unsafe { libc::msync(start as *mut _, len, libc::MS_ASYNC) } as isize).is_ok()
    }

    fn read_checked(&self, address: usize, into: &mut [u8]) -> usize {
        read::read_checked(address, into)
    }

    /// Free pages, and those that the system takes back when somebody wants them.
    fn available(&self) -> Option<u64> {
        // SAFETY: all-zero is a valid value of a structure of integers.
        let mut told: libc::vm_statistics64 = unsafe { core::mem::zeroed() };
        let mut len = libc::HOST_VM_INFO64_COUNT;
        // SAFETY: the call writes at most as many words as are announced, which is one such structure. Asking for the host
        // adds a reference to its port, which is given back.
        let result = unsafe {
            let (host, place) = (mach_host_self(), (&raw mut told).cast());
            let result = libc::host_statistics64(host, libc::HOST_VM_INFO64, place, &raw mut len);
            mach_port_deallocate(mach_task_self(), host);
            result
        };
        if result != 0 {
            return None;
        }
        let pages = u64::from(told.free_count)
            .saturating_add(u64::from(told.inactive_count))
            .saturating_add(u64::from(told.purgeable_count));
        Some(pages.saturating_mul(probe::page_size() as u64))
    }

    fn calls(&self) -> u64 {
        CALLS.load(Ordering::Relaxed)
    }
}

/// Maps anonymous memory, counted.
fn map(address: usize, len: usize, protection: i32, flags: i32) -> VmResult<usize> {
    count();
    raw::map(address, len, protection, flags)
}

/// Unmaps a range, counted; nothing to do for an empty one.
///
/// # Safety
/// As [`raw::unmap`].
unsafe fn unmap(address: usize, len: usize) -> VmResult {
    if len == 0 {
        return Ok(());
    }
    count();
    // SAFETY: the caller's promise.
    unsafe { raw::unmap(address, len) }
}

/// A protection as the kernel takes it.
fn bits_of(protection: Protection) -> i32 {
    match protection {
        Protection::None | Protection::Once => libc::PROT_NONE,
        Protection::Read | Protection::Keyed => libc::PROT_READ,
        Protection::ReadWrite => libc::PROT_READ | libc::PROT_WRITE,
    }
}

/// Changes what pages allow, counted.
fn protect(range: Range, bits: i32) -> VmResult {
    count();
    raw::protect(range.start, range.len, bits)
}

/// Counts one system call.
pub(super) fn count() {
    CALLS.fetch_add(1, Ordering::Relaxed);
}
