//! What the system offers.

use core::sync::atomic::{AtomicUsize, Ordering};

static PAGE_SIZE: AtomicUsize = AtomicUsize::new(0);

/// Bytes in a page: 16 KiB on Apple's own processors, 4 KiB on Intel's and under translation.
pub(super) fn page_size() -> usize {
    match PAGE_SIZE.load(Ordering::Relaxed) {
        0 => {
            // SAFETY: the call touches no memory of ours. It knows this name, so it does not set errno.
            let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
            let size = if size.is_power_of_two() { size } else { 16 << 10 };
            PAGE_SIZE.store(size, Ordering::Relaxed);
            size
        }
        size => size,
    }
}
