//! System calls on pages that were closed on purpose, where somebody stands between the program and the kernel.
//!
//! The kernel does not fault: it would answer `EFAULT`. So before the call it is said what there is to say, the pages are
//! opened, and after the call they are closed again. Meanwhile they are open to all threads.

use fencepost_record::{AccessType, ErrorKind, Note};
use fencepost_sys::atomic::{AtomicUsize, Ordering};
use fencepost_sys::{Platform, Protection, Range};

use super::log::Entry;
use super::table::SealView;
use crate::diagnose::Beside;
use crate::geometry::align_down;
use crate::report::{Case, Frames};
use crate::runtime::{Guard, Setup};

/// Buffers of one call whose pages are closed again after it.
const BUFFERS: usize = 8;

/// The pages that a thread's call has open.
pub(crate) struct Opened {
    buffers: [(AtomicUsize, AtomicUsize); BUFFERS],
    count: AtomicUsize,
}

impl Opened {
    /// Forgets what another thread had open.
    pub(crate) fn clear(&self) {
        self.count.store(0, Ordering::Relaxed);
    }

    fn push(&self, pages: Range) {
        let count = self.count.load(Ordering::Relaxed);
        if let Some((start, len)) = self.buffers.get(count) {
            start.store(pages.start, Ordering::Relaxed);
            len.store(pages.len, Ordering::Relaxed);
            self.count.store(count.wrapping_add(1), Ordering::Relaxed);
        }
    }
}

impl<P: Platform> Guard<P> {
    /// Looks at a buffer of a system call that lies on closed pages, and opens them; false when they are not closed.
    pub(crate) fn before_call_on_closed(
        &self,
        setup: &Setup,
        buffer: Range,
        access: AccessType,
        anchor: usize,
    ) -> bool {
        if !self.seals.were_used() {
            return false;
        }
        if self.note_before_call(setup, buffer, access, anchor)
            && let Some(state) = self.thread_if_known()
        {
            state.opened.push(buffer);
        }
        let pages = setup.geometry().pages_of(buffer.start, buffer.len);
        let has_leave = match self.seals.allowed(pages) {
            None => return false,
            // The kernel asks the thread's leave, as the processor does.
            Some(Protection::Keyed) if access != AccessType::Write => {
                self.platform.let_read();
                return false;
            }
            Some(Protection::Keyed) if self.platform.can_write() => return false,
            Some(_) => self.platform.can_write(),
        };
        let [violated, tripped, watched] = self.seals.touched(buffer, access == AccessType::Write, has_leave);
        if let Some(seal) = violated {
            self.count_hit(&seal);
            let case = self.case_of_call(ErrorKind::SealViolation, buffer, access, seal);
            self.report(setup, &case, &Frames::Here(anchor));
        }
        if let Some(wire) = tripped
            && self.fire(&wire)
        {
            let case = self.case_of_call(ErrorKind::Tripwire, buffer, access, wire);
            self.report_once(setup, &case, &Frames::Here(anchor), true);
        }
        // Of those by watchpoints there was a word above.
        let act = watched.map(|_| self.act(setup, anchor));
        let turn = self.take_turn();
        if let Some(act) = act {
            let by_pages = |view: &SealView| !view.is_by_hardware();
            for watch in self.seals.watches_of(buffer).filter(by_pages) {
                self.count_hit(&watch);
                let entry = Entry::of(watch.serial, act, buffer.start, 0, self.bytes_of(buffer));
                // SAFETY: this thread has the turn.
                unsafe { self.log.push(&entry) };
            }
        }
        let page_bytes = setup.geometry().page();
        for start in (pages.start..pages.end()).step_by(page_bytes) {
            let page = Range { start, len: page_bytes };
            if self.seals.allowed(page).is_some() || tripped.is_some() {
                // SAFETY: the page is held by a seal, a watch or a tripwire, or was until now; it is closed again after the call.
                let opened = unsafe { self.set_allowed(page, Protection::ReadWrite) };
                // Where it cannot be opened the call fails, as it would have without us.
                let _ = opened;
            }
        }
        drop(turn);
        if let Some(state) = self.thread_if_known() {
            state.opened.push(pages);
        }
        true
    }

    fn case_of_call(&self, kind: ErrorKind, buffer: Range, access: AccessType, mut seal: SealView) -> Case {
        let mut case = Case::of(kind, access, buffer.start);
        case.access.size = u32::try_from(buffer.len).ok();
        if let Some(setup) = self.ready().filter(|_| self.heap.owns(buffer.start)) {
            let here = self.surroundings(setup, buffer.start).here;
            case.block = here.map(|slot| Beside::of(slot, buffer.start));
        }
        seal.old = self.bytes_of(buffer);
        case.seal = Some(seal);
        case.notes.add(Note::BeforeSystemCall);
        case
    }

    /// The system call has come back: pages that it needed open and that are still held close again.
    #[inline]
    pub fn after_call(&self) {
        if self.seals.were_used() {
            self.close_after_call();
        }
    }

    #[cold]
    fn close_after_call(&self) {
        let (Some(setup), Some(state)) = (self.ready(), self.thread_if_known()) else { return };
        let count = state.opened.count.swap(0, Ordering::Relaxed);
        if count == 0 {
            return;
        }
        let turn = self.take_turn();
        for (start, len) in state.opened.buffers.iter().take(count) {
            let pages = Range { start: start.load(Ordering::Relaxed), len: len.load(Ordering::Relaxed) };
            self.refresh_shadows(pages);
            let page_bytes = setup.geometry().page();
            for start in (pages.start..pages.end()).step_by(page_bytes) {
                let page = Range { start: align_down(start, page_bytes), len: page_bytes };
                // What nobody holds any more was opened, or freed: it is as it has to be.
                if let Some(allowed) = self.seals.allowed(page) {
                    // SAFETY: the page is held by a seal, a watch or a tripwire.
                    let closed = unsafe { self.set_allowed(page, allowed) };
                    if closed.is_err() {
                        self.complain(format_args!("the page at {start:#x} stays open after a system call"));
                    }
                }
            }
        }
        drop(turn);
    }
}
