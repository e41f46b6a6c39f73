//! Calls to the system that several files share. Nothing here allocates, and `errno` stays as it was.

use crate::{VmError, VmResult};

/// A system error number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Errno(pub(super) i32);

impl From<Errno> for VmError {
    fn from(errno: Errno) -> VmError {
        match errno.0 {
            libc::ENOMEM => VmError::OutOfMemory,
            libc::EINVAL | libc::ENOSYS | libc::ENOTSUP => VmError::Unsupported,
            libc::EPERM | libc::EACCES => VmError::Denied,
            other => VmError::Other(other),
        }
    }
}

/// Makes a call that answers -1 when it has failed, and puts `errno` back.
pub(super) fn kept(call: impl FnOnce() -> isize) -> Result<usize, Errno> {
    // SAFETY: the C library gives each thread its own errno, which lives as long as the thread.
    let errno = unsafe { libc::__error() };
    // SAFETY: as above.
    let before = unsafe { *errno };
    let result = call();
    // SAFETY: as above.
    let after = unsafe { core::mem::replace(&mut *errno, before) };
    if result == -1 { Err(Errno(after)) } else { Ok(result as usize) }
}

/// Maps anonymous private memory. There is no flag for "not charged before it is used" (`MAP_NORESERVE` is taken and means
/// nothing), and none is needed: no memory is charged before it is touched.
pub(super) fn map(address: usize, len: usize, protection: i32, extra: i32) -> VmResult<usize> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANON | extra;
    let at = address as *mut libc::c_void;
    // SAFETY: an anonymous mapping at an address of the kernel's choice touches nobody's memory; those who pass
    // MAP_FIXED own the range.
    let got = kept(|| unsafe { libc::mmap(at, len, protection, flags, -1, 0) }.addr() as isize)?;
    Ok(got)
}

/// Unmaps a range.
///
/// # Safety
/// The caller must own the range, and nothing may refer to it any more.
pub(super) unsafe fn unmap(address: usize, len: usize) -> VmResult {
    // SAFETY: the caller's promise.
    kept(|| unsafe { libc::munmap(address as *mut _, len) } as isize)?;
    Ok(())
}

/// Changes what pages allow.
pub(super) fn protect(address: usize, len: usize, bits: i32) -> VmResult {
    // SAFETY: the callers pass on that they own the range and that no reference contradicts the change.
    kept(|| unsafe { libc::mprotect(address as *mut _, len, bits) } as isize)?;
    Ok(())
}

/// The process's id now, also in a child after fork.
pub(super) fn process_id() -> i32 {
    // SAFETY: getpid has no arguments and cannot fail.
    unsafe { libc::getpid() }
}

/// The lower half of the thread's number, which is the system's own and never used again in its time.
pub(super) fn thread_id() -> i32 {
    let mut id = 0u64;
    // SAFETY: a null thread means this one; the function writes one number.
    unsafe { libc::pthread_threadid_np(0, &raw mut id) };
    id as i32
}
