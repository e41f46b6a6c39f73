//! Audits of blocks whose pages the engine has registered as ones that may be missing: for as long as an audit lasts their
//! block's pages are registered with the audit's own right instead, so that the kernel notes which are written to.
//!
//! All pages of a live block are there, so nothing can be missed meanwhile; and a free of the block ends its audit before
//! its pages move. An entry without pages stands for it in the table of seals. Blocks that something else holds
//! closed are left alone: a note in the page table that says so would be lost.

use core::cell::UnsafeCell;

use fencepost_sys::atomic::{AtomicU32, Ordering};
use fencepost_sys::{Noting, Platform, Range, VmError, VmResult};

use super::{Purpose, SealFailure, SealTicket};
use crate::runtime::Guard;

/// Audits of such blocks at once.
const AUDITS: usize = 8;

struct Place {
    /// The audit; 0 while the place is free.
    serial: AtomicU32,
    noting: UnsafeCell<Option<Noting>>,
}

/// What the kernel notes now. Only with the turn, but for the numbers.
pub(crate) struct Audits {
    all: [Place; AUDITS],
}

// SAFETY: what is noted is taken and put only by the thread that has the turn.
unsafe impl Sync for Audits {}

impl Audits {
    pub(crate) const fn new() -> Self {
        Audits { all: [const { Place { serial: AtomicU32::new(0), noting: UnsafeCell::new(None) } }; AUDITS] }
    }

    fn of(&self, serial: u32) -> Option<&Place> {
        self.all.iter().find(|place| place.serial.load(Ordering::Relaxed) == serial)
    }

    /// Takes what is noted for an audit.
    ///
    /// # Safety
    /// The caller has the turn.
    unsafe fn take(&self, serial: u32) -> Option<Noting> {
        let place = self.of(serial).filter(|_| serial != 0)?;
        place.serial.store(0, Ordering::Relaxed);
        // SAFETY: the caller's word makes this exclusive.
        unsafe { (*place.noting.get()).take() }
    }
}

impl<P: Platform> Guard<P> {
    /// Has the kernel note from now on which pages of some bytes of a live block are written to, where the engine has
    /// them registered. [`Guard::end_audit`] tells.
    ///
    /// # Errors
    /// [`SealFailure`] says why not; nothing is changed then.
    pub fn audit_block(&self, exact: Range, anchor: usize) -> Result<SealTicket, SealFailure> {
        let setup = self.ready().ok_or(SealFailure::NotGuarding)?;
        let slot = self.live_slot(setup, exact.start, exact.len)?;
        let pages = setup.geometry().pages_of(exact.start, exact.len);
        if !self.is_registered(pages) {
            return Err(SealFailure::System(VmError::Unsupported));
        }
        let act = self.act(setup, anchor);
        let turn = self.take_turn().ok_or(SealFailure::System(VmError::Unsupported))?;
        let held = self.seals.lock.hold(&self.platform);
        if slot.seals.load(Ordering::Acquire) != 0 {
            return Err(SealFailure::System(VmError::Unsupported));
        }
        let place = self.audits.of(0).ok_or(SealFailure::TooMany)?;
        let added = self.seals.add(&self.platform, Purpose::Audit, Range::default(), exact, act, Some(slot));
        let (index, serial) = added.map_err(SealFailure::System)?.ok_or(SealFailure::TooMany)?;
        slot.seals.fetch_add(1, Ordering::AcqRel);
        place.serial.store(serial, Ordering::Relaxed);
        let noting = self.note_registered(pages);
        let refused = noting.as_ref().err().copied();
        // SAFETY: this thread has the turn.
        unsafe { *place.noting.get() = noting.ok() };
        if let Some(error) = refused {
            if let Some(seal) = self.seals.entry(index) {
                self.end_seal(index, seal);
            }
            return Err(SealFailure::System(error));
        }
        drop(held);
        drop(turn);
        Ok(SealTicket { index, serial, pages: Range::default() })
    }

    fn note_registered(&self, pages: Range) -> VmResult<Noting> {
        // SAFETY: the pages are a live block's, so that none of them is missing.
        unsafe { self.platform.unregister_missing(pages) }?;
        // SAFETY: as above; they stay mapped, as all of the heap does.
        let noting = unsafe { self.platform.note_written(pages) };
        if noting.is_err() {
            self.register_again(pages);
        }
        noting
    }

    /// Ends an audit, and calls `each` with the runs of pages that were written to, in order.
    ///
    /// # Errors
    /// The system's: then what was called with is not all. [`VmError::Unsupported`] if the block was freed meanwhile.
    pub fn end_audit(&self, ticket: SealTicket, each: &mut dyn FnMut(Range)) -> VmResult {
        let turn = self.take_turn();
        // SAFETY: this thread has the turn, or its own change of seals was interrupted by a handler that audits, which
        // is then told that there is nothing.
        let noting = turn.as_ref().and_then(|_| unsafe { self.audits.take(ticket.serial) });
        drop(turn);
        let told = match &noting {
            Some(noting) => self.platform.each_written(noting, each),
            None => Err(VmError::Unsupported),
        };
        if let Some(noting) = noting {
            let pages = noting.range();
            self.platform.end_noting(noting);
            self.register_again(pages);
        }
        self.unseal(ticket, || ());
        told
    }

    /// Ends what an entry has the kernel note, if it does. Under the turn.
    pub(super) fn end_noting_of(&self, serial: u32) {
        // SAFETY: the caller has the turn.
        if let Some(noting) = unsafe { self.audits.take(serial) } {
            let pages = noting.range();
            self.platform.end_noting(noting);
            self.register_again(pages);
        }
    }

    fn register_again(&self, pages: Range) {
        // SAFETY: the pages are the engine's and were registered before.
        if unsafe { self.platform.register_missing(pages) }.is_err() {
            self.complain(format_args!(
                "{} bytes at {:#x} are not guarded when they are freed: they could not be registered again",
                pages.len, pages.start
            ));
        }
    }
}
