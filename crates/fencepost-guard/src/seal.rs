//! Memory that is closed on purpose: seals (read-only until further notice), watches (every write is noted) and
//! tripwires (the first access is an alarm).
//!
//! Pages are closed as a whole; what is meant is a range of bytes. An access beside it, on the same pages, runs by
//! itself in silence ([`crate::step`]), so that reference counts, neighbours in a struct or a static beside it do as
//! they always did. A guarded block's pages belong to it alone.
//!
//! What pages allow is changed only by who has the turn, so that a step finds what it left. The cold side (who holds
//! what) is the facade's business.

mod audit;
mod calls;
mod hardware;
mod index;
mod log;
mod pages;
mod table;
mod touch;

use core::sync::atomic::Ordering;

use fencepost_sys::{Platform, Protection, Range, VmError, VmResult};

use crate::geometry::align_down;
use crate::heap::Found;
use crate::runtime::{Guard, Setup};
use crate::slot::{Slot, SlotState};
pub(crate) use audit::Audits;
pub(crate) use calls::Opened;
pub(crate) use log::Ring;
pub use log::{Change, Log};
pub use table::Purpose;
use table::Seal;
pub(crate) use table::{SealView, Seals};
pub(crate) use touch::Pending;

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

/// A seal, a watch or a tripwire that is in force.
#[derive(Debug)]
#[must_use = "the memory stays closed until the ticket is given to `unseal`"]
pub struct SealTicket {
    index: usize,
    serial: u32,
    pages: Range,
}

impl SealTicket {
    /// The pages that are closed, in bytes.
    pub fn range(&self) -> Range {
        self.pages
    }

    /// The number by which [`Guard::changes`] knows it.
    pub fn serial(&self) -> u32 {
        self.serial
    }
}

/// The turn, held for a change of what closed pages allow.
struct Turn<'a, P: Platform> {
    guard: &'a Guard<P>,
}

impl<P: Platform> Drop for Turn<'_, P> {
    fn drop(&mut self) {
        self.guard.stepping.turn().give_back(&self.guard.platform);
    }
}

impl<P: Platform> Guard<P> {
    /// Puts a range within one live guarded block under a seal, a watch or a tripwire.
    ///
    /// # Errors
    /// [`SealFailure`] says why not; nothing is changed then.
    pub fn seal_block(
        &self,
        purpose: Purpose,
        start: usize,
        len: usize,
        anchor: usize,
    ) -> Result<SealTicket, SealFailure> {
        let setup = self.ready().ok_or(SealFailure::NotGuarding)?;
        if len == 0 {
            return Err(SealFailure::Empty);
        }
        let slot = self.live_slot(setup, start, len)?;
        self.close_pages(setup, purpose, Range { start, len }, Some(slot), anchor)
    }

    /// The record of the live block that a range lies in.
    fn live_slot(&self, setup: &Setup, start: usize, len: usize) -> Result<&'static Slot, SealFailure> {
        let slot = self.slot_of(setup, start).ok_or(SealFailure::NotOneBlock)?;
        let view = self.heap.view(slot);
        let end = start.checked_add(len).ok_or(SealFailure::NotOneBlock)?;
        if view.state != SlotState::Live || start < view.pointer || end > view.end() {
            return Err(SealFailure::NotOneBlock);
        }
        Ok(slot)
    }

    /// Puts other memory under a seal, a watch or a tripwire: all of the pages that the range touches must be mapped
    /// and allow reading and writing.
    ///
    /// # Errors
    /// [`SealFailure`] says why not; nothing is changed then.
    ///
    /// # Safety
    /// The pages must stay mapped until [`Guard::unseal`], and nothing that this runtime itself uses may lie there.
    pub unsafe fn seal_other(
        &self,
        purpose: Purpose,
        exact: Range,
        anchor: usize,
    ) -> Result<SealTicket, SealFailure> {
        let setup = self.ready().ok_or(SealFailure::NotGuarding)?;
        if exact.len == 0 {
            return Err(SealFailure::Empty);
        }
        self.close_pages(setup, purpose, exact, None, anchor)
    }

    fn close_pages(
        &self,
        setup: &Setup,
        purpose: Purpose,
        exact: Range,
        slot: Option<&Slot>,
        anchor: usize,
    ) -> Result<SealTicket, SealFailure> {
        let pages = setup.geometry().pages_of(exact.start, exact.len);
        let act = self.act(setup, anchor);
        let turn = self.take_turn();
        let held = self.seals.lock.hold(&self.platform);
        if let Some(slot) = slot {
            slot.seals.fetch_add(1, Ordering::AcqRel);
        }
        // The entry is there before a fault can ask for it.
        let added = self.seals.add(&self.platform, purpose, pages, exact, act, slot);
        let closed = match added {
            Ok(Some((index, serial))) => match self.put_in_force(pages, alone(slot, purpose)) {
                Ok(()) => Ok(SealTicket { index, serial, pages }),
                Err(error) => {
                    if let Some(seal) = self.seals.entry(index) {
                        seal.serial.store(0, Ordering::Release);
                        self.seals.unfile(index, seal);
                        self.seals.give_back(index);
                    }
                    Err(SealFailure::System(error))
                }
            },
            Ok(None) => Err(SealFailure::TooMany),
            Err(error) => Err(SealFailure::System(error)),
        };
        if closed.is_err() {
            if let Some(slot) = slot {
                slot.seals.fetch_sub(1, Ordering::AcqRel);
            }
            self.reopen(pages, None);
        }
        drop(held);
        drop(turn);
        closed
    }

    /// Whether an address belongs to the guarded heap.
    pub fn is_heap(&self, address: usize) -> bool {
        self.ready().is_some() && self.heap.owns(address)
    }

    /// Whether a page is closed by a seal, a watch or a tripwire.
    pub fn is_closed(&self, page: Range) -> bool {
        self.seals.allowed(page).is_some()
    }

    /// The calling thread's stack, if it is known.
    pub fn own_stack(&self) -> Option<Range> {
        self.thread_if_known().map(|state| state.stack()).filter(|stack| stack.len != 0)
    }

    /// Ends a seal, a watch or a tripwire. Its pages become writable, except those that another holds; `restore` then
    /// puts back what else other memory allowed before.
    pub fn unseal(&self, ticket: SealTicket, restore: impl FnOnce()) {
        let Some(seal) = self.seals.entry(ticket.index) else { return };
        let turn = self.take_turn();
        let held = self.seals.lock.hold(&self.platform);
        // A block that was freed in spite of its seals ended them, and the entry may serve another by now. A tripwire
        // that has fired has ended itself.
        if seal.serial.load(Ordering::Acquire) == ticket.serial {
            self.end_seal(ticket.index, seal);
        }
        restore();
        drop(held);
        drop(turn);
    }

    /// How often the memory of a ticket was touched in the way that it is for.
    pub fn hits(&self, ticket: &SealTicket) -> u32 {
        self.seals.entry(ticket.index).map_or(0, |seal| seal.hits.load(Ordering::Acquire))
    }

    /// Waits until the memory of a ticket is touched for the first time; may come back before that.
    pub fn wait_for_hit(&self, ticket: &SealTicket) {
        if let Some(seal) = self.seals.entry(ticket.index) {
            self.platform.wait(&seal.hits, 0);
        }
    }

    /// Waits for a step to end, and keeps others from beginning: what closed pages allow changes between steps only.
    fn take_turn(&self) -> Option<Turn<'_, P>> {
        let taken = self.stepping.turn().take_for_change(&self.platform);
        taken.then_some(Turn { guard: self })
    }

    fn end_seal(&self, index: usize, seal: &Seal) {
        let pages = seal.view(index).pages;
        let serial = seal.serial.swap(0, Ordering::AcqRel);
        self.seals.unfile(index, seal);
        self.end_watchpoints(serial);
        self.end_noting_of(serial);
        let slot = self.release_slot(seal);
        self.seals.give_back(index);
        self.seals.trim();
        let is_last = slot.is_some_and(|slot| slot.seals.load(Ordering::Acquire) == 0);
        self.reopen(pages, is_last.then_some(Protection::ReadWrite));
    }

    /// The record of an entry's block, which it holds no longer.
    fn release_slot(&self, seal: &Seal) -> Option<&'static Slot> {
        let slot = seal.block();
        if seal.slot.swap(0, Ordering::AcqRel) == 0 {
            return None;
        }
        if let Some(slot) = slot {
            slot.seals.fetch_sub(1, Ordering::AcqRel);
        }
        slot
    }

    /// Makes pages allow what the entries that hold them leave; `known` is that, where it is known without a look
    /// through all entries. Under the turn.
    fn put_in_force(&self, pages: Range, known: Option<Protection>) -> VmResult {
        if let Some(allowed) = known
            && pages.len != 0
        {
            // SAFETY: as below.
            return unsafe { self.set_allowed(pages, allowed) };
        }
        // Page by page only where another entry holds some of them.
        let step = if self.seals.are_shared(pages) { self.platform.page_size() } else { pages.len };
        for start in (pages.start..pages.end()).step_by(step.max(1)) {
            let part = Range { start, len: step };
            let allowed = self.seals.allowed(part).unwrap_or(Protection::ReadWrite);
            // SAFETY: the pages belong to a live block, or are other memory that allowed reading and writing before;
            // that their owner expects them to close is what sealing means.
            unsafe { self.set_allowed(part, allowed) }?;
        }
        Ok(())
    }

    fn reopen(&self, pages: Range, known: Option<Protection>) {
        if self.put_in_force(pages, known).is_err() {
            self.complain(format_args!("sealed memory at {:#x} could not be opened again", pages.start));
        }
    }

    /// Ends everything that holds a block which is being freed.
    pub(crate) fn end_seals_of(&self, slot: &Slot) {
        let turn = self.take_turn();
        let held = self.seals.lock.hold(&self.platform);
        let address = core::ptr::from_ref(slot) as usize;
        let held_by = |entry: &(usize, &Seal)| entry.1.slot.load(Ordering::Relaxed) == address;
        for (index, seal) in self.seals.near(self.heap.view(slot).range()).filter(held_by) {
            self.end_seal(index, seal);
        }
        drop(held);
        drop(turn);
    }

    /// Opens the page at `address` although it is sealed, for a program that goes on after a violation.
    pub(crate) fn open_sealed_page(&self, address: usize) {
        let page = self.platform.page_size();
        let range = Range { start: align_down(address, page), len: page };
        // SAFETY: the page is sealed memory whose owner may write to it; the report has said that it is opened.
        let opened = unsafe { self.set_allowed(range, Protection::ReadWrite) };
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

/// What the pages of a block allow whose only entry is for this; `None` where there are more. A block's pages are its
/// own, so that no other entry holds them.
fn alone(slot: Option<&Slot>, purpose: Purpose) -> Option<Protection> {
    slot.filter(|slot| slot.seals.load(Ordering::Acquire) == 1).map(|_| purpose.leaves())
}
