//! Going on after a fault: the one instruction runs with the page open, and then the page closes again.
//!
//! A step begins in the fault handler ([`Guard::step_over`]) and ends in the notice that the instruction has run
//! ([`Guard::on_step`]). One step runs at a time in a process: whoever steps has the *turn*, and so has whoever
//! changes what sealed pages allow. An instruction may touch several closed pages: each raises a fault of its own, and
//! joins the pages that are open. A repeated instruction (`rep movs`) comes back to itself: its pages stay open until
//! it moves on, within a bound.
//!
//! What such an access sees: the page behind a guard has zeros at first, one of a freed block what the block held
//! ([`crate::remains`]), and then what was written to it, so that a program which goes on reads back what it wrote. That content
//! is kept for some pages ([`kept`]), else dropped after the instruction. Addresses that may yet be handed out keep none.
//!
//! Invariants: the turn is never waited for by a thread that has it; a step that does not end (the program left it by
//! a jump from a handler of its own) loses its turn to the next who waits; no step is left open by a fault that is
//! not ours.

mod closing;
mod kept;
mod turn;

use core::cell::UnsafeCell;

use fencepost_record::{AccessType, ErrorKind, Note};
use fencepost_sys::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use fencepost_sys::{AfterStep, Fault, Platform, Protection, Range, Steps, Verdict, VmResult};

use crate::engine::{Closed, Engine};
use crate::geometry::align_down;
use crate::report::{Case, Frames};
use crate::runtime::{Guard, Setup};
use crate::seal::Pending;
pub(crate) use closing::Closing;
use kept::Kept;
use turn::{Taken, Turn};

/// Pages that one instruction may have open: a gather of 16 elements that all straddle two pages.
const OPEN: usize = 32;
/// How often a repeated instruction may come back before its pages stay open for good.
const ROUNDS_MAX: usize = 1 << 18;

/// A page that is open for the running step.
struct OpenPage {
    start: AtomicUsize,
    closing: AtomicU32,
}

/// The state of stepping. All but `kept` belongs to whoever has the turn.
pub(crate) struct Stepping {
    turn: Turn,
    /// The instruction that runs, and how often it has come back; 0 while no step runs.
    pc: AtomicUsize,
    rounds: AtomicUsize,
    /// What the running step has reported last: a hash of the kind and the block.
    reported: AtomicUsize,
    pages: [OpenPage; OPEN],
    open: AtomicUsize,
    kept: Kept,
    /// What is said when the running step has ended.
    pending: UnsafeCell<Option<Pending>>,
    /// Steps begun.
    pub(crate) taken: AtomicU64,
    /// Pages that stayed open because a step could not be had.
    pub(crate) opened: AtomicU64,
}

impl Stepping {
    pub(crate) const fn new() -> Self {
        Stepping {
            turn: Turn::new(),
            pc: AtomicUsize::new(0),
            rounds: AtomicUsize::new(0),
            reported: AtomicUsize::new(0),
            pages: [const { OpenPage { start: AtomicUsize::new(0), closing: AtomicU32::new(0) } }; OPEN],
            open: AtomicUsize::new(0),
            kept: Kept::new(),
            pending: UnsafeCell::new(None),
            taken: AtomicU64::new(0),
            opened: AtomicU64::new(0),
        }
    }

    /// The turn, for who changes sealed pages and for both sides of a fork.
    pub(crate) fn turn(&self) -> &Turn {
        &self.turn
    }

    /// Keeps what is to be said at the end of the running step.
    ///
    /// # Safety
    /// The caller has the turn.
    pub(crate) unsafe fn wait_with(&self, pending: Pending) {
        // SAFETY: only who has the turn touches it.
        let place = unsafe { &mut *self.pending.get() };
        *place = Some(match place.take() {
            Some(before) => before.and(pending),
            None => pending,
        });
    }

    /// What the running step of this thread, at this instruction, touches, as far as something is to be said of it.
    pub(crate) fn touches<P: Platform>(&self, platform: &P, pc: usize) -> Option<Range> {
        if !self.turn.is_mine(platform) || self.pc.load(Ordering::Relaxed) != pc {
            return None;
        }
        // SAFETY: this thread has the turn.
        unsafe { (*self.pending.get()).as_ref() }.map(Pending::touched)
    }

    /// The pages that are open for the running step.
    fn pages_open(&self) -> impl Iterator<Item = (usize, Closing)> {
        let open = self.open.load(Ordering::Relaxed);
        self.pages.iter().take(open).map(|page| {
            (page.start.load(Ordering::Relaxed), Closing::of_number(page.closing.load(Ordering::Relaxed)))
        })
    }

    fn push(&self, start: usize, closing: Closing) {
        let open = self.open.load(Ordering::Relaxed);
        if let Some(place) = self.pages.get(open) {
            place.start.store(start, Ordering::Relaxed);
            place.closing.store(closing as u32, Ordering::Relaxed);
            self.open.store(open.wrapping_add(1), Ordering::Relaxed);
        }
    }
}

impl<P: Platform> Guard<P> {
    /// How often an instruction was run by itself.
    pub fn steps(&self) -> u64 {
        self.stepping.taken.load(Ordering::Relaxed)
    }

    /// Goes on after an error: reports it, unless that is known already, and lets the instruction have its access.
    pub(crate) fn go_on(&self, setup: &Setup, fault: &Fault, address: usize, mut case: Case) -> Verdict {
        let steps = self.platform.ready_to_step(self.hooks.on_step);
        let closing = self.closing_of(setup, address, case.kind);
        let leaves_open = steps == Steps::Impossible || closing == Closing::Leave;
        case.notes.add(match steps {
            _ if leaves_open => Note::PageOpened,
            Steps::Alone => Note::SteppedAlone,
            _ => Note::SteppedShared,
        });
        if fault.access == AccessType::Execute {
            // Memory that was opened cannot be executed either.
            let reported = self.report_once(setup, &case, &Frames::Fault(fault), false);
            if reported {
                self.write_summary_line(setup);
            }
            return Verdict::Die;
        }
        let what = what_of(&case);
        if !self.is_same_access(fault, what)
            && (self.is_expecting() || !self.reporter.is_site_full(site_of(&case, fault.pc)))
        {
            self.report_once(setup, &case, &Frames::Fault(fault), true);
        }
        if leaves_open {
            self.stepping.opened.fetch_add(1, Ordering::Relaxed);
            self.open_for_good(setup, address, case.kind);
            if closing == Closing::Keep {
                let page = setup.geometry().page();
                self.put_remains(setup, Range { start: align_down(address, page), len: page });
            }
            return Verdict::Resume;
        }
        self.step_over(setup, fault, address, closing, what)
    }

    /// Whether this is one more page of an access that the running step has reported.
    fn is_same_access(&self, fault: &Fault, what: usize) -> bool {
        let stepping = &self.stepping;
        stepping.turn.is_mine(&self.platform)
            && stepping.pc.load(Ordering::Relaxed) == fault.pc
            && stepping.reported.load(Ordering::Relaxed) == what
    }

    /// Opens the page of a fault for its instruction alone.
    pub(crate) fn step_over(
        &self,
        setup: &Setup,
        fault: &Fault,
        address: usize,
        closing: Closing,
        what: usize,
    ) -> Verdict {
        let stepping = &self.stepping;
        let page =
            Range { start: align_down(address, setup.geometry().page()), len: setup.geometry().page() };
        match stepping.turn.take(&self.platform) {
            Taken::New => {
                // Where a thread that had lost its turn went on, before it noticed, its page is left.
                self.close_all(setup);
                self.begin_step(fault);
            }
            Taken::FromAbandoned => {
                // What its thread had to say is lost with it: this one's name would be wrong.
                // SAFETY: this thread has the turn.
                unsafe { *stepping.pending.get() = None };
                self.close_all(setup);
                self.begin_step(fault);
            }
            Taken::Held if stepping.pc.load(Ordering::Relaxed) == fault.pc => {}
            Taken::Held if stepping.pc.load(Ordering::Relaxed) == 0 => {
                // This thread was interrupted while it changed what pages allow: no step can begin.
                return self.open_instead(setup, address, closing);
            }
            Taken::Held => {
                // A step that the program left by a jump.
                self.close_all(setup);
                self.begin_step(fault);
            }
        }
        stepping.reported.store(what, Ordering::Relaxed);
        if stepping.pages_open().any(|(start, _)| start == page.start) {
            self.end_step(setup);
            self.complain(format_args!(
                "the page at {:#x} could not be opened: the program cannot go on",
                page.start
            ));
            self.platform.die_by_abort();
        }
        if stepping.open.load(Ordering::Relaxed) == OPEN {
            // Only an instruction that repeats itself comes so far: its first pages are behind it.
            self.close_all(setup);
        }
        if self.open_page(setup, page, closing).is_err() {
            self.end_step(setup);
            return self.open_instead(setup, address, closing);
        }
        if !stepping.turn.is_mine(&self.platform) {
            // It was stopped on the way for so long that another took its turn, who may need the same page.
            if !stepping.pages_open().any(|(start, _)| start == page.start) {
                self.close_or_say(setup, page, closing);
            }
            return Verdict::Resume;
        }
        stepping.push(page.start, closing);
        Verdict::Step
    }

    fn begin_step(&self, fault: &Fault) {
        self.stepping.pc.store(fault.pc, Ordering::Relaxed);
        self.stepping.rounds.store(0, Ordering::Relaxed);
        self.stepping.reported.store(0, Ordering::Relaxed);
        self.stepping.taken.fetch_add(1, Ordering::Relaxed);
    }

    fn open_instead(&self, setup: &Setup, address: usize, closing: Closing) -> Verdict {
        self.stepping.opened.fetch_add(1, Ordering::Relaxed);
        let kind = if closing == Closing::Sealed { ErrorKind::SealViolation } else { ErrorKind::WildAccess };
        self.open_for_good(setup, address, kind);
        self.complain(format_args!(
            "the page at {:#x} stays open: one instruction could not be run by itself there",
            align_down(address, setup.geometry().page())
        ));
        Verdict::Resume
    }

    fn open_page(&self, setup: &Setup, page: Range, closing: Closing) -> VmResult {
        // SAFETY: by the diagnosis the page is the heap's, sealed, or part of a region where nothing is in use; it is
        // closed again when the instruction has run.
        unsafe { self.platform.open_for_step(page) }?;
        if closing == Closing::Sealed {
            // SAFETY: as above. The mapping was set by the call before.
            return unsafe { self.note_writes(page, Protection::ReadWrite) }.map(|_| ());
        }
        if !closing.is_heap() {
            return Ok(());
        }
        match setup.heap.engine_in(self.heap.zone_of(page.start)) {
            Engine::Marker => {
                // SAFETY: as above. Where there is no marker (a retired run, a page of an earlier step) nothing changes,
                // and where it cannot be removed the page traps again, which ends the program with a word.
                let removed = unsafe { self.platform.guard_remove(page) };
                let _ = removed;
            }
            Engine::Move => {
                // SAFETY: as above. Where there is a page (of an earlier step) nothing changes, and where none can be
                // put in place the page traps again.
                let put = unsafe { self.platform.put_missing(page, setup.patterns.zeros()) };
                let _ = put;
            }
            Engine::Mprotect | Engine::Commit => {}
        }
        if closing == Closing::Keep && !self.stepping.kept.has(page.start, page.len) {
            self.put_remains(setup, page);
        }
        Ok(())
    }

    /// Told that the instruction of a step has run, and which is next. Runs in a signal handler.
    pub fn on_step(&self, next: usize) -> AfterStep {
        let Some(setup) = self.ready() else { return AfterStep::Done };
        let stepping = &self.stepping;
        if !stepping.turn.is_mine(&self.platform) {
            return AfterStep::Done;
        }
        if next == stepping.pc.load(Ordering::Relaxed) {
            let rounds = stepping.rounds.load(Ordering::Relaxed).wrapping_add(1);
            stepping.rounds.store(rounds, Ordering::Relaxed);
            // On pages that were closed on purpose each round is looked at.
            if stepping.pages_open().any(|(_, closing)| closing == Closing::Sealed) {
                return self.end_step(setup);
            }
            if rounds < ROUNDS_MAX {
                stepping.turn.renew(rounds);
                return AfterStep::Again;
            }
            self.leave_open(setup);
        }
        self.end_step(setup)
    }

    /// A repeated instruction took too long: its pages stay open.
    fn leave_open(&self, setup: &Setup) {
        for (start, closing) in self.stepping.pages_open() {
            let kind =
                if closing == Closing::Sealed { ErrorKind::SealViolation } else { ErrorKind::WildAccess };
            self.stepping.opened.fetch_add(1, Ordering::Relaxed);
            self.open_for_good(setup, start, kind);
            self.complain(format_args!(
                "the page at {start:#x} stays open: one instruction goes on and on there"
            ));
        }
        self.stepping.open.store(0, Ordering::Relaxed);
    }

    /// Ends this thread's step, if it has one: something else comes first.
    pub(crate) fn end_own_step(&self, setup: &Setup) {
        if self.stepping.pc.load(Ordering::Relaxed) != 0 && self.stepping.turn.is_mine(&self.platform) {
            self.end_step(setup);
        }
    }

    fn end_step(&self, setup: &Setup) -> AfterStep {
        // SAFETY: this thread has the turn.
        let mut pending = unsafe { (*self.stepping.pending.get()).take() };
        if let Some(pending) = &mut pending {
            self.note_result(setup, pending);
        }
        self.note_after_step(setup, pending.as_ref());
        self.close_all(setup);
        self.stepping.pc.store(0, Ordering::Relaxed);
        self.stepping.turn.give_back(&self.platform);
        match pending {
            // It dies at the instruction itself, which the pages stop again.
            Some(pending) if self.report_result(setup, &pending) => AfterStep::Back,
            _ => AfterStep::Done,
        }
    }

    /// Opens the pages of the running step to ordinary writes of this thread, which a handler's may need.
    pub(crate) fn open_to_all(&self, setup: &Setup) -> VmResult {
        for (start, _) in self.stepping.pages_open() {
            let page = Range { start, len: setup.geometry().page() };
            // SAFETY: the page was opened by the step that ends here, and is closed as it ends.
            unsafe { self.platform.close_after_step(page, Protection::ReadWrite) }?;
        }
        Ok(())
    }

    fn close_all(&self, setup: &Setup) {
        for (start, closing) in self.stepping.pages_open() {
            let page = Range { start, len: setup.geometry().page() };
            self.close_or_say(setup, page, closing);
        }
        self.stepping.open.store(0, Ordering::Relaxed);
    }

    /// Closes a page, or says that it stays open.
    fn close_or_say(&self, setup: &Setup, page: Range, closing: Closing) {
        if self.close_page(setup, page, closing).is_err() {
            let start = page.start;
            self.stepping.opened.fetch_add(1, Ordering::Relaxed);
            self.complain(format_args!("the page at {start:#x} could not be closed again: it stays open"));
        }
    }

    fn close_page(&self, setup: &Setup, page: Range, closing: Closing) -> VmResult {
        let closing = match closing {
            Closing::Keep if !self.stepping.kept.keep(page.start, page.len) => {
                self.closing_without_content(setup, page.start)
            }
            Closing::Keep => {
                self.heap.note_kept();
                Closing::Keep
            }
            // Meanwhile another thread may have opened the page for a block.
            Closing::Anew => self.closing_of(setup, page.start, ErrorKind::WildAccess),
            other => other,
        };
        let protection = match closing {
            Closing::Keep => Protection::None,
            Closing::Leave => Protection::ReadWrite,
            // SAFETY: the page was opened by the step that ends here, and nothing is in use there.
            Closing::Reserve => return unsafe { self.platform.decommit(page) },
            Closing::Anew => {
                let engine = setup.heap.engine_in(self.heap.zone_of(page.start));
                // SAFETY: as above: it was not handed out yet.
                let closed = unsafe { engine.close(&self.platform, page) }?;
                self.heap.note(closed);
                if matches!(engine, Engine::Mprotect | Engine::Commit) || closed == Closed::Fallback {
                    return Ok(());
                }
                // Closed by a marker, or because nothing is there, in the mapping that its neighbours have.
                Protection::ReadWrite
            }
            Closing::Sealed => {
                let allowed = self.seals.allowed(page).unwrap_or(Protection::ReadWrite);
                // SAFETY: as above.
                unsafe { self.note_writes(page, allowed) }?
            }
        };
        // SAFETY: the page was opened by the step that ends here.
        unsafe { self.platform.close_after_step(page, protection) }
    }
}

/// What an access was, so that its next page is known for the same.
fn what_of(case: &Case) -> usize {
    let block = case.block.map_or(0, |beside| beside.slot.pointer as u64);
    crate::pattern::mix(((case.kind as u64) << 1 | 1) ^ block.rotate_left(8)) as usize | 1
}

/// Where an error comes from: the instruction, the kind, and who allocated the block.
pub(crate) fn site_of(case: &Case, pc: usize) -> usize {
    let trace = case.block.map_or(0, |beside| u64::from(beside.slot.allocated.trace));
    crate::pattern::mix(pc as u64 ^ (trace << 40) ^ ((case.kind as u64) << 32)) as usize
}
