//! Running one instruction by itself: the processor's trap flag, and the SIGTRAP that follows.
//!
//! A fault handler that wants it ([`arm`]) sets the flag in the context to which it returns, opens the protection key
//! there, and holds every signal back but those that the instruction itself may raise. The trap's handler asks the
//! runtime, which closes the pages, and puts mask and flags back ([`disarm`]). So does any fault handler that ends
//! in another way: the program's own handlers never see a step.
//!
//! What is needed is tried when it is first needed. A debugger takes SIGTRAP for itself, so while one is attached
//! there are no steps.

use core::cell::Cell;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::chain::{self, Delivery, signal_bit};
use super::memory::{protect, protect_by_key};
use super::probe::{self, Feature};
use super::raw::{File, syscall};
use super::{Host, context, keys, signals, watchpoints, write_key};
use crate::stepping::StepHook;
use crate::{AfterStep, OnStep, Protection, Range, Stepping, Steps, Threads, VmResult};

thread_local! {
    /// While this thread runs an instruction by itself: what it had before.
    static ARMED: Cell<Option<Before>> = const { Cell::new(None) };
    /// Whether this thread tries out whether a step traps.
    static TRYING: Cell<bool> = const { Cell::new(false) };
}

/// A thread as it was when its step began.
#[derive(Clone, Copy)]
struct Before {
    mask: u64,
    registers: context::General,
}

/// The runtime's function, as an address; 0 before there is one.
static ON_STEP: StepHook = StepHook::new();

const UNKNOWN: u32 = 0;
const IMPOSSIBLE: u32 = 1;
const POSSIBLE: u32 = 2;
/// Whether a step was seen to trap.
static STATE: AtomicU32 = AtomicU32::new(UNKNOWN);

/// How long what was found about a debugger is believed, in milliseconds.
const TRACER_MS: u64 = 100;
/// When a debugger was last looked for, in milliseconds, times two, plus one if there was one; 0 for never.
static TRACED: AtomicU64 = AtomicU64::new(0);

/// `si_code` of a trap after one instruction (`asm-generic/siginfo.h`).
const TRAP_TRACE: i32 = 2;

impl Stepping for Host {
    fn ready_to_step(&self, on_step: OnStep) -> Steps {
        ON_STEP.set(on_step);
        if probe::denied(Feature::Steps) || is_traced() || !signals::put_trap_in_force() {
            return Steps::Impossible;
        }
        if STATE.load(Ordering::Relaxed) == UNKNOWN {
            STATE.store(if try_step() { POSSIBLE } else { IMPOSSIBLE }, Ordering::Relaxed);
        }
        if STATE.load(Ordering::Relaxed) != POSSIBLE {
            return Steps::Impossible;
        }
        keys::key().map_or(Steps::Shared, |_| Steps::Alone)
    }

    unsafe fn open_for_step(&self, range: Range) -> VmResult<Steps> {
        let bits = libc::PROT_READ | libc::PROT_WRITE;
        if let Some(key) = keys::key()
            && keys::protect(range, bits, key).is_ok()
        {
            return Ok(Steps::Alone);
        }
        // Near the limit of mappings the kernel may refuse to set a page apart that needs no setting apart without a key.
        protect(range, bits).map(|()| Steps::Shared)
    }

    unsafe fn fill_for_step(&self, at: usize, bytes: &[u8]) {
        keys::with_open(|| {
            // SAFETY: the page is open, and nobody's, by the caller's word.
            unsafe {
                core::ptr::copy_nonoverlapping(
                    bytes.as_ptr(),
                    core::ptr::with_exposed_provenance_mut(at),
                    bytes.len(),
                );
            }
        });
    }

    unsafe fn close_after_step(&self, range: Range, protection: Protection) -> VmResult {
        let were_keys = keys::key().is_some() || write_key::if_taken().is_some();
        protect_by_key(range, protection, were_keys)
    }

    fn pause(&self) {
        // SAFETY: sched_yield has no arguments and touches no memory.
        let _ = unsafe { syscall!(libc::SYS_sched_yield) };
    }
}

/// Has the context to which a fault handler returns run one instruction only.
pub(super) fn arm(delivery: &Delivery) {
    // SAFETY: the kernel hands a handler a valid context.
    unsafe {
        if ARMED.get().is_none() {
            let (mask, registers) = (context::mask(delivery.context), context::registers(delivery.context));
            ARMED.set(Some(Before { mask, registers }));
        }
        // SIGTRAP is raised: held back, it would end the process.
        context::set_mask(delivery.context, !signals::synchronous_bits());
        context::set_stepping(delivery.context, true, keys::key());
    }
}

/// Makes the context to which a handler returns as it was before [`arm`], if that was.
pub(super) fn disarm(delivery: &Delivery) {
    if let Some(before) = ARMED.take() {
        // SAFETY: the kernel hands a handler a valid context.
        unsafe {
            context::set_mask(delivery.context, before.mask);
            context::set_stepping(delivery.context, false, keys::key());
        }
    }
}

/// Handles a SIGTRAP; false when it is none of ours.
pub(super) fn on_trap(delivery: &Delivery) -> bool {
    // SAFETY: the kernel hands a handler a valid siginfo.
    let stepped = unsafe { (*delivery.info).si_code } == TRAP_TRACE;
    if stepped && TRYING.replace(false) {
        // SAFETY: the kernel hands a handler a valid context.
        unsafe { context::set_stepping(delivery.context, false, None) };
        return true;
    }
    (stepped && ends_with(delivery)) || watchpoints::on_trap(delivery)
}

/// Whether a fault was a read that the write key forbade to a context which may have it: then it does now.
pub(super) fn let_read(delivery: &Delivery) -> bool {
    // SAFETY: the kernel hands a handler a valid context and siginfo.
    let is_so = delivery.signal == libc::SIGSEGV && unsafe { context::let_read(delivery) };
    if is_so {
        write_key::count_set_right();
    }
    is_so
}

/// Whether traps may come that are no steps.
pub(super) fn has_watchpoints() -> bool {
    watchpoints::are_armed()
}

/// Takes a SIGTRAP that comes after an instruction for the end of this thread's step; false when it has none.
pub(super) fn ends_with(delivery: &Delivery) -> bool {
    if ARMED.get().is_none() {
        return false;
    }
    // SAFETY: the kernel hands a handler a valid context.
    let next = unsafe { context::instruction(delivery.context) };
    match ON_STEP.ask(next) {
        AfterStep::Again => arm(delivery),
        AfterStep::Done => disarm(delivery),
        AfterStep::Back => {
            let before = ARMED.get();
            disarm(delivery);
            if let Some(before) = before {
                // SAFETY: as above. The flags among them are from before the step.
                unsafe { context::set_registers(delivery.context, &before.registers) };
            }
        }
    }
    true
}

/// Runs one instruction by itself and says whether it trapped.
fn try_step() -> bool {
    let mask = chain::current_mask();
    chain::set_mask(mask & !signal_bit(libc::SIGTRAP));
    TRYING.set(true);
    context::trap_once();
    let trapped = !TRYING.replace(false);
    chain::set_mask(mask);
    trapped
}

/// Whether a debugger is attached, as known for at most [`TRACER_MS`].
pub(super) fn is_traced() -> bool {
    let now = Host.now_ms().wrapping_add(1);
    let known = TRACED.load(Ordering::Relaxed);
    if known != 0 && now.wrapping_sub(known >> 1) < TRACER_MS {
        return known & 1 != 0;
    }
    let traced = has_tracer().unwrap_or(false);
    TRACED.store((now << 1) | u64::from(traced), Ordering::Relaxed);
    traced
}

/// Whether the kernel names a tracer of this thread; `None` where `/proc` is not to be had.
fn has_tracer() -> Option<bool> {
    const WORD: &[u8] = b"TracerPid:\t";
    if probe::denied(Feature::Proc) {
        return None;
    }
    let mut text = [0u8; 512];
    let text = File::open(c"/proc/thread-self/status").ok()?.read_all(&mut text).ok()?;
    let at = text.windows(WORD.len()).position(|window| window == WORD)?;
    let number = text.get(at.saturating_add(WORD.len())..)?;
    Some(number.first() != Some(&b'0'))
}
