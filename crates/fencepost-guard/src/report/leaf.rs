//! The callers of an interrupted function that has no unwind tables.
//!
//! A walk by tables ends there, and on aarch64 such functions are everywhere: compilers call one for each operation on an
//! atomic (`__aarch64_ldadd8_acq_rel` and its like), so that a reference count in freed memory is touched by one. They
//! call nobody and make no frame: the link register says where they return to, and the frame pointer is their caller's,
//! from where the chain of frame records is followed (C and Rust keep it there). It ends at the first record that does
//! not lie above the last, or returns to what is no code of a module.

use fencepost_sys::{Fault, Platform};

use super::Walk;
use crate::runtime::Guard;

/// How far apart two records may lie: more than any function takes of the stack.
const FRAME_MAX: usize = 1 << 20;
/// The upper bits of a return address may hold its signature.
const ADDRESS: u64 = (1 << 48) - 1;

impl<P: Platform> Guard<P> {
    /// Goes on with the caller that a fault names, where the walk ended at the fault's own instruction.
    pub(super) fn follow_caller(&self, fault: &Fault, walk: &mut Walk) {
        let Some(caller) = fault.caller else { return };
        let last = walk.count.checked_sub(1).and_then(|last| walk.frames.get(last));
        if last != Some(&(fault.pc as u64)) {
            return;
        }
        let mut above = fault.fp;
        let mut next = Some(caller as u64);
        while let (Some(address), Some(place)) = (next, walk.frames.get_mut(walk.count)) {
            if !self.is_code(address) {
                break;
            }
            *place = address;
            walk.count = walk.count.saturating_add(1);
            next = self.record_at(above).map(|(record, address)| {
                above = if record.wrapping_sub(above) < FRAME_MAX && record > above { record } else { 0 };
                address
            });
        }
    }

    /// A frame record: where the caller's is, and where the frame returns to.
    fn record_at(&self, frame: usize) -> Option<(usize, u64)> {
        let mut words = [0u8; 16];
        if frame == 0
            || !frame.is_multiple_of(16)
            || self.platform.read_checked(frame, &mut words) != words.len()
        {
            return None;
        }
        let (record, address) = words.split_first_chunk::<8>()?;
        let address = u64::from_le_bytes(*address.first_chunk()?) & ADDRESS;
        Some((u64::from_le_bytes(*record) as usize, address))
    }

    /// Whether the instruction before an address belongs to a module.
    fn is_code(&self, address: u64) -> bool {
        let mut found = false;
        let at = address.saturating_sub(1);
        self.platform.each_module(&mut |module| found |= (module.start..module.end).contains(&at));
        found
    }
}
