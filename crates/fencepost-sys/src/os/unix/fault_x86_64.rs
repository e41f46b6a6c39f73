//! What the x86_64 processor says of a fault, whatever system hands it on.
//!
//! Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 3, "Interrupt 14: page-fault exception"
//! (error code).

use fencepost_record::AccessType;

use super::decode_x86_64::{Decoded, Operand, State, Target, decode, repeated};
use super::read::read_checked;
use crate::Fault;

const PAGE_FAULT: i64 = 14;
const GENERAL_PROTECTION: i64 = 13;
const STACK_FAULT: i64 = 12;
const ERROR_WRITE: i64 = 1 << 1;
const ERROR_FETCH: i64 = 1 << 4;
/// String instructions go down.
const DIRECTION_FLAG: u64 = 1 << 10;
/// The longest instruction.
const INSTRUCTION_MAX: usize = 15;

/// What the system hands on of a fault that an instruction raised.
pub(super) struct Raised {
    /// The address, as the system has it.
    pub(super) address: usize,
    /// The number of the processor's exception.
    pub(super) trap: i64,
    /// The processor's error code.
    pub(super) error: i64,
    /// The general registers in the order in which instructions number them.
    pub(super) general: [u64; 16],
    /// The flags.
    pub(super) flags: u64,
}

/// Fills in address, access and size.
pub(super) fn describe(fault: &mut Fault, raised: &Raised) {
    let mut code = [0u8; INSTRUCTION_MAX];
    let len = read_checked(fault.pc, &mut code);
    let code = code.get(..len).unwrap_or(&[]);
    let state = State { general: raised.general, pc: fault.pc as u64 };
    let decoded = decode(code, &state);
    fault.repeated = repeated(code, &state, raised.flags & DIRECTION_FLAG != 0);
    match raised.trap {
        PAGE_FAULT => page_fault(fault, raised.address, raised.error, decoded.as_ref()),
        GENERAL_PROTECTION | STACK_FAULT => protection_fault(fault, decoded.as_ref()),
        _ => fault.address = Some(raised.address),
    }
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
fn target_address(target: Target) -> Option<u64> {
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
