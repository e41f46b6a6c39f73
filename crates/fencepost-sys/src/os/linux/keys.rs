//! Protection keys: which threads may touch a page, beside what its mapping allows.
//!
//! A page belongs to one of 16 keys, and each thread has two bits a key in a register of its own. One key is taken for
//! steps, when it is first needed. Every thread starts with it closed, and a signal handler too, whatever its thread had. It
//! is opened only in the context to which a fault handler returns, for one instruction ([`super::step`]), so no thread is
//! ever born with it open. A second key is for [`super::write_key`]. See `pkeys(7)` and
//! `Documentation/core-api/protection-keys.rst` of the kernel.
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

/// A key that is taken once.
pub(super) struct Key(AtomicI32);

impl Key {
    pub(super) const fn new() -> Key {
        Key(AtomicI32::new(UNKNOWN))
    }

    /// The key, if it was taken.
    pub(super) fn if_taken(&self) -> Option<i32> {
        Some(self.0.load(Ordering::Acquire)).filter(|key| *key > 0)
    }

    /// The key, taken and proved by `take` the first time.
    pub(super) fn get(&self, take: fn() -> Option<i32>) -> Option<i32> {
        loop {
            match self.0.load(Ordering::Acquire) {
                UNKNOWN => {
                    if self.0.compare_exchange(UNKNOWN, LOOKING, Ordering::AcqRel, Ordering::Acquire).is_ok()
                    {
                        self.0.store(take().unwrap_or(NONE), Ordering::Release);
                    }
                }
                LOOKING => Host.pause(),
                NONE => return None,
                key => return Some(key),
            }
        }
    }
}

/// The key of steps.
static KEY: Key = Key::new();

/// What a thread's register allows on a key's pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rights {
    /// All that the mapping does.
    All,
    /// Reading.
    Read,
    /// Nothing.
    Nothing,
}

/// The key of steps, if this processor and kernel have such, as seen by use.
pub(super) fn key() -> Option<i32> {
    KEY.get(take)
}

/// Runs something with the key open to this thread, if there is one. In a signal handler, which starts with it closed and
/// whose end puts back what its thread had.
pub(super) fn with_open(work: impl FnOnce()) {
    let Some(key) = key() else { return work() };
    super::xstate::set_here(key, Rights::All);
    work();
    super::xstate::set_here(key, Rights::Nothing);
}

/// Whether a key is the one that was taken here.
#[cfg(target_arch = "x86_64")]
pub(super) fn is_ours(key: i32) -> bool {
    KEY.if_taken() == Some(key)
}

/// Takes a key, and sees it close a page to this thread and open it again.
fn take() -> Option<i32> {
    const DISABLE_ACCESS: usize = 1;
    take_proved(DISABLE_ACCESS, |page| !readable(page))
}

/// Takes a key that this thread's register allows but part of the access to, and sees on a page that it does so.
pub(super) fn take_proved(disabled: usize, is_closed: fn(usize) -> bool) -> Option<i32> {
    if denied(Feature::Keys) || !super::xstate::has_keys() {
        return None;
    }
    // SAFETY: pkey_alloc touches no memory; other threads' registers allow nothing, as they did.
    let key = unsafe { syscall!(libc::SYS_pkey_alloc, 0, disabled) }.ok()? as i32;
    let page = Range {
        start: map(0, page_size(), libc::PROT_READ | libc::PROT_WRITE, 0).unwrap_or(0),
        len: page_size(),
    };
    let works = page.start != 0
        && protect(page, libc::PROT_READ | libc::PROT_WRITE, key).is_ok()
        && is_closed(page.start)
        && protect(page, libc::PROT_READ | libc::PROT_WRITE, 0).is_ok()
        && !is_closed(page.start);
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
