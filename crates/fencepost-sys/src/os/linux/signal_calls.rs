//! The system's side of `os/unix`: how this kernel is told about handlers, masks, alternate stacks and timers.

use core::sync::atomic::{AtomicU64, Ordering};

use super::chain::Delivery;
use super::memory::MADV_GUARD_INSTALL;
use super::raw::{Errno, map, process_id, syscall, thread_id};
use super::{memory, probe};
use crate::{Range, VmResult};

/// The running watchdog: its process in the upper half, its number plus one in the lower.
static WATCHDOG: AtomicU64 = AtomicU64::new(0);

/// An action as the kernel keeps it, on x86_64 and aarch64 alike (`struct sigaction` of `linux/signal_types.h`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Action {
    pub(super) handler: usize,
    pub(super) flags: usize,
    restorer: usize,
    pub(super) mask: u64,
}

impl Action {
    /// An action of the program's.
    pub(super) fn new(handler: usize, flags: usize, mask: u64) -> Action {
        Action { handler, flags, restorer: 0, mask }
    }

    /// The action in force, from the kernel.
    pub(super) fn in_force(signal: i32) -> Result<Action, Errno> {
        let mut action = Action::default();
        // SAFETY: rt_sigaction writes one action in the kernel's layout, with sets of 8 bytes.
        unsafe { syscall!(libc::SYS_rt_sigaction, signal, 0, &raw mut action, 8)? };
        Ok(action)
    }
}

#[cfg(target_env = "gnu")]
unsafe extern "C" {
    /// The C library's `sigaction` by the name that it keeps for such as us, who may stand in its place.
    #[link_name = "__sigaction"]
    pub(super) fn set_action(
        signal: i32,
        new: *const libc::sigaction,
        old: *mut libc::sigaction,
    ) -> libc::c_int;
}

#[cfg(not(target_env = "gnu"))]
pub(super) use libc::sigaction as set_action;

/// Where this thread's error number is.
pub(super) use libc::__errno_location as errno_place;

/// Gives a signal its default effect.
pub(super) fn set_default(signal: i32) {
    let default = Action::default();
    // SAFETY: rt_sigaction reads one action in the kernel's layout. It cannot fail for these signals.
    let _ = unsafe { syscall!(libc::SYS_rt_sigaction, signal, &raw const default, 0, 8) };
}

/// This thread's signal mask.
pub(super) fn current_mask() -> u64 {
    let mut mask = 0u64;
    // SAFETY: rt_sigprocmask writes one set of 8 bytes.
    let _ = unsafe { syscall!(libc::SYS_rt_sigprocmask, libc::SIG_BLOCK, 0, &raw mut mask, 8) };
    mask
}

/// Sets this thread's signal mask.
pub(super) fn set_mask(mask: u64) {
    // SAFETY: rt_sigprocmask reads one set of 8 bytes.
    let _ = unsafe { syscall!(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const mask, 0, 8) };
}

/// Whether what is known of a fault says for certain that it was one: its code does.
pub(super) const RAISED_IS_CERTAIN: bool = true;

/// Whether a signal was sent by a process or a timer, or is early news of broken memory (`BUS_MCEERR_AO`).
pub(super) fn is_sent(delivery: &Delivery) -> bool {
    // SAFETY: the kernel hands a handler a valid siginfo.
    let code = unsafe { (*delivery.info).si_code };
    code <= 0 || (delivery.signal == libc::SIGBUS && code == libc::BUS_MCEERR_AO)
}

/// Sends a signal to this thread once more, with all that was told of it.
pub(super) fn send_again(delivery: &Delivery) {
    let (process, thread) = (process_id(), thread_id());
    // SAFETY: the kernel reads one siginfo, the one it gave.
    let _ = unsafe { syscall!(libc::SYS_rt_tgsigqueueinfo, process, thread, delivery.signal, delivery.info) };
}

/// Sends a signal to this thread.
pub(super) fn raise_here(signal: i32) {
    // SAFETY: tgkill touches no memory.
    let _ = unsafe { syscall!(libc::SYS_tgkill, process_id(), thread_id(), signal) };
}

/// Ends the process.
pub(super) fn exit(status: i32) -> ! {
    loop {
        // SAFETY: exit_group does not return.
        let _ = unsafe { syscall!(libc::SYS_exit_group, status) };
    }
}

/// Sets and reads this thread's alternate stack; false where the kernel refuses.
///
/// # Safety
/// `new` must be null or readable, and `old` writable.
pub(super) unsafe fn alternate_stack(new: *const libc::stack_t, old: *mut libc::stack_t) -> bool {
    // SAFETY: the caller's promise.
    unsafe { syscall!(libc::SYS_sigaltstack, new, old) }.is_ok()
}

/// The alternate stack of the thread that a signal interrupted.
///
/// # Safety
/// `context` must be one that the kernel handed to a handler.
pub(super) unsafe fn alternate_of(context: *const libc::ucontext_t) -> libc::stack_t {
    // SAFETY: the caller's promise.
    unsafe { (*context).uc_stack }
}

/// Memory for a stack of `len` bytes, of which the lowest page traps: by a marker where there are such, so that the stacks
/// of many threads share one mapping, else by protection.
pub(super) fn stack_above_a_guard(len: usize) -> VmResult<usize> {
    let page = probe::page_size();
    let start = map(0, len, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_STACK)?;
    let guard = Range { start, len: page };
    let marked = probe::markers() && memory::advise(guard, MADV_GUARD_INSTALL).is_ok();
    if !marked {
        // SAFETY: the page was mapped above and nothing refers to it. Without it an overflow would go unseen, but
        // there is still a stack.
        let _ = unsafe { syscall!(libc::SYS_mprotect, start, page, libc::PROT_NONE) };
    }
    Ok(start)
}

/// Sends this thread SIGSEGV after `milliseconds`; 0 takes it back.
pub(super) fn watchdog(milliseconds: u64) {
    let process = process_id() as u32;
    let running = WATCHDOG.swap(0, Ordering::AcqRel);
    // A number of the parent's means nothing in a child.
    if let Some(number) = (running as u32).checked_sub(1)
        && (running >> 32) as u32 == process
    {
        // SAFETY: timer_delete touches no memory; an unknown number is refused.
        let _ = unsafe { syscall!(libc::SYS_timer_delete, number) };
    }
    if milliseconds > 0
        && let Ok(number) = start_timer(milliseconds)
    {
        let running = (u64::from(process) << 32) | u64::from(number.saturating_add(1));
        WATCHDOG.store(running, Ordering::Release);
    }
}

/// Starts a timer that sends this thread SIGSEGV once.
fn start_timer(milliseconds: u64) -> Result<u32, Errno> {
    if super::probe::filtered() {
        return Err(Errno(libc::ENOSYS));
    }
    // SAFETY: all-zero is a valid value of this structure.
    let mut event: libc::sigevent = unsafe { core::mem::zeroed() };
    event.sigev_notify = libc::SIGEV_THREAD_ID;
    event.sigev_signo = libc::SIGSEGV;
    event.sigev_notify_thread_id = thread_id();
    let mut number = 0i32;
    // SAFETY: the kernel reads one sigevent, in the C library's layout, and writes one number.
    unsafe { syscall!(libc::SYS_timer_create, libc::CLOCK_MONOTONIC, &raw const event, &raw mut number)? };
    let value = libc::timespec {
        tv_sec: (milliseconds / 1000) as i64,
        tv_nsec: (milliseconds % 1000).wrapping_mul(1_000_000) as i64,
    };
    let interval = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let once = libc::itimerspec { it_interval: interval, it_value: value };
    // SAFETY: the kernel reads one itimerspec.
    unsafe { syscall!(libc::SYS_timer_settime, number, 0, &raw const once, 0)? };
    Ok(number as u32)
}
