//! The system's side of `os/unix`: how it is told about handlers, masks and alternate stacks.

use super::chain::Delivery;
use super::raw::{Errno, kept, map, protect};
use super::{context, probe};
use crate::VmResult;

/// An action, without the type that the C library gives it. A set of signals has 32 bits here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Action {
    pub(super) handler: usize,
    pub(super) flags: usize,
    pub(super) mask: u64,
}

impl Action {
    /// An action of the program's.
    pub(super) fn new(handler: usize, flags: usize, mask: u64) -> Action {
        Action { handler, flags, mask }
    }

    /// The action in force.
    pub(super) fn in_force(signal: i32) -> Result<Action, Errno> {
        // SAFETY: all-zero is a valid value of a structure of integers and pointers.
        let mut action: libc::sigaction = unsafe { core::mem::zeroed() };
        // SAFETY: sigaction writes one action.
        kept(|| unsafe { libc::sigaction(signal, core::ptr::null(), &raw mut action) } as isize)?;
        Ok(Action::new(action.sa_sigaction, action.sa_flags as usize, u64::from(action.sa_mask)))
    }
}

/// Where this thread's error number is.
pub(super) use libc::__error as errno_place;
pub(super) use libc::sigaction as set_action;

/// Gives a signal its default effect.
pub(super) fn set_default(signal: i32) {
    // SAFETY: all-zero is the default effect and no flags.
    let default: libc::sigaction = unsafe { core::mem::zeroed() };
    // SAFETY: sigaction reads one action. It cannot fail for these signals.
    let _ = kept(|| unsafe { libc::sigaction(signal, &raw const default, core::ptr::null_mut()) } as isize);
}

/// This thread's signal mask.
pub(super) fn current_mask() -> u64 {
    let mut mask = 0u32;
    // SAFETY: pthread_sigmask writes one set, and answers errors by its result.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, core::ptr::null(), &raw mut mask) };
    u64::from(mask)
}

/// Sets this thread's signal mask.
pub(super) fn set_mask(mask: u64) {
    let mask = mask as u32;
    // SAFETY: pthread_sigmask reads one set.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const mask, core::ptr::null_mut()) };
}

/// Whether what is known of a fault says for certain that it was one. Here it does not: a signal that was sent comes with
/// the code and the address of the thread's last exception (`sendsig` in `bsd/dev/arm/unix_signal.c` and
/// `bsd/dev/i386/unix_signal.c` of XNU), so it is known by the processor's word of why the kernel was entered, and not at all
/// where that was an interrupt on aarch64.
pub(super) const RAISED_IS_CERTAIN: bool = false;

/// Whether a signal was sent.
pub(super) fn is_sent(delivery: &Delivery) -> bool {
    // SAFETY: the kernel hands a handler a valid context.
    unsafe { context::is_without_exception(delivery.context) }
}

/// Sends a signal to this thread once more; what was told of it is lost.
pub(super) fn send_again(delivery: &Delivery) {
    raise_here(delivery.signal);
}

/// Sends a signal to this thread.
pub(super) fn raise_here(signal: i32) {
    // SAFETY: the thread is this one, which lives.
    unsafe { libc::pthread_kill(libc::pthread_self(), signal) };
}

/// Ends the process.
pub(super) fn exit(status: i32) -> ! {
    // SAFETY: it runs nothing of the program's.
    unsafe { libc::_exit(status) }
}

/// Sets and reads this thread's alternate stack; false where the kernel refuses.
///
/// # Safety
/// `new` must be null or readable, and `old` writable.
pub(super) unsafe fn alternate_stack(new: *const libc::stack_t, old: *mut libc::stack_t) -> bool {
    // SAFETY: the caller's promise.
    kept(|| unsafe { libc::sigaltstack(new, old) } as isize).is_ok()
}

/// The alternate stack of the thread that a signal interrupted. The context's own word of it is not the setting: it has
/// the interrupted stack pointer.
///
/// # Safety
/// None: the context is not read.
pub(super) unsafe fn alternate_of(_context: *const libc::ucontext_t) -> libc::stack_t {
    let mut setting = libc::stack_t { ss_sp: core::ptr::null_mut(), ss_size: 0, ss_flags: libc::SS_DISABLE };
    // SAFETY: the call writes one setting; where it fails, the one above stays: none.
    unsafe { alternate_stack(core::ptr::null(), &raw mut setting) };
    setting
}

/// Memory for a stack of `len` bytes, of which the lowest page traps.
pub(super) fn stack_above_a_guard(len: usize) -> VmResult<usize> {
    let start = map(0, len, libc::PROT_READ | libc::PROT_WRITE, 0)?;
    // Without it an overflow would go unseen, but there is still a stack.
    let _ = protect(start, probe::page_size(), libc::PROT_NONE);
    Ok(start)
}

/// Nothing: the system has no timer that signals one thread, and resolving names is not watched over.
pub(super) fn watchdog(_milliseconds: u64) {}
