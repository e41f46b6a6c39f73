//! A fault on pages that were closed on purpose. Runs in the fault handler.
//!
//! The bytes decide. An access to sealed, watched or tripped bytes is what they were closed for; any other access to the
//! same pages runs by itself in silence. What an access changes is known when its instruction has run, so the report
//! or the note waits for the end of the step.

use core::sync::atomic::Ordering;

use fencepost_record::{AccessType, Bytes, CHANGED_MAX, ErrorKind, Note};
use fencepost_sys::{Fault, Platform, Range, Steps, Verdict};

use super::log::Entry;
use super::table::SealView;
use crate::diagnose::Beside;
use crate::geometry::align_down;
use crate::options::OnError;
use crate::report::{Case, Frames, Walk};
use crate::runtime::{Guard, Setup};
use crate::slot::Act;
use crate::step::Closing;

/// What is to be said when the instruction of a step has run.
pub(crate) struct Pending {
    report: Option<Report>,
    entry: Option<Entry>,
    /// What the instruction touches.
    touched: Range,
}

/// A report without what the instruction leaves.
struct Report {
    case: Case,
    fault: Fault,
    walk: Walk,
    /// Whether the process ends with it.
    is_deadly: bool,
}

impl Pending {
    /// What the instruction touches.
    pub(crate) fn touched(&self) -> Range {
        self.touched
    }

    /// The watch, and who wrote where, if it is to be noted.
    pub(crate) fn noted(&self) -> Option<(u32, Act, usize)> {
        self.entry.as_ref().map(|entry| (entry.serial, entry.act, entry.pc))
    }

    /// This and what another fault of the same instruction has added.
    pub(crate) fn and(self, more: Pending) -> Pending {
        Pending {
            report: self.report.or(more.report),
            entry: self.entry.or(more.entry),
            touched: self.touched,
        }
    }
}

impl<P: Platform> Guard<P> {
    /// Handles a fault on a page that was closed on purpose; `None` when it is not one.
    pub(crate) fn on_closed_page(&self, setup: &Setup, fault: &Fault, address: usize) -> Option<Verdict> {
        if !self.seals.were_used() || fault.access == AccessType::Execute {
            return None;
        }
        let page =
            Range { start: align_down(address, setup.geometry().page()), len: setup.geometry().page() };
        self.seals.allowed(page)?;
        let start = fault.start.unwrap_or(address);
        let touched = Range { start, len: fault.size.map_or(1, |size| size as usize).max(1) };
        // The second page of an operand whose first has been dealt with.
        let is_rest = self.stepping.touches(&self.platform, fault.pc) == Some(touched);
        let [violated, tripped, watched] = if is_rest {
            [None; 3]
        } else {
            self.seals.touched(touched, fault.access == AccessType::Write, fault.can_write)
        };
        let mut pending = Pending { report: None, entry: None, touched };
        if let Some(seal) = violated {
            let case = self.closed_case(setup, ErrorKind::SealViolation, fault, touched, seal);
            self.count_hit(&seal);
            if self.on_error(setup) == OnError::Continue {
                pending.report = self.report_later(fault, case);
            } else if self.platform.ready_to_step(self.hooks.on_step) == Steps::Impossible {
                return Some(self.ours(setup, fault, address, case));
            } else {
                let walk = self.walk(&Frames::Fault(fault));
                pending.report = Some(Report { case, fault: *fault, walk, is_deadly: true });
            }
        }
        if let Some(wire) = tripped
            && self.fire(&wire)
        {
            let case = self.closed_case(setup, ErrorKind::Tripwire, fault, touched, wire);
            pending.report = pending.report.or_else(|| self.report_later(fault, case));
        }
        if let Some(watch) = watched {
            self.count_hit(&watch);
            let walk = self.walk(&Frames::Fault(fault));
            let act = self.act_of_walk(setup, &walk, fault.pc);
            pending.entry = Some(Entry::of(watch.serial, act, start, fault.pc, self.bytes_of(touched)));
        }
        Some(self.step_on_closed(setup, fault, address, pending))
    }

    fn closed_case(
        &self,
        setup: &Setup,
        kind: ErrorKind,
        fault: &Fault,
        touched: Range,
        mut seal: SealView,
    ) -> Case {
        let mut case = Case::of(kind, fault.access, touched.start);
        case.access.size = fault.size;
        if self.heap.addresses().contains(touched.start) {
            let here = self.surroundings(setup, touched.start).here;
            case.block = here.map(|slot| Beside::of(slot, touched.start));
        }
        seal.old = self.bytes_of(touched);
        case.seal = Some(seal);
        case
    }

    /// What bytes hold now, where they can be read.
    pub(super) fn bytes_of(&self, touched: Range) -> Bytes {
        let mut room = [0u8; CHANGED_MAX];
        let wanted = room.get_mut(..touched.len.min(CHANGED_MAX)).unwrap_or(&mut []);
        let got = self.platform.read_checked(touched.start, wanted);
        Bytes::new(wanted.get(..got).unwrap_or(&[]))
    }

    pub(super) fn count_hit(&self, view: &SealView) {
        let entry = self.seals.entry(view.number);
        if let Some(seal) = entry.filter(|seal| seal.serial.load(Ordering::Relaxed) == view.serial) {
            seal.hits.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Ends a tripwire; false when another thread's access was first. Its pages open as the step on them ends.
    pub(super) fn fire(&self, view: &SealView) -> bool {
        let Some(seal) = self.seals.entry(view.number) else { return false };
        if seal.serial.compare_exchange(view.serial, 0, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            return false;
        }
        self.release_slot(seal);
        self.seals.give_back(view.number);
        seal.hits.fetch_add(1, Ordering::AcqRel);
        self.platform.wake(&seal.hits);
        true
    }

    /// Walks the stack now, for a report after the step; `None` when the site has had its share.
    fn report_later(&self, fault: &Fault, mut case: Case) -> Option<Report> {
        case.notes.add(match self.platform.ready_to_step(self.hooks.on_step) {
            Steps::Alone => Note::SteppedAlone,
            Steps::Shared => Note::SteppedShared,
            Steps::Impossible => Note::PageOpened,
        });
        if !self.is_expecting() && self.reporter.is_site_full(crate::step::site_of(&case, fault.pc)) {
            return None;
        }
        Some(Report { case, fault: *fault, walk: self.walk(&Frames::Fault(fault)), is_deadly: false })
    }

    /// Lets the instruction run, and says afterwards what there is to say.
    fn step_on_closed(&self, setup: &Setup, fault: &Fault, address: usize, pending: Pending) -> Verdict {
        if self.platform.ready_to_step(self.hooks.on_step) == Steps::Impossible {
            self.say(setup, pending);
            if self.stepping.opened.fetch_add(1, Ordering::Relaxed) == 0 {
                self.complain(format_args!(
                    "no instruction can be run by itself here (a debugger?): closed pages stay open after the first access"
                ));
            }
            self.open_sealed_page(address);
            return Verdict::Resume;
        }
        let verdict = self.step_over(setup, fault, address, Closing::Sealed, 0);
        if verdict == Verdict::Step {
            // SAFETY: this thread has the turn now.
            unsafe { self.stepping.wait_with(pending) };
            return verdict;
        }
        if self.say(setup, pending) { Verdict::Die } else { verdict }
    }

    /// Looks at what an instruction has left, and notes it for its watch. With the turn, and the pages still open. What
    /// a deadly write has changed is changed back: while the report is written other threads still run.
    pub(crate) fn note_result(&self, setup: &Setup, pending: &mut Pending) {
        let new = self.bytes_of(pending.touched);
        if let Some(entry) = &mut pending.entry {
            entry.new = new;
            // SAFETY: the caller has the turn.
            unsafe { self.log.push(entry) };
            // Watches may overlap: each has its note.
            for view in self.seals.watches_of(pending.touched).filter(|view| view.serial != entry.serial) {
                self.count_hit(&view);
                // SAFETY: as above.
                unsafe { self.log.push(&Entry { serial: view.serial, ..*entry }) };
            }
        }
        let Some(Report { case, is_deadly, .. }) = &mut pending.report else { return };
        let Some(seal) = case.seal.as_mut().filter(|seal| !seal.old.is_empty()) else { return };
        seal.new = new;
        if *is_deadly && self.open_to_all(setup).is_ok() {
            for (at, byte) in (pending.touched.start..).zip(seal.old.as_slice()) {
                // SAFETY: the instruction has just written there, in pages that this step keeps open.
                unsafe { core::ptr::with_exposed_provenance_mut::<u8>(at).write_volatile(*byte) };
            }
        }
    }

    /// Writes the report of an instruction that has run; whether the process ends with it.
    pub(crate) fn report_result(&self, setup: &Setup, pending: &Pending) -> bool {
        let Some(Report { case, fault, walk, is_deadly }) = &pending.report else { return false };
        let reported = self.report_walked(setup, case, &Frames::Fault(fault), walk, !is_deadly);
        if *is_deadly {
            self.after_deadly(setup, reported);
        }
        *is_deadly
    }

    /// Says what there is to say where no step can be had: without what the instruction leaves. Whether the process
    /// ends with it.
    fn say(&self, setup: &Setup, pending: Pending) -> bool {
        if let Some(entry) = &pending.entry
            && self.stepping.turn().take_for_change(&self.platform)
        {
            // SAFETY: this thread has the turn.
            unsafe { self.log.push(entry) };
            self.stepping.turn().give_back(&self.platform);
        }
        self.report_result(setup, &pending)
    }

    /// This thread and a stack that was walked, as the log keeps them. No stack where the program interrupted the
    /// runtime, which may hold the depot.
    pub(super) fn act_of_walk(&self, setup: &Setup, walk: &Walk, pc: usize) -> Act {
        let Some(state) = self.thread_if_known() else { return self.act_without_stack(setup) };
        let nested = state.depth.load(Ordering::Relaxed) != 0;
        self.threads.remember(&self.platform, state);
        let frames = walk.from(pc);
        let trace = if nested { 0 } else { self.depot.keep(&self.platform, frames) };
        Act { trace, thread: state.number.load(Ordering::Relaxed), ms: self.now(setup) }
    }

    /// This thread now, and no stack.
    pub(super) fn act_without_stack(&self, setup: &Setup) -> Act {
        let thread = self.thread_if_known().map_or(0, |state| state.number.load(Ordering::Relaxed));
        Act { thread, ms: self.now(setup), ..Act::default() }
    }
}
