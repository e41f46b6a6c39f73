//! The key of pages that are open to writing for some threads only ([`Protection::Keyed`]).
//!
//! It has manners of its own (`pkeys(7)`), and each is dealt with in silence, and counted:
//!
//! - A thread that is older than the key cannot even read, and neither can a signal handler: the kernel starts it with every
//!   key but the first closed. Its first read faults, and is let through from then on ([`super::step::let_read`]).
//! - A thread that is born while its maker has the key open can write, too. That is taken from it when it is first heard of
//!   ([`Keys::close_inherited`]).
//!
//! The kernel itself asks the thread's register in system calls, and answers `EFAULT` where it forbids the access.

use core::cell::Cell;
use core::sync::atomic::{AtomicU64, Ordering};

use super::Host;
use super::keys::{Key, Rights, take_proved};
use super::raw::syscall;
use super::xstate::{rights_here, set_here};
use crate::{Keys, Protection};

static KEY: Key = Key::new();
static SET_RIGHT: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// How many scopes of this thread have it open.
    static SCOPES: Cell<u32> = const { Cell::new(0) };
}

/// The key, if it was taken.
pub(super) fn if_taken() -> Option<i32> {
    KEY.if_taken()
}

/// The key for pages that allow this: 0, which is open to all, but for those that only some threads write to.
pub(super) fn of(protection: Protection) -> i32 {
    if protection == Protection::Keyed { if_taken().unwrap_or(0) } else { 0 }
}

/// Counts a register that was set right.
pub(super) fn count_set_right() {
    SET_RIGHT.fetch_add(1, Ordering::Relaxed);
}

/// Takes a key, and sees it close a page to this thread's writes and leave it open to reads.
fn take() -> Option<i32> {
    const DISABLE_WRITE: usize = 2;
    take_proved(DISABLE_WRITE, |page| super::probe::readable(page) && !writable(page))
}

/// Whether the kernel can write 8 bytes to a page of zeros for this thread.
fn writable(address: usize) -> bool {
    // SAFETY: the kernel checks the address; the caller's page is nobody's.
    unsafe { syscall!(libc::SYS_rt_sigprocmask, libc::SIG_BLOCK, 0, address, 8) }.is_ok()
}

impl Keys for Host {
    fn has_write_key(&self) -> bool {
        KEY.get(take).is_some()
    }

    fn open_writes(&self) -> bool {
        let Some(key) = if_taken() else { return true };
        SCOPES.set(SCOPES.get().wrapping_add(1));
        let could_before = rights_here(key) == Rights::All;
        if !could_before {
            set_here(key, Rights::All);
        }
        could_before
    }

    fn close_writes(&self, could_before: bool) {
        let Some(key) = if_taken() else { return };
        SCOPES.set(SCOPES.get().wrapping_sub(1));
        if !could_before {
            set_here(key, Rights::Read);
        }
    }

    fn can_write(&self) -> bool {
        if_taken().is_some_and(|key| rights_here(key) == Rights::All)
    }

    fn let_read(&self) {
        if let Some(key) = if_taken()
            && rights_here(key) == Rights::Nothing
        {
            set_here(key, Rights::Read);
            count_set_right();
        }
    }

    fn drop_inherited_leave(&self) {
        if SCOPES.get() == 0
            && self.can_write()
            && let Some(key) = if_taken()
        {
            set_here(key, Rights::Read);
            count_set_right();
        }
    }

    fn keys_set_right(&self) -> u64 {
        SET_RIGHT.load(Ordering::Relaxed)
    }
}
