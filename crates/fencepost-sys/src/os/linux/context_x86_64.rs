//! What x86_64 tells about a fault, and going back to another one.
//!
//! Sources: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 3, "Interrupt 14: page-fault
//! exception" (error code), and `arch/x86/include/uapi/asm/sigcontext.h` of the kernel.

use fencepost_record::{AccessType, Registers};

use super::chain::Delivery;
use super::decode_x86_64::{Decoded, Operand, State, decode};
use super::read::read_checked;
use super::{keys, xstate};
use crate::Fault;

/// Bytes below the stack pointer that a function may use without moving it.
pub(super) const RED_ZONE: usize = 128;

const PAGE_FAULT: i64 = 14;
const GENERAL_PROTECTION: i64 = 13;
const STACK_FAULT: i64 = 12;
const ERROR_WRITE: i64 = 1 << 1;
const ERROR_FETCH: i64 = 1 << 4;
/// The longest instruction.
const INSTRUCTION_MAX: usize = 15;

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
    let mut fault = Fault {
        signal: delivery.signal,
        address: None,
        start: None,
        decoded: false,
        access: AccessType::None,
        size: None,
        pc: value(libc::REG_RIP) as usize,
        sp: value(libc::REG_RSP) as usize,
        fp: value(libc::REG_RBP) as usize,
        sent: delivery.is_sent(),
        registers: listed,
        others,
        held: false,
    };
    if fault.sent {
        return fault;
    }
    // SAFETY: of a page fault that a key forbade, siginfo has the key.
    fault.held = info.si_code == SEGV_PKUERR && keys::is_ours(unsafe { key_of(info) });
    let decoded = decode_at(fault.pc, NUMBERED.map(|number| value(number) as u64));
    match value(libc::REG_TRAPNO) {
        PAGE_FAULT => {
            let error = value(libc::REG_ERR);
            // SAFETY: of these signals, when not sent, siginfo has an address.
            page_fault(&mut fault, unsafe { info.si_addr() }.addr(), error, decoded.as_ref());
        }
        GENERAL_PROTECTION | STACK_FAULT => protection_fault(&mut fault, decoded.as_ref()),
        // SAFETY: as above.
        _ => fault.address = Some(unsafe { info.si_addr() }.addr()),
    }
    fault
}

fn decode_at(pc: usize, general: [u64; 16]) -> Option<Decoded> {
    let mut code = [0u8; INSTRUCTION_MAX];
    let len = read_checked(pc, &mut code);
    decode(code.get(..len)?, &State { general, pc: pc as u64 })
}

/// The processor told the address and the access; the size is the instruction's, if one of its operands covers the
/// address.
fn page_fault(fault: &mut Fault, address: usize, error: i64, decoded: Option<&Decoded>) {
    fault.address = Some(address);
    fault.access = if error & ERROR_FETCH != 0 {
        AccessType::Execute
    } else if error & ERROR_WRITE != 0 {
        AccessType::Write
    } else {
        AccessType::Read
    };
    if fault.access == AccessType::Execute {
        return;
    }
    let covers =
        |operand: &&Operand| (address as u64).wrapping_sub(operand.address) < u64::from(operand.size);
    let writes = fault.access == AccessType::Write;
    let of_this_kind = |operand: &&Operand| operand.write == writes || operand.read != writes;
    let operand = decoded.and_then(|d| d.operands().filter(covers).find(of_this_kind));
    fault.size = operand.map(|operand| operand.size);
    fault.start = operand.map(|operand| operand.address as usize).filter(|start| *start != address);
}

/// The processor tells nothing but that something was not allowed. Where it is that exactly one of the instruction's
/// addresses is not canonical, that was it.
fn protection_fault(fault: &mut Fault, decoded: Option<&Decoded>) {
    // Some processors take the jump first and then fault at its target.
    if !is_canonical(fault.pc as u64) {
        fault.address = Some(fault.pc);
        fault.access = AccessType::Execute;
        return;
    }
    let Some(decoded) = decoded else { return };
    let last = |operand: &Operand| operand.address.wrapping_add(u64::from(operand.size.saturating_sub(1)));
    let wrong = |operand: &&Operand| !is_canonical(operand.address) || !is_canonical(last(operand));
    let mut found = decoded.operands().filter(wrong);
    match (found.next(), found.next()) {
        (Some(operand), None) => {
            fault.address = Some(operand.address as usize);
            fault.access = if operand.write { AccessType::Write } else { AccessType::Read };
            fault.size = Some(operand.size);
            fault.decoded = true;
        }
        (None, None) => {
            if let Some(target) = decoded.target.and_then(target_address).filter(|at| !is_canonical(*at)) {
                fault.address = Some(target as usize);
                fault.access = AccessType::Execute;
                fault.decoded = true;
            }
        }
        _ => {}
    }
}

/// Where a jump, call or return goes.
fn target_address(target: super::decode_x86_64::Target) -> Option<u64> {
    use super::decode_x86_64::Target;
    match target {
        Target::Address(address) => Some(address),
        Target::StoredAt(place) => {
            let mut bytes = [0u8; 8];
            (read_checked(place as usize, &mut bytes) == 8).then(|| u64::from_le_bytes(bytes))
        }
    }
}

/// Whether the upper bits repeat bit 47; with five-level paging and a program that asked for it, bit 56, but then
/// the processor would not have refused the address and we would not ask.
fn is_canonical(address: u64) -> bool {
    let upper = (address as i64) >> 47;
    upper == 0 || upper == -1
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
        unsafe { xstate::set_key(machine.fpregs.cast(), key, on) };
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
