//! The table of memory under a seal, a watch or a tripwire, as the fault handler finds it.
//!
//! Looked through without a lock: an entry's `serial` word is stored last (Release) when it is made and first when it
//! ends. Who writes has the seals' lock, but for a tripwire, which its own fault ends. The table is reserved when it is
//! first needed and committed as it grows, so that programs without seals have none.

use fencepost_record::Bytes;
use fencepost_sys::atomic::{AtomicU32, AtomicUsize, Ordering};
use fencepost_sys::{Memory, Protection, Range, VmResult};

use super::hardware::Shadows;
use super::index::{CHAINS, Filed, Index};
use crate::lock::Lock;
use crate::region::Region;
use crate::slot::{Act, Slot};

/// Entries at once: fewer than a block's own count of them (`Slot::seals`) can tell.
pub(crate) const SEALS: usize = 1 << 15;

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
    /// The kernel notes the pages that are written to, and nothing is closed.
    Audit,
    /// A write is an error but for threads that have opened the write key
    /// ([`Keys::open_writes`](fencepost_sys::Keys::open_writes)).
    Keyed,
}

impl Purpose {
    /// What pages allow that are closed for this.
    pub(super) fn leaves(self) -> Protection {
        match self {
            Purpose::Tripwire => Protection::Once,
            Purpose::Seal | Purpose::Watch => Protection::Read,
            Purpose::Keyed => Protection::Keyed,
            Purpose::Audit => Protection::ReadWrite,
        }
    }

    fn of_number(number: u32) -> Purpose {
        match number {
            1 => Purpose::Watch,
            2 => Purpose::Tripwire,
            3 => Purpose::Audit,
            4 => Purpose::Keyed,
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
    pub(super) filed: Filed,
}

/// All entries.
pub(crate) struct Seals {
    pub(super) table: Region,
    pub(super) lock: Lock,
    /// Entries ever used; none past it is in force.
    used: AtomicUsize,
    /// The most that it was.
    ever: AtomicUsize,
    /// No entry before it is free.
    full: AtomicUsize,
    serials: AtomicU32,
    pub(super) index: Index,
    /// Whether pages that the engine has registered were ever closed by their mapping.
    pub(super) by_mapping: AtomicU32,
    pub(super) shadows: Shadows,
}

/// An entry as the fault handler sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SealView {
    /// The entry's number.
    pub(crate) number: usize,
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

/// As many entries as the heads of the index's chains take the room of, at the table's beginning.
const BEFORE_ENTRIES: usize =
    (CHAINS as usize).wrapping_mul(size_of::<AtomicU32>()).div_ceil(size_of::<Seal>());

/// Bytes of a table of so many entries.
fn bytes_for(entries: usize) -> usize {
    entries.wrapping_add(BEFORE_ENTRIES).wrapping_mul(size_of::<Seal>())
}

/// Whether two ranges have a byte in common.
pub(super) fn overlap(one: Range, other: Range) -> bool {
    one.start < other.end() && other.start < one.end()
}

impl Seals {
    pub(crate) const fn new() -> Self {
        Seals {
            table: Region::new(),
            lock: Lock::new(),
            used: AtomicUsize::new(0),
            ever: AtomicUsize::new(0),
            full: AtomicUsize::new(0),
            serials: AtomicU32::new(0),
            index: Index::new(),
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

    /// The entry with a number, in force or not.
    pub(super) fn entry(&self, index: usize) -> Option<&'static Seal> {
        // SAFETY: from there on the region holds nothing but entries, which are atomic numbers only: zeroed ones are in
        // force nowhere.
        unsafe { self.table.get(index.wrapping_add(BEFORE_ENTRIES)) }
    }

    /// Where a chain of the index begins.
    pub(super) fn head(&self, chain: u32) -> Option<&'static AtomicU32> {
        // SAFETY: the region begins with these, and a zeroed one is a number.
        unsafe { self.table.get(chain as usize) }
    }

    pub(super) fn active(&self) -> impl Iterator<Item = (usize, &'static Seal)> {
        let used = self.used.load(Ordering::Acquire);
        (0..used)
            .filter_map(|index| self.entry(index).map(|seal| (index, seal)))
            .filter(|(_, seal)| seal.serial.load(Ordering::Acquire) != 0)
    }

    /// The entries in force that lie on some pages, the smallest number first. Takes no lock.
    pub(super) fn near(&self, range: Range) -> impl Iterator<Item = (usize, &'static Seal)> {
        let few = self.filed_on(range);
        let all = if few.is_none() { 0..self.used.load(Ordering::Acquire) } else { 0..0 };
        few.into_iter()
            .flatten()
            .chain(all)
            .filter_map(|number| self.entry(number).map(|seal| (number, seal)))
            .filter(|(_, seal)| seal.serial.load(Ordering::Acquire) != 0)
    }

    /// The seal that holds some of a block. Takes no lock.
    pub(crate) fn of_block(&self, slot: &Slot, block: Range) -> Option<SealView> {
        let address = core::ptr::from_ref(slot) as usize;
        let near = self.near(block);
        let held = near.filter(|(_, seal)| seal.slot.load(Ordering::Relaxed) == address);
        held.map(|(number, seal)| seal.view(number)).find(|view| view.purpose == Purpose::Seal)
    }

    /// The first entry whose own bytes an access touches, of those that care about it: a violated seal before a
    /// tripwire, and that before a watch. Whether the thread `has_leave` decides about those by key. Takes no lock.
    pub(super) fn touched(&self, access: Range, write: bool, has_leave: bool) -> [Option<SealView>; 3] {
        let mut found = [None; 3];
        for (number, seal) in self.near(access) {
            let view = seal.view(number);
            let place = match view.purpose {
                Purpose::Keyed if has_leave => continue,
                Purpose::Audit => continue,
                Purpose::Seal | Purpose::Keyed => 0,
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
        let views = self.near(bytes).map(|(number, seal)| seal.view(number));
        views.filter(move |view| view.purpose == Purpose::Watch && overlap(view.exact, bytes))
    }

    /// What the entries leave allowed of a page; `None` when none holds it. Takes no lock.
    pub(crate) fn allowed(&self, page: Range) -> Option<Protection> {
        let holds = |view: &SealView| !view.is_by_hardware() && overlap(view.pages, page);
        let holders = self.near(page).map(|(number, seal)| seal.view(number)).filter(holds);
        holders.fold(None, |allowed, view| match (allowed, view.purpose) {
            (Some(Protection::Once), _) => Some(Protection::Once),
            (Some(Protection::Read), Purpose::Keyed) => Some(Protection::Read),
            (_, purpose) => Some(purpose.leaves()),
        })
    }

    /// Whether there was a tripwire on the page of an address, as far as that is known.
    pub(crate) fn had_tripwire(&self, address: usize) -> bool {
        let ever = self.ever.load(Ordering::Acquire);
        let mut views = (0..ever).filter_map(|number| self.entry(number).map(|seal| seal.view(number)));
        views.any(|view| view.purpose == Purpose::Tripwire && view.pages.contains(address))
    }

    /// Whether other entries than those with exactly these pages hold some of them.
    pub(super) fn are_shared(&self, pages: Range) -> bool {
        let mut others = self.near(pages).map(|(number, seal)| seal.view(number).pages);
        others.any(|other| other != pages && overlap(other, pages))
    }

    /// Room for one entry more, in memory that is there; `None` when all are held. Under the lock.
    fn room<M: Memory>(&self, memory: &M) -> VmResult<Option<usize>> {
        let used = self.used.load(Ordering::Relaxed);
        let is_free =
            |index: &usize| self.entry(*index).is_some_and(|seal| seal.serial.load(Ordering::Relaxed) == 0);
        let index = (self.full.load(Ordering::Relaxed)..used).find(is_free).unwrap_or(used);
        // An entry may have ended unseen while the mark was moved.
        let index = if index < SEALS { Some(index) } else { (0..used).find(is_free) };
        let Some(index) = index else { return Ok(None) };
        if self.table.range().len == 0 {
            self.table.reserve(memory, bytes_for(SEALS))?;
        }
        self.table.ensure(memory, bytes_for(index.wrapping_add(1)))?;
        Ok(Some(index))
    }

    /// The place of an entry that has ended is free. Takes no lock: a tripwire's fault ends it.
    pub(super) fn give_back(&self, index: usize) {
        self.full.fetch_min(index, Ordering::Relaxed);
    }

    /// Forgets free places at the end, so that nobody looks through them. Under the lock.
    pub(super) fn trim(&self) {
        let mut used = self.used.load(Ordering::Relaxed);
        while let Some(last) = used.checked_sub(1)
            && last != 0
            && self.entry(last).is_some_and(|seal| seal.serial.load(Ordering::Relaxed) == 0)
        {
            used = last;
        }
        self.used.store(used, Ordering::Release);
    }

    /// Puts an entry in force; its place and serial number, or `None` when all are held.
    ///
    /// # Errors
    /// The system's, for want of memory.
    pub(super) fn add<M: Memory>(
        &self,
        memory: &M,
        purpose: Purpose,
        pages: Range,
        exact: Range,
        act: Act,
        slot: Option<&Slot>,
    ) -> VmResult<Option<(usize, u32)>> {
        let Some(index) = self.room(memory)? else { return Ok(None) };
        let Some(seal) = self.entry(index) else { return Ok(None) };
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
        self.file(index, seal);
        // Zero means "not in force": it is left out when the numbers come round.
        let serial = self.serials.fetch_add(1, Ordering::Relaxed).wrapping_add(1).max(1);
        seal.serial.store(serial, Ordering::Release);
        self.used.fetch_max(index.wrapping_add(1), Ordering::AcqRel);
        self.ever.fetch_max(index.wrapping_add(1), Ordering::AcqRel);
        self.full.store(index.wrapping_add(1), Ordering::Relaxed);
        Ok(Some((index, serial)))
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

    /// The record of the block that it holds.
    pub(super) fn block(&self) -> Option<&'static Slot> {
        let slot = self.slot.load(Ordering::Acquire);
        // SAFETY: it is null, or the address of a record in the heap's table, which is never given back.
        unsafe { (slot as *const Slot).as_ref() }
    }

    /// Where it is filed: its pages, or where it has none its bytes.
    pub(super) fn lies_on(&self) -> Range {
        let view = self.view(0);
        if view.pages.len == 0 { view.exact } else { view.pages }
    }

    pub(super) fn view(&self, number: usize) -> SealView {
        let range = |start: &AtomicUsize, len: &AtomicUsize| Range {
            start: start.load(Ordering::Relaxed),
            len: len.load(Ordering::Relaxed),
        };
        SealView {
            number,
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

#[cfg(test)]
mod tests {
    use fencepost_sys::sim::Sim;

    use super::*;

    #[test]
    fn a_full_table_says_so_and_places_that_end_are_found() {
        let (seals, sim) = (Seals::new(), Sim::new());
        let pages = Range { start: 4096, len: 4096 };
        let add = || seals.add(&sim, Purpose::Watch, pages, pages, Act::default(), None).expect("memory");
        for index in 0..SEALS {
            assert_eq!(add().map(|(at, _)| at), Some(index));
        }
        assert_eq!(add(), None);
        let end = |index: usize| seals.entry(index).expect("an entry").serial.store(0, Ordering::Release);
        // One that ended without a word, as a tripwire may in the moment in which the mark moves.
        end(7);
        assert_eq!(add().map(|(at, _)| at), Some(7));
        [SEALS - 1, SEALS - 2].into_iter().for_each(end);
        seals.give_back(SEALS - 2);
        seals.trim();
        assert_eq!(seals.active().count(), SEALS - 2);
        assert_eq!(add().map(|(at, _)| at), Some(SEALS - 2));
        seals.table.release(&sim);
    }
}
