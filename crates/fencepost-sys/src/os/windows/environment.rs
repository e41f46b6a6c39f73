//! Environment variables, kept for as long as the process lives.

use core::cell::UnsafeCell;
use core::ffi::CStr;
use core::sync::atomic::{AtomicUsize, Ordering};

use windows_sys::Win32::System::Environment::GetEnvironmentVariableW;

use super::teb::Kept;
use super::text;

/// Room for the values that were asked for, in bytes.
const ROOM: usize = 16 << 10;
/// The longest value, in words of the system's.
const VALUE_MAX: usize = 4096;

static VALUES: Values = Values { used: AtomicUsize::new(0), bytes: UnsafeCell::new([0; ROOM]) };

struct Values {
    used: AtomicUsize,
    bytes: UnsafeCell<[u8; ROOM]>,
}

// SAFETY: a part of the bytes is written once, by whoever won it from `used`, and only read after.
unsafe impl Sync for Values {}

/// The value; `None` where there is none, or no room for it is left.
pub(super) fn environment(name: &CStr) -> Option<&'static [u8]> {
    let _kept = Kept::new();
    let (mut wide_name, mut value) = ([0u16; 128], [0u16; VALUE_MAX]);
    text::to_utf16(name.to_bytes(), &mut wide_name)?;
    // SAFETY: the name ends in a zero, and the call writes at most as many words as are announced.
    let len =
        unsafe { GetEnvironmentVariableW(wide_name.as_ptr(), value.as_mut_ptr(), VALUE_MAX as u32) } as usize;
    let value = value.get(..len).filter(|value| !value.is_empty())?;
    let mut bytes = [0u8; VALUE_MAX.saturating_mul(3)];
    let len = text::to_utf8(value.iter().copied(), &mut bytes);
    let start = VALUES.used.fetch_add(len, Ordering::AcqRel);
    if start.saturating_add(len) > ROOM {
        return None;
    }
    // SAFETY: the part was won above: nobody else writes to it, and it is read only after.
    unsafe {
        let place = VALUES.bytes.get().cast::<u8>().add(start);
        core::ptr::copy_nonoverlapping(bytes.as_ptr(), place, len);
        Some(core::slice::from_raw_parts(place, len))
    }
}
