//! The table of memory under a seal, a watch or a tripwire, as the fault handler finds it.
//!
//! Small and fixed, looked through without a lock: an entry's `serial` word is stored last (Release) when it is made and
//! first when it ends. Who writes has the seals' lock, but for a tripwire, which its own fault ends.

use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use fencepost_record::Bytes;
use fencepost_sys::{Protection, Range};

use super::hardware::Shadows;
use crate::lock::Lock;
use crate::slot::{Act, Slot};

/// Entries at once.
const SEALS: usize = 1024;

/// What an entry is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Purpose {
    /// A write is an error.
    Seal,
    /// A write is noted.
    Watch,
    /// The first access of any kind is an alarm.
    Tripwire,
}

impl Purpose {
    fn of_number(number: u32) -> Purpose {
        match number {
            1 => Purpose::Watch,
            2 => Purpose::Tripwire,
            _ => Purpose::Seal,
        }
    }
}

/// One entry.
pub(super) struct Seal {
    /// Not 0 while it is in force, and never the same again.
    pub(super) serial: AtomicU32,
    purpose: AtomicU32,
    pages_start: AtomicUsize,
    pages_len: AtomicUsize,
    start: AtomicUsize,
    len: AtomicUsize,
    trace: AtomicU32,
    thread: AtomicU32,
    ms: AtomicU32,
    /// Accesses that it was made for.
    pub(super) hits: AtomicU32,
    /// The address of the record of the block; 0 for other memory.
    pub(super) slot: AtomicUsize,
}

/// All entries.
pub(crate) struct Seals {
    pub(super) table: [Seal; SEALS],
    pub(super) lock: Lock,
    /// Entries ever used; none past it is in force.
    used: AtomicUsize,
    serials: AtomicU32,
    /// Whether pages that the engine has registered were ever closed by their mapping.
    pub(super) by_mapping: AtomicU32,
    pub(super) shadows: Shadows,
}

/// An entry as the fault handler sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SealView {
    pub(crate) serial: u32,
    pub(crate) purpose: Purpose,
    /// The whole pages that are closed; none where watchpoints of the processor do it.
    pub(crate) pages: Range,
    /// The bytes that are meant.
    pub(crate) exact: Range,
    pub(crate) act: Act,
    /// What an access to them found and left.
    pub(crate) old: Bytes,
    pub(crate) new: Bytes,
}

/// Whether two ranges have a byte in common.
pub(super) fn overlap(one: Range, other: Range) -> bool {
    one.start < other.end() && other.start < one.end()
}

impl Seals {
    pub(crate) const fn new() -> Self {
        #[expect(clippy::declare_interior_mutable_const, reason = "a pattern to repeat, not a place")]
        const NONE: Seal = Seal {
            serial: AtomicU32::new(0),
            purpose: AtomicU32::new(0),
            pages_start: AtomicUsize::new(0),
            pages_len: AtomicUsize::new(0),
            start: AtomicUsize::new(0),
            len: AtomicUsize::new(0),
            trace: AtomicU32::new(0),
            thread: AtomicU32::new(0),
            ms: AtomicU32::new(0),
            hits: AtomicU32::new(0),
            slot: AtomicUsize::new(0),
        };
        Seals {
            table: [const { NONE }; SEALS],
            lock: Lock::new(),
            used: AtomicUsize::new(0),
            serials: AtomicU32::new(0),
            by_mapping: AtomicU32::new(0),
            shadows: Shadows::new(),
        }
    }

    /// The seals' lock, for both sides of a fork.
    pub(crate) fn lock_for_fork(&self) -> &Lock {
        &self.lock
    }

    /// Whether there ever was an entry.
    pub(crate) fn were_used(&self) -> bool {
        self.used.load(Ordering::Relaxed) != 0
    }

    pub(super) fn active(&self) -> impl Iterator<Item = (usize, &Seal)> {
        let used = self.used.load(Ordering::Acquire);
        self.table.iter().take(used).enumerate().filter(|(_, seal)| seal.serial.load(Ordering::Acquire) != 0)
    }

    /// The seal that holds some of the block of a record. Takes no lock.
    pub(crate) fn of_block(&self, slot: &Slot) -> Option<SealView> {
        let address = core::ptr::from_ref(slot) as usize;
        let held = self.active().filter(|(_, seal)| seal.slot.load(Ordering::Relaxed) == address);
        held.map(|(_, seal)| seal.view()).find(|view| view.purpose == Purpose::Seal)
    }

    /// The first entry whose own bytes an access touches, of those that care about it: a violated seal before a
    /// tripwire, and that before a watch. Takes no lock.
    pub(super) fn touched(&self, access: Range, write: bool) -> [Option<SealView>; 3] {
        let mut found = [None; 3];
        for (_, seal) in self.active() {
            let view = seal.view();
            let place = match view.purpose {
                Purpose::Seal => 0,
                Purpose::Tripwire => 1,
                Purpose::Watch => 2,
            };
            if (write || view.purpose == Purpose::Tripwire)
                && overlap(view.exact, access)
                && let Some(place @ None) = found.get_mut(place)
            {
                *place = Some(view);
            }
        }
        found
    }

    /// The watches of some bytes. Takes no lock.
    pub(super) fn watches_of(&self, bytes: Range) -> impl Iterator<Item = SealView> {
        let views = self.active().map(|(_, seal)| seal.view());
        views.filter(move |view| view.purpose == Purpose::Watch && overlap(view.exact, bytes))
    }

    /// What the entries leave allowed of a page; `None` when none holds it. Takes no lock.
    pub(crate) fn allowed(&self, page: Range) -> Option<Protection> {
        let holds = |view: &SealView| !view.is_by_hardware() && overlap(view.pages, page);
        let holders = self.active().map(|(_, seal)| seal.view()).filter(holds);
        holders.fold(None, |allowed, view| match (allowed, view.purpose) {
            (Some(Protection::Once), _) | (_, Purpose::Tripwire) => Some(Protection::Once),
            _ => Some(Protection::Read),
        })
    }

    /// Whether there was a tripwire on the page of an address, as far as that is known.
    pub(crate) fn had_tripwire(&self, address: usize) -> bool {
        let used = self.used.load(Ordering::Acquire);
        let mut views = self.table.iter().take(used).map(Seal::view);
        views.any(|view| view.purpose == Purpose::Tripwire && view.pages.contains(address))
    }

    /// Whether other entries than those with exactly these pages hold some of them.
    pub(super) fn are_shared(&self, pages: Range) -> bool {
        self.active().map(|(_, seal)| seal.view().pages).any(|other| other != pages && overlap(other, pages))
    }

    /// Puts an entry in force; its place and serial number.
    pub(super) fn add(
        &self,
        purpose: Purpose,
        pages: Range,
        exact: Range,
        act: Act,
        slot: Option<&Slot>,
    ) -> Option<(usize, u32)> {
        let index = self.table.iter().position(|seal| seal.serial.load(Ordering::Relaxed) == 0)?;
        let seal = self.table.get(index)?;
        seal.purpose.store(purpose as u32, Ordering::Relaxed);
        seal.pages_start.store(pages.start, Ordering::Relaxed);
        seal.pages_len.store(pages.len, Ordering::Relaxed);
        seal.start.store(exact.start, Ordering::Relaxed);
        seal.len.store(exact.len, Ordering::Relaxed);
        seal.trace.store(act.trace, Ordering::Relaxed);
        seal.thread.store(act.thread, Ordering::Relaxed);
        seal.ms.store(act.ms, Ordering::Relaxed);
        seal.hits.store(0, Ordering::Relaxed);
        seal.slot.store(slot.map_or(0, |slot| core::ptr::from_ref(slot) as usize), Ordering::Relaxed);
        // Zero means "not in force": it is left out when the numbers come round.
        let serial = self.serials.fetch_add(1, Ordering::Relaxed).wrapping_add(1).max(1);
        seal.serial.store(serial, Ordering::Release);
        self.used.fetch_max(index.wrapping_add(1), Ordering::AcqRel);
        Some((index, serial))
    }
}

impl SealView {
    /// Whether it is a watch by watchpoints of the processor.
    pub(super) fn is_by_hardware(&self) -> bool {
        self.pages.len == 0
    }
}

impl Seal {
    /// Makes it one that closes pages.
    pub(super) fn close(&self, pages: Range) {
        // While the length is 0 no page is closed by it.
        self.pages_start.store(pages.start, Ordering::Relaxed);
        self.pages_len.store(pages.len, Ordering::Release);
    }

    pub(super) fn view(&self) -> SealView {
        let range = |start: &AtomicUsize, len: &AtomicUsize| Range {
            start: start.load(Ordering::Relaxed),
            len: len.load(Ordering::Relaxed),
        };
        SealView {
            serial: self.serial.load(Ordering::Relaxed),
            purpose: Purpose::of_number(self.purpose.load(Ordering::Relaxed)),
            pages: range(&self.pages_start, &self.pages_len),
            exact: range(&self.start, &self.len),
            act: Act {
                trace: self.trace.load(Ordering::Relaxed),
                thread: self.thread.load(Ordering::Relaxed),
                ms: self.ms.load(Ordering::Relaxed),
            },
            old: Bytes::default(),
            new: Bytes::default(),
        }
    }
}
