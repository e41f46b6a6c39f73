//! Running one instruction by itself: the processor's trap flag, and the exception that follows.
//!
//! The fault's handler sets the flag in the context that the thread goes on with ([`arm`]); the trap's exception comes to
//! the same handler, which asks the runtime and clears it again ([`on_trap`]). So does every exception that ends the step
//! in another way ([`end`]): nobody else's handler sees a step. There are no asynchronous signals to hold back.
//!
//! Whether it works is tried when it is first needed. A debugger is asked before any handler, so while one is attached
//! there are no steps.

use core::arch::asm;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU32, Ordering};

use windows_sys::Win32::System::Diagnostics::Debug::CONTEXT;
use windows_sys::Win32::System::Threading::SwitchToThread;

use super::probe::{Feature, denied};
use super::teb::{self, Kept};
use super::word::Word;
use super::{Host, faults};
use crate::os::processor::context;
use crate::stepping::StepHook;
use crate::{AfterStep, Keys, Memory, OnStep, Protection, Range, Stepping, Steps, VmResult};

/// The trap flag of `EFLAGS`.
const TRAP: u32 = 0x100;

/// What this thread is doing: one of the three below.
static DOING: Word = Word::new();
const NOTHING: usize = 0;
/// It runs an instruction by itself.
const ARMED: usize = 1;
/// It tries out whether a step traps.
const TRYING: usize = 2;

/// The runtime's function, as an address; 0 before there is one.
static ON_STEP: StepHook = StepHook::new();

const UNKNOWN: u32 = 0;
const IMPOSSIBLE: u32 = 1;
const POSSIBLE: u32 = 2;
/// Whether a step was seen to trap.
static STATE: AtomicU32 = AtomicU32::new(UNKNOWN);

/// The registers of the thread that steps, from before its step.
static BEFORE: Before =
    Before { thread: AtomicU32::new(0), registers: UnsafeCell::new([0; context::GENERAL]) };

struct Before {
    thread: AtomicU32,
    registers: UnsafeCell<[u64; context::GENERAL]>,
}

// SAFETY: one thread steps at a time: the runtime gives each its turn. A thread that has lost its turn finds another's
// number in `thread`, or is not told to go back.
unsafe impl Sync for Before {}

/// Takes the word while that may wait.
pub(super) fn prepare() {
    // Without one there are no steps.
    let _ = DOING.index();
}

/// There are no protection keys.
impl Keys for Host {}

impl Stepping for Host {
    fn ready_to_step(&self, on_step: OnStep) -> Steps {
        ON_STEP.set(on_step);
        if denied(Feature::Steps) || !DOING.is_plain() || !faults::are_installed() || teb::is_debugged() {
            return Steps::Impossible;
        }
        if STATE.load(Ordering::Relaxed) == UNKNOWN {
            STATE.store(if try_step() { POSSIBLE } else { IMPOSSIBLE }, Ordering::Relaxed);
        }
        if STATE.load(Ordering::Relaxed) == POSSIBLE { Steps::Shared } else { Steps::Impossible }
    }

    /// What is committed keeps its content, and may be a module's or a file's; what is not is the heap's.
    unsafe fn open_for_step(&self, range: Range) -> VmResult<Steps> {
        // SAFETY: the caller owns the range, and closes it again.
        let opened = unsafe { self.protect(range, Protection::ReadWrite).or_else(|_| self.commit(range)) };
        opened.map(|()| Steps::Shared)
    }

    unsafe fn close_after_step(&self, range: Range, protection: Protection) -> VmResult {
        // SAFETY: the caller's promise.
        unsafe { self.protect(range, protection) }
    }

    fn pause(&self) {
        let _kept = Kept::new();
        // SAFETY: the call has no arguments.
        unsafe { SwitchToThread() };
    }
}

/// Has the context that a thread goes on with run one instruction only.
pub(super) fn arm(context: &mut CONTEXT) {
    if DOING.get() != ARMED {
        // SAFETY: this thread has its turn to step.
        unsafe { *BEFORE.registers.get() = context::general(context) };
        BEFORE.thread.store(teb::thread_id(), Ordering::Relaxed);
    }
    DOING.set(ARMED);
    context.EFlags |= TRAP;
}

/// Makes the context as it was before [`arm`], if that was.
pub(super) fn disarm(context: &mut CONTEXT) {
    if DOING.is_plain() && DOING.get() == ARMED {
        DOING.set(NOTHING);
        context.EFlags &= !TRAP;
    }
}

/// Something other than a fault comes while an instruction runs by itself: ends the step.
pub(super) fn end(context: &mut CONTEXT) {
    if DOING.is_plain() && DOING.get() == ARMED {
        let _kept = Kept::new();
        // No instruction is there: the step is over, whatever comes next.
        ON_STEP.ask(0);
        disarm(context);
    }
}

/// Handles the exception after one instruction; false when it is none of ours.
pub(super) fn on_trap(context: &mut CONTEXT) -> bool {
    if !DOING.is_plain() {
        return false;
    }
    match DOING.get() {
        TRYING => {
            DOING.set(NOTHING);
            context.EFlags &= !TRAP;
            true
        }
        ARMED => {
            let _kept = Kept::new();
            match ON_STEP.ask(context.Rip as usize) {
                AfterStep::Again => context.EFlags |= TRAP,
                AfterStep::Done => disarm(context),
                AfterStep::Back => {
                    disarm(context);
                    if BEFORE.thread.load(Ordering::Relaxed) == teb::thread_id() {
                        // SAFETY: it was this thread that stepped last.
                        context::set_general(context, unsafe { &*BEFORE.registers.get() });
                    }
                }
            }
            true
        }
        _ => false,
    }
}

/// Runs one instruction by itself and says whether it trapped.
fn try_step() -> bool {
    let before = DOING.get();
    DOING.set(TRYING);
    // SAFETY: sets the trap flag for one instruction, which does nothing; the exception comes after it, and its handler
    // clears the flag. The red zone does not exist in this system's calls.
    unsafe { asm!("pushfq", "or qword ptr [rsp], {flag}", "popfq", "nop", flag = const TRAP) };
    let trapped = DOING.get() != TRYING;
    DOING.set(before);
    trapped
}
