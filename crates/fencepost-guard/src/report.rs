//! From a finding to a report: filling the record, writing it, and how the process goes on.
//!
//! One report at a time, under a lock. First the record is filled, from plain data and without allocating; then its
//! first line and its raw JSON form are written with bare system calls, and from there nothing can be lost; only then
//! are names resolved, on a stack of our own and with a private arena, and the rest of the text and the resolved
//! JSON follow. If resolving faults or hangs, the raw frames are written instead.

use core::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use fencepost_record::{
    Access, AccessType, Block, BlockState, Confidence, Coverage, ErrorKind, FRAMES_MAX, Neighbour, Note,
    Notes, Record, SealInfo, Stack, Trace, Which,
};
use fencepost_sys::{Fault, Memory, Output, Platform, VmResult};

use crate::diagnose::{Beside, Finding, state_of};
use crate::lock::Lock;
use crate::options::OnError;
use crate::region::Region;
use crate::runtime::{Guard, Setup};
use crate::seal::SealView;
use crate::slot::{Act, SlotView};
use crate::threads::{BUSY, Counters};

/// Records kept for [`Guard::drain`].
pub(crate) const RECORDS: usize = 16;
/// Distinct errors remembered, so that a program that goes on reports each once.
const SEEN: usize = 256;

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
}

/// The frames of a walk: those of a report, and of the handler before them.
const WALK_MAX: usize = FRAMES_MAX + 64;

/// This thread's stack at the moment of the error.
pub(crate) struct Walk {
    frames: [u64; WALK_MAX],
    count: usize,
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
    seen: [AtomicUsize; SEEN],
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
            seen: [const { AtomicUsize::new(0) }; SEEN],
        }
    }

    pub(crate) fn start<M: Memory>(&self, memory: &M) -> VmResult {
        let bytes = RECORDS.wrapping_mul(size_of::<Record>());
        self.records.reserve(memory, bytes)?;
        self.records.ensure(memory, bytes)
    }

    pub(crate) fn release<M: Memory>(&self, memory: &M) {
        self.records.release(memory);
    }

    pub(crate) fn lock_for_fork(&self) -> &Lock {
        &self.lock
    }

    /// A child writes to files of its own and has reported nothing.
    pub(crate) fn after_fork_in_child<O: Output>(&self, output: &O) {
        for file in [&self.log, &self.file] {
            let opened = file.swap(CLOSED, Ordering::Relaxed);
            if opened != CLOSED {
                output.close(opened);
            }
        }
        for seen in &self.seen {
            seen.store(0, Ordering::Relaxed);
        }
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

    /// Whether an error with this hash has been reported; remembers it.
    fn is_repeated(&self, hash: usize) -> bool {
        let hash = hash | 1;
        let Some(place) = self.seen.get(hash % SEEN) else { return false };
        place.swap(hash, Ordering::Relaxed) == hash
    }
}

impl<P: Platform> Guard<P> {
    /// Reports an error found without a fault, and ends the process or comes back, as `on_error` says.
    #[cold]
    pub(crate) fn report(&self, setup: &Setup, case: &Case, frames: &Frames<'_>) {
        let goes_on = setup.options.on_error == OnError::Continue;
        let reported = self.report_once(setup, case, frames, goes_on);
        match setup.options.on_error {
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
        let thread = self.platform.thread_id();
        if self.reporter.owner.load(Ordering::Relaxed) == thread {
            // The reporter itself freed something wrongly: that is no error of the program.
            return false;
        }
        let held = self.reporter.lock.hold(&self.platform);
        self.reporter.owner.store(thread, Ordering::Relaxed);
        // A thread that never allocated must not begin to now: what it allocates comes from the private arena.
        let word = self.platform.thread_word();
        self.platform.set_thread_word(word.max(BUSY));
        let walk = self.walk(frames);
        self.deliver(setup, case, frames, &walk);
        self.platform.set_thread_word(word);
        self.reporter.owner.store(0, Ordering::Relaxed);
        if goes_on {
            drop(held);
        } else {
            self.reporter.dying.store(thread, Ordering::Relaxed);
            core::mem::forget(held);
        }
        true
    }

    /// Walks the stack while we are still on it.
    fn walk(&self, frames: &Frames<'_>) -> Walk {
        let mut walk = Walk { frames: [0; WALK_MAX], count: 0 };
        let anchor = match frames {
            Frames::Here(anchor) => *anchor,
            // The unwinder looks at the interrupted instruction: where there is none to read, it would fault.
            Frames::Fault(fault) if fault.access == AccessType::Execute => return walk,
            Frames::Fault(_) => 0,
        };
        walk.count = (self.hooks.capture)(anchor, &mut walk.frames).min(WALK_MAX);
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
        if setup.options.on_error == OnError::Continue && self.reporter.is_repeated(identity(record)) {
            self.reporter.repeated.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let count = number.wrapping_add(1);
        record.number = u32::try_from(count).unwrap_or(u32::MAX);
        self.reporter.count.store(count, Ordering::Relaxed);
        Some(number)
    }

    fn fill(&self, setup: &Setup, case: &Case, frames: &Frames<'_>, walk: &Walk, record: &mut Record) {
        let now = self.now(setup);
        record.kind = case.kind;
        record.access = case.access;
        record.given_layout = case.given_layout;
        record.damage = case.damage;
        record.confidence = case.confidence;
        record.notes = case.notes;
        self.fill_fault_stack(frames, walk, record);
        record.block = case.block.map(|beside| self.block(&beside, now));
        record.seal = case.seal.map(|seal| SealInfo {
            address: seal.range.start as u64,
            size: seal.range.len as u64,
            sealer: self.stack_of(&seal.act, now),
        });
        let address = case.access.address.unwrap_or(0);
        for (to, from) in record.neighbours.iter_mut().zip(case.neighbours) {
            *to = from.map(|slot| neighbour(&slot, address));
        }
        self.fill_process(setup, record);
        self.fill_modules(record);
    }

    fn fill_fault_stack(&self, frames: &Frames<'_>, walk: &Walk, record: &mut Record) {
        let mut info = self.thread_if_known().map_or_else(Default::default, |state| {
            let number = state.number.load(Ordering::Relaxed);
            self.threads.remember(&self.platform, number);
            self.threads.info(number)
        });
        info.id = self.platform.thread_id();
        record.fault = Stack { thread: info, trace: Trace::EMPTY, age_ms: 0 };
        let trace = &mut record.fault.trace;
        let all = walk.frames.get(..walk.count).unwrap_or(&[]);
        let from = match frames {
            Frames::Here(_) => Some(0),
            Frames::Fault(fault) => {
                record.registers = fault.registers;
                record.signal = u32::try_from(fault.signal).unwrap_or(0);
                trace.first_is_exact = true;
                // What lies before the interrupted instruction is the handler.
                all.iter().position(|frame| *frame == fault.pc as u64)
            }
        };
        match (from, frames) {
            (Some(from), _) => {
                for frame in all.get(from..).unwrap_or(&[]) {
                    trace.push(*frame);
                }
            }
            (None, Frames::Fault(fault)) => {
                // The walk did not come through the signal frame: the caller is on the stack if the fault was a call.
                trace.push(fault.pc as u64);
                let mut word = [0u8; 8];
                if fault.access == AccessType::Execute && self.platform.read_checked(fault.sp, &mut word) == 8
                {
                    trace.push(u64::from_le_bytes(word));
                }
                record.notes.add(Note::StackCutShort);
            }
            (None, Frames::Here(_)) => {}
        }
    }

    fn block(&self, beside: &Beside, now: u32) -> Block {
        let slot = &beside.slot;
        let state = state_of(slot);
        let slack = slot.pointer.wrapping_add(slot.size);
        let page = self.platform.page_size();
        let to_page_end = crate::geometry::align_up(slack, page).unwrap_or(slack).wrapping_sub(slack);
        Block {
            address: slot.pointer as u64,
            size: slot.size as u64,
            align: slot.align as u64,
            // On the left, or in a page of its own, the space up to the guard is room, not slack of alignment.
            slack: if to_page_end < slot.align { to_page_end as u64 } else { 0 },
            place: beside.place,
            distance: beside.distance as u64,
            state,
            allocated: self.stack_of(&slot.allocated, now),
            freed: (state == BlockState::Freed).then(|| self.stack_of(&slot.freed, now)),
        }
    }

    fn stack_of(&self, act: &Act, now: u32) -> Stack {
        let mut stack = Stack {
            thread: self.threads.info(act.thread),
            trace: Trace::EMPTY,
            age_ms: u64::from(now.saturating_sub(act.ms)),
        };
        self.depot.load(act.trace, &mut stack.trace);
        stack
    }

    fn fill_process(&self, setup: &Setup, record: &mut Record) {
        let mut room = [0u8; 1024];
        record.process.pid = self.platform.process_id();
        let len = self.platform.executable(&mut room);
        record.process.exe.push(room.get(..len).unwrap_or(&[]));
        let len = self.platform.arguments(&mut room);
        record.process.args.push(room.get(..len).unwrap_or(&[]));
        record.options = setup.options_text;
        record.engine = setup.engine().name();
        record.seed = setup.seed;
        let guarded = self.threads.sum(Counters::guarded);
        record.coverage = Coverage { guarded, total: guarded.wrapping_add(self.unguarded_total()) };
    }

    fn fill_modules(&self, record: &mut Record) {
        self.platform.each_module(&mut |module| {
            let holds = |trace: &Trace| {
                trace
                    .frames()
                    .iter()
                    .any(|frame| (module.start..module.end).contains(&frame.saturating_sub(1)))
            };
            if Which::ALL.into_iter().filter_map(|which| which.trace(record)).any(holds) {
                // A table that is full leaves the last modules' frames without a name.
                let kept = record.modules.push(*module);
                let _ = kept;
            }
        });
    }

    /// Blocks that were not guarded, for every reason.
    pub(crate) fn unguarded_total(&self) -> u64 {
        fencepost_record::Unguarded::ALL
            .into_iter()
            .fold(0u64, |sum, why| sum.wrapping_add(self.unguarded_by(why)))
    }

    /// Blocks that were not guarded, for one reason.
    pub(crate) fn unguarded_by(&self, why: fencepost_record::Unguarded) -> u64 {
        self.threads.sum(|counters| counters.unguarded_by(why))
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

fn neighbour(slot: &SlotView, address: u64) -> Neighbour {
    let (start, end) = (slot.pointer as u64, slot.end() as u64);
    Neighbour {
        address: start,
        size: slot.size as u64,
        state: state_of(slot),
        distance: if address >= end { address.wrapping_sub(end) } else { start.saturating_sub(address) },
    }
}
