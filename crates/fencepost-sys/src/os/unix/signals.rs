//! Our handlers for SIGSEGV and SIGBUS.
//!
//! The handler runs on the thread's alternate stack with every signal held back but the synchronous ones, which a
//! mistake of its own would raise, and among which is the watchdog's. It saves `errno`, asks the runtime for its
//! verdict and carries it out. How those who were there before us are asked: [`chain`]. Once an instruction is to be
//! run by itself, or a watchpoint of the processor is set, SIGTRAP is ours in the same way ([`step`]).
//!
//! The C library's `sigaction` sets the handlers, since debuggers and unwinders know the frame that its return
//! function makes; what is in force is asked of the kernel.

use core::mem::zeroed;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

use super::chain::{self, Action, Chain, Delivery, GENERATIONS};
use super::raw::process_id;
use super::signal_calls::{self, errno_place, set_action};
use super::{Host, context, emergency, stack, step};
use crate::{Faults, OnFault, Range, Stepping, Verdict, VmError, VmResult};

/// The signals that a bad access raises.
pub(super) const SIGNALS: [i32; 2] = [libc::SIGSEGV, libc::SIGBUS];
/// Signals that the handler leaves open: held back, they would end the process where it is hard to see why.
const SYNCHRONOUS: [i32; 5] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP];

static CHAINS: [Chain; 3] = [const { Chain::new() }; 3];
/// The runtime's decision, as an address; 0 before there is one.
static ON_FAULT: AtomicUsize = AtomicUsize::new(0);
/// The process that is installing; 0 when nobody is.
static INSTALLING: AtomicI32 = AtomicI32::new(0);

type Entry = extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::ucontext_t);

/// The entry function of each generation.
const ENTRIES: [Entry; GENERATIONS] = [
    entry::<0>,
    entry::<1>,
    entry::<2>,
    entry::<3>,
    entry::<4>,
    entry::<5>,
    entry::<6>,
    entry::<7>,
    entry::<8>,
    entry::<9>,
    entry::<10>,
    entry::<11>,
];

impl Faults for Host {
    fn install(&self, on_fault: OnFault) -> VmResult {
        ON_FAULT.store(on_fault as usize, Ordering::Release);
        let process = process_id();
        let holder = INSTALLING.load(Ordering::Relaxed);
        // A holder of another process was another thread's at the moment of a fork.
        if holder == process
            || INSTALLING.compare_exchange(holder, process, Ordering::Acquire, Ordering::Relaxed).is_err()
        {
            return Ok(());
        }
        emergency::prepare();
        let [first, second] = SIGNALS.map(step_in_front);
        let second = if step::has_watchpoints() { second.and(step_in_front(libc::SIGTRAP)) } else { second };
        INSTALLING.store(0, Ordering::Release);
        first.and(second)
    }

    fn is_installed(&self) -> bool {
        let ours = |signal| Action::in_force(signal).is_ok_and(|action| is_ours(action.handler));
        SIGNALS.into_iter().all(ours) && (!step::has_watchpoints() || ours(libc::SIGTRAP))
    }

    fn ensure_alternate_stack(&self) -> Range {
        stack::ensure()
    }

    unsafe fn drop_alternate_stack(&self, stack: Range) {
        stack::drop_stack(stack);
    }

    unsafe fn call_on_stack(&self, stack: Range, work: extern "C" fn(usize), argument: usize) -> bool {
        // SAFETY: the caller's promises are those of `call`.
        unsafe { stack::call(stack, work, argument) }
    }

    unsafe fn abandon_call(&self) -> ! {
        // SAFETY: the caller's promises are those of `abandon`.
        unsafe { stack::abandon() }
    }

    fn watchdog(&self, milliseconds: u64) {
        signal_calls::watchdog(milliseconds);
    }

    fn die_by_abort(&self) -> ! {
        chain::set_default(libc::SIGABRT);
        let bit = chain::signal_bit(libc::SIGABRT);
        chain::set_mask(chain::current_mask() & !bit);
        signal_calls::raise_here(libc::SIGABRT);
        // Only where a tracer or a filter takes the signal away.
        self.exit_now(127)
    }

    fn exit_now(&self, status: i32) -> ! {
        signal_calls::exit(status)
    }

    fn at_fork(&self, prepare: extern "C" fn(), parent: extern "C" fn(), child: extern "C" fn()) -> VmResult {
        super::forks::note(prepare, parent, child)
    }

    fn at_exit(&self, exit: extern "C" fn()) -> VmResult {
        // SAFETY: the function lives as long as the program. The call fails only for want of memory.
        match unsafe { libc::atexit(exit) } {
            0 => Ok(()),
            _ => Err(VmError::OutOfMemory),
        }
    }

    fn flush_streams(&self) {
        // SAFETY: a null stream means all of them. What fails to be written is the program's to notice.
        unsafe { libc::fflush(null_mut()) };
    }
}

fn is_ours(handler: usize) -> bool {
    ENTRIES.iter().any(|entry| *entry as usize == handler)
}

fn chain_of(signal: i32) -> &'static Chain {
    let [segv, bus, trap] = &CHAINS;
    match signal {
        libc::SIGBUS => bus,
        libc::SIGTRAP => trap,
        _ => segv,
    }
}

/// Puts ours in front of what is in force for a signal, unless that is ours.
fn step_in_front(signal: i32) -> VmResult {
    let current = Action::in_force(signal)?;
    if is_ours(current.handler) {
        return Ok(());
    }
    // Who is next must be known before the first fault can arrive.
    put_in_force(signal, chain_of(signal).generation_before(current).ok_or(VmError::OutOfMemory)?)
}

/// Puts the entry of a generation in force.
fn put_in_force(signal: i32, generation: usize) -> VmResult {
    let entry = ENTRIES.get(generation).ok_or(VmError::OutOfMemory)?;
    // SAFETY: all-zero is a valid value of a structure of integers and pointers.
    let mut action: libc::sigaction = unsafe { zeroed() };
    action.sa_sigaction = *entry as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
    // SAFETY: both calls change the set they are given.
    unsafe {
        libc::sigfillset(&raw mut action.sa_mask);
        for signal in SYNCHRONOUS {
            libc::sigdelset(&raw mut action.sa_mask, signal);
        }
    }
    // SAFETY: the entry has the form that SA_SIGINFO asks for. The call fails only for signals that nobody may take.
    if unsafe { set_action(signal, &raw const action, null_mut()) } == 0 {
        Ok(())
    } else {
        Err(VmError::Denied)
    }
}

/// Whom our handler for a signal stands in front of; `None` while ours is not in force.
pub(super) fn former_of(signal: i32) -> Option<Action> {
    let current = Action::in_force(signal).ok()?;
    let generation = ENTRIES.iter().position(|entry| *entry as usize == current.handler)?;
    Some(chain_of(signal).former(generation))
}

/// Puts an action of the program's behind ours, in one step: no fault finds it in front. `None` when it cannot be.
pub(super) fn put_behind(signal: i32, action: Action) -> Option<()> {
    let process = process_id();
    let holder = INSTALLING.load(Ordering::Relaxed);
    if holder == process
        || INSTALLING.compare_exchange(holder, process, Ordering::Acquire, Ordering::Relaxed).is_err()
    {
        return None;
    }
    let placed = chain_of(signal)
        .generation_before(action)
        .filter(|generation| put_in_force(signal, *generation).is_ok());
    INSTALLING.store(0, Ordering::Release);
    placed.map(|_| ())
}

/// Puts ours in front for SIGTRAP, unless it is there; false when it cannot be.
pub(super) fn put_trap_in_force() -> bool {
    let ours = || Action::in_force(libc::SIGTRAP).is_ok_and(|action| is_ours(action.handler));
    let process = process_id();
    while !ours() {
        let holder = INSTALLING.load(Ordering::Relaxed);
        // As in `install`; here the news is needed, so others are waited for.
        if holder == 0
            && INSTALLING.compare_exchange(0, process, Ordering::Acquire, Ordering::Relaxed).is_ok()
        {
            let placed = step_in_front(libc::SIGTRAP);
            INSTALLING.store(0, Ordering::Release);
            return placed.is_ok();
        }
        if holder != process && holder != 0 {
            INSTALLING.compare_exchange(holder, 0, Ordering::Relaxed, Ordering::Relaxed).ok();
        }
        Host.pause();
    }
    true
}

/// The bits of the signals that an instruction raises.
pub(super) fn synchronous_bits() -> u64 {
    SYNCHRONOUS.into_iter().fold(0, |bits, signal| bits | chain::signal_bit(signal))
}

/// The bits of our signals in a set.
pub(super) fn bit_of_both() -> u64 {
    SIGNALS.into_iter().fold(0, |bits, signal| bits | chain::signal_bit(signal))
}

/// What the kernel calls, one function for each generation.
extern "C" fn entry<const GENERATION: usize>(
    signal: i32,
    info: *mut libc::siginfo_t,
    context: *mut libc::ucontext_t,
) {
    on_signal(GENERATION, Delivery { signal, info, context });
}

#[inline(never)]
fn on_signal(generation: usize, delivery: Delivery) {
    // SAFETY: the C library gives each thread its own errno, which lives as long as the thread.
    let errno = unsafe { errno_place() };
    // SAFETY: as above.
    let saved = unsafe { *errno };
    let chain = chain_of(delivery.signal);
    if delivery.signal == libc::SIGTRAP {
        let stepped = step::on_trap(&delivery);
        // SAFETY: as above.
        unsafe { *errno = saved };
        if !stepped {
            chain::pass(chain, generation, &delivery);
        }
        return;
    }
    if step::let_read(&delivery) {
        return;
    }
    let verdict = ask_runtime(&delivery, chain.former(generation).is_handler());
    // SAFETY: as above.
    unsafe { *errno = saved };
    if verdict != Verdict::Step {
        step::disarm(&delivery);
    }
    match verdict {
        Verdict::Resume => {}
        Verdict::Step => step::arm(&delivery),
        Verdict::Pass => chain::pass(chain, generation, &delivery),
        Verdict::Die => chain::end(&delivery),
    }
}

/// A question to the runtime, and its answer.
struct Question<'a> {
    delivery: &'a Delivery,
    others: bool,
    verdict: Verdict,
}

/// Asks the runtime, on a stack that is large enough. The handlers asked after us find this one as it was.
fn ask_runtime(delivery: &Delivery, others: bool) -> Verdict {
    let mut question = Question { delivery, others, verdict: Verdict::Pass };
    emergency::run(delivery, ask_here, (&raw mut question).addr());
    question.verdict
}

/// Not inlined: the description is large.
#[inline(never)]
extern "C" fn ask_here(question: usize) {
    // SAFETY: `ask_runtime` gives the address of its question and waits.
    let question = unsafe { &mut *(question as *mut Question<'_>) };
    let address = ON_FAULT.load(Ordering::Acquire);
    if address != 0 {
        // SAFETY: `install` stored a function of this type.
        let on_fault: OnFault = unsafe { core::mem::transmute(address) };
        question.verdict = on_fault(&context::fault(question.delivery, question.others));
    }
}
