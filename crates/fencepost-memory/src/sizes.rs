//! The sizes that virtual memory comes in on this machine.

use fencepost_sys::Memory;

use crate::{HOST, System};

/// Bytes in a page: the unit of commit, protection and guards.
pub fn page_size() -> usize {
    HOST.page_size()
}

/// The unit, in bytes, in which addresses are reserved: a page on Linux, 64 KiB on Windows.
pub fn allocation_granularity() -> usize {
    HOST.granularity()
}

/// The sizes, in bytes, of the explicit huge pages that the system knows, smallest first. That a size is known does
/// not mean that a page of it is free.
///
/// ```
/// for size in fencepost_memory::huge_page_sizes() {
///     assert!(size.is_power_of_two() && size > fencepost_memory::page_size());
/// }
/// ```
pub fn huge_page_sizes() -> Vec<usize> {
    let mut sizes = [0; 20];
    let count = HOST.huge_page_sizes(&mut sizes);
    sizes.iter().copied().take(count).collect()
}

/// Bytes in the huge pages that the system makes by itself where it is asked to; `None` where it never does.
pub fn transparent_huge_page_size() -> Option<usize> {
    HOST.transparent_page_size()
}
