//! Signals: the program sets its handlers and masks as it likes, and ours stays in force in front of them.
//!
//! Nothing here changes what the program sees, but for one thing: a handler of its own for another signal, running with
//! every signal held back, can be interrupted by our report of a fault in it, where otherwise the process would end at
//! once and without a word.
#![allow(clippy::missing_safety_doc, reason = "each has the rules of the C function of its name")]
#![allow(missing_docs, reason = "documented by POSIX and the Linux manual pages")]

use core::ffi::c_int;

use fencepost_sys::program::{self, SignalAction, SignalSet};
use fencepost_sys::{ErrorNumber, Next};

use super::MALLOC;

/// The error answer of `signal`.
const SIG_ERR: usize = usize::MAX;
/// `SA_RESTART`, `SA_NODEFER` and `SA_RESETHAND` of Linux.
const RESTART: c_int = 0x1000_0000;
const NO_DEFER: c_int = 0x4000_0000;
const RESET: c_int = 0x8000_0000_u32.cast_signed();

static SIGACTION: Next = Next::new(c"sigaction");
static SIGPROCMASK: Next = Next::new(c"sigprocmask");
static PTHREAD_SIGMASK: Next = Next::new(c"pthread_sigmask");

/// Finds the functions behind ours: later it may be a signal handler that needs one.
pub(super) fn prepare() {
    for next in [&SIGACTION, &SIGPROCMASK, &PTHREAD_SIGMASK] {
        let _ = next.address();
    }
}

/// # Safety
/// As `sigaction`.
unsafe fn behind(signal: c_int, new: *const SignalAction, old: *mut SignalAction) -> c_int {
    let Some(address) = SIGACTION.address() else {
        ErrorNumber::NOT_THERE.set();
        return -1;
    };
    // SAFETY: the C library's function of this name has this type, and the caller keeps its rules.
    unsafe {
        let function: unsafe extern "C" fn(c_int, *const SignalAction, *mut SignalAction) -> c_int =
            core::mem::transmute(address);
        function(signal, new, old)
    }
}

pub unsafe extern "C" fn sigaction(signal: c_int, new: *const SignalAction, old: *mut SignalAction) -> c_int {
    // SAFETY: the caller gives an action or null.
    let wanted = unsafe { new.as_ref() };
    if MALLOC.stands_back() {
        // SAFETY: the caller's promise to sigaction.
        return unsafe { behind(signal, new, old) };
    }
    // SAFETY: as above.
    if unsafe { program::replace_action(signal, wanted, old) }.is_some() {
        return 0;
    }
    let Some(wanted) = wanted else {
        // SAFETY: as above.
        return unsafe { behind(signal, new, old) };
    };
    let open = SignalAction { sa_mask: program::without_ours(&wanted.sa_mask), ..*wanted };
    // SAFETY: as above.
    unsafe { behind(signal, &raw const open, old) }
}

/// # Safety
/// `handler` must be a handler, `SIG_DFL` or `SIG_IGN`.
unsafe fn set_handler(signal: c_int, handler: usize, flags: c_int) -> usize {
    // SAFETY: all-zero is a valid value of a structure of integers and pointers.
    let (mut new, mut old): (SignalAction, SignalAction) = unsafe { core::mem::zeroed() };
    new.sa_sigaction = handler;
    new.sa_flags = flags;
    // SAFETY: both actions are ours; the handler is the caller's.
    if unsafe { sigaction(signal, &raw const new, &raw mut old) } == 0 { old.sa_sigaction } else { SIG_ERR }
}

pub unsafe extern "C" fn signal(signal: c_int, handler: usize) -> usize {
    // SAFETY: the caller's promise to signal.
    unsafe { set_handler(signal, handler, RESTART) }
}

pub unsafe extern "C" fn bsd_signal(signal: c_int, handler: usize) -> usize {
    // SAFETY: the caller's promise to bsd_signal.
    unsafe { set_handler(signal, handler, RESTART) }
}

pub unsafe extern "C" fn ssignal(signal: c_int, handler: usize) -> usize {
    // SAFETY: the caller's promise to ssignal.
    unsafe { set_handler(signal, handler, RESTART) }
}

pub unsafe extern "C" fn sysv_signal(signal: c_int, handler: usize) -> usize {
    // SAFETY: the caller's promise to sysv_signal.
    unsafe { set_handler(signal, handler, RESET | NO_DEFER) }
}

pub unsafe extern "C" fn __sysv_signal(signal: c_int, handler: usize) -> usize {
    // SAFETY: the caller's promise to __sysv_signal.
    unsafe { set_handler(signal, handler, RESET | NO_DEFER) }
}

/// Changes this thread's mask by the C library's function, all but our signals.
///
/// # Safety
/// As `sigprocmask`.
unsafe fn change_mask(next: &Next, how: c_int, set: *const SignalSet, old: *mut SignalSet) -> c_int {
    let Some(address) = next.address() else {
        ErrorNumber::NOT_THERE.set();
        return ErrorNumber::NOT_THERE.number();
    };
    // SAFETY: both functions have this type.
    let function: unsafe extern "C" fn(c_int, *const SignalSet, *mut SignalSet) -> c_int =
        unsafe { core::mem::transmute(address) };
    // SAFETY: the caller gives a set or null.
    let wanted = unsafe { set.as_ref() }.filter(|_| !MALLOC.stands_back());
    let open = wanted.filter(|_| how != program::UNBLOCK).map(program::without_ours);
    let passed = open.as_ref().map_or(set, core::ptr::from_ref);
    // SAFETY: the caller's promise to the function; the copy lives until it returns.
    let result = unsafe { function(how, passed, old) };
    if result == 0 {
        let before = program::note_mask(how, wanted);
        // SAFETY: the caller gives a set or null.
        unsafe { program::add_to_mask(old, before) };
    }
    result
}

pub unsafe extern "C" fn sigprocmask(how: c_int, set: *const SignalSet, old: *mut SignalSet) -> c_int {
    // SAFETY: the caller's promise to sigprocmask.
    unsafe { change_mask(&SIGPROCMASK, how, set, old) }
}

pub unsafe extern "C" fn pthread_sigmask(how: c_int, set: *const SignalSet, old: *mut SignalSet) -> c_int {
    // SAFETY: the caller's promise to pthread_sigmask.
    unsafe { change_mask(&PTHREAD_SIGMASK, how, set, old) }
}

/// What this thread has asked to hold back of our signals.
pub(super) fn held_back() -> u64 {
    program::note_mask(program::SET_MASK, None)
}
