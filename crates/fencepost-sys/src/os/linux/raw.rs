//! The bare system call, and the few that several files share.
//!
//! Why not the C library's wrappers: they set `errno`, and these calls run inside `free` and inside a fault handler,
//! where the program's `errno` must survive; and a program, or a preload of our own, may put another function in a
//! wrapper's place. Nothing here allocates, takes a lock or touches `errno`.

use core::arch::asm;

use crate::{VmError, VmResult};

/// Results from here on are error numbers: the kernel keeps the last page of addresses for them.
const ERRORS: usize = usize::MAX - 4094;

/// A system error number, as the kernel gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Errno(pub(super) i32);

impl From<Errno> for VmError {
    fn from(errno: Errno) -> VmError {
        match errno.0 {
            libc::ENOMEM => VmError::OutOfMemory,
            libc::EINVAL | libc::ENOSYS => VmError::Unsupported,
            libc::EPERM | libc::EACCES => VmError::Denied,
            other => VmError::Other(other),
        }
    }
}

/// Makes a system call and gives its result.
///
/// # Safety
/// The call's own rules for these arguments must hold; every address among them that the kernel writes to must be
/// the caller's.
#[inline(always)]
pub(super) unsafe fn call(number: libc::c_long, args: [usize; 6]) -> Result<usize, Errno> {
    let [a, b, c, d, e, f] = args;
    let result: isize;
    // SAFETY: the registers are those of the kernel's convention for this processor, everything it changes is
    // listed, and the caller answers for what the call does.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        asm!(
            "svc 0",
            in("x8") number as isize,
            inlateout("x0") a => result,
            in("x1") b, in("x2") c, in("x3") d, in("x4") e, in("x5") f,
            options(nostack),
        );
    }
    if result as usize >= ERRORS { Err(Errno(result.unsigned_abs() as i32)) } else { Ok(result as usize) }
}

/// As [`call`] with the arguments that there are; the rest are zero.
macro_rules! syscall {
    ($number:expr $(,)?) => { syscall!(@six $number; 0, 0, 0, 0, 0, 0) };
    ($number:expr, $a:expr $(,)?) => { syscall!(@six $number; $a, 0, 0, 0, 0, 0) };
    ($number:expr, $a:expr, $b:expr $(,)?) => { syscall!(@six $number; $a, $b, 0, 0, 0, 0) };
    ($number:expr, $a:expr, $b:expr, $c:expr $(,)?) => { syscall!(@six $number; $a, $b, $c, 0, 0, 0) };
    ($number:expr, $a:expr, $b:expr, $c:expr, $d:expr $(,)?) => {
        syscall!(@six $number; $a, $b, $c, $d, 0, 0)
    };
    ($number:expr, $a:expr, $b:expr, $c:expr, $d:expr, $e:expr $(,)?) => {
        syscall!(@six $number; $a, $b, $c, $d, $e, 0)
    };
    ($number:expr, $a:expr, $b:expr, $c:expr, $d:expr, $e:expr, $f:expr $(,)?) => {
        syscall!(@six $number; $a, $b, $c, $d, $e, $f)
    };
    (@six $number:expr; $($arg:expr),*) => { $crate::os::linux::raw::call($number, [$($arg as usize),*]) };
}
pub(super) use syscall;

/// An open file of our own, closed at the end of its scope.
pub(super) struct File(i32);

impl File {
    /// Opens a file for reading.
    pub(super) fn open(path: &core::ffi::CStr) -> Result<File, Errno> {
        File::open_with(path, libc::O_RDONLY | libc::O_CLOEXEC)
    }

    /// Opens a folder.
    pub(super) fn open_folder(path: &core::ffi::CStr) -> Result<File, Errno> {
        File::open_with(path, libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC)
    }

    /// The next entries of a folder, as many bytes of them as is said; 0 at the end.
    pub(super) fn read_folder(&self, into: &mut [u64]) -> Result<usize, Errno> {
        // SAFETY: getdents64 writes at most as many bytes to `into`, which are ours.
        unsafe { syscall!(libc::SYS_getdents64, self.0, into.as_mut_ptr(), size_of_val(into)) }
    }

    fn open_with(path: &core::ffi::CStr, flags: i32) -> Result<File, Errno> {
        // SAFETY: openat reads a zero-ended path, which a CStr is.
        let fd = unsafe { syscall!(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags, 0)? };
        Ok(File(fd as i32))
    }

    /// Its number, for calls of its own kind.
    pub(super) fn number(&self) -> i32 {
        self.0
    }

    /// Reads what comes next; 0 at the end.
    pub(super) fn read(&self, into: &mut [u8]) -> Result<usize, Errno> {
        loop {
            // SAFETY: read writes at most `len` bytes to `into`, which are ours.
            match unsafe { syscall!(libc::SYS_read, self.0, into.as_mut_ptr(), into.len()) } {
                Err(Errno(libc::EINTR)) => {}
                result => return result,
            }
        }
    }

    /// Reads until the buffer is full or the file ends.
    pub(super) fn read_all<'a>(&self, into: &'a mut [u8]) -> Result<&'a [u8], Errno> {
        let mut used = 0usize;
        while let Some(room) = into.get_mut(used..).filter(|room| !room.is_empty()) {
            match self.read(room)? {
                0 => break,
                more => used = used.saturating_add(more),
            }
        }
        Ok(into.get(..used).unwrap_or(&[]))
    }
}

impl Drop for File {
    fn drop(&mut self) {
        close(self.0);
    }
}

/// Closes a descriptor of ours. The kernel frees the number whatever it answers.
pub(super) fn close(fd: i32) {
    // SAFETY: close touches no memory, and the descriptor is the caller's.
    let _ = unsafe { syscall!(libc::SYS_close, fd) };
}

/// Maps anonymous private memory that is not charged before it is used.
pub(super) fn map(address: usize, len: usize, protection: i32, extra: i32) -> VmResult<usize> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | extra;
    // SAFETY: an anonymous mapping at an address of the kernel's choice touches nobody's memory; those who pass
    // MAP_FIXED own the range.
    let got = unsafe { syscall!(libc::SYS_mmap, address, len, protection, flags, -1isize, 0)? };
    Ok(got)
}

/// Maps writable memory in explicit huge pages of `1 << shift` bytes over a range of the caller's. The pages are set
/// aside now, so that a first touch cannot fail for want of one.
pub(super) fn map_huge(address: usize, len: usize, shift: u32) -> VmResult {
    let size = (shift as i32).wrapping_shl(libc::MAP_HUGE_SHIFT as u32);
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_HUGETLB | size;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: the callers own the range and give up its content.
    unsafe { syscall!(libc::SYS_mmap, address, len, protection, flags, -1isize, 0)? };
    Ok(())
}

/// Unmaps a range.
///
/// # Safety
/// The caller must own the range, and nothing may refer to it any more.
pub(super) unsafe fn unmap(address: usize, len: usize) -> VmResult {
    // SAFETY: the caller's promise.
    unsafe { syscall!(libc::SYS_munmap, address, len)? };
    Ok(())
}

/// The process's id now, also in a child after fork.
pub(super) fn process_id() -> i32 {
    // SAFETY: getpid has no arguments and cannot fail.
    unsafe { syscall!(libc::SYS_getpid) }.map_or(0, |id| id as i32)
}

/// The thread's id now, also in a child after fork.
pub(super) fn thread_id() -> i32 {
    // SAFETY: gettid has no arguments and cannot fail.
    unsafe { syscall!(libc::SYS_gettid) }.map_or(0, |id| id as i32)
}
