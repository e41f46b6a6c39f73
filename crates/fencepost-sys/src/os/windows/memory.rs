//! Virtual memory: `VirtualAlloc` and its like.
//!
//! Reserve, commit and decommit are the system's own verbs here. Addresses go by 64 KiB, all else by the page.

use core::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};

use windows_sys::Win32::Foundation::{
    ERROR_ACCESS_DENIED, ERROR_COMMITMENT_LIMIT, ERROR_INVALID_ADDRESS, ERROR_NO_SYSTEM_RESOURCES,
    ERROR_NOT_ENOUGH_MEMORY, ERROR_NOT_SUPPORTED, ERROR_PRIVILEGE_NOT_HELD, GetLastError,
};
use windows_sys::Win32::System::LibraryLoader::{GetModuleHandleA, GetProcAddress};
use windows_sys::Win32::System::Memory::{
    MEM_COMMIT, MEM_DECOMMIT, MEM_RELEASE, MEM_RESERVE, MEMORY_BASIC_INFORMATION, PAGE_EXECUTE_READ,
    PAGE_EXECUTE_READWRITE, PAGE_EXECUTE_WRITECOPY, PAGE_GUARD, PAGE_NOACCESS, PAGE_READONLY, PAGE_READWRITE,
    PAGE_WRITECOPY, VirtualAlloc, VirtualFree, VirtualProtect, VirtualQuery,
};
use windows_sys::Win32::System::SystemInformation::{
    GetSystemInfo, GlobalMemoryStatusEx, MEMORYSTATUSEX, SYSTEM_INFO,
};

use super::probe::{Feature, denied};
use super::teb::Kept;
use super::{Host, large};
use crate::{Memory, Moved, Offers, Protection, Range, VmError, VmResult};

static PAGE: AtomicUsize = AtomicUsize::new(0);
static GRANULARITY: AtomicUsize = AtomicUsize::new(0);
static CALLS: AtomicU64 = AtomicU64::new(0);
/// Whether this is Wine, which keeps a byte for each page that is reserved: one of the three below.
static WINE: AtomicU8 = AtomicU8::new(UNKNOWN);
const UNKNOWN: u8 = 0;
const NO: u8 = 1;
const YES: u8 = 2;
/// The longest reservation that Wine is asked for: 16 MiB of such bytes.
const WINE_RESERVES: usize = 64 << 30;
/// The most mappings of a process on Linux, unless it was told otherwise, and about how many a program under Wine begins with.
const WINE_MAPPINGS: usize = 65_530;
const WINE_MAPPINGS_BEFORE: usize = 1024;
/// How often an aligned place is looked for before somebody else's being faster counts as there being none.
const TRIES: u32 = 8;

/// Finds out what the machine is, once.
pub(super) fn prepare() {
    let _ = (sizes(), is_wine());
}

/// Whether this is Wine. Only the first call asks.
pub(super) fn is_wine() -> bool {
    let known = WINE.load(Ordering::Relaxed);
    if known != UNKNOWN {
        return known == YES;
    }
    let _kept = Kept::new();
    // SAFETY: both names end in a zero; a module that is loaded for good is asked for.
    let wine = unsafe {
        let ntdll = GetModuleHandleA(c"ntdll.dll".as_ptr().cast());
        !ntdll.is_null() && GetProcAddress(ntdll, c"wine_get_version".as_ptr().cast()).is_some()
    };
    WINE.store(if wine { YES } else { NO }, Ordering::Relaxed);
    wine
}

/// Whether pages are committed, readable and writable, and no guards.
pub(super) fn is_plain(info: &MEMORY_BASIC_INFORMATION) -> bool {
    info.State == MEM_COMMIT && info.Protect == PAGE_READWRITE
}

fn sizes() -> (usize, usize) {
    let page = PAGE.load(Ordering::Relaxed);
    if page != 0 {
        return (page, GRANULARITY.load(Ordering::Relaxed));
    }
    // SAFETY: all-zero is a valid value of a structure of integers and pointers.
    let mut info: SYSTEM_INFO = unsafe { core::mem::zeroed() };
    // SAFETY: the call writes one such structure.
    unsafe { GetSystemInfo(&raw mut info) };
    let (page, granularity) = (info.dwPageSize as usize, info.dwAllocationGranularity as usize);
    GRANULARITY.store(granularity, Ordering::Relaxed);
    PAGE.store(page, Ordering::Relaxed);
    (page, granularity)
}

/// What the last call that failed said.
pub(super) fn last_error() -> VmError {
    // SAFETY: reads a word of this thread's.
    match unsafe { GetLastError() } {
        ERROR_NOT_ENOUGH_MEMORY
        | ERROR_COMMITMENT_LIMIT
        | ERROR_INVALID_ADDRESS
        | ERROR_NO_SYSTEM_RESOURCES => VmError::OutOfMemory,
        ERROR_ACCESS_DENIED | ERROR_PRIVILEGE_NOT_HELD => VmError::Denied,
        ERROR_NOT_SUPPORTED => VmError::Unsupported,
        other => VmError::Other(other as i32),
    }
}

pub(super) fn count() {
    CALLS.fetch_add(1, Ordering::Relaxed);
}

pub(super) fn allocate(address: usize, len: usize, kind: u32, protection: u32) -> VmResult<usize> {
    let _kept = Kept::new();
    count();
    // SAFETY: reserving takes free addresses only; committing is asked for within a reservation by its owner.
    let got = unsafe { VirtualAlloc(address as *const _, len, kind, protection) };
    if got.is_null() { Err(last_error()) } else { Ok(got.addr()) }
}

/// # Safety
/// The caller must own the range, and nothing may refer to what is lost.
unsafe fn free(address: usize, len: usize, kind: u32) -> VmResult {
    let _kept = Kept::new();
    count();
    // SAFETY: the caller's promise.
    if unsafe { VirtualFree(address as *mut _, len, kind) } != 0 { Ok(()) } else { Err(last_error()) }
}

/// Commits reserved pages as one-shot guards: the first access traps and opens its page.
pub(super) fn commit_guard(address: usize, len: usize) -> VmResult {
    allocate(address, len, MEM_COMMIT, PAGE_READWRITE | PAGE_GUARD).map(|_| ())
}

/// What is known about the pages from an address on that are alike.
pub(super) fn query(address: usize) -> Option<MEMORY_BASIC_INFORMATION> {
    let _kept = Kept::new();
    // SAFETY: all-zero is a valid value of a structure of integers and pointers.
    let mut info: MEMORY_BASIC_INFORMATION = unsafe { core::mem::zeroed() };
    // SAFETY: the call writes one such structure and touches nothing at the address.
    let len =
        unsafe { VirtualQuery(address as *const _, &raw mut info, size_of::<MEMORY_BASIC_INFORMATION>()) };
    (len != 0).then_some(info)
}

/// What the machine has, and what this process may still have.
pub(super) fn status() -> Option<MEMORYSTATUSEX> {
    let _kept = Kept::new();
    // SAFETY: all-zero is a valid value of a structure of integers.
    let mut status: MEMORYSTATUSEX = unsafe { core::mem::zeroed() };
    status.dwLength = size_of::<MEMORYSTATUSEX>() as u32;
    // SAFETY: the call writes one such structure, whose length is in it.
    (unsafe { GlobalMemoryStatusEx(&raw mut status) } != 0).then_some(status)
}

/// Whether the protection, which is exactly one and perhaps the mark of a guard, lets a program read.
fn is_readable(protection: u32) -> bool {
    // A guard (PAGE_GUARD) is no plain one of these, and stays armed.
    matches!(
        protection & !(0x200 | 0x400),
        PAGE_READONLY
            | PAGE_READWRITE
            | PAGE_WRITECOPY
            | PAGE_EXECUTE_READ
            | PAGE_EXECUTE_READWRITE
            | PAGE_EXECUTE_WRITECOPY
    )
}

/// # Safety
/// The caller must own the range, and no reference may contradict the change.
unsafe fn set_protection(range: Range, bits: u32) -> VmResult {
    let _kept = Kept::new();
    count();
    let mut before = 0;
    // SAFETY: the caller's promise.
    let done = unsafe { VirtualProtect(range.start as *const _, range.len, bits, &raw mut before) };
    if done != 0 { Ok(()) } else { Err(last_error()) }
}

/// Makes committed pages one-shot guards: the first access traps and opens its page.
///
/// # Safety
/// The caller must own the range, and be ready for the trap.
pub(super) unsafe fn guard(range: Range) -> VmResult {
    // SAFETY: the caller's promise.
    unsafe { set_protection(range, PAGE_READWRITE | PAGE_GUARD) }
}

impl Memory for Host {
    fn page_size(&self) -> usize {
        sizes().0
    }

    fn granularity(&self) -> usize {
        sizes().1
    }

    fn offers(&self) -> Offers {
        // Wine maps what is committed, and its host counts the mappings: past them nothing at all can be had, also by the
        // program.
        let mappings_max = is_wine().then_some(WINE_MAPPINGS);
        Offers { commits_pages: true, mappings_max, mappings_now: WINE_MAPPINGS_BEFORE, ..Offers::default() }
    }

    fn reserve(&self, len: usize, align: usize) -> VmResult<usize> {
        if is_wine() && len > WINE_RESERVES {
            return Err(VmError::OutOfMemory);
        }
        if align <= sizes().1 {
            return allocate(0, len, MEM_RESERVE, PAGE_NOACCESS);
        }
        if !align.is_power_of_two() {
            return Err(VmError::Unsupported);
        }
        // A reservation is given back whole or not at all: so a place is found, given back, and taken again aligned.
        let whole = len.checked_add(align).ok_or(VmError::OutOfMemory)?;
        for _ in 0..TRIES {
            let start = allocate(0, whole, MEM_RESERVE, PAGE_NOACCESS)?;
            // SAFETY: it was reserved just now, and nothing refers to it.
            unsafe { free(start, 0, MEM_RELEASE)? };
            let aligned = start.wrapping_add(align.wrapping_sub(1)) & !align.wrapping_sub(1);
            if let Ok(got) = allocate(aligned, len, MEM_RESERVE, PAGE_NOACCESS) {
                return Ok(got);
            }
        }
        Err(VmError::OutOfMemory)
    }

    fn reserve_at(&self, range: Range) -> VmResult {
        allocate(range.start, range.len, MEM_RESERVE, PAGE_NOACCESS).map(|_| ())
    }

    unsafe fn commit(&self, range: Range) -> VmResult {
        let committed = allocate(range.start, range.len, MEM_COMMIT, PAGE_READWRITE);
        // Of large pages there is nothing to commit: what is closed is opened.
        if let Err(error) = committed
            && !large::were_given()
        {
            return Err(error);
        }
        // What was committed already keeps its protection on some versions.
        // SAFETY: the caller's promise.
        unsafe { self.protect(range, Protection::ReadWrite) }
    }

    unsafe fn protect(&self, range: Range, protection: Protection) -> VmResult {
        let bits = match protection {
            // SAFETY: the caller's promise.
            Protection::Once if !denied(Feature::GuardPages) => return unsafe { guard(range) },
            Protection::None | Protection::Once => PAGE_NOACCESS,
            Protection::Read | Protection::Keyed => PAGE_READONLY,
            Protection::ReadWrite => PAGE_READWRITE,
        };
        // SAFETY: the caller's promise.
        unsafe { set_protection(range, bits) }
    }

    unsafe fn decommit(&self, range: Range) -> VmResult {
        // SAFETY: the caller's promise.
        unsafe {
            free(range.start, range.len, MEM_DECOMMIT).or_else(|error| match large::were_given() {
                true => large::empty(range).map_err(|_| error),
                false => Err(error),
            })
        }
    }

    unsafe fn release(&self, range: Range) -> VmResult {
        // What has large pages is several allocations, of which the last is given back first.
        let mut last = range.end().wrapping_sub(1);
        while let Some(info) = query(last).filter(|info| info.AllocationBase.addr() > range.start) {
            // SAFETY: the caller's promise.
            unsafe { free(info.AllocationBase.addr(), 0, MEM_RELEASE)? };
            last = info.AllocationBase.addr().wrapping_sub(1);
        }
        // SAFETY: the caller's promise. The system knows the length.
        unsafe { free(range.start, 0, MEM_RELEASE) }
    }

    /// Pages stay where they are here.
    unsafe fn remap(&self, _from: Range, _to: Range) -> VmResult<Moved> {
        Err(VmError::Unsupported)
    }

    unsafe fn discard(&self, range: Range) -> VmResult {
        // SAFETY: the caller owns the range, and its content may be lost.
        unsafe {
            self.decommit(range)?;
            self.commit(range)
        }
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

    /// There is no call for it: each page is written to, in a way that changes nothing whoever else writes there.
    unsafe fn populate(&self, range: Range) -> VmResult {
        for page in (range.start..range.end()).step_by(sizes().0) {
            // SAFETY: the caller owns the range, which is committed; the operation leaves every value as it is.
            unsafe { AtomicU8::from_ptr(page as *mut u8) }.fetch_or(0, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Large pages are never given without being asked for.
    unsafe fn no_huge_pages(&self, _range: Range) -> VmResult {
        Ok(())
    }

    fn is_mapped(&self, range: Range) -> bool {
        let mut at = range.start;
        while at < range.end() {
            match query(at) {
                Some(info) if info.State == MEM_COMMIT => {
                    at = info.BaseAddress.addr().saturating_add(info.RegionSize);
                }
                _ => return false,
            }
        }
        true
    }

    /// `ReadProcessMemory` is of no use here: under Wine it reads closed pages as well. So the pages are asked about, and
    /// copied where they may be read. (One that another thread closes in that moment faults, within the handler.)
    fn read_checked(&self, address: usize, into: &mut [u8]) -> usize {
        let mut done = 0usize;
        while done < into.len() {
            let Some(at) = address.checked_add(done) else { break };
            let Some(info) = query(at).filter(|info| info.State == MEM_COMMIT && is_readable(info.Protect))
            else {
                break;
            };
            let end = info.BaseAddress.addr().saturating_add(info.RegionSize);
            let len = end.saturating_sub(at).min(into.len().saturating_sub(done));
            let Some(place) = into.get_mut(done..done.saturating_add(len)).filter(|place| !place.is_empty())
            else {
                break;
            };
            // SAFETY: these bytes were readable just now, and `place` is ours. Others may write to them meanwhile: the
            // copy is by bytes, of which any value will do.
            unsafe { core::ptr::copy_nonoverlapping(at as *const u8, place.as_mut_ptr(), len) };
            done = done.saturating_add(len);
        }
        done
    }

    /// The least of free memory, of what may still be committed, and of free addresses.
    fn available(&self) -> Option<u64> {
        let status = status()?;
        Some(status.ullAvailPhys.min(status.ullAvailPageFile).min(status.ullAvailVirtual))
    }

    fn calls(&self) -> u64 {
        CALLS.load(Ordering::Relaxed)
    }
}
