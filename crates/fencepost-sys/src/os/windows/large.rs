//! Large pages, on request.
//!
//! Source: "Large-Page Support" of Microsoft's memory documentation. They come with their addresses, all at once and
//! zero, or not at all; they are never paged out, and no part of them is given back alone. A process needs the right
//! `SeLockMemoryPrivilege`, which an administrator gives to an account, and must switch it on: that is done when large
//! pages are first asked for.
//!
//! So what is reserved here is three allocations side by side: guard, large pages, guard. `commit_huge` opens parts of
//! the middle one, and where it is to be decommitted and the system will not, it is emptied and closed.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use windows_sys::Win32::Foundation::{CloseHandle, ERROR_SUCCESS, GetLastError, HANDLE, LUID, SetLastError};
use windows_sys::Win32::Security::{
    AdjustTokenPrivileges, LUID_AND_ATTRIBUTES, LookupPrivilegeValueW, SE_LOCK_MEMORY_NAME,
    SE_PRIVILEGE_ENABLED, TOKEN_ADJUST_PRIVILEGES, TOKEN_PRIVILEGES,
};
use windows_sys::Win32::System::Memory::{
    GetLargePageMinimum, MEM_COMMIT, MEM_LARGE_PAGES, MEM_RESERVE, PAGE_READWRITE,
};
use windows_sys::Win32::System::Threading::{GetCurrentProcess, OpenProcessToken};

use super::probe::{Feature, denied};
use super::teb::Kept;
use super::{Host, memory};
use crate::{Memory, Protection, Range, VmError, VmResult};

/// How often a place is looked for before somebody else's being faster counts as there being none.
const TRIES: u32 = 8;

const UNKNOWN: u32 = 0;
const HELD: u32 = 1;
const MISSING: u32 = 2;
/// Whether this process may have them.
static RIGHT: AtomicU32 = AtomicU32::new(UNKNOWN);
/// Whether it has had any.
static GIVEN: AtomicBool = AtomicBool::new(false);

/// Bytes in a large page, where the processor has them.
pub(super) fn size() -> Option<usize> {
    // SAFETY: the call has no arguments.
    let size = unsafe { GetLargePageMinimum() };
    (size != 0 && !denied(Feature::LargePages)).then_some(size)
}

/// Whether this process has had any.
pub(super) fn were_given() -> bool {
    GIVEN.load(Ordering::Relaxed)
}

/// Whether the right to have them is missing, as far as it was asked for.
pub(super) fn is_forbidden() -> bool {
    RIGHT.load(Ordering::Relaxed) == MISSING
}

/// Whether this process may have them; switches the right on.
fn has_right() -> bool {
    if RIGHT.load(Ordering::Relaxed) == UNKNOWN {
        let held = if switch_on().is_some() { HELD } else { MISSING };
        RIGHT.store(held, Ordering::Relaxed);
    }
    RIGHT.load(Ordering::Relaxed) == HELD
}

fn switch_on() -> Option<()> {
    let _kept = Kept::new();
    let mut token: HANDLE = core::ptr::null_mut();
    let mut right = LUID { LowPart: 0, HighPart: 0 };
    // SAFETY: the calls read names that end in zeros and a structure of ours, and write one handle and one number; the handle is
    // closed.
    unsafe {
        if LookupPrivilegeValueW(core::ptr::null(), SE_LOCK_MEMORY_NAME, &raw mut right) == 0
            || OpenProcessToken(GetCurrentProcess(), TOKEN_ADJUST_PRIVILEGES, &raw mut token) == 0
        {
            return None;
        }
        let wanted = TOKEN_PRIVILEGES {
            PrivilegeCount: 1,
            Privileges: [LUID_AND_ATTRIBUTES { Luid: right, Attributes: SE_PRIVILEGE_ENABLED }],
        };
        SetLastError(ERROR_SUCCESS);
        let none = core::ptr::null_mut();
        // It also succeeds where the account has no such right, and then leaves an error.
        let done = AdjustTokenPrivileges(token, 0, &raw const wanted, 0, none, core::ptr::null_mut()) != 0
            && GetLastError() == ERROR_SUCCESS;
        CloseHandle(token);
        done.then_some(())
    }
}

/// Takes addresses with a middle of large pages, closed.
pub(super) fn reserve(parts: [usize; 3], align: usize, page: usize) -> VmResult<usize> {
    if size() != Some(page) {
        return Err(VmError::Unsupported);
    }
    if !has_right() {
        return Err(VmError::Denied);
    }
    let [head, len, tail] = parts;
    let whole = head.checked_add(len).and_then(|sum| sum.checked_add(tail)).ok_or(VmError::OutOfMemory)?;
    for _ in 0..TRIES {
        let start = Host.reserve(whole, align.max(page))?;
        // SAFETY: it was reserved just now, and nothing refers to it.
        unsafe { Host.release(Range { start, len: whole })? };
        if let Some(start) = beside_each_other(start, parts, &mut |middle| {
            let kind = MEM_RESERVE | MEM_COMMIT | MEM_LARGE_PAGES;
            memory::allocate(middle.start, middle.len, kind, PAGE_READWRITE).map(|_| ())
        })? {
            GIVEN.store(true, Ordering::Relaxed);
            return Ok(start);
        }
    }
    Err(VmError::OutOfMemory)
}

/// Takes three allocations side by side, of which `take` takes the middle one, and closes that; `None` when another thread
/// was faster.
fn beside_each_other(
    start: usize,
    [head, len, tail]: [usize; 3],
    take: &mut dyn FnMut(Range) -> VmResult,
) -> VmResult<Option<usize>> {
    let middle = Range { start: start.wrapping_add(head), len };
    let guards = [Range { start, len: head }, Range { start: middle.end(), len: tail }];
    take(middle)?;
    let mut taken = [Some(middle), None, None];
    let mut faster = false;
    for (guard, place) in guards.into_iter().filter(|guard| guard.len != 0).zip(taken.iter_mut().skip(1)) {
        match Host.reserve_at(guard) {
            Ok(()) => *place = Some(guard),
            Err(_) => faster = true,
        }
    }
    // SAFETY: the middle is ours, and nothing refers to it.
    let closed = unsafe { Host.protect(middle, Protection::None) };
    if !faster && closed.is_ok() {
        return Ok(Some(start));
    }
    for range in taken.into_iter().flatten() {
        // SAFETY: each was taken just now, and nothing refers to it. What is not given back is only addresses.
        let given_back = unsafe { Host.release(range) };
        let _ = given_back;
    }
    closed.map(|()| None)
}

/// Opens a part of the middle of what [`reserve`] gave.
pub(super) fn open(range: Range) -> VmResult {
    // Elsewhere a reservation has nothing committed where memory is still to come.
    if !were_given() || !Host.is_mapped(range) {
        return Err(if is_forbidden() { VmError::Denied } else { VmError::Unsupported });
    }
    // SAFETY: the caller owns the range.
    unsafe { Host.protect(range, Protection::ReadWrite) }
}

/// Empties and closes a range that the system will not decommit.
///
/// # Safety
/// The caller must own the range; its content is lost.
pub(super) unsafe fn empty(range: Range) -> VmResult {
    // SAFETY: the caller's promise; what was opened just now may be written to.
    unsafe {
        Host.protect(range, Protection::ReadWrite)?;
        core::ptr::write_bytes(range.start as *mut u8, 0, range.len);
        Host.protect(range, Protection::None)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// With ordinary pages in the place of large ones, which take a right.
    #[test]
    fn three_allocations_are_one_reservation() {
        let unit = Host.granularity();
        for [head, tail] in [[unit, unit], [0, unit], [unit, 0]] {
            let parts = [head, 4 * unit, tail];
            let whole = Range {
                start: Host.reserve(head + 4 * unit + tail, 1).unwrap(),
                len: head + 4 * unit + tail,
            };
            // SAFETY: the addresses were reserved just now; all that is done to them is done here.
            unsafe {
                Host.release(whole).unwrap();
                let mut take = |middle: Range| {
                    memory::allocate(middle.start, middle.len, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE)
                        .map(|_| ())
                };
                assert_eq!(beside_each_other(whole.start, parts, &mut take), Ok(Some(whole.start)));
                let middle = Range { start: whole.start + head, len: 4 * unit };
                assert_eq!(Host.read_checked(middle.start, &mut [0]), 0, "closed at first");
                Host.protect(middle, Protection::ReadWrite).unwrap();
                (middle.start as *mut u8).write(7);
                empty(middle).unwrap();
                assert_eq!(Host.read_checked(middle.start, &mut [0]), 0, "and closed again");
                Host.protect(middle, Protection::ReadWrite).unwrap();
                assert_eq!((middle.start as *const u8).read(), 0);
                Host.release(whole).unwrap();
                Host.reserve_at(whole).expect("all of it was given back");
                Host.release(whole).unwrap();
            }
        }
    }
}
