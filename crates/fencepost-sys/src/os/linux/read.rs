//! Reads memory that may not be there, without a fault.
//!
//! `process_vm_readv` on ourselves copies what is readable and stops at the first page that is not. Old container
//! filters forbid it; then a pipe does the same, at four calls a page: writing to it answers `EFAULT` for a page
//! that cannot be read.

use core::sync::atomic::{AtomicBool, Ordering};

use super::memory::count;
use super::probe::{Feature, denied, page_size};
use super::raw::{Errno, close, process_id, syscall};

/// Pages in one call: the kernel stops at the granularity of the pieces it is given, so each page is a piece.
const PIECES: usize = 16;

/// Whether the direct call was seen to work.
static DIRECT: AtomicBool = AtomicBool::new(false);

/// Finds out whether memory can be read by a direct call.
pub(super) fn prove() {
    let from = 0x5ee5_u64.to_ne_bytes();
    let mut into = [0; 8];
    let read = read_direct(from.as_ptr().addr(), &mut into);
    DIRECT.store(!denied(Feature::ProcessVmReadv) && read == Ok(8) && into == from, Ordering::Relaxed);
}

/// Copies what is readable from `address` on, and says how much that is.
pub(super) fn read_checked(address: usize, into: &mut [u8]) -> usize {
    // A filter that is seen coming may end the process for the call.
    let mut direct = DIRECT.load(Ordering::Relaxed) && !denied(Feature::ProcessVmReadv);
    let mut done = 0usize;
    while let Some(room) = into.get_mut(done..).filter(|room| !room.is_empty()) {
        let Some(from) = address.checked_add(done) else { break };
        let got = if direct { read_direct(from, room) } else { read_by_pipe(from, room) };
        match got {
            Ok(0) => break,
            Ok(more) => done = done.saturating_add(more),
            // A filter came into force since.
            Err(Errno(libc::EPERM | libc::ENOSYS)) if direct => {
                direct = false;
                DIRECT.store(false, Ordering::Relaxed);
            }
            Err(_) => break,
        }
    }
    done
}

/// Bytes from an address to the end of its page, at most `len`.
fn in_page(address: usize, len: usize) -> usize {
    let page = page_size();
    page.wrapping_sub(address & page.wrapping_sub(1)).min(len)
}

fn read_direct(address: usize, into: &mut [u8]) -> Result<usize, Errno> {
    let empty = libc::iovec { iov_base: core::ptr::null_mut(), iov_len: 0 };
    let mut pieces = [empty; PIECES];
    let mut covered = 0usize;
    for piece in &mut pieces {
        let from = address.wrapping_add(covered);
        let len = in_page(from, into.len().saturating_sub(covered));
        *piece = libc::iovec { iov_base: from as *mut _, iov_len: len };
        covered = covered.saturating_add(len);
    }
    let local = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: covered };
    count();
    // SAFETY: the kernel writes at most `covered` bytes to `into`, which has them, and checks what it reads.
    unsafe {
        syscall!(libc::SYS_process_vm_readv, process_id(), &raw const local, 1, pieces.as_ptr(), PIECES, 0)
    }
}

/// Copies up to the end of the page.
fn read_by_pipe(address: usize, into: &mut [u8]) -> Result<usize, Errno> {
    let mut ends = [0i32; 2];
    count();
    // SAFETY: pipe2 writes two descriptors to `ends`.
    unsafe { syscall!(libc::SYS_pipe2, ends.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK)? };
    let [out, back] = ends;
    let len = in_page(address, into.len());
    count();
    // SAFETY: the kernel checks what it reads from `address`. A new pipe has room for a page.
    let copied = unsafe { syscall!(libc::SYS_write, back, address, len) };
    let read = match copied {
        Ok(copied) => {
            count();
            // SAFETY: the kernel writes at most `copied` bytes to `into`, which is no shorter.
            unsafe { syscall!(libc::SYS_read, out, into.as_mut_ptr(), copied) }
        }
        Err(error) => Err(error),
    };
    close(out);
    close(back);
    read
}
