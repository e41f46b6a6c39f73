//! What runs in the fault handler. Everything called from here may run on a small stack in a thread that was
//! interrupted anywhere: no heap, no lock but the reporter's, no assumption about the program's state.
//!
//! First the address decides whether the fault is ours, by arithmetic alone; what is not ours goes on to whoever was
//! there before, as if we were not here. Null dereferences, stack overflows and wild accesses are described first
//! only when nobody else will.

use core::sync::atomic::Ordering;

use fencepost_record::{Access, AccessType, Confidence, ErrorKind, Note, Notes};
use fencepost_sys::{Fault, Platform, Range, Verdict};

use crate::diagnose::{Surroundings, diagnose};
use crate::geometry::{Place, align_down};
use crate::heap::Found;
use crate::options::OnError;
use crate::pattern::FILL_RANGE;
use crate::report::{Case, Frames};
use crate::runtime::{Guard, Setup};
use crate::slot::{SlotState, SlotView};
use crate::span::Use;
use crate::threads::ThreadState;

/// Addresses below this are a null pointer and an offset.
const NULL_RANGE: usize = 64 << 10;
/// How far below its stack, and how far from its stack pointer, a thread that overflows its stack may touch.
const OVERFLOW_REACH: usize = 1 << 20;

impl<P: Platform> Guard<P> {
    /// Decides about a fault. Runs in the fault handler.
    pub fn on_fault(&self, fault: &Fault) -> Verdict {
        let Some(setup) = self.ready() else { return Verdict::Pass };
        if fault.held {
            self.stepping.turn().wait_out(&self.platform);
            return Verdict::Resume;
        }
        let verdict = self.decide(setup, fault);
        if verdict != Verdict::Step {
            self.end_own_step(setup);
        }
        verdict
    }

    fn decide(&self, setup: &Setup, fault: &Fault) -> Verdict {
        if self.reporter.dying.load(Ordering::Relaxed) == self.platform.thread_id() {
            // Reported already: this is the same instruction again, or the program's last steps.
            return Verdict::Die;
        }
        if self.reporter.owner.load(Ordering::Relaxed) == self.platform.thread_id() {
            return self.fault_while_reporting(fault);
        }
        if fault.sent {
            return Verdict::Pass;
        }
        let Some(address) = fault.address else {
            return self.not_ours(setup, fault, ErrorKind::WildAccess, Notes::NONE.with(Note::NonCanonical));
        };
        if let Some(verdict) = self.on_closed_page(setup, fault, address) {
            return verdict;
        }
        if let Found::Outside = self.heap.find(setup.geometry(), address) {
            // A seal may have ended between the fault and now: the instruction runs once more. Where that finds the page open,
            // only if it can have been ours.
            let can_be_ours = self.seals.were_used() && (!fault.once || self.seals.had_tripwire(address));
            if fault.access != AccessType::Execute && can_be_ours && self.is_doubt_new(address) {
                return Verdict::Resume;
            }
            if let Some(region) = (self.hooks.region)(address) {
                return self.in_region(setup, fault, address, region);
            }
            return self.outside(setup, fault, address);
        }
        self.in_heap(setup, fault, address)
    }

    /// A fault of the reporter itself: while it resolves names, that is what is given up; else the process ends as
    /// it would have without us.
    fn fault_while_reporting(&self, fault: &Fault) -> Verdict {
        if self.reporter.rendering.swap(0, Ordering::SeqCst) != 0 {
            // SAFETY: `rendering` is set only around the call on the report stack, by the thread that owns the
            // report, which is this one.
            unsafe { self.platform.abandon_call() }
        }
        if fault.sent {
            // The watchdog, too late to matter.
            return Verdict::Resume;
        }
        self.complain(format_args!("fault while reporting: the report above is not complete"));
        Verdict::Die
    }

    fn in_heap(&self, setup: &Setup, fault: &Fault, address: usize) -> Verdict {
        let around = self.surroundings(setup, address);
        let began = fault.start.unwrap_or(address);
        let access = Access { kind: fault.access, address: Some(began as u64), size: fault.size };
        let finding = diagnose(&around, address, fault.access);
        if finding.kind == ErrorKind::SealViolation && self.is_doubt_new(address) {
            // Sealed elsewhere only: a seal on this page has just ended.
            return Verdict::Resume;
        }
        let mut case = Case::of_finding(&finding, access, None);
        if fault.decoded {
            case.notes.add(Note::AddressDecoded);
        }
        if self.is_first_look(setup, &case, address, fault) {
            return Verdict::Resume;
        }
        self.ours(setup, fault, address, case)
    }

    /// A fault inside a live, unsealed block has no reason that lasts: another thread has just opened the page, or
    /// has just ended a seal. The instruction runs once more before we believe it.
    fn is_first_look(&self, setup: &Setup, case: &Case, address: usize, fault: &Fault) -> bool {
        let doubtful = case.kind == ErrorKind::WildAccess
            && fault.access != AccessType::Execute
            && case.block.is_some_and(|block| block.slot.state == SlotState::Live);
        let again = doubtful && self.is_doubt_new(address);
        if again {
            self.put_back(setup, address);
        }
        again
    }

    /// Whether this thread's last doubt was about another address.
    fn is_doubt_new(&self, address: usize) -> bool {
        self.thread_if_known()
            .is_some_and(|state| state.last_doubt.swap(address, Ordering::Relaxed) != address)
    }

    pub(crate) fn ours(&self, setup: &Setup, fault: &Fault, address: usize, case: Case) -> Verdict {
        if self.on_error(setup) == OnError::Continue {
            return self.go_on(setup, fault, address, case);
        }
        let reported = self.report_once(setup, &case, &Frames::Fault(fault), false);
        self.after_deadly(setup, reported);
        Verdict::Die
    }

    /// What follows a deadly report: the process leaves here, if it is to by its status, or else by the verdict.
    pub(crate) fn after_deadly(&self, setup: &Setup, reported: bool) {
        if setup.options.on_error == OnError::Exit {
            self.leave_process(setup);
        }
        // If not, another fault of this thread's is being handled below us; let it speak.
        if reported {
            self.write_summary_line(setup);
        }
    }

    /// Opens the page of a reported access, where it cannot be for one instruction only.
    pub(crate) fn open_for_good(&self, setup: &Setup, address: usize, kind: ErrorKind) {
        if kind == ErrorKind::SealViolation {
            return self.open_sealed_page(address);
        }
        if let Found::Outside = self.heap.find(setup.geometry(), address) {
            return self.open_region_page(address);
        }
        // A straddling access faults again on the next page.
        if !self.open_heap_page(setup, address) {
            self.complain(format_args!(
                "the page at {:#x} could not be opened: the program cannot go on",
                align_down(address, setup.geometry().page())
            ));
            self.platform.die_by_abort();
        }
    }

    /// A fault at an address that is not the heap's.
    fn outside(&self, setup: &Setup, fault: &Fault, address: usize) -> Verdict {
        let stack = self.thread_if_known().map(ThreadState::stack).unwrap_or_default();
        let (kind, notes) = if is_overflow(stack, address, fault.sp, setup.geometry().page()) {
            (ErrorKind::StackOverflow, Notes::NONE)
        } else if address < NULL_RANGE {
            (ErrorKind::NullDereference, Notes::NONE)
        } else if FILL_RANGE.contains(address) {
            (ErrorKind::WildAccess, Notes::NONE.with(Note::FillPattern))
        } else {
            (ErrorKind::WildAccess, Notes::NONE)
        };
        self.not_ours(setup, fault, kind, notes)
    }

    /// Describes a fault that is not ours, if nobody else will, and lets it take its course.
    fn not_ours(&self, setup: &Setup, fault: &Fault, kind: ErrorKind, mut notes: Notes) -> Verdict {
        if fault.others {
            return Verdict::Pass;
        }
        if fault.decoded {
            notes.add(Note::AddressDecoded);
            if fault.address.is_some_and(|address| !crate::free::is_canonical(address)) {
                notes.add(Note::NonCanonical);
            }
        }
        let mut case = Case::of(kind, fault.access, 0);
        case.access.address = fault.address.map(|address| address as u64);
        case.access.size = fault.size;
        case.notes = notes;
        case.confidence = if kind == ErrorKind::WildAccess { Confidence::Low } else { Confidence::High };
        let reported = self.report_once(setup, &case, &Frames::Fault(fault), false);
        if setup.options.on_error == OnError::Exit {
            self.leave_process(setup);
        }
        if reported {
            self.write_summary_line(setup);
        }
        Verdict::Die
    }

    /// What lies at and around an address of the heap. Takes no lock.
    pub(crate) fn surroundings(&self, setup: &Setup, address: usize) -> Surroundings {
        let mut around = Surroundings { page: setup.geometry().page(), ..Surroundings::default() };
        match self.heap.find(setup.geometry(), address) {
            Found::Outside | Found::Unused => {
                around.here = Some(Self::nothing());
                around.below = self.last_slot_before(setup, self.span_index(address));
            }
            Found::Forgotten => around.forgotten = true,
            Found::Small { index, pages, place } => {
                let slots = setup.geometry().slots_per_span(pages);
                let view = |slot: usize| {
                    self.heap.slot(index, slot).filter(|_| slot < slots).map(|slot| self.heap.view(slot))
                };
                let (here, below, above) = match place {
                    Place::Data(slot) => (view(slot), slot.checked_sub(1), slot.wrapping_add(1)),
                    Place::GuardBefore(slot) => (None, slot.checked_sub(1), slot),
                    Place::Beyond => (None, slots.checked_sub(1), slots),
                };
                around.here = here;
                around.below = match below {
                    Some(slot) => view(slot),
                    None => self.last_slot_before(setup, index),
                };
                around.above = view(above);
            }
            Found::Large { index } => self.around_large(setup, index, address, &mut around),
        }
        around
    }

    fn around_large(&self, setup: &Setup, index: usize, address: usize, around: &mut Surroundings) {
        let Some(mut view) = self.heap.slot(index, 0).map(|slot| self.heap.view(slot)) else { return };
        if view.state == SlotState::Live && self.was_moved(index) {
            // Its pages are in another block already, and its free comes next.
            view.state = SlotState::Freeing;
        }
        let data = setup.geometry().pages_of(view.pointer, view.size);
        if data.contains(address) {
            around.here = Some(view);
        } else if address >= data.end() {
            around.below = Some(view);
        } else {
            around.above = Some(view);
            around.below = self.last_slot_before(setup, index);
        }
    }

    fn nothing() -> SlotView {
        SlotView {
            state: SlotState::Empty,
            pointer: 0,
            size: 0,
            align: 1,
            sealed: false,
            allocated: Default::default(),
            freed: Default::default(),
        }
    }

    fn span_index(&self, address: usize) -> usize {
        let addresses = self.heap.addresses();
        let index = address.wrapping_sub(addresses.start) / crate::geometry::SPAN_BYTES;
        index.min(self.heap.spans_used())
    }

    /// The last block in the run before a span.
    fn last_slot_before(&self, setup: &Setup, index: usize) -> Option<SlotView> {
        let head = self.heap.head_of(index.checked_sub(1)?)?;
        let span = self.heap.span(head)?;
        if span.forgotten.load(Ordering::Acquire) != 0 {
            return None;
        }
        let number = match span.usage() {
            Use::Unused => return None,
            Use::Large => 0,
            Use::Small(pages) => setup.geometry().slots_per_span(pages).checked_sub(1)?,
        };
        self.heap.slot(head, number).map(|slot| self.heap.view(slot))
    }
}

/// Whether a thread touched memory past the end of its stack.
fn is_overflow(stack: Range, address: usize, sp: usize, page: usize) -> bool {
    let low = stack.start.saturating_sub(OVERFLOW_REACH);
    let high = stack.start.saturating_add(page);
    stack.len != 0 && address >= low && address < high && address.abs_diff(sp) < OVERFLOW_REACH
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_overflow_is_near_the_stack_pointer_and_below_the_stack() {
        let stack = Range { start: 0x7000_0000, len: 0x20_0000 };
        assert!(is_overflow(stack, 0x6fff_fff8, 0x7000_0010, 4096));
        assert!(is_overflow(stack, 0x6fff_0000, 0x6fff_0000, 4096));
        assert!(!is_overflow(stack, 0x6fff_fff8, 0x701f_0000, 4096), "a stray pointer just below the stack");
        assert!(!is_overflow(stack, 0x7010_0000, 0x7010_0000, 4096));
        assert!(!is_overflow(Range::default(), 8, 16, 4096));
    }
}
