//! Files.

use super::raw::{Errno, kept};
use super::signal_calls::{current_mask, set_mask};
use super::threads::copy;
use super::{Host, chain, modules};
use crate::{Output, VmError, VmResult};
use fencepost_record::Module;

/// The longest path that can be opened, end mark included.
const PATH_MAX: usize = 1024;
/// How long a file that takes nothing now (a full pipe that does not block) is waited for, in milliseconds.
const FULL_WAIT_MS: i32 = 100;
/// How often.
const FULL_WAITS: u32 = 50;
/// How often a lock is asked for, and how long to sleep between, in nanoseconds: a tenth of a second in all.
const LOCK_TRIES: u32 = 100;
const LOCK_SLEEP_NS: i64 = 1_000_000;

unsafe extern "C" {
    /// `mach-o/dyld.h`.
    fn _NSGetExecutablePath(into: *mut core::ffi::c_char, room: *mut u32) -> i32;
}

impl Output for Host {
    fn open_append(&self, path: &[u8]) -> VmResult<i32> {
        let mut ended = [0u8; PATH_MAX];
        match ended.get_mut(..path.len()) {
            Some(place) if path.len() < PATH_MAX && !path.contains(&0) => place.copy_from_slice(path),
            _ => return Err(VmError::Other(libc::ENAMETOOLONG)),
        }
        let flags = libc::O_WRONLY | libc::O_APPEND | libc::O_CREAT | libc::O_CLOEXEC | libc::O_NOCTTY;
        // SAFETY: open reads a zero-ended path.
        let fd = kept(|| unsafe { libc::open(ended.as_ptr().cast(), flags, 0o644) } as isize)? as i32;
        if fd > 2 {
            return Ok(fd);
        }
        // The program runs with a standard stream closed. It must not find our file in its place.
        // SAFETY: fcntl touches no memory for this command.
        let moved = kept(|| unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) } as isize);
        self.close(fd);
        Ok(moved? as i32)
    }

    fn close(&self, file: i32) {
        // SAFETY: close touches no memory, and the descriptor is the caller's, whatever it answers.
        let _ = kept(|| unsafe { libc::close(file) } as isize);
    }

    /// A closed pipe ends in an error, not in the program's death by `SIGPIPE`, which is held back meanwhile.
    fn write(&self, file: i32, bytes: &[u8]) -> VmResult {
        let mask = current_mask();
        let waiting = is_pending();
        set_mask(mask | chain::signal_bit(libc::SIGPIPE));
        let result = write_all(file, bytes);
        if result == Err(Errno(libc::EPIPE)) && !waiting && is_pending() {
            take_pipe_signal();
        }
        set_mask(mask);
        result.map_err(VmError::from)
    }

    fn file_len(&self, file: i32) -> Option<u64> {
        // SAFETY: all-zero is a valid value of a structure of integers.
        let mut status: libc::stat = unsafe { core::mem::zeroed() };
        // SAFETY: fstat writes one structure.
        kept(|| unsafe { libc::fstat(file, &raw mut status) } as isize).ok()?;
        (status.st_mode & libc::S_IFMT == libc::S_IFREG).then_some(status.st_size as u64)
    }

    fn truncate(&self, file: i32, len: u64) -> VmResult {
        // SAFETY: ftruncate touches no memory.
        kept(|| unsafe { libc::ftruncate(file, len as i64) } as isize)?;
        Ok(())
    }

    fn lock(&self, file: i32) -> bool {
        for _ in 0..LOCK_TRIES {
            // SAFETY: flock touches no memory.
            match kept(|| unsafe { libc::flock(file, libc::LOCK_EX | libc::LOCK_NB) } as isize) {
                Ok(_) => return true,
                Err(Errno(libc::EWOULDBLOCK | libc::EINTR)) => {}
                Err(_) => return false,
            }
            let pause = libc::timespec { tv_sec: 0, tv_nsec: LOCK_SLEEP_NS };
            // SAFETY: nanosleep reads one timespec. Sleeping less is no harm.
            let _ = kept(|| unsafe { libc::nanosleep(&raw const pause, core::ptr::null_mut()) } as isize);
        }
        false
    }

    fn unlock(&self, file: i32) {
        // SAFETY: flock touches no memory.
        let _ = kept(|| unsafe { libc::flock(file, libc::LOCK_UN) } as isize);
    }

    fn is_terminal(&self, file: i32) -> bool {
        // SAFETY: isatty touches no memory of ours. It answers 0 for what is none.
        kept(|| unsafe { libc::isatty(file) } as isize) == Ok(1)
    }

    fn each_module(&self, each: &mut dyn FnMut(&Module)) {
        modules::each_module(each);
    }

    fn executable(&self, into: &mut [u8]) -> usize {
        let mut path = [0u8; PATH_MAX];
        let mut room = PATH_MAX as u32;
        // SAFETY: the function writes a zero-ended path of at most `room` bytes, or none.
        if unsafe { _NSGetExecutablePath(path.as_mut_ptr().cast(), &raw mut room) } != 0 {
            return 0;
        }
        let len = path.iter().position(|byte| *byte == 0).unwrap_or(0);
        copy(path.get(..len).unwrap_or(&[]), into)
    }

    fn arguments(&self, into: &mut [u8]) -> usize {
        // SAFETY: both give the place of what the program was started with, which stays.
        let (count, words) = unsafe { (*libc::_NSGetArgc(), *libc::_NSGetArgv()) };
        let mut len = 0usize;
        for index in 0..usize::try_from(count).unwrap_or(0) {
            // SAFETY: there are `count` words.
            let word = unsafe { *words.add(index) };
            if word.is_null() {
                break;
            }
            // SAFETY: each is a zero-ended string.
            let text = unsafe { core::ffi::CStr::from_ptr(word) }.to_bytes_with_nul();
            len = len.saturating_add(copy(text, into.get_mut(len..).unwrap_or(&mut [])));
        }
        len
    }
}

fn write_all(file: i32, mut bytes: &[u8]) -> Result<(), Errno> {
    let mut waits = FULL_WAITS;
    while !bytes.is_empty() {
        // SAFETY: the kernel reads at most `len` bytes of `bytes`, which are borrowed.
        match kept(|| unsafe { libc::write(file, bytes.as_ptr().cast(), bytes.len()) }) {
            Ok(written) => bytes = bytes.get(written..).unwrap_or(&[]),
            Err(Errno(libc::EINTR)) => {}
            Err(Errno(libc::EAGAIN)) if waits > 0 => {
                waits = waits.wrapping_sub(1);
                let mut interest = libc::pollfd { fd: file, events: libc::POLLOUT, revents: 0 };
                // SAFETY: poll reads and writes one pollfd. Every outcome means: try again.
                let _ = kept(|| unsafe { libc::poll(&raw mut interest, 1, FULL_WAIT_MS) } as isize);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether a SIGPIPE waits.
fn is_pending() -> bool {
    let mut waiting = 0u32;
    // SAFETY: sigpending writes one set.
    let told = kept(|| unsafe { libc::sigpending(&raw mut waiting) } as isize);
    told.is_err() || u64::from(waiting) & chain::signal_bit(libc::SIGPIPE) != 0
}

/// Takes the SIGPIPE that our own write raised, which waits: so this does not.
fn take_pipe_signal() {
    let set = chain::signal_bit(libc::SIGPIPE) as u32;
    let mut taken = 0;
    // SAFETY: sigwait reads one set and writes one number.
    unsafe { libc::sigwait(&raw const set, &raw mut taken) };
}
