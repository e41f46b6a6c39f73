//! The calls that put pages in place and move them, and what their errors mean.

use core::mem::{offset_of, size_of};
use core::sync::atomic::Ordering;

use super::super::memory::count;
use super::super::probe::{self, Feature};
use super::super::raw::{self, Errno, syscall};
use super::{both_ways, descriptor, is_kept, wiped};
use crate::{MissingError, Partly};

/// Nobody waits for a page: every fault is a signal.
const DONTWAKE: u64 = 1;

/// Of a copy and of a move alike.
#[repr(C)]
struct Transfer {
    to: u64,
    from: u64,
    len: u64,
    mode: u64,
    done: i64,
}

pub(super) const UFFDIO_COPY: u64 = both_ways(0x03, size_of::<Transfer>());
pub(super) const UFFDIO_MOVE: u64 = both_ways(0x05, size_of::<Transfer>());

const _: () = assert!(size_of::<Transfer>() == 40 && offset_of!(Transfer, done) == 32);
const _: () = assert!(UFFDIO_COPY == 0xc028_aa03 && UFFDIO_MOVE == 0xc028_aa05);

/// Copies or moves pages. The callers own both ranges.
#[inline(always)]
pub(super) fn transfer(fd: i32, request: u64, to: usize, from: usize, len: usize) -> Result<(), Partly> {
    let mut wish = Transfer { to: to as u64, from: from as u64, len: len as u64, mode: DONTWAKE, done: 0 };
    count();
    // SAFETY: the kernel reads and writes one `Transfer`, which `wish` is, and answers for what it does to ranges that
    // are not registered with this descriptor by an error.
    match unsafe { syscall!(libc::SYS_ioctl, fd, request, &raw mut wish) } {
        Ok(_) => Ok(()),
        Err(error) => Err(partly(error, &wish)),
    }
}

/// After an error the kernel says in the wish how far it came, or the error once more.
#[cold]
fn partly(error: Errno, wish: &Transfer) -> Partly {
    let len = usize::try_from(wish.len).unwrap_or(0);
    Partly { done: usize::try_from(wish.done).unwrap_or(0).min(len), why: why(error) }
}

#[cold]
pub(super) fn why_not_moved() -> MissingError {
    if probe::filtered() || probe::denied(Feature::Move) {
        return MissingError::Denied;
    }
    // With a descriptor that only copies, a move is not known.
    descriptor().map_or_else(|why| why, |_| MissingError::Denied)
}

fn why(error: Errno) -> MissingError {
    match error.0 {
        libc::EBUSY => MissingError::Shared,
        libc::EEXIST => MissingError::Taken,
        libc::EAGAIN => MissingError::Busy,
        libc::ENOMEM => MissingError::NoMemory,
        libc::EPERM | libc::EACCES | libc::ENOSYS => MissingError::Denied,
        other => why_or_lost(other),
    }
}

/// An error that a number which is no longer ours would give as well.
#[cold]
fn why_or_lost(error: i32) -> MissingError {
    let Some(wiped) = wiped() else { return MissingError::Lost };
    let number = wiped.number.load(Ordering::Acquire);
    if number == 0 || !is_kept(number.wrapping_sub(1)) {
        if wiped.process.load(Ordering::Relaxed) != raw::process_id() {
            return MissingError::Borrowed;
        }
        wiped.number.store(0, Ordering::Release);
        return MissingError::Lost;
    }
    match error {
        libc::ENOENT | libc::EFAULT => MissingError::Absent,
        libc::EINVAL => MissingError::Unfit,
        other => MissingError::Other(other),
    }
}
