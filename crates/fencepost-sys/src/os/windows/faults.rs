//! Our vectored exception handler, and what ends a process.
//!
//! The handler is the first of the list, so it sees every exception before the frames of the program do, and before the
//! system knows whether one of them will take it. So it reports only what is ours; an access that is not (a null
//! dereference, say) is passed on, and described only when it comes back to our *filter*, which the system calls when
//! nobody has taken it. The handler takes no lock of the loader's and calls no function that does, and the last error is
//! put back.

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use windows_sys::Win32::Foundation::{EXCEPTION_SINGLE_STEP, EXCEPTION_STACK_OVERFLOW};
use windows_sys::Win32::System::Diagnostics::Debug::{
    AddVectoredExceptionHandler, CONTEXT, EXCEPTION_POINTERS, EXCEPTION_RECORD, LPTOP_LEVEL_EXCEPTION_FILTER,
    SetUnhandledExceptionFilter,
};
use windows_sys::Win32::System::Threading::{GetCurrentProcess, SetThreadStackGuarantee, TerminateProcess};

use super::teb::{self, Kept};
use super::{Host, emergency, ending, stack, stepping, watchdog, watchpoints};
use crate::os::processor::context;
use crate::{Faults, OnFault, Range, Verdict, VmError, VmResult};

/// The exit status of a process that stops itself (`STATUS_STACK_BUFFER_OVERRUN`), which Rust's `abort` gives as well.
const ABORTED: u32 = 0xc000_0409;
/// What a handler may answer (`excpt.h`).
const GO_ON: i32 = -1;
const SEARCH: i32 = 0;
/// Bytes of its stack that a thread keeps for the handler of its overflow.
const STACK_KEPT: u32 = 64 << 10;

/// The runtime's decision, as an address; 0 before there is one.
static ON_FAULT: AtomicUsize = AtomicUsize::new(0);
static INSTALLED: AtomicBool = AtomicBool::new(false);
/// The filter that was there before ours, as an address; 0 for none.
static FORMER_FILTER: AtomicUsize = AtomicUsize::new(0);

impl Faults for Host {
    /// Whether another handler was put in front since, the system does not tell: ours is put there once.
    fn install(&self, on_fault: OnFault) -> VmResult {
        ON_FAULT.store(on_fault as usize, Ordering::Release);
        put_in_force()
    }

    fn is_installed(&self) -> bool {
        are_installed()
    }

    /// Handlers run on the stack that overflowed: a part of it is kept for them. There is nothing to take back.
    fn ensure_alternate_stack(&self) -> Range {
        let _kept = Kept::new();
        let mut bytes = STACK_KEPT;
        // SAFETY: the call reads and writes one number. Without it an overflow ends the process without a report.
        unsafe { SetThreadStackGuarantee(&raw mut bytes) };
        emergency::keep_guarantee(STACK_KEPT as usize);
        Range::default()
    }

    unsafe fn drop_alternate_stack(&self, _stack: Range) {}

    unsafe fn call_on_stack(&self, stack: Range, work: extern "C" fn(usize), argument: usize) -> bool {
        // SAFETY: the caller's promises are those of `call`.
        unsafe { stack::call(stack, work, argument) }
    }

    unsafe fn abandon_call(&self) -> ! {
        // What follows is no longer watched.
        watchdog::disarm();
        // SAFETY: the caller's promises are those of `abandon`.
        unsafe { stack::abandon() }
    }

    /// The call itself is ended: there is no signal to send.
    fn watchdog(&self, milliseconds: u64) {
        watchdog::disarm();
        if milliseconds > 0 {
            watchdog::arm(milliseconds);
        }
    }

    fn die_by_abort(&self) -> ! {
        end(ABORTED)
    }

    fn exit_now(&self, status: i32) -> ! {
        end(status as u32)
    }

    /// There are no forks.
    fn at_fork(
        &self,
        _prepare: extern "C" fn(),
        _parent: extern "C" fn(),
        _child: extern "C" fn(),
    ) -> VmResult {
        Ok(())
    }

    fn at_exit(&self, exit: extern "C" fn()) -> VmResult {
        ending::note(exit)
    }

    fn flush_streams(&self) {
        // SAFETY: a null stream means all of them. What fails to be written is the program's to notice.
        unsafe { libc::fflush(core::ptr::null_mut()) };
    }
}

/// Puts the handler and the filter there, if they are not.
pub(super) fn put_in_force() -> VmResult {
    let _kept = Kept::new();
    if INSTALLED.swap(true, Ordering::AcqRel) {
        return Ok(());
    }
    emergency::prepare().inspect_err(|_| INSTALLED.store(false, Ordering::Release))?;
    // SAFETY: the handler has the type that is asked for, and lives as long as the program.
    let handle = unsafe { AddVectoredExceptionHandler(1, Some(on_exception)) };
    if handle.is_null() {
        INSTALLED.store(false, Ordering::Release);
        return Err(VmError::OutOfMemory);
    }
    // SAFETY: as above.
    let former = unsafe { SetUnhandledExceptionFilter(Some(on_unhandled)) };
    FORMER_FILTER.store(former.map_or(0, |former| former as usize), Ordering::Release);
    Ok(())
}

/// Ends the process at once: no other thread runs on, nothing of the program's is called.
fn end(status: u32) -> ! {
    loop {
        // SAFETY: the handle means this process, and the call does not come back.
        unsafe { TerminateProcess(GetCurrentProcess(), status) };
    }
}

/// Whether our handler is in force.
pub(super) fn are_installed() -> bool {
    INSTALLED.load(Ordering::Acquire)
}

/// Asked first about every exception of the process.
unsafe extern "system" fn on_exception(pointers: *mut EXCEPTION_POINTERS) -> i32 {
    // SAFETY: the system gives a handler valid pointers, to a record and to a context that the thread goes on with, which
    // nobody else looks at meanwhile.
    let (record, context) = unsafe { (&*(*pointers).ExceptionRecord, &mut *(*pointers).ContextRecord) };
    let answer = if record.ExceptionCode == EXCEPTION_SINGLE_STEP {
        // The news of a step stands for that of a watchpoint as well.
        if stepping::on_trap(context) || watchpoints::on_trap(record, context) { GO_ON } else { SEARCH }
    } else if context::is_fault(record.ExceptionCode) {
        answer(record, context, true).unwrap_or(SEARCH)
    } else {
        stepping::end(context);
        SEARCH
    };
    watchpoints::refresh(context);
    answer
}

/// Asked last, when nobody has taken the exception.
unsafe extern "system" fn on_unhandled(pointers: *const EXCEPTION_POINTERS) -> i32 {
    // SAFETY: as above.
    let (record, context) = unsafe { (&*(*pointers).ExceptionRecord, &mut *(*pointers).ContextRecord) };
    if context::is_fault(record.ExceptionCode)
        && let Some(answer) = answer(record, context, false)
    {
        return answer;
    }
    let former = FORMER_FILTER.load(Ordering::Acquire);
    if former == 0 {
        return SEARCH;
    }
    // SAFETY: `install` stored what the system gave it, which was not null.
    let former: LPTOP_LEVEL_EXCEPTION_FILTER = unsafe { core::mem::transmute(former) };
    // SAFETY: it is called as the system would have called it.
    former.map_or(SEARCH, |former| unsafe { former(pointers) })
}

/// What is asked on another stack, and the answer.
struct Question<'a> {
    record: &'a EXCEPTION_RECORD,
    context: &'a mut CONTEXT,
    /// Where the thread's own stack ends below.
    stack: usize,
    others: bool,
    answer: Option<i32>,
}

/// What to do about a fault, asked on a stack that is large enough; `None` when it is for somebody else.
fn answer(record: &EXCEPTION_RECORD, context: &mut CONTEXT, others: bool) -> Option<i32> {
    let stack = teb::read(teb::STACK_RESERVED);
    let mut question = Question { record, context, stack, others, answer: None };
    if record.ExceptionCode != EXCEPTION_STACK_OVERFLOW {
        ask(&mut question);
        return question.answer;
    }
    question.others = others && emergency::others_have_room(stack, question.context.Rsp as usize);
    // SAFETY: the question lives until the call is over, and is what it asks for.
    let asked = unsafe { emergency::run(ask_elsewhere, (&raw mut question).addr()) };
    // Without that stack the system is left to do what it does.
    question.answer.filter(|_| asked)
}

extern "C" fn ask_elsewhere(question: usize) {
    // SAFETY: `answer` gives the address of its question and waits.
    ask(unsafe { &mut *(question as *mut Question<'_>) });
}

/// Not inlined: the description is large, and an overflow leaves little room.
#[inline(never)]
fn ask(question: &mut Question<'_>) {
    let Question { record, context, stack, others, .. } = question;
    question.answer = decide(record, context, *stack, *others);
}

/// Asks the runtime about a fault, and does what it says.
fn decide(record: &EXCEPTION_RECORD, context: &mut CONTEXT, stack: usize, others: bool) -> Option<i32> {
    let address = ON_FAULT.load(Ordering::Acquire);
    if address == 0 {
        return None;
    }
    let kept = Kept::new();
    // SAFETY: `install` stored a function of this type.
    let on_fault: OnFault = unsafe { core::mem::transmute(address) };
    let verdict = on_fault(&context::fault(record, context, stack, others));
    drop(kept);
    if verdict != Verdict::Step {
        stepping::disarm(context);
    }
    match verdict {
        Verdict::Resume => Some(GO_ON),
        Verdict::Step => {
            stepping::arm(context);
            Some(GO_ON)
        }
        Verdict::Pass => None,
        // Frames of the program's must not take it for an error of their own and go on.
        Verdict::Die => end(record.ExceptionCode as u32),
    }
}
