//! Files, by bare system calls.

use core::ptr::null;

use super::probe::{Feature, denied};
use super::raw::{Errno, File, close, syscall};
use super::threads::copy;
use super::{Host, modules};
use crate::{Output, VmError, VmResult};
use fencepost_record::Module;

/// The longest path that can be opened, end mark included.
const PATH_MAX: usize = 4096;
/// How long a file that takes nothing now (a full pipe that does not block) is waited for, in milliseconds.
const FULL_WAIT_MS: usize = 100;
/// How often.
const FULL_WAITS: u32 = 50;
/// How often a lock is asked for, and how long to sleep between, in nanoseconds: a tenth of a second in all.
const LOCK_TRIES: u32 = 100;
const LOCK_SLEEP_NS: i64 = 1_000_000;

impl Output for Host {
    fn open_append(&self, path: &[u8]) -> VmResult<i32> {
        let mut ended = [0u8; PATH_MAX];
        match ended.get_mut(..path.len()) {
            Some(place) if path.len() < PATH_MAX && !path.contains(&0) => place.copy_from_slice(path),
            _ => return Err(VmError::Other(libc::ENAMETOOLONG)),
        }
        let flags = libc::O_WRONLY | libc::O_APPEND | libc::O_CREAT | libc::O_CLOEXEC | libc::O_NOCTTY;
        // SAFETY: openat reads a zero-ended path.
        let fd = unsafe { syscall!(libc::SYS_openat, libc::AT_FDCWD, ended.as_ptr(), flags, 0o644)? } as i32;
        if fd > 2 {
            return Ok(fd);
        }
        // The program runs with a standard stream closed. It must not find our file in its place.
        // SAFETY: fcntl touches no memory for this command.
        let moved = unsafe { syscall!(libc::SYS_fcntl, fd, libc::F_DUPFD_CLOEXEC, 3) };
        close(fd);
        Ok(moved? as i32)
    }

    /// A closed pipe ends in an error, not in the program's death by `SIGPIPE`.
    fn close(&self, file: i32) {
        close(file);
    }

    fn write(&self, file: i32, bytes: &[u8]) -> VmResult {
        let quiet = PipeSignal::hold_back();
        let result = write_all(file, bytes);
        if let Some(quiet) = quiet {
            quiet.let_go(result == Err(Errno(libc::EPIPE)));
        }
        result.map_err(VmError::from)
    }

    fn file_len(&self, file: i32) -> Option<u64> {
        let status = status(file)?;
        (status.st_mode & libc::S_IFMT == libc::S_IFREG).then_some(status.st_size as u64)
    }

    fn truncate(&self, file: i32, len: u64) -> VmResult {
        // SAFETY: ftruncate touches no memory.
        unsafe { syscall!(libc::SYS_ftruncate, file, len)? };
        Ok(())
    }

    fn lock(&self, file: i32) -> bool {
        for _ in 0..LOCK_TRIES {
            // SAFETY: flock touches no memory.
            match unsafe { syscall!(libc::SYS_flock, file, libc::LOCK_EX | libc::LOCK_NB) } {
                Ok(_) => return true,
                Err(Errno(libc::EWOULDBLOCK | libc::EINTR)) => {}
                Err(_) => return false,
            }
            let pause = libc::timespec { tv_sec: 0, tv_nsec: LOCK_SLEEP_NS };
            // SAFETY: nanosleep reads one timespec. Sleeping less is no harm.
            let _ = unsafe { syscall!(libc::SYS_nanosleep, &raw const pause, 0) };
        }
        false
    }

    fn unlock(&self, file: i32) {
        // SAFETY: flock touches no memory.
        let _ = unsafe { syscall!(libc::SYS_flock, file, libc::LOCK_UN) };
    }

    fn is_terminal(&self, file: i32) -> bool {
        if super::probe::filtered() {
            return false;
        }
        // The kernel's structure is at most 60 bytes, whichever of its versions.
        let mut settings = [0u64; 16];
        // SAFETY: TCGETS writes one structure of settings, which fits (see above).
        unsafe { syscall!(libc::SYS_ioctl, file, libc::TCGETS, settings.as_mut_ptr()) }.is_ok()
    }

    fn each_module(&self, each: &mut dyn FnMut(&Module)) {
        modules::each_module(each);
    }

    fn executable(&self, into: &mut [u8]) -> usize {
        let (path, len) = (c"/proc/self/exe".as_ptr(), into.len());
        if !denied(Feature::Proc) {
            // SAFETY: readlinkat reads a zero-ended path and writes at most `len` bytes to `into`.
            let got = unsafe { syscall!(libc::SYS_readlinkat, libc::AT_FDCWD, path, into.as_mut_ptr(), len) };
            if let Ok(len) = got {
                return len;
            }
        }
        // SAFETY: getauxval reads a table that the kernel left on the stack at start.
        let name = unsafe { libc::getauxval(libc::AT_EXECFN) } as usize as *const libc::c_char;
        if name.is_null() {
            return 0;
        }
        // SAFETY: where not null, it is the zero-ended path given to execve, alive as long as the process.
        copy(unsafe { core::ffi::CStr::from_ptr(name) }.to_bytes(), into)
    }

    fn arguments(&self, into: &mut [u8]) -> usize {
        if denied(Feature::Proc) {
            return 0;
        }
        let Ok(file) = File::open(c"/proc/self/cmdline") else { return 0 };
        file.read_all(into).map_or(0, <[u8]>::len)
    }
}

fn write_all(file: i32, mut bytes: &[u8]) -> Result<(), Errno> {
    let mut waits = FULL_WAITS;
    while !bytes.is_empty() {
        // SAFETY: the kernel reads at most `len` bytes of `bytes`, which are borrowed.
        match unsafe { syscall!(libc::SYS_write, file, bytes.as_ptr(), bytes.len()) } {
            Ok(written) => bytes = bytes.get(written..).unwrap_or(&[]),
            Err(Errno(libc::EINTR)) => {}
            Err(Errno(libc::EAGAIN)) if waits > 0 => {
                waits = waits.wrapping_sub(1);
                wait_for_room(file);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn wait_for_room(file: i32) {
    let mut interest = libc::pollfd { fd: file, events: libc::POLLOUT, revents: 0 };
    let wait = libc::timespec { tv_sec: 0, tv_nsec: (FULL_WAIT_MS as i64).wrapping_mul(1_000_000) };
    // SAFETY: ppoll reads and writes one pollfd and reads one timespec. Every outcome means: try again.
    let _ = unsafe { syscall!(libc::SYS_ppoll, &raw mut interest, 1, &raw const wait, 0, 0) };
}

fn status(file: i32) -> Option<libc::stat> {
    // SAFETY: all-zero is a valid value of a structure of integers.
    let mut status: libc::stat = unsafe { core::mem::zeroed() };
    // SAFETY: fstat writes one structure, whose layout on these 64-bit systems is the kernel's own.
    unsafe { syscall!(libc::SYS_fstat, file, &raw mut status) }.ok()?;
    Some(status)
}

/// `SIGPIPE` held back on this thread for the length of a write.
struct PipeSignal {
    /// The mask before.
    mask: u64,
    /// Whether one waited already, which is the program's and stays.
    waiting: bool,
}

static PIPE_BIT: u64 = 1 << (libc::SIGPIPE - 1);

impl PipeSignal {
    fn hold_back() -> Option<PipeSignal> {
        let (mut mask, mut waiting) = (0u64, 0u64);
        // SAFETY: both calls read or write sets of 8 bytes, which these are.
        unsafe {
            syscall!(libc::SYS_rt_sigprocmask, libc::SIG_BLOCK, &raw const PIPE_BIT, &raw mut mask, 8)
                .ok()?;
            if let Err(_unknown) = syscall!(libc::SYS_rt_sigpending, &raw mut waiting, 8) {
                waiting = PIPE_BIT;
            }
        }
        Some(PipeSignal { mask, waiting: waiting & PIPE_BIT != 0 })
    }

    /// Puts the mask back, first taking away the signal that our own write raised.
    fn let_go(self, raised: bool) {
        let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the calls read sets of 8 bytes and one timespec.
        unsafe {
            if raised && !self.waiting {
                let _ =
                    syscall!(libc::SYS_rt_sigtimedwait, &raw const PIPE_BIT, null::<u8>(), &raw const now, 8);
            }
            let _ = syscall!(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const self.mask, 0, 8);
        }
    }
}
