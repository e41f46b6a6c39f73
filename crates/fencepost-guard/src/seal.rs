//! Seals: memory made read-only until further notice.
//!
//! The fault handler finds a seal by looking through a small fixed table without a lock: an entry's `active` word is
//! stored last (Release) when it is made and first when it ends. The cold side (who holds which seal) is the
//! facade's business. A block's pages belong to it alone, so sealing them harms no neighbour.

use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use fencepost_sys::{Platform, Protection, Range, VmError};

use crate::geometry::align_down;
use crate::heap::Found;
use crate::lock::Lock;
use crate::runtime::{Guard, Setup};
use crate::slot::{Act, Slot, SlotState};

/// Seals that can be held at once.
const SEALS: usize = 1024;

/// One seal.
struct Seal {
    active: AtomicU32,
    start: AtomicUsize,
    len: AtomicUsize,
    trace: AtomicU32,
    thread: AtomicU32,
    ms: AtomicU32,
    /// The address of the record of the sealed block; 0 for other memory.
    slot: AtomicUsize,
}

/// All seals.
pub(crate) struct Seals {
    table: [Seal; SEALS],
    lock: Lock,
    /// Entries ever used; none past it is active.
    used: AtomicUsize,
}

/// A seal as the fault handler sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SealView {
    pub(crate) range: Range,
    pub(crate) act: Act,
}

/// Why memory could not be sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealFailure {
    /// The guard is off or not started.
    NotGuarding,
    /// The range is empty.
    Empty,
    /// The range lies in the guarded heap, but not in one live block.
    NotOneBlock,
    /// Too many seals are held.
    TooMany,
    /// The system refused.
    System(VmError),
}

/// A seal that is in force.
#[derive(Debug)]
#[must_use = "the memory stays sealed until the ticket is given to `unseal`"]
pub struct SealTicket {
    index: usize,
    range: Range,
}

impl SealTicket {
    /// The pages that are sealed, in bytes.
    pub fn range(&self) -> Range {
        self.range
    }
}

impl Seals {
    pub(crate) const fn new() -> Self {
        #[expect(clippy::declare_interior_mutable_const, reason = "a pattern to repeat, not a place")]
        const NONE: Seal = Seal {
            active: AtomicU32::new(0),
            start: AtomicUsize::new(0),
            len: AtomicUsize::new(0),
            trace: AtomicU32::new(0),
            thread: AtomicU32::new(0),
            ms: AtomicU32::new(0),
            slot: AtomicUsize::new(0),
        };
        Seals { table: [const { NONE }; SEALS], lock: Lock::new(), used: AtomicUsize::new(0) }
    }

    /// The seals' lock, for both sides of a fork.
    pub(crate) fn lock_for_fork(&self) -> &Lock {
        &self.lock
    }

    /// Whether memory was ever sealed.
    pub(crate) fn were_used(&self) -> bool {
        self.used.load(Ordering::Relaxed) != 0
    }

    fn active(&self) -> impl Iterator<Item = (usize, &Seal)> {
        let used = self.used.load(Ordering::Acquire);
        self.table.iter().take(used).enumerate().filter(|(_, seal)| seal.active.load(Ordering::Acquire) != 0)
    }

    /// The seal that holds an address. Takes no lock.
    pub(crate) fn find(&self, address: usize) -> Option<SealView> {
        self.active().map(|(_, seal)| seal.view()).find(|view| view.range.contains(address))
    }

    /// A seal that holds some of a range. Takes no lock.
    pub(crate) fn find_in(&self, range: Range) -> Option<SealView> {
        let overlaps = |view: &SealView| view.range.start < range.end() && range.start < view.range.end();
        self.active().map(|(_, seal)| seal.view()).find(overlaps)
    }

    fn add(&self, range: Range, act: Act, slot: Option<&Slot>) -> Option<usize> {
        let index = self.table.iter().position(|seal| seal.active.load(Ordering::Relaxed) == 0)?;
        let seal = self.table.get(index)?;
        seal.start.store(range.start, Ordering::Relaxed);
        seal.len.store(range.len, Ordering::Relaxed);
        seal.trace.store(act.trace, Ordering::Relaxed);
        seal.thread.store(act.thread, Ordering::Relaxed);
        seal.ms.store(act.ms, Ordering::Relaxed);
        seal.slot.store(slot.map_or(0, |slot| core::ptr::from_ref(slot) as usize), Ordering::Relaxed);
        seal.active.store(1, Ordering::Release);
        self.used.fetch_max(index.wrapping_add(1), Ordering::AcqRel);
        Some(index)
    }
}

impl Seal {
    fn view(&self) -> SealView {
        SealView {
            range: Range { start: self.start.load(Ordering::Relaxed), len: self.len.load(Ordering::Relaxed) },
            act: Act {
                trace: self.trace.load(Ordering::Relaxed),
                thread: self.thread.load(Ordering::Relaxed),
                ms: self.ms.load(Ordering::Relaxed),
            },
        }
    }
}

/// The turn, held for a change of what sealed pages allow.
struct Change<'a, P: Platform> {
    guard: &'a Guard<P>,
}

impl<P: Platform> Drop for Change<'_, P> {
    fn drop(&mut self) {
        self.guard.stepping.turn().give_back();
    }
}

impl<P: Platform> Guard<P> {
    /// Makes the pages of a range within one live guarded block read-only.
    ///
    /// # Errors
    /// [`SealFailure`] says why not; nothing is changed then.
    pub fn seal_block(&self, start: usize, len: usize, anchor: usize) -> Result<SealTicket, SealFailure> {
        let setup = self.ready().ok_or(SealFailure::NotGuarding)?;
        if len == 0 {
            return Err(SealFailure::Empty);
        }
        let slot = self.slot_of(setup, start).ok_or(SealFailure::NotOneBlock)?;
        let view = slot.view();
        let end = start.checked_add(len).ok_or(SealFailure::NotOneBlock)?;
        if view.state != SlotState::Live || start < view.pointer || end > view.end() {
            return Err(SealFailure::NotOneBlock);
        }
        let range = setup.geometry().pages_of(start, len);
        let act = self.act(setup, anchor);
        let turn = self.change_seals();
        let held = self.seals.lock.hold(&self.platform);
        slot.seals.fetch_add(1, Ordering::AcqRel);
        // SAFETY: the pages belong to this live block alone; sealing is what its owner asks for.
        let sealed = unsafe { self.platform.protect(range, Protection::Read) };
        let entered = match sealed {
            Ok(()) => self.seals.add(range, act, Some(slot)).ok_or(SealFailure::TooMany),
            Err(error) => Err(SealFailure::System(error)),
        };
        if entered.is_err() {
            slot.seals.fetch_sub(1, Ordering::AcqRel);
            self.reopen(range);
        }
        drop(held);
        drop(turn);
        entered.map(|index| SealTicket { index, range })
    }

    /// Whether an address belongs to the guarded heap.
    pub fn is_heap(&self, address: usize) -> bool {
        self.ready().is_some() && self.heap.owns(address)
    }

    /// The calling thread's stack, if it is known.
    pub fn own_stack(&self) -> Option<Range> {
        self.thread_if_known().map(|state| state.stack()).filter(|stack| stack.len != 0)
    }

    /// Notes that pages outside the guarded heap have been made read-only by the caller, so that a write to them is
    /// reported as a seal violation.
    ///
    /// # Errors
    /// [`SealFailure`] says why not.
    pub fn note_seal(&self, range: Range, anchor: usize) -> Result<SealTicket, SealFailure> {
        let setup = self.ready().ok_or(SealFailure::NotGuarding)?;
        let act = self.act(setup, anchor);
        let held = self.seals.lock.hold(&self.platform);
        let index = self.seals.add(range, act, None);
        drop(held);
        index.map(|index| SealTicket { index, range }).ok_or(SealFailure::TooMany)
    }

    /// Ends a seal. The pages of a guarded block become writable, except those that another seal holds; for other
    /// memory `restore` puts back what was before.
    pub fn unseal(&self, ticket: SealTicket, restore: impl FnOnce()) {
        let Some(seal) = self.seals.table.get(ticket.index) else { return };
        let turn = self.change_seals();
        let held = self.seals.lock.hold(&self.platform);
        restore();
        // A block that was freed in spite of its seals ended them, and the entry may serve another seal by now.
        if seal.active.load(Ordering::Acquire) != 0 && seal.view().range == ticket.range {
            self.end_seal(seal);
        }
        drop(held);
        drop(turn);
    }

    /// Waits for a step to end, and keeps others from beginning: what is sealed is changed between steps only.
    fn change_seals(&self) -> Option<Change<'_, P>> {
        let taken = self.stepping.turn().take_for_change(&self.platform);
        taken.then_some(Change { guard: self })
    }

    fn end_seal(&self, seal: &Seal) {
        let range = seal.view().range;
        seal.active.store(0, Ordering::Release);
        let slot = seal.slot.load(Ordering::Relaxed);
        if slot == 0 {
            return;
        }
        // SAFETY: a seal's `slot` is the address of a record in the heap's table, which is never given back.
        let slot = unsafe { &*(slot as *const Slot) };
        slot.seals.fetch_sub(1, Ordering::AcqRel);
        self.reopen(range);
    }

    /// Makes the pages of `range` writable that no seal holds. Under the seals' lock.
    fn reopen(&self, range: Range) {
        let overlaps = |seal: &Seal| {
            let other = seal.view().range;
            other.start < range.end() && range.start < other.end()
        };
        // Page by page only where another seal holds some of them.
        let whole = !self.seals.active().any(|(_, seal)| overlaps(seal));
        let page = if whole { range.len } else { self.platform.page_size() };
        for start in (range.start..range.end()).step_by(page.max(1)) {
            if self.seals.find(start).is_none() {
                // SAFETY: the page belongs to a live block that was sealed; its owner may write to it again.
                let opened =
                    unsafe { self.platform.protect(Range { start, len: page }, Protection::ReadWrite) };
                if opened.is_err() {
                    self.complain(format_args!("a sealed page at {start:#x} could not be opened again"));
                }
            }
        }
    }

    /// Ends every seal on a block that is being freed.
    pub(crate) fn end_seals_of(&self, slot: &Slot) {
        let turn = self.change_seals();
        let held = self.seals.lock.hold(&self.platform);
        let address = core::ptr::from_ref(slot) as usize;
        for (_, seal) in self.seals.active().filter(|(_, seal)| seal.slot.load(Ordering::Relaxed) == address)
        {
            self.end_seal(seal);
        }
        drop(held);
        drop(turn);
    }

    /// Opens the page at `address` although it is sealed, for a program that goes on after a violation.
    pub(crate) fn open_sealed_page(&self, address: usize) {
        let page = self.platform.page_size();
        let range = Range { start: align_down(address, page), len: page };
        // SAFETY: the page is sealed memory whose owner may write to it; the report has said that it is opened.
        let opened = unsafe { self.platform.protect(range, Protection::ReadWrite) };
        if opened.is_err() {
            self.complain(format_args!("the sealed page at {:#x} could not be opened", range.start));
        }
    }

    /// The record that a heap address belongs to.
    pub(crate) fn slot_of(&self, setup: &Setup, address: usize) -> Option<&'static Slot> {
        match self.heap.find(setup.geometry(), address) {
            Found::Small { index, place: crate::geometry::Place::Data(slot), .. } => {
                self.heap.slot(index, slot)
            }
            Found::Large { index } => self.heap.slot(index, 0),
            _ => None,
        }
    }
}
