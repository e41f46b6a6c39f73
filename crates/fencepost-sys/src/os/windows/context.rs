//! What the system tells about a fault.
//!
//! Sources: `EXCEPTION_RECORD` and `CONTEXT` of `winnt.h`: of an access violation the first parameter says how (0 read,
//! 1 write, 8 execute), the second where.

use fencepost_record::{AccessType, Registers};
use windows_sys::Win32::Foundation::{
    EXCEPTION_ACCESS_VIOLATION, EXCEPTION_GUARD_PAGE, EXCEPTION_IN_PAGE_ERROR, EXCEPTION_STACK_OVERFLOW,
};
use windows_sys::Win32::System::Diagnostics::Debug::{CONTEXT, EXCEPTION_RECORD};

use super::decode_x86_64::{Decoded, Operand, State, decode, repeated};
use crate::{Fault, Host, Memory};

/// The longest instruction.
const INSTRUCTION_MAX: usize = 15;
/// Repeated instructions go downwards.
const DIRECTION_FLAG: u32 = 0x400;
/// What the system says where the processor told no address (a non-canonical one).
const NO_ADDRESS: usize = usize::MAX;

/// Whether an exception is about an access to memory.
pub(in crate::os) fn is_fault(code: i32) -> bool {
    matches!(
        code,
        EXCEPTION_ACCESS_VIOLATION
            | EXCEPTION_IN_PAGE_ERROR
            | EXCEPTION_GUARD_PAGE
            | EXCEPTION_STACK_OVERFLOW
    )
}

/// Describes an exception. `stack` is where the thread's own stack ends below.
pub(in crate::os) fn fault(
    record: &EXCEPTION_RECORD,
    context: &CONTEXT,
    stack: usize,
    others: bool,
) -> Fault {
    let mut registers = Registers::EMPTY;
    for (name, value) in listed(context) {
        registers.push(name, value);
    }
    let [how, address] = parameters(record);
    let told = record.NumberParameters >= 2;
    let at = [context.Rip as usize, context.Rsp as usize, context.Rbp as usize];
    let mut fault = Fault {
        address: (told && address != NO_ADDRESS).then_some(address),
        access: match how {
            _ if !told => AccessType::None,
            0 => AccessType::Read,
            1 => AccessType::Write,
            8 => AccessType::Execute,
            _ => AccessType::None,
        },
        others,
        once: record.ExceptionCode == EXCEPTION_GUARD_PAGE,
        ..Fault::at(record.ExceptionCode, at, registers)
    };
    if record.ExceptionCode == EXCEPTION_STACK_OVERFLOW {
        // Told while there is room for handlers left: what was reached is where the stack ends, as seen from outside.
        fault.address = Some(stack.wrapping_sub(1));
        fault.access = AccessType::Write;
        return fault;
    }
    let mut code = [0u8; INSTRUCTION_MAX];
    let len = Host.read_checked(fault.pc, &mut code);
    let code = code.get(..len).unwrap_or(&[]);
    let state = State { general: numbered(context), pc: fault.pc as u64 };
    let decoded = decode(code, &state);
    fault.repeated = repeated(code, &state, context.EFlags & DIRECTION_FLAG != 0);
    complete(&mut fault, decoded.as_ref());
    fault
}

fn parameters(record: &EXCEPTION_RECORD) -> [usize; 2] {
    let [how, address, ..] = record.ExceptionInformation;
    [how, address]
}

/// The registers in the order to print them.
fn listed(context: &CONTEXT) -> [(&'static str, u64); 18] {
    [
        ("rip", context.Rip),
        ("rsp", context.Rsp),
        ("rbp", context.Rbp),
        ("rax", context.Rax),
        ("rbx", context.Rbx),
        ("rcx", context.Rcx),
        ("rdx", context.Rdx),
        ("rsi", context.Rsi),
        ("rdi", context.Rdi),
        ("r8", context.R8),
        ("r9", context.R9),
        ("r10", context.R10),
        ("r11", context.R11),
        ("r12", context.R12),
        ("r13", context.R13),
        ("r14", context.R14),
        ("r15", context.R15),
        ("eflags", u64::from(context.EFlags)),
    ]
}

/// The general registers in the order in which instructions number them.
fn numbered(context: &CONTEXT) -> [u64; 16] {
    let CONTEXT { Rax, Rcx, Rdx, Rbx, Rsp, Rbp, Rsi, Rdi, R8, R9, R10, R11, R12, R13, R14, R15, .. } =
        *context;
    [Rax, Rcx, Rdx, Rbx, Rsp, Rbp, Rsi, Rdi, R8, R9, R10, R11, R12, R13, R14, R15]
}

/// General registers, the next instruction, and the flags.
pub(in crate::os) const GENERAL: usize = 18;

/// All of them.
pub(in crate::os) fn general(context: &CONTEXT) -> [u64; GENERAL] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = numbered(context);
    [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, context.Rip, u64::from(context.EFlags)]
}

/// Puts them back.
pub(in crate::os) fn set_general(context: &mut CONTEXT, registers: &[u64; GENERAL]) {
    let [ax, cx, dx, bx, sp, bp, si, di, r8, r9, r10, r11, r12, r13, r14, r15, ip, flags] = *registers;
    (context.Rax, context.Rcx, context.Rdx, context.Rbx) = (ax, cx, dx, bx);
    (context.Rsp, context.Rbp, context.Rsi, context.Rdi) = (sp, bp, si, di);
    (context.R8, context.R9, context.R10, context.R11) = (r8, r9, r10, r11);
    (context.R12, context.R13, context.R14, context.R15) = (r12, r13, r14, r15);
    (context.Rip, context.EFlags) = (ip, flags as u32);
}

/// Adds what the instruction tells: the size and the start of the access, and the address where the system had none.
fn complete(fault: &mut Fault, decoded: Option<&Decoded>) {
    let Some(decoded) = decoded.filter(|_| fault.access != AccessType::Execute) else { return };
    let Some(address) = fault.address else {
        let mut wrong = decoded.operands().filter(|operand| !is_canonical(operand.address));
        if let (Some(operand), None) = (wrong.next(), wrong.next()) {
            fault.address = Some(operand.address as usize);
            fault.access = if operand.write { AccessType::Write } else { AccessType::Read };
            fault.size = Some(operand.size);
            fault.decoded = true;
        }
        return;
    };
    let covers =
        |operand: &&Operand| (address as u64).wrapping_sub(operand.address) < u64::from(operand.size);
    let writes = fault.access == AccessType::Write;
    let of_this_kind = |operand: &&Operand| operand.write == writes || operand.read != writes;
    let operand = decoded.operands().filter(covers).find(of_this_kind);
    fault.size = operand.map(|operand| operand.size);
    fault.start = operand.map(|operand| operand.address as usize).filter(|start| *start != address);
}

/// Whether the upper bits repeat bit 47.
fn is_canonical(address: u64) -> bool {
    let upper = (address as i64) >> 47;
    upper == 0 || upper == -1
}
