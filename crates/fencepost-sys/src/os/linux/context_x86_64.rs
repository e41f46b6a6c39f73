//! What x86_64 tells about a fault, and going back to another one.
//!
//! Source: `arch/x86/include/uapi/asm/sigcontext.h` of the kernel.

use fencepost_record::Registers;

use super::chain::Delivery;
use super::fault_x86_64::{Raised, describe};
use super::keys::{self, Rights};
use super::{write_key, xstate};
use crate::Fault;

/// Bytes below the stack pointer that a function may use without moving it.
pub(super) const RED_ZONE: usize = 128;

/// `si_code` of a fault that a protection key forbade (`asm-generic/siginfo.h`).
const SEGV_PKUERR: i32 = 4;
/// Where `siginfo` keeps the key, in bytes: behind its first three numbers, the address, and the low bit of it.
const SI_PKEY: usize = 32;
/// The trap flag: the processor traps after the next instruction.
const TRAP_FLAG: i64 = 1 << 8;

/// Where the kernel's structure has each register, in the order to print them.
const NAMES: [(&str, i32); 18] = [
    ("rip", libc::REG_RIP),
    ("rsp", libc::REG_RSP),
    ("rbp", libc::REG_RBP),
    ("rax", libc::REG_RAX),
    ("rbx", libc::REG_RBX),
    ("rcx", libc::REG_RCX),
    ("rdx", libc::REG_RDX),
    ("rsi", libc::REG_RSI),
    ("rdi", libc::REG_RDI),
    ("r8", libc::REG_R8),
    ("r9", libc::REG_R9),
    ("r10", libc::REG_R10),
    ("r11", libc::REG_R11),
    ("r12", libc::REG_R12),
    ("r13", libc::REG_R13),
    ("r14", libc::REG_R14),
    ("r15", libc::REG_R15),
    ("eflags", libc::REG_EFL),
];

/// The general registers in the order in which instructions number them.
const NUMBERED: [i32; 16] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSP,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

/// Describes a delivered signal.
pub(super) fn fault(delivery: &Delivery, others: bool) -> Fault {
    // SAFETY: the kernel hands a handler a valid context and siginfo.
    let (registers, info) = unsafe { (&(*delivery.context).uc_mcontext, &*delivery.info) };
    let value = |number: i32| {
        usize::try_from(number).ok().and_then(|index| registers.gregs.get(index)).copied().unwrap_or(0)
    };
    let mut listed = Registers::EMPTY;
    for (name, number) in NAMES {
        listed.push(name, value(number) as u64);
    }
    let at = [value(libc::REG_RIP) as usize, value(libc::REG_RSP) as usize, value(libc::REG_RBP) as usize];
    let mut fault = Fault { sent: delivery.is_sent(), others, ..Fault::at(delivery.signal, at, listed) };
    if fault.sent {
        return fault;
    }
    // SAFETY: of a page fault that a key forbade, siginfo has the key.
    fault.held = info.si_code == SEGV_PKUERR && keys::is_ours(unsafe { key_of(info) });
    fault.can_write = writes(registers) == Rights::All;
    let access = Raised {
        // SAFETY: of these signals, when not sent, siginfo has an address.
        address: unsafe { info.si_addr() }.addr(),
        trap: value(libc::REG_TRAPNO),
        error: value(libc::REG_ERR),
        general: NUMBERED.map(|number| value(number) as u64),
        flags: value(libc::REG_EFL) as u64,
    };
    describe(&mut fault, &access);
    fault
}

/// What the write key allows in a context; nothing, if there is none.
fn writes(machine: &libc::mcontext_t) -> Rights {
    // SAFETY: the kernel put the registers there.
    write_key::if_taken().map_or(Rights::Nothing, |key| unsafe { xstate::key_in(extended(machine), key) })
}

/// Lets the context read the pages of the write key, if it was the want of that which raised the fault.
///
/// # Safety
/// `delivery` must be what the kernel gave a handler.
pub(super) unsafe fn let_read(delivery: &Delivery) -> bool {
    /// In the error code of a page fault: the access was a write.
    const WRITE: libc::greg_t = 2;
    // SAFETY: the caller's promise.
    let (machine, info) = unsafe { (&mut (*delivery.context).uc_mcontext, &*delivery.info) };
    let error = machine.gregs.get(libc::REG_ERR as usize).copied().unwrap_or(WRITE);
    if info.si_code != SEGV_PKUERR || error & WRITE != 0 {
        return false;
    }
    // SAFETY: of a page fault that a key forbade, siginfo has the key.
    let Some(key) = write_key::if_taken().filter(|key| *key == unsafe { key_of(info) }) else { return false };
    // SAFETY: the kernel put the registers there.
    unsafe { xstate::set_key(extended(machine), key, Rights::Read) };
    true
}

/// The interrupted stack pointer.
///
/// # Safety
/// `context` must be valid.
pub(super) unsafe fn stack_pointer(context: *const libc::ucontext_t) -> usize {
    // SAFETY: the caller's promise.
    let registers = unsafe { &(*context).uc_mcontext.gregs };
    registers.get(libc::REG_RSP as usize).map_or(0, |sp| *sp as usize)
}

/// The signal mask to which the context returns: the kernel's 8 bytes at the start of the C library's set.
///
/// # Safety
/// `context` must be valid.
pub(super) unsafe fn mask(context: *const libc::ucontext_t) -> u64 {
    // SAFETY: the caller's promise; the kernel wrote these 8 bytes.
    unsafe { (&raw const (*context).uc_sigmask).cast::<u64>().read() }
}

/// The key that forbade an access.
///
/// # Safety
/// The kernel must have filled it in: `si_code` is `SEGV_PKUERR`.
unsafe fn key_of(info: &libc::siginfo_t) -> i32 {
    // SAFETY: a siginfo is 128 bytes long and aligned to 8; the caller's promise for the value.
    unsafe { core::ptr::from_ref(info).cast::<u8>().add(SI_PKEY).cast::<i32>().read() }
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
    let registers = unsafe { &(*context).uc_mcontext.gregs };
    registers.get(libc::REG_RIP as usize).map_or(0, |pc| *pc as usize)
}

/// The general registers, the instruction pointer and the flags.
pub(super) type General = [libc::greg_t; 18];

/// The registers with which the context returns.
///
/// # Safety
/// `context` must be valid.
pub(super) unsafe fn registers(context: *const libc::ucontext_t) -> General {
    // SAFETY: the caller's promise.
    let all = unsafe { &(*context).uc_mcontext.gregs };
    NAMES.map(|(_, number)| all.get(number as usize).copied().unwrap_or(0))
}

/// Has the context return with other registers.
///
/// # Safety
/// `context` must be valid, and `values` from [`registers`] on the same thread, at an instruction that can still run.
pub(super) unsafe fn set_registers(context: *mut libc::ucontext_t, values: &General) {
    // SAFETY: the caller's promise.
    let all = unsafe { &mut (*context).uc_mcontext.gregs };
    for ((_, number), value) in NAMES.iter().zip(values) {
        if let Some(register) = all.get_mut(*number as usize) {
            *register = *value;
        }
    }
}

/// Has the processor trap after each instruction from the one to which the context returns, or no longer; and opens
/// or closes a protection key to it.
///
/// # Safety
/// `context` must be valid and the kernel's own.
pub(super) unsafe fn set_stepping(context: *mut libc::ucontext_t, on: bool, key: Option<i32>) {
    // SAFETY: the caller's promise.
    let machine = unsafe { &mut (*context).uc_mcontext };
    if let Some(flags) = machine.gregs.get_mut(libc::REG_EFL as usize) {
        *flags = if on { *flags | TRAP_FLAG } else { *flags & !TRAP_FLAG };
    }
    if let Some(key) = key {
        // SAFETY: as above.
        unsafe { xstate::set_key(extended(machine), key, if on { Rights::All } else { Rights::Nothing }) };
    }
}

/// Where the kernel put the registers beside the general ones.
fn extended(machine: &libc::mcontext_t) -> *mut u8 {
    #[cfg(target_env = "gnu")]
    return machine.fpregs.cast();
    // Elsewhere the field is not public: it follows the general registers.
    #[cfg(not(target_env = "gnu"))]
    {
        let after =
            core::mem::offset_of!(libc::mcontext_t, gregs).saturating_add(size_of_val(&machine.gregs));
        // SAFETY: the kernel's structure has this pointer there (`struct sigcontext_64`), on every C library.
        unsafe { core::ptr::from_ref(machine).cast::<u8>().add(after).cast::<*mut u8>().read() }
    }
}

/// Runs one instruction that does nothing, and has the processor trap after it.
#[inline(never)]
pub(super) fn trap_once() {
    // SAFETY: only the flags change, and back: whoever takes the trap clears the flag to which it returns; where
    // nobody does, the second half clears it.
    unsafe {
        core::arch::asm!(
            "pushfq",
            "or qword ptr [rsp], 0x100",
            "popfq",
            "nop",
            "pushfq",
            "and qword ptr [rsp], 0xfffffffffffffeff",
            "popfq",
        );
    }
}
