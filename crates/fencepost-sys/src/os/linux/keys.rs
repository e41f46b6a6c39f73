//! Protection keys: which threads may touch a page, beside what its mapping allows.
//!
//! A page belongs to one of 16 keys, and each thread has two bits a key in a register of its own. One key is taken,
//! when it is first needed. Every thread starts with it closed, and a signal handler too, whatever its thread had. It
//! is opened only in the context to which a fault handler returns, for one instruction ([`super::step`]), so no thread is
//! ever born with it open. See `pkeys(7)` and `Documentation/core-api/protection-keys.rst` of the kernel.
//!
//! x86_64 only. (On others no key is ever found.)

use core::sync::atomic::{AtomicI32, Ordering};

use super::Host;
use super::memory::count;
use super::probe::{Feature, denied, page_size, readable};
use super::raw::{map, syscall, unmap};
use crate::{Range, Stepping, VmResult};

/// Not looked for yet.
const UNKNOWN: i32 = -3;
/// A thread is looking.
const LOOKING: i32 = -2;
/// There is none.
const NONE: i32 = -1;

static KEY: AtomicI32 = AtomicI32::new(UNKNOWN);

/// The key, if this processor and kernel have such, as seen by use.
pub(super) fn key() -> Option<i32> {
    loop {
        match KEY.load(Ordering::Acquire) {
            UNKNOWN => {
                if KEY.compare_exchange(UNKNOWN, LOOKING, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                    KEY.store(take().unwrap_or(NONE), Ordering::Release);
                }
            }
            LOOKING => Host.pause(),
            NONE => return None,
            key => return Some(key),
        }
    }
}

/// Runs something with the key open to this thread, if there is one. In a signal handler, which starts with it closed and
/// whose end puts back what its thread had.
pub(super) fn with_open(work: impl FnOnce()) {
    let Some(key) = key() else { return work() };
    super::xstate::open_here(key);
    work();
    super::xstate::close_here(key);
}

/// Whether a key is the one that was taken here.
#[cfg(target_arch = "x86_64")]
pub(super) fn is_ours(key: i32) -> bool {
    key > 0 && KEY.load(Ordering::Acquire) == key
}

/// Takes a key, and sees it close a page to this thread and open it again.
fn take() -> Option<i32> {
    const DISABLE_ACCESS: usize = 1;
    if denied(Feature::Keys) || !super::xstate::has_keys() {
        return None;
    }
    // SAFETY: pkey_alloc touches no memory; the new key is closed to this thread, as it is to all others.
    let key = unsafe { syscall!(libc::SYS_pkey_alloc, 0, DISABLE_ACCESS) }.ok()? as i32;
    let page = Range {
        start: map(0, page_size(), libc::PROT_READ | libc::PROT_WRITE, 0).unwrap_or(0),
        len: page_size(),
    };
    let works = page.start != 0
        && protect(page, libc::PROT_READ | libc::PROT_WRITE, key).is_ok()
        && !readable(page.start)
        && protect(page, libc::PROT_READ | libc::PROT_WRITE, 0).is_ok()
        && readable(page.start);
    if page.start != 0 {
        // SAFETY: the page was mapped above, and nothing refers to it.
        let _ = unsafe { unmap(page.start, page.len) };
    }
    if !works {
        // SAFETY: pkey_free touches no memory, and no page has the key.
        let _ = unsafe { syscall!(libc::SYS_pkey_free, key) };
        return None;
    }
    Some(key)
}

/// Changes what is allowed on pages, and their key; 0 is the key that is open to all.
pub(super) fn protect(range: Range, bits: i32, key: i32) -> VmResult {
    count();
    // SAFETY: the callers pass on that they own the range and that no reference contradicts the change.
    unsafe { syscall!(libc::SYS_pkey_mprotect, range.start, range.len, bits, key)? };
    Ok(())
}
