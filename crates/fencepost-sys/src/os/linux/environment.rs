//! Environment variables, also before the C library has set itself up.
//!
//! A library that is preloaded may be asked for memory by the dynamic loader, or by the first of the program's own
//! start functions (`.preinit_array`), before the C library knows its environment. The kernel then knows it.

use core::ffi::{CStr, c_char};
use core::sync::atomic::{AtomicUsize, Ordering};

use super::raw::File;

unsafe extern "C" {
    /// The C library's copy; null before it has set itself up. POSIX, environ(7).
    static environ: *const *const c_char;
}

/// Room for values read from the kernel, in bytes.
const ROOM: usize = 8 << 10;

static KEPT: Kept = Kept { used: AtomicUsize::new(0), bytes: core::cell::UnsafeCell::new([0; ROOM]) };

struct Kept {
    used: AtomicUsize,
    bytes: core::cell::UnsafeCell<[u8; ROOM]>,
}

// SAFETY: a part of the bytes is written once, by whoever won it from `used`, and only read after.
unsafe impl Sync for Kept {}

/// The value of an environment variable. The C library keeps the strings of the start for ever, and leaks what
/// `setenv` puts in their place.
pub(super) fn environment(name: &CStr) -> Option<&'static [u8]> {
    // SAFETY: the C library's variable is a plain pointer; nobody writes to it before there is a second thread.
    if unsafe { environ }.is_null() {
        return from_kernel(name.to_bytes());
    }
    // SAFETY: getenv reads a zero-ended name and neither allocates nor sets errno.
    let value = unsafe { libc::getenv(name.as_ptr()) };
    if value.is_null() {
        return None;
    }
    // SAFETY: getenv gives a zero-ended string, which lives as long as the process (see above).
    Some(unsafe { CStr::from_ptr(value) }.to_bytes())
}

/// Takes the first entry out of a list with colons between its entries, in place: nothing is allocated. Before there are
/// threads.
pub(super) fn drop_first_of(name: &CStr) {
    // SAFETY: as above.
    let list = unsafe { libc::getenv(name.as_ptr()) };
    if list.is_null() {
        return;
    }
    // SAFETY: getenv gives a zero-ended string.
    let bytes = unsafe { CStr::from_ptr(list) }.to_bytes();
    let first =
        bytes.iter().position(|byte| *byte == b':').map_or(bytes.len(), |colon| colon.saturating_add(1));
    let rest = bytes.len().saturating_sub(first).saturating_add(1);
    // SAFETY: the rest, its zero with it, lies in the same string, which is the process's own to write; nobody else
    // reads it yet.
    unsafe { core::ptr::copy(list.add(first), list, rest) };
}

/// The value at the start of the process. Longer values than there is room for are cut.
fn from_kernel(name: &[u8]) -> Option<&'static [u8]> {
    let file = File::open(c"/proc/self/environ").ok()?;
    let start = KEPT.used.swap(ROOM, Ordering::AcqRel);
    let (mut kept, mut matched, mut found) = (start, 0usize, false);
    let mut buffer = [0u8; 1024];
    'file: while let Ok(got) = file.read(&mut buffer) {
        if got == 0 {
            break;
        }
        for byte in buffer.get(..got).unwrap_or(&[]) {
            match (found, *byte) {
                (true, 0) => break 'file,
                (true, byte) if kept < ROOM => {
                    // SAFETY: the byte lies in the part that `swap` above made ours.
                    unsafe { KEPT.bytes.get().cast::<u8>().add(kept).write(byte) };
                    kept = kept.saturating_add(1);
                }
                (true, _) => break 'file,
                (false, 0) => matched = 0,
                (false, b'=') if matched == name.len() => found = true,
                (false, byte) if name.get(matched) == Some(&byte) => matched = matched.saturating_add(1),
                // No name is this long, so the rest of the entry cannot match.
                (false, _) => matched = usize::MAX,
            }
        }
    }
    KEPT.used.store(kept, Ordering::Release);
    // SAFETY: these bytes were written above and never will be again.
    found.then(|| unsafe {
        core::slice::from_raw_parts(KEPT.bytes.get().cast::<u8>().add(start), kept.saturating_sub(start))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_what_the_c_library_says() {
        let path = environment(c"PATH").unwrap_or(b"");
        assert!(!path.is_empty(), "tests have a PATH");
        let cut = path.len().min(ROOM);
        assert_eq!(from_kernel(b"PATH"), path.get(..cut));
        assert_eq!(from_kernel(b"FENCEPOST_NO_SUCH_VARIABLE"), None);
        assert_eq!(from_kernel(b"PAT"), None);
    }
}
