//! How pages are made to allow what their seals, watches and tripwires leave: by a note in the page table where the
//! engine has its pages registered, which costs no mapping, and by their mapping else.
//!
//! The note only ever forbids writing, and the mapping of such a page allows reading and writing. Only pages on which a
//! tripwire lies, or for which the note could not be had, are closed by their mapping; once there was one, mappings are
//! set each time.

use core::sync::atomic::Ordering;

use fencepost_sys::{Platform, Protection, Range, VmError, VmResult};

use super::{SealView, alone};
use crate::runtime::Guard;
use crate::span::Zone;

impl<P: Platform> Guard<P> {
    /// Makes pages allow this and no more. Under the turn.
    ///
    /// # Safety
    /// As [`Memory::protect`](fencepost_sys::Memory::protect).
    pub(super) unsafe fn set_allowed(&self, range: Range, allowed: Protection) -> VmResult {
        // SAFETY: the caller's promise.
        let mapping = unsafe { self.note_writes(range, allowed) }?;
        if mapping == Protection::ReadWrite
            && self.is_registered(range)
            && self.seals.by_mapping.load(Ordering::Relaxed) == 0
        {
            return Ok(());
        }
        // SAFETY: as above.
        unsafe { self.platform.protect(range, mapping) }
    }

    /// Says in the page table whether writes trap, where that can be, and what the mapping has to allow then.
    ///
    /// # Safety
    /// As [`Memory::protect`](fencepost_sys::Memory::protect).
    pub(crate) unsafe fn note_writes(&self, range: Range, allowed: Protection) -> VmResult<Protection> {
        if !self.is_registered(range) {
            return Ok(allowed);
        }
        // SAFETY: the caller's promise.
        let noted = unsafe { self.platform.trap_writes(range, allowed == Protection::Read) };
        let mapping = match (noted, allowed) {
            (Ok(()), Protection::Read) => Protection::ReadWrite,
            // Without the right there is no note.
            (Ok(()) | Err(VmError::Unsupported), _) => allowed,
            (Err(_), Protection::Read) => Protection::Read,
            (Err(error), _) => return Err(error),
        };
        if mapping != Protection::ReadWrite {
            self.seals.by_mapping.store(1, Ordering::Relaxed);
        }
        Ok(mapping)
    }

    /// Whether a range lies where the engine registers its memory.
    pub(super) fn is_registered(&self, range: Range) -> bool {
        self.heap.addresses().contains(range.start) && self.heap.zone_of(range.start) == Zone::Missing
    }

    /// Puts the notes back that were lost with a descriptor, or in a fork.
    #[cold]
    pub(crate) fn note_again(&self) {
        if !self.seals.were_used() {
            return;
        }
        let turn = self.take_turn();
        for (number, seal) in self.seals.active() {
            let SealView { pages, purpose, .. } = seal.view(number);
            let known = alone(seal.block(), purpose);
            if self.is_registered(pages) && self.put_in_force(pages, known).is_err() {
                self.complain(format_args!("sealed memory at {:#x} is open", pages.start));
            }
        }
        drop(turn);
    }
}
