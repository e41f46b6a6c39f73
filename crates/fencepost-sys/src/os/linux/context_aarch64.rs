//! What aarch64 tells about a fault, and going back to another one.
//!
//! Source: `arch/arm64/include/uapi/asm/sigcontext.h` of the kernel: behind the registers there is a list of records, each
//! with a magic number and its size, one of which holds the syndrome.

use fencepost_record::Registers;

use super::chain::Delivery;
use super::fault_aarch64::describe;
use crate::Fault;

/// The ABI leaves nothing below the stack pointer to functions; some compilers use this much all the same.
pub(super) const RED_ZONE: usize = 128;

const ESR_MAGIC: u32 = 0x4553_5201;
const RECORDS_LEN: usize = 4096;
/// Offset of the records from the start of `mcontext_t`: fault address, 31 registers, sp, pc and pstate, rounded up
/// to the alignment of 16.
const RECORDS_AT: usize = 288;

const NAMES: [&str; 31] = [
    "x0", "x1", "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12", "x13", "x14", "x15",
    "x16", "x17", "x18", "x19", "x20", "x21", "x22", "x23", "x24", "x25", "x26", "x27", "x28", "x29", "x30",
];

/// Describes a delivered signal.
pub(super) fn fault(delivery: &Delivery, others: bool) -> Fault {
    // SAFETY: the kernel hands a handler a valid context and siginfo.
    let (machine, info) = unsafe { (&(*delivery.context).uc_mcontext, &*delivery.info) };
    let mut listed = Registers::EMPTY;
    listed.push("pc", machine.pc);
    listed.push("sp", machine.sp);
    for (name, value) in NAMES.into_iter().zip(machine.regs) {
        listed.push(name, value);
    }
    let at = [machine.pc as usize, machine.sp as usize, machine.regs.get(29).map_or(0, |fp| *fp as usize)];
    let mut fault = Fault { sent: delivery.is_sent(), others, ..Fault::at(delivery.signal, at, listed) };
    if fault.sent {
        return fault;
    }
    // SAFETY: of these signals, when not sent, siginfo has an address; the kernel hands a handler a valid context, records
    // included.
    let (address, syndrome) = unsafe { (info.si_addr().addr(), syndrome(delivery.context)) };
    describe(&mut fault, address, syndrome, machine.regs.get(30).map_or(0, |link| *link));
    fault
}

/// The syndrome register at the fault, if the kernel recorded it.
///
/// # Safety
/// `context` must be one that the kernel handed to a handler.
unsafe fn syndrome(context: *const libc::ucontext_t) -> Option<u64> {
    // SAFETY: the caller's promise.
    let machine = unsafe { &raw const (*context).uc_mcontext };
    let records = machine.cast::<u8>().wrapping_add(RECORDS_AT);
    let mut at = 0usize;
    while at.saturating_add(16) <= RECORDS_LEN {
        let record = records.wrapping_add(at);
        // SAFETY: the record's head lies within the kernel's 4 KiB of records (checked above).
        let (magic, len) = unsafe {
            (record.cast::<u32>().read_unaligned(), record.wrapping_add(4).cast::<u32>().read_unaligned())
        };
        if magic == ESR_MAGIC {
            // SAFETY: as above; the syndrome follows the head of 8 bytes.
            return Some(unsafe { record.wrapping_add(8).cast::<u64>().read_unaligned() });
        }
        if magic == 0 || len < 8 {
            return None;
        }
        at = at.saturating_add(len as usize);
    }
    None
}

/// No key forbids reading here.
///
/// # Safety
/// None is asked for.
pub(super) unsafe fn let_read(_delivery: &Delivery) -> bool {
    false
}

/// The interrupted stack pointer.
///
/// # Safety
/// `context` must be valid.
pub(super) unsafe fn stack_pointer(context: *const libc::ucontext_t) -> usize {
    // SAFETY: the caller's promise.
    unsafe { (*context).uc_mcontext.sp as usize }
}

/// The signal mask to which the context returns: the kernel's 8 bytes at the start of the C library's set.
///
/// # Safety
/// `context` must be valid.
pub(super) unsafe fn mask(context: *const libc::ucontext_t) -> u64 {
    // SAFETY: the caller's promise; the kernel wrote these 8 bytes.
    unsafe { (&raw const (*context).uc_sigmask).cast::<u64>().read() }
}

/// Sets the signal mask to which the context returns.
///
/// # Safety
/// `context` must be valid.
pub(super) unsafe fn set_mask(context: *mut libc::ucontext_t, mask: u64) {
    // SAFETY: the caller's promise; the kernel reads these 8 bytes.
    unsafe { (&raw mut (*context).uc_sigmask).cast::<u64>().write(mask) };
}

/// The instruction to which the context returns.
///
/// # Safety
/// `context` must be valid.
pub(super) unsafe fn instruction(context: *const libc::ucontext_t) -> usize {
    // SAFETY: the caller's promise.
    unsafe { (*context).uc_mcontext.pc as usize }
}

/// Nothing is kept: no step is ever taken back here.
pub(super) type General = ();

/// Nothing: as [`set_stepping`].
///
/// # Safety
/// None; as on the other processors.
pub(super) unsafe fn registers(_context: *const libc::ucontext_t) -> General {}

/// Nothing: as [`set_stepping`].
///
/// # Safety
/// None; as on the other processors.
pub(super) unsafe fn set_registers(_context: *mut libc::ucontext_t, _values: &General) {}

/// Nothing: a program cannot have this processor trap after each instruction.
///
/// # Safety
/// None; as on the other processors.
pub(super) unsafe fn set_stepping(_context: *mut libc::ucontext_t, _on: bool, _key: Option<i32>) {}

/// Nothing: no trap follows, so that steps are found to be impossible.
pub(super) fn trap_once() {}
