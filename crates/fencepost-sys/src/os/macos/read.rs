//! Looking at memory that may not be there.

use mach2::traps::mach_task_self;
use mach2::vm::mach_vm_read_overwrite;

use super::probe::page_size;

/// Copies up to `into.len()` bytes and says how many were readable. The call does all or nothing, so it is made page by
/// page.
pub(super) fn read_checked(address: usize, into: &mut [u8]) -> usize {
    let page = page_size();
    let mut done = 0usize;
    while let Some(at) = address.checked_add(done) {
        let to_end = page.wrapping_sub(at & page.wrapping_sub(1));
        let rest = into.get_mut(done..).unwrap_or(&mut []);
        let len = rest.len().min(to_end);
        let Some(place) = rest.get_mut(..len).filter(|place| !place.is_empty()) else { break };
        let mut got = 0u64;
        // SAFETY: the kernel checks the address, and writes at most `len` bytes to `place`, which are ours.
        let result = unsafe {
            mach_vm_read_overwrite(
                mach_task_self(),
                at as u64,
                len as u64,
                place.as_mut_ptr().addr() as u64,
                &raw mut got,
            )
        };
        if result != 0 || got != len as u64 {
            break;
        }
        done = done.saturating_add(len);
    }
    done
}
