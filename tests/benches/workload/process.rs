//! What the kernel says about this process, read without allocating: the measured allocator may be at its limit.

use std::ffi::CStr;
use std::ptr::NonNull;

/// Memory mapped straight from the kernel, unmapped when dropped.
pub struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

impl Mapping {
    /// Fresh private memory.
    pub fn anonymous(len: usize) -> Result<Mapping, String> {
        Self::map(len, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1)
    }

    /// The beginning of a file, shared with whoever else maps it.
    pub fn shared(file: i32, len: usize) -> Result<Mapping, String> {
        Self::map(len, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, file)
    }

    /// Any mapping at an address of the kernel's choice.
    pub fn map(len: usize, protection: i32, flags: i32, file: i32) -> Result<Mapping, String> {
        // SAFETY: without MAP_FIXED the kernel picks addresses that nobody uses.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, file, 0) };
        if start == libc::MAP_FAILED {
            return Err(format!("mmap of {len} bytes: {}", std::io::Error::last_os_error()));
        }
        let start = NonNull::new(start.cast()).ok_or("mmap gave address 0")?;
        Ok(Mapping { start, len })
    }

    /// First byte.
    pub fn start(&self) -> *mut u8 {
        self.start.as_ptr()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this is the whole of a mapping of our own, and nothing refers to it any more.
        let result = unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
        assert_eq!(result, 0, "munmap of a mapping of our own cannot fail");
    }
}

/// Memory of this process, in bytes.
pub struct Memory {
    pub resident: u64,
    pub tables: u64,
}

/// Resident memory and page tables of this process.
pub fn memory() -> Result<Memory, String> {
    let mut buffer = [0u8; 8192];
    let mut used = 0;
    read(c"/proc/self/status", |chunk| {
        let room = buffer.get_mut(used..used + chunk.len()).ok_or("/proc/self/status is too long")?;
        room.copy_from_slice(chunk);
        used += chunk.len();
        Ok(())
    })?;
    let text = std::str::from_utf8(&buffer[..used]).map_err(|_| "/proc/self/status is not text")?;
    let kilobytes = |key: &str| -> Result<u64, String> {
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        let number = line.and_then(|line| line.split_whitespace().next());
        number.and_then(|n| n.parse().ok()).ok_or_else(|| format!("/proc/self/status has no {key}"))
    };
    Ok(Memory { resident: kilobytes("VmRSS:")? * 1024, tables: kilobytes("VmPTE:")? * 1024 })
}

/// Mappings of this process.
pub fn mappings() -> Result<u64, String> {
    let mut lines = 0;
    read(c"/proc/self/maps", |chunk| {
        lines += chunk.iter().filter(|byte| **byte == b'\n').count() as u64;
        Ok(())
    })?;
    Ok(lines)
}

fn read(path: &CStr, mut each: impl FnMut(&[u8]) -> Result<(), &'static str>) -> Result<(), String> {
    let failed = || format!("{}: {}", path.to_string_lossy(), std::io::Error::last_os_error());
    // SAFETY: `path` is a C string; the call takes no other memory.
    let file = unsafe { libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
    if file < 0 {
        return Err(failed());
    }
    let mut buffer = [0u8; 4096];
    let result = loop {
        // SAFETY: `buffer` has room for as many bytes as are asked for, and the descriptor is open.
        let got = unsafe { libc::read(file, buffer.as_mut_ptr().cast(), buffer.len()) };
        match usize::try_from(got) {
            Ok(0) => break Ok(()),
            Ok(got) => {
                if let Err(why) = each(&buffer[..got]) {
                    break Err(why.to_owned());
                }
            }
            Err(_) => break Err(failed()),
        }
    };
    // SAFETY: the descriptor is ours and not used again.
    unsafe { libc::close(file) };
    result
}
