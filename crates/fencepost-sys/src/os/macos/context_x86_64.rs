//! What the system tells about a fault on x86_64. Source: `osfmk/mach/i386/_structs.h` of XNU.

use fencepost_record::Registers;

use super::chain::Delivery;
use super::fault_x86_64::{Raised, describe};
use crate::Fault;

/// Bytes below the stack pointer that a function may use without moving it.
pub(super) const RED_ZONE: usize = 128;

/// Describes a delivered signal.
pub(super) fn fault(delivery: &Delivery, others: bool) -> Fault {
    // SAFETY: the kernel hands a handler a valid context, with a pointer to the registers, and a valid siginfo.
    let (machine, info) = unsafe { (&*(*delivery.context).uc_mcontext, &*delivery.info) };
    let (registers, exception) = (&machine.__ss, &machine.__es);
    let mut listed = Registers::EMPTY;
    let named = [
        ("rip", registers.__rip),
        ("rsp", registers.__rsp),
        ("rbp", registers.__rbp),
        ("rax", registers.__rax),
        ("rbx", registers.__rbx),
        ("rcx", registers.__rcx),
        ("rdx", registers.__rdx),
        ("rsi", registers.__rsi),
        ("rdi", registers.__rdi),
        ("r8", registers.__r8),
        ("r9", registers.__r9),
        ("r10", registers.__r10),
        ("r11", registers.__r11),
        ("r12", registers.__r12),
        ("r13", registers.__r13),
        ("r14", registers.__r14),
        ("r15", registers.__r15),
        ("eflags", registers.__rflags),
    ];
    for (name, value) in named {
        listed.push(name, value);
    }
    let at = [registers.__rip as usize, registers.__rsp as usize, registers.__rbp as usize];
    let mut fault = Fault { sent: delivery.is_sent(), others, ..Fault::at(delivery.signal, at, listed) };
    if fault.sent {
        return fault;
    }
    let raised = Raised {
        // SAFETY: of these signals, when not sent, siginfo has an address.
        address: unsafe { info.si_addr() }.addr(),
        trap: i64::from(exception.__trapno),
        error: i64::from(exception.__err),
        general: [
            registers.__rax,
            registers.__rcx,
            registers.__rdx,
            registers.__rbx,
            registers.__rsp,
            registers.__rbp,
            registers.__rsi,
            registers.__rdi,
            registers.__r8,
            registers.__r9,
            registers.__r10,
            registers.__r11,
            registers.__r12,
            registers.__r13,
            registers.__r14,
            registers.__r15,
        ],
        flags: registers.__rflags,
    };
    describe(&mut fault, &raised);
    fault
}

/// The interrupted stack pointer.
///
/// # Safety
/// `context` must be valid.
pub(super) unsafe fn stack_pointer(context: *const libc::ucontext_t) -> usize {
    // SAFETY: the caller's promise.
    unsafe { (*(*context).uc_mcontext).__ss.__rsp as usize }
}

/// The signal mask to which the context returns.
///
/// # Safety
/// `context` must be valid.
pub(super) unsafe fn mask(context: *const libc::ucontext_t) -> u64 {
    // SAFETY: the caller's promise.
    u64::from(unsafe { (*context).uc_sigmask })
}

/// Whether the kernel was entered by a system call or an interrupt, and not by a fault.
///
/// # Safety
/// `context` must be one that the kernel handed to a handler.
pub(super) unsafe fn is_without_exception(context: *const libc::ucontext_t) -> bool {
    // The processor's own exceptions are the first 32 vectors; a system call has a number above (`osfmk/i386/trap.h`).
    const EXCEPTIONS: u16 = 32;
    // SAFETY: the caller's promise.
    unsafe { (*(*context).uc_mcontext).__es.__trapno >= EXCEPTIONS }
}
