//! From a finding to a report: filling the record, writing it, and how the process goes on.
//!
//! One report at a time, under a lock. The stack is walked first, while we are on it; all that follows runs on a stack
//! of our own. There the record is filled (`fill`), from plain data and without allocating; then its first line and
//! its raw JSON form are written with bare system calls, and from there nothing can be lost; only then are names
//! resolved, with a private arena, and the rest of the text and the resolved JSON follow. If resolving faults or
//! hangs, the raw frames are written instead.

mod copying;
mod fill;
mod known;
mod leaf;

use fencepost_record::{
    Access, AccessType, Confidence, ErrorKind, FRAMES_MAX, LeakInfo, Notes, Record, RegionInfo, Trace, Which,
};
use fencepost_sys::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};
use fencepost_sys::{Fault, Memory, Output, Platform, Range, VmResult};

use crate::diagnose::{Beside, Finding};
use crate::front::Pass;
use crate::lock::Lock;
use crate::options::OnError;
use crate::region::Region;
use crate::runtime::{Guard, Setup};
use crate::seal::SealView;
use crate::slot::SlotView;
use crate::threads::BUSY;
pub use copying::Copying;
use known::Known;

/// Records kept for [`Guard::drain`].
pub(crate) const RECORDS: usize = 16;

/// What went wrong, before it is written down.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) kind: ErrorKind,
    pub(crate) access: Access,
    pub(crate) block: Option<Beside>,
    pub(crate) neighbours: [Option<SlotView>; 2],
    pub(crate) given_layout: Option<(u64, u64)>,
    pub(crate) damage: Option<(u64, u64)>,
    pub(crate) seal: Option<SealView>,
    pub(crate) region: Option<RegionInfo>,
    pub(crate) leak: Option<LeakInfo>,
    pub(crate) confidence: Confidence,
    pub(crate) notes: Notes,
}

impl Case {
    /// A case with nothing but a kind and an access.
    pub(crate) fn of(kind: ErrorKind, access: AccessType, address: usize) -> Case {
        Case {
            kind,
            access: Access { kind: access, address: Some(address as u64), size: None },
            block: None,
            neighbours: [None; 2],
            given_layout: None,
            damage: None,
            seal: None,
            region: None,
            leak: None,
            confidence: Confidence::High,
            notes: Notes::NONE,
        }
    }

    /// What a fault in the guarded heap was.
    pub(crate) fn of_finding(finding: &Finding, access: Access, seal: Option<SealView>) -> Case {
        Case {
            kind: finding.kind,
            access,
            block: finding.block,
            neighbours: finding.neighbours,
            given_layout: None,
            damage: None,
            seal,
            region: None,
            leak: None,
            confidence: finding.confidence,
            notes: finding.notes,
        }
    }

    /// The same case, come to by another call.
    pub(crate) fn how(mut self, access: AccessType, address: usize) -> Case {
        self.access = Access { kind: access, address: Some(address as u64), size: None };
        self
    }
}

/// Where the stack of a report comes from.
#[derive(Clone, Copy)]
pub(crate) enum Frames<'a> {
    /// This thread's, above an address in its stack.
    Here(usize),
    /// The one that a fault interrupted.
    Fault(&'a Fault),
    /// Nowhere: it was found without anything that the program did.
    Nowhere,
}

/// The frames of a walk: those of a report, and of the handler before them.
const WALK_MAX: usize = FRAMES_MAX + 64;

/// This thread's stack at the moment of the error.
pub(crate) struct Walk {
    frames: [u64; WALK_MAX],
    count: usize,
}

impl Walk {
    /// The frames from an instruction on; the instruction alone where the walk did not come through it.
    pub(crate) fn from(&self, pc: usize) -> &[u64] {
        let all = self.frames.get(..self.count).unwrap_or(&[]);
        let at = all.iter().position(|frame| *frame == pc as u64);
        let frames = at.and_then(|at| all.get(at..)).unwrap_or(&[]);
        frames.get(..frames.len().min(FRAMES_MAX)).unwrap_or(&[])
    }

    /// Gives a frame another address.
    pub(crate) fn rename(&mut self, pc: usize, to: usize) {
        let all = self.frames.get_mut(..self.count).unwrap_or(&mut []);
        if let Some(frame) = all.iter_mut().find(|frame| **frame == pc as u64) {
            *frame = to as u64;
        }
    }
}

/// The state of reporting.
pub(crate) struct Reporter {
    lock: Lock,
    /// The thread that reports now; 0 when none does.
    pub(crate) owner: AtomicU32,
    /// The thread whose error ends the process; 0 while none does.
    pub(crate) dying: AtomicU32,
    /// Not 0 while names are being resolved: a fault then ends the resolving, not the process.
    pub(crate) rendering: AtomicU32,
    /// Not 0 once resolving has failed: it is not tried again.
    pub(crate) render_failed: AtomicU32,
    records: Region,
    pub(crate) count: AtomicU64,
    /// Errors not reported again because the same one had been.
    pub(crate) repeated: AtomicU64,
    pub(crate) drained: AtomicU64,
    pub(crate) log: AtomicI32,
    pub(crate) file: AtomicI32,
    known: Known,
}

/// No file is open.
pub(crate) const CLOSED: i32 = -1;

impl Reporter {
    pub(crate) const fn new() -> Self {
        Reporter {
            lock: Lock::new(),
            owner: AtomicU32::new(0),
            dying: AtomicU32::new(0),
            rendering: AtomicU32::new(0),
            render_failed: AtomicU32::new(0),
            records: Region::new(),
            count: AtomicU64::new(0),
            repeated: AtomicU64::new(0),
            drained: AtomicU64::new(0),
            log: AtomicI32::new(CLOSED),
            file: AtomicI32::new(CLOSED),
            known: Known::new(),
        }
    }

    pub(crate) fn start<M: Memory>(&self, memory: &M) -> VmResult {
        let bytes = RECORDS.wrapping_mul(size_of::<Record>());
        self.records.reserve(memory, bytes)?;
        self.records.ensure(memory, bytes)
    }

    /// The memory that it keeps.
    pub(crate) fn regions(&self) -> [&Region; 1] {
        [&self.records]
    }

    pub(crate) fn release<M: Memory>(&self, memory: &M) {
        self.records.release(memory);
    }

    pub(crate) fn lock_for_fork(&self) -> &Lock {
        &self.lock
    }

    /// Where the records are.
    pub(crate) fn records(&self) -> Range {
        self.records.range()
    }

    /// A child writes to files of its own and has reported nothing.
    pub(crate) fn after_fork_in_child<O: Output>(&self, output: &O) {
        for file in [&self.log, &self.file] {
            let opened = file.swap(CLOSED, Ordering::Relaxed);
            if opened != CLOSED {
                output.close(opened);
            }
        }
        self.known.clear();
        for count in [&self.count, &self.repeated, &self.drained] {
            count.store(0, Ordering::Relaxed);
        }
        self.owner.store(0, Ordering::Relaxed);
    }

    /// The place of the `number`-th record in the ring.
    ///
    /// # Safety
    /// The caller holds the reporter's lock, and keeps no other reference to this place.
    #[expect(clippy::mut_from_ref, reason = "the lock, not the borrow, makes it exclusive")]
    pub(crate) unsafe fn place(&self, number: u64) -> Option<&mut core::mem::MaybeUninit<Record>> {
        let index = usize::try_from(number.checked_rem(RECORDS as u64)?).ok()?;
        let offset = index.checked_mul(size_of::<Record>())?;
        if offset.checked_add(size_of::<Record>())? > self.records.committed() {
            return None;
        }
        let address = self.records.range().start.wrapping_add(offset);
        // SAFETY: the address lies in our committed region, aligned because the region starts on a page and a
        // record's size is a multiple of its alignment; exclusive by the caller's word.
        Some(unsafe { &mut *(address as *mut core::mem::MaybeUninit<Record>) })
    }

    /// Whether a site has had its share of reports: then this error is counted and not written.
    pub(crate) fn is_site_full(&self, site: usize) -> bool {
        let full = self.known.is_full(site);
        if full {
            self.repeated.fetch_add(1, Ordering::Relaxed);
        }
        full
    }
}

impl<P: Platform> Guard<P> {
    /// Reports an error found without a fault, and ends the process or comes back, as `on_error` says.
    #[cold]
    pub(crate) fn report(&self, setup: &Setup, case: &Case, frames: &Frames<'_>) {
        let on_error = self.on_error(setup);
        let goes_on = on_error == OnError::Continue;
        let reported = self.report_once(setup, case, frames, goes_on);
        match on_error {
            OnError::Continue => {}
            OnError::Exit => self.leave_process(setup),
            OnError::Abort if reported => {
                self.write_summary_line(setup);
                self.platform.die_by_abort()
            }
            OnError::Abort => {}
        }
    }

    /// Ends the process with the exit status for errors.
    pub(crate) fn leave_process(&self, setup: &Setup) -> ! {
        self.print_summary(setup);
        self.platform.exit_now(i32::from(setup.options.exitcode))
    }

    /// Writes a report; false when it comes from the reporter itself. Unless the program `goes_on`, no other report
    /// follows: threads that have one to make wait here for the end of the process.
    #[cold]
    pub(crate) fn report_once(&self, setup: &Setup, case: &Case, frames: &Frames<'_>, goes_on: bool) -> bool {
        if self.is_reporting() {
            return false;
        }
        if self.note_expected(case) {
            return true;
        }
        self.report_locked(setup, case, frames, None, goes_on);
        true
    }

    /// As [`Guard::report_once`], with a stack that was walked before.
    #[cold]
    pub(crate) fn report_walked(
        &self,
        setup: &Setup,
        case: &Case,
        frames: &Frames<'_>,
        walk: &Walk,
        goes_on: bool,
    ) -> bool {
        if self.is_reporting() {
            return false;
        }
        if self.note_expected(case) {
            return true;
        }
        self.report_locked(setup, case, frames, Some(walk), goes_on);
        true
    }

    /// Whether an error of this thread is not the program's, but the reporter's own (it freed something wrongly), or
    /// comes after the deadly one, whose lock is never given back.
    fn is_reporting(&self) -> bool {
        let thread = self.platform.thread_id();
        self.reporter.owner.load(Ordering::Relaxed) == thread
            || self.reporter.dying.load(Ordering::Relaxed) == thread
    }

    fn report_locked(
        &self,
        setup: &Setup,
        case: &Case,
        frames: &Frames<'_>,
        walked: Option<&Walk>,
        goes_on: bool,
    ) {
        let thread = self.platform.thread_id();
        let held = self.reporter.lock.hold(&self.platform);
        self.reporter.owner.store(thread, Ordering::Relaxed);
        // A thread that never allocated must not begin to now: what it allocates comes from the private arena.
        let word = self.platform.thread_word();
        self.platform.set_thread_word(word.max(BUSY));
        match walked {
            Some(walk) => self.deliver(setup, case, frames, walk),
            None => self.deliver(setup, case, frames, &self.walk(frames)),
        }
        self.platform.set_thread_word(word);
        self.reporter.owner.store(0, Ordering::Relaxed);
        if goes_on {
            drop(held);
        } else {
            self.reporter.dying.store(thread, Ordering::Relaxed);
            core::mem::forget(held);
        }
    }

    /// Walks the stack while we are still on it.
    pub(crate) fn walk(&self, frames: &Frames<'_>) -> Walk {
        let mut walk = Walk { frames: [0; WALK_MAX], count: 0 };
        let anchor = match frames {
            Frames::Here(anchor) => *anchor,
            // The unwinder looks at the interrupted instruction: where there is none to read, it would fault.
            Frames::Fault(fault) if fault.access == AccessType::Execute => return walk,
            Frames::Nowhere => return walk,
            Frames::Fault(_) => 0,
        };
        walk.count = (self.hooks.capture)(anchor, &mut walk.frames).min(WALK_MAX);
        if let Frames::Fault(fault) = frames {
            self.follow_caller(fault, &mut walk);
        }
        walk
    }

    /// Fills the next record of the ring and says its number; `None` when the same error was reported before. Under
    /// the reporter's lock.
    pub(crate) fn fill_next(
        &self,
        setup: &Setup,
        case: &Case,
        frames: &Frames<'_>,
        walk: &Walk,
    ) -> Option<u64> {
        let number = self.reporter.count.load(Ordering::Relaxed);
        // SAFETY: `report_once` holds the lock, and no other reference into the ring is kept across it.
        let record = unsafe { self.reporter.place(number) }?.write(Record::default());
        self.fill(setup, case, frames, walk, record);
        if setup.options.on_error == OnError::Continue && self.reporter.known.is_repeated(identity(record)) {
            self.reporter.repeated.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let count = number.wrapping_add(1);
        record.number = u32::try_from(count).unwrap_or(u32::MAX);
        self.reporter.count.store(count, Ordering::Relaxed);
        Some(number)
    }

    /// Blocks that were not guarded, for one reason.
    pub(crate) fn unguarded_by(&self, why: fencepost_record::Unguarded) -> u64 {
        let counted = self.threads.sum(|counters| counters.unguarded_by(why));
        let passing = self.threads.owned().filter(|state| state.passes_by() == why);
        passing.fold(counted, |sum, state| {
            sum.saturating_sub(state.counted_ahead()).saturating_sub(Pass::counted_ahead(state))
        })
    }

    /// Hands every record that was not handed out yet to `each`, oldest first, and says how many were lost because
    /// too many came between. `each` may resolve names: no report is written meanwhile.
    pub fn drain(&self, each: &mut dyn FnMut(&Record)) -> u64 {
        if self.ready().is_none() {
            return 0;
        }
        let held = self.reporter.lock.hold(&self.platform);
        // A fault in `each` is this thread's own: it must not wait for the lock that is held here.
        self.reporter.owner.store(self.platform.thread_id(), Ordering::Relaxed);
        let count = self.reporter.count.load(Ordering::Relaxed);
        let drained = self.reporter.drained.swap(count, Ordering::Relaxed);
        let oldest = drained.max(count.saturating_sub(RECORDS as u64));
        for number in oldest..count {
            // SAFETY: the lock is held, and the reference ends with this turn.
            if let Some(place) = unsafe { self.reporter.place(number) } {
                // SAFETY: every record with a number below `count` has been written.
                each(unsafe { place.assume_init_ref() });
            }
        }
        self.reporter.owner.store(0, Ordering::Relaxed);
        drop(held);
        oldest.wrapping_sub(drained)
    }
}

/// A hash that is the same for the same error in this process.
fn identity(record: &Record) -> usize {
    let mut hash = crate::pattern::mix(((record.kind as u64) << 8) | record.access.kind as u64);
    if record.damage.is_some() {
        // Damage found later has the stack of the check: blocks of one site are told apart by their address.
        hash ^= record.block.map_or(0, |block| block.address);
    }
    for which in Which::ALL {
        for frame in which.trace(record).map_or(&[][..], Trace::frames) {
            hash = crate::pattern::mix(hash ^ frame);
        }
    }
    hash as usize
}
