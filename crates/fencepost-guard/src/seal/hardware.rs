//! Watches by the processor's watchpoints: their pages stay open, so that what lies beside the watched bytes costs nothing.
//!
//! A watchpoint tells of a write when it has been made, so what was there before is kept in a *shadow*, with the turn. If
//! two threads write at nearly the same time, the first to have the turn may see what the second has left; the number of
//! writes is right, and so are threads and stacks. The news is one signal for each instruction: where that writes to
//! several watched ranges, or runs as a step, the others are known by what has changed.

use core::cell::UnsafeCell;

use fencepost_record::{AccessType, Bytes};
use fencepost_sys::atomic::{AtomicU32, AtomicUsize, Ordering};
use fencepost_sys::{Hit, Platform, Range, WATCHPOINTS, WatchpointOffer, watchpoints_of};

use super::log::Entry;
use super::table::{Purpose, Seal, SealView, overlap};
use super::{Pending, SealTicket};
use crate::report::Frames;
use crate::runtime::{Guard, Setup};
use crate::slot::Act;

/// What watched bytes held when they were last looked at.
struct Shadow {
    /// The watch; 0 while the place is free.
    serial: AtomicU32,
    /// Its entry's number.
    number: AtomicUsize,
    bytes: UnsafeCell<Bytes>,
}

/// The shadows of all watches that are watchpoints. Only with the turn, but for the numbers.
pub(crate) struct Shadows {
    all: [Shadow; WATCHPOINTS],
    /// Not 0 if the watchpoints see what the kernel writes.
    sees_kernel: AtomicU32,
    /// Writes that could not be noted: their thread was changing seals itself.
    missed: AtomicU32,
}

// SAFETY: the bytes are read and written only by the thread that has the turn.
unsafe impl Sync for Shadows {}

impl Shadows {
    pub(super) const fn new() -> Self {
        Shadows {
            all: [const { Shadow::new() }; WATCHPOINTS],
            sees_kernel: AtomicU32::new(0),
            missed: AtomicU32::new(0),
        }
    }

    /// Whether there is any.
    fn are_used(&self) -> bool {
        self.all.iter().any(|shadow| shadow.serial.load(Ordering::Relaxed) != 0)
    }

    fn of(&self, serial: u32) -> Option<&Shadow> {
        self.all.iter().find(|shadow| shadow.serial.load(Ordering::Relaxed) == serial)
    }

    /// Whether watchpoints see what the kernel writes.
    pub(super) fn see_kernel(&self) -> bool {
        self.sees_kernel.load(Ordering::Relaxed) != 0
    }
}

impl Shadow {
    const fn new() -> Shadow {
        Shadow { serial: AtomicU32::new(0), number: AtomicUsize::new(0), bytes: UnsafeCell::new(Bytes::NONE) }
    }

    /// Puts other bytes there and gives those that were there.
    ///
    /// # Safety
    /// The caller has the turn.
    unsafe fn replace(&self, bytes: Bytes) -> Bytes {
        // SAFETY: the caller's word makes this exclusive.
        core::mem::replace(unsafe { &mut *self.bytes.get() }, bytes)
    }
}

/// From where to where two states of some bytes differ; `None` where they do not.
fn changed(old: &[u8], new: &[u8]) -> Option<core::ops::Range<usize>> {
    let differs = |index: &usize| old.get(*index) != new.get(*index);
    let first = (0..new.len()).find(differs)?;
    let last = (first..new.len()).rfind(differs)?;
    Some(first..last.saturating_add(1))
}

/// A part of some bytes, by where it begins and ends among them.
fn part_of(bytes: &Bytes, part: &core::ops::Range<usize>) -> Bytes {
    Bytes::new(bytes.as_slice().get(part.clone()).unwrap_or(&[]))
}

impl<P: Platform> Guard<P> {
    /// Watches some bytes by watchpoints of the processor. `None` where that cannot be, for whatever reason: then
    /// [`Guard::seal_block`] or [`Guard::seal_other`] may do it.
    pub fn watch_bytes(&self, exact: Range, anchor: usize) -> Option<SealTicket> {
        let setup = self.ready()?;
        watchpoints_of(exact)?;
        let slot = if self.heap.owns(exact.start) {
            Some(self.live_slot(setup, exact.start, exact.len).ok()?)
        } else {
            None
        };
        let sees_kernel = match self.platform.ready_to_watch(self.hooks.on_hit) {
            WatchpointOffer::Nothing(_) => return None,
            offer => u32::from(offer == WatchpointOffer::AndKernel),
        };
        let act = self.act(setup, anchor);
        let turn = self.take_turn()?;
        let held = self.seals.lock.hold(&self.platform);
        let shadow = self.seals.shadows.of(0)?;
        // Its own pages stay open, so it has none.
        let (index, serial) =
            self.seals.add(&self.platform, Purpose::Watch, Range::default(), exact, act, slot).ok()??;
        if let Some(slot) = slot {
            slot.seals.fetch_add(1, Ordering::AcqRel);
        }
        self.seals.shadows.sees_kernel.store(sees_kernel, Ordering::Relaxed);
        shadow.number.store(index, Ordering::Relaxed);
        shadow.serial.store(serial, Ordering::Relaxed);
        let armed = self.platform.arm_watchpoints(exact, serial);
        let bytes = self.bytes_of(exact);
        // SAFETY: this thread has the turn.
        let _before = unsafe { shadow.replace(bytes) };
        let works = armed.is_ok() && bytes.as_slice().len() == exact.len;
        if !works && let Some(seal) = self.seals.entry(index) {
            self.end_seal(index, seal);
        }
        drop(held);
        drop(turn);
        works.then_some(SealTicket { index, serial, pages: Range::default() })
    }

    /// Whether a watch is one by watchpoints.
    pub fn is_watchpoint(&self, ticket: &SealTicket) -> bool {
        self.seals.shadows.of(ticket.serial).is_some()
    }

    /// Whether watchpoints see what the kernel writes in system calls.
    pub fn watchpoints_see_kernel(&self) -> bool {
        self.seals.shadows.see_kernel()
    }

    /// What watchpoints offer here, as found out by use.
    pub fn watchpoints(&self) -> WatchpointOffer {
        self.platform.ready_to_watch(self.hooks.on_hit)
    }

    /// The watches that are watchpoints. Takes no lock.
    fn by_watchpoints(&self) -> impl Iterator<Item = SealView> {
        self.seals.shadows.all.iter().filter_map(|shadow| {
            let serial = shadow.serial.load(Ordering::Acquire);
            let number = shadow.number.load(Ordering::Relaxed);
            let seal = self.seals.entry(number).filter(|_| serial != 0)?;
            let view = seal.view(number);
            (view.serial == serial && view.is_by_hardware()).then_some(view)
        })
    }

    /// Ends the watchpoints of an entry, if it has any. Under the turn.
    pub(super) fn end_watchpoints(&self, serial: u32) {
        if let Some(shadow) = self.seals.shadows.of(serial).filter(|_| serial != 0) {
            self.platform.disarm_watchpoints(serial);
            shadow.serial.store(0, Ordering::Relaxed);
        }
    }

    /// Told of a write that a watchpoint saw. Runs in a signal handler.
    pub fn on_hit(&self, hit: &Hit) {
        let Some(setup) = self.ready() else { return };
        let Some(view) = self.by_watchpoints().find(|view| view.serial == hit.tag) else {
            // It has just ended.
            return;
        };
        self.count_hit(&view);
        // The processor says which instruction is next; the byte before it is the writing one's.
        let pc = hit.after.pc.wrapping_sub(1);
        let act = if hit.late {
            self.act_without_stack(setup)
        } else {
            let mut walk = self.walk(&Frames::Fault(&hit.after));
            walk.rename(hit.after.pc, pc);
            self.act_of_walk(setup, &walk, pc)
        };
        let Some(turn) = self.take_turn() else {
            self.seals.shadows.missed.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let part = watchpoints_of(view.exact).into_iter().flatten().find(|part| part.start == hit.address);
        let pc = if hit.late { 0 } else { pc };
        let part = part.unwrap_or(view.exact);
        self.note_shadow(&view, act, pc, Some(part));
        self.note_others(view.serial, act, pc, Some(part));
        drop(turn);
    }

    /// Notes what has become of watched bytes: the part that was written to and all that has changed; or, where it is not
    /// known whether it was, only if anything has changed. With the turn.
    fn note_shadow(&self, view: &SealView, act: Act, pc: usize, written: Option<Range>) -> bool {
        let Some(shadow) = self.seals.shadows.of(view.serial) else { return false };
        let new = self.bytes_of(view.exact);
        // SAFETY: this thread has the turn.
        let old = unsafe { shadow.replace(new) };
        let changed = changed(old.as_slice(), new.as_slice());
        let offset = |address: usize| address.saturating_sub(view.exact.start);
        let written = written.map(|part| offset(part.start)..offset(part.end()));
        let part = match (written, changed) {
            (Some(one), Some(other)) => one.start.min(other.start)..one.end.max(other.end),
            (Some(part), None) | (None, Some(part)) => part,
            (None, None) => return false,
        };
        let start = view.exact.start.saturating_add(part.start);
        let mut entry = Entry::of(view.serial, act, start, pc, part_of(&old, &part));
        entry.new = part_of(&new, &part);
        // SAFETY: as above.
        unsafe { self.log.push(&entry) };
        true
    }

    /// Notes the other watched ranges of which one instruction has written to `part`, or changed anything. With the turn.
    fn note_others(&self, noted: u32, act: Act, pc: usize, part: Option<Range>) {
        for view in self.by_watchpoints() {
            let written = part.filter(|part| overlap(view.exact, *part)).map(|part| {
                let (start, end) = (part.start.max(view.exact.start), part.end().min(view.exact.end()));
                Range { start, len: end.saturating_sub(start) }
            });
            if view.serial != noted && self.note_shadow(&view, act, pc, written) {
                self.count_hit(&view);
            }
        }
    }

    /// Looks at what the instruction of a step has done to bytes under watchpoints: the news of the step stands for that of
    /// the watchpoint. With the turn.
    pub(crate) fn note_after_step(&self, setup: &Setup, pending: Option<&Pending>) {
        if !self.seals.shadows.are_used() {
            return;
        }
        let noted = pending.and_then(Pending::noted);
        if let Some(pending) = pending.filter(|_| noted.is_some()) {
            // All watches of these bytes have their notes.
            self.refresh_shadows(pending.touched());
        }
        // Where nothing else was to be said of the step its stack was not walked.
        let (serial, act, pc) = noted.unwrap_or((0, self.act_without_stack(setup), 0));
        self.note_others(serial, act, pc, None);
    }

    /// Notes that the kernel is about to write to watched bytes, where watchpoints do not see that. Says whether any are
    /// concerned: then [`Guard::refresh_shadows`] follows.
    pub(super) fn note_before_call(
        &self,
        setup: &Setup,
        buffer: Range,
        access: AccessType,
        anchor: usize,
    ) -> bool {
        if access != AccessType::Write || !self.seals.shadows.are_used() || self.seals.shadows.see_kernel() {
            return false;
        }
        let mut any = false;
        for view in self.by_watchpoints().filter(|view| overlap(view.exact, buffer)) {
            let act = self.act(setup, anchor);
            let Some(turn) = self.take_turn() else { continue };
            self.count_hit(&view);
            let start = view.exact.start.max(buffer.start);
            let len = view.exact.end().min(buffer.end()).saturating_sub(start);
            let entry = Entry::of(view.serial, act, start, 0, self.bytes_of(Range { start, len }));
            // SAFETY: this thread has the turn.
            unsafe { self.log.push(&entry) };
            drop(turn);
            any = true;
        }
        any
    }

    /// Takes what a system call has left in a buffer for what was there. With the turn.
    pub(super) fn refresh_shadows(&self, buffer: Range) {
        for view in self.by_watchpoints().filter(|view| overlap(view.exact, buffer)) {
            if let Some(shadow) = self.seals.shadows.of(view.serial) {
                let bytes = self.bytes_of(view.exact);
                // SAFETY: the caller has the turn.
                let _before = unsafe { shadow.replace(bytes) };
            }
        }
    }

    /// Sets watchpoints again that a child has not inherited.
    pub(crate) fn watch_again(&self, setup: &Setup) {
        if !self.seals.shadows.are_used() {
            return;
        }
        let turn = self.take_turn();
        let held = self.seals.lock.hold(&self.platform);
        for view in self.by_watchpoints() {
            self.platform.disarm_watchpoints(view.serial);
            if self.platform.arm_watchpoints(view.exact, view.serial).is_err()
                && let Some(seal) = self.seals.entry(view.number)
            {
                self.fall_back(setup, view.number, seal);
            }
        }
        drop(held);
        drop(turn);
    }

    /// Finds out whether a watch's watchpoints are still there, and closes its pages if they are not.
    pub(super) fn look_after_watchpoints(&self, setup: &Setup, serial: u32) {
        if serial == 0 || self.seals.shadows.of(serial).is_none() || self.platform.is_armed(serial) {
            return;
        }
        let turn = self.take_turn();
        let held = self.seals.lock.hold(&self.platform);
        if let Some(view) = self.by_watchpoints().find(|view| view.serial == serial)
            && let Some(seal) = self.seals.entry(view.number)
        {
            self.fall_back(setup, view.number, seal);
        }
        drop(held);
        drop(turn);
    }

    /// Goes on with a watch by closing its pages, if they are its block's own. Under the turn and the seals' lock.
    fn fall_back(&self, setup: &Setup, index: usize, seal: &Seal) {
        let view = seal.view(index);
        let start = view.exact.start;
        if seal.slot.load(Ordering::Relaxed) == 0 {
            self.end_seal(index, seal);
            self.complain(format_args!("the watch at {start:#x} has ended: its watchpoints are gone"));
            return;
        }
        self.end_watchpoints(view.serial);
        let pages = setup.geometry().pages_of(start, view.exact.len);
        seal.close(pages);
        self.seals.file(index, seal);
        if self.put_in_force(pages, None).is_err() {
            self.complain(format_args!("the watch at {start:#x} sees nothing any more"));
        } else {
            self.complain(format_args!(
                "the watch at {start:#x} goes on by closing its pages: its watchpoints are gone"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_changed_is_from_the_first_to_the_last_byte_that_differs() {
        assert_eq!(changed(b"abcdef", b"abcdef"), None);
        assert_eq!(changed(b"abcdef", b"abXdYf"), Some(2..5));
        assert_eq!(changed(b"abcdef", b"Xbcdef"), Some(0..1));
        assert_eq!(changed(b"ab", b"abcd"), Some(2..4), "what could not be read before has changed");
        assert_eq!(part_of(&Bytes::new(b"abcdef"), &(2..5)).as_slice(), b"cde");
        assert!(part_of(&Bytes::new(b"abc"), &(2..5)).is_empty());
    }
}
