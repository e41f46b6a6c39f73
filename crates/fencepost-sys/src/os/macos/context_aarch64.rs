//! What the system tells about a fault on aarch64. Source: `osfmk/mach/arm/_structs.h` of XNU.

use fencepost_record::Registers;

use super::chain::Delivery;
use super::fault_aarch64::describe;
use crate::Fault;

/// Bytes below the stack pointer that a function may use without moving it ("Writing ARM64 code for Apple platforms").
pub(super) const RED_ZONE: usize = 128;

const NAMES: [&str; 29] = [
    "x0", "x1", "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12", "x13", "x14", "x15",
    "x16", "x17", "x18", "x19", "x20", "x21", "x22", "x23", "x24", "x25", "x26", "x27", "x28",
];

/// Describes a delivered signal.
pub(super) fn fault(delivery: &Delivery, others: bool) -> Fault {
    // SAFETY: the kernel hands a handler a valid context, with a pointer to the registers, and a valid siginfo.
    let (machine, info) = unsafe { (&*(*delivery.context).uc_mcontext, &*delivery.info) };
    let registers = &machine.__ss;
    let mut listed = Registers::EMPTY;
    listed.push("pc", registers.__pc);
    listed.push("sp", registers.__sp);
    for (name, value) in NAMES.into_iter().zip(registers.__x) {
        listed.push(name, value);
    }
    listed.push("x29", registers.__fp);
    listed.push("x30", registers.__lr);
    let at = [registers.__pc as usize, registers.__sp as usize, registers.__fp as usize];
    let mut fault = Fault { sent: delivery.is_sent(), others, ..Fault::at(delivery.signal, at, listed) };
    if fault.sent {
        return fault;
    }
    // SAFETY: of these signals, when not sent, siginfo has an address.
    let address = unsafe { info.si_addr() }.addr();
    describe(&mut fault, address, Some(u64::from(machine.__es.__esr)), registers.__lr);
    fault
}

/// The interrupted stack pointer.
///
/// # Safety
/// `context` must be valid.
pub(super) unsafe fn stack_pointer(context: *const libc::ucontext_t) -> usize {
    // SAFETY: the caller's promise.
    unsafe { (*(*context).uc_mcontext).__ss.__sp as usize }
}

/// The signal mask to which the context returns.
///
/// # Safety
/// `context` must be valid.
pub(super) unsafe fn mask(context: *const libc::ucontext_t) -> u64 {
    // SAFETY: the caller's promise.
    u64::from(unsafe { (*context).uc_sigmask })
}

/// Whether the kernel was entered by a system call, and not by a fault.
///
/// # Safety
/// `context` must be one that the kernel handed to a handler.
pub(super) unsafe fn is_without_exception(context: *const libc::ucontext_t) -> bool {
    // The exception class of `SVC` in AArch64 state ("ESR_EL1").
    const SYSTEM_CALL: u32 = 0x15;
    // SAFETY: the caller's promise.
    let syndrome = unsafe { (*(*context).uc_mcontext).__es.__esr };
    syndrome >> 26 == SYSTEM_CALL
}
