//! What watches have noted: one ring for all of them.
//!
//! Written at the end of a step and read by the facade, both with the turn, so that plain memory does. A reader keeps
//! the number of the last entry it saw; what was overwritten before it came is counted, not guessed.

use core::cell::UnsafeCell;

use fencepost_record::{Bytes, Stack};
use fencepost_sys::{Memory, Platform, VmResult};

use crate::region::Region;
use crate::runtime::Guard;
use crate::slot::Act;

/// Entries kept.
const ENTRIES: usize = 4096;

/// One write to watched memory.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Entry {
    pub(super) serial: u32,
    pub(super) act: Act,
    pub(super) address: usize,
    pub(super) pc: usize,
    pub(super) old: Bytes,
    pub(super) new: Bytes,
}

impl Entry {
    pub(super) fn of(serial: u32, act: Act, address: usize, pc: usize, old: Bytes) -> Entry {
        Entry { serial, act, address, pc, old, new: Bytes::default() }
    }
}

/// One write to watched memory, with its stack.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    /// The first byte that the instruction wrote.
    pub address: usize,
    /// The instruction.
    pub instruction: usize,
    /// What was there.
    pub old: Bytes,
    /// What is there now.
    pub new: Bytes,
    /// Who wrote it.
    pub writer: Stack,
}

/// Which entries have been read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// The number of the next entry.
    next: u64,
}

/// The ring.
pub(crate) struct Ring {
    memory: Region,
    /// Entries ever written. Only with the turn.
    count: UnsafeCell<u64>,
}

// SAFETY: `count` and the memory behind `memory` are read and written only by the thread that has the turn.
unsafe impl Sync for Ring {}

impl Ring {
    pub(crate) const fn new() -> Self {
        Ring { memory: Region::new(), count: UnsafeCell::new(0) }
    }

    /// Takes the ring's memory, once. With the turn.
    fn start<M: Memory>(&self, memory: &M) -> VmResult {
        let bytes = ENTRIES.wrapping_mul(size_of::<Entry>());
        if self.memory.range().len == 0 {
            self.memory.reserve(memory, bytes)?;
        }
        self.memory.ensure(memory, bytes)
    }

    fn place(&self, number: u64) -> Option<*mut Entry> {
        let index = usize::try_from(number.checked_rem(ENTRIES as u64)?).ok()?;
        let offset = index.checked_mul(size_of::<Entry>())?;
        (offset.checked_add(size_of::<Entry>())? <= self.memory.committed())
            .then(|| self.memory.range().start.wrapping_add(offset) as *mut Entry)
    }

    /// Writes an entry down.
    ///
    /// # Safety
    /// The caller has the turn.
    pub(super) unsafe fn push(&self, entry: &Entry) {
        // SAFETY: the caller's word makes this exclusive.
        let count = unsafe { &mut *self.count.get() };
        if let Some(place) = self.place(*count) {
            // SAFETY: the place lies in our committed memory, is aligned (the region starts on a page, and an entry's
            // size is a multiple of its alignment), and nobody else touches it.
            unsafe { place.write(*entry) };
            *count = count.wrapping_add(1);
        }
    }
}

impl<P: Platform> Guard<P> {
    /// Makes room for what watches will note, and says from where on a new one reads.
    ///
    /// # Errors
    /// The system's.
    pub fn start_log(&self) -> VmResult<Log> {
        let turn = self.take_turn();
        self.log.start(&self.platform)?;
        // SAFETY: this thread has the turn.
        let next = unsafe { *self.log.count.get() };
        drop(turn);
        Ok(Log { next })
    }

    /// Hands out what a watch has noted since `log`, oldest first, and says how many entries (of any watch) were
    /// overwritten before that.
    pub fn changes(&self, serial: u32, log: &mut Log, each: &mut dyn FnMut(&Change)) -> u64 {
        let Some(setup) = self.ready() else { return 0 };
        self.look_after_watchpoints(setup, serial);
        let now = self.now(setup);
        let turn = self.take_turn();
        // SAFETY: this thread has the turn.
        let count = unsafe { *self.log.count.get() };
        let oldest = log.next.max(count.saturating_sub(ENTRIES as u64));
        let lost = oldest.wrapping_sub(log.next);
        drop(turn);
        for number in oldest..count {
            // A turn for each: what `each` does may be watched itself.
            let turn = self.take_turn();
            // SAFETY: as above; every entry below `count` has been written.
            let entry = self.log.place(number).map(|place| unsafe { place.read() });
            drop(turn);
            if let Some(entry) = entry.filter(|entry| entry.serial == serial) {
                each(&Change {
                    address: entry.address,
                    instruction: entry.pc,
                    old: entry.old,
                    new: entry.new,
                    writer: self.stack_of(&entry.act, now),
                });
            }
        }
        log.next = count;
        lost
    }
}
