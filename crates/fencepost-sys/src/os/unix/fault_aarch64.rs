//! What the aarch64 processor says of a fault, whatever system hands it on.
//!
//! Source: Arm Architecture Reference Manual for A-profile, "ESR_EL1" (exception class and write bit).

use fencepost_record::AccessType;

use super::decode_aarch64::{Decoded, decode};
use super::read::read_checked;
use crate::Fault;

/// Fills in address, access and size, and the caller by the link register. Where the system has no syndrome (user-mode
/// emulation), the instruction tells.
pub(super) fn describe(fault: &mut Fault, address: usize, syndrome: Option<u64>, link: u64) {
    fault.address = Some(address);
    fault.caller = caller(link as usize);
    let decoded = decode_at(fault.pc);
    fault.access = access(fault.pc == address, syndrome, decoded);
    if matches!(fault.access, AccessType::Read | AccessType::Write) {
        fault.size = decoded.map(|decoded| decoded.size);
    }
}

fn access(at_pc: bool, syndrome: Option<u64>, decoded: Option<Decoded>) -> AccessType {
    const INSTRUCTION_ABORTS: [u64; 2] = [0x20, 0x21];
    const DATA_ABORTS: [u64; 2] = [0x24, 0x25];
    const WRITE_NOT_READ: u64 = 1 << 6;
    let class = syndrome.map(|syndrome| (syndrome >> 26) & 0x3f);
    match (class, syndrome, decoded) {
        (Some(class), ..) if INSTRUCTION_ABORTS.contains(&class) => AccessType::Execute,
        (Some(class), Some(syndrome), _) if DATA_ABORTS.contains(&class) => {
            if syndrome & WRITE_NOT_READ != 0 { AccessType::Write } else { AccessType::Read }
        }
        _ if at_pc => AccessType::Execute,
        (.., Some(decoded)) if decoded.write => AccessType::Write,
        (.., Some(_)) => AccessType::Read,
        _ => AccessType::None,
    }
}

/// A return address, if a call stands before it: `BL`, `BLR`, or one of those that authenticate first.
fn caller(link: usize) -> Option<usize> {
    let mut code = [0u8; 4];
    let call = link.checked_sub(code.len())?;
    (read_checked(call, &mut code) == code.len() && is_call(u32::from_le_bytes(code))).then_some(link)
}

fn is_call(code: u32) -> bool {
    code >> 26 == 0b10_0101 || code & 0xfeff_f800 == 0xd63f_0800 || code & 0xffff_fc1f == 0xd63f_0000
}

fn decode_at(pc: usize) -> Option<Decoded> {
    let mut code = [0u8; 4];
    if read_checked(pc, &mut code) != code.len() {
        return None;
    }
    decode(u32::from_le_bytes(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORES: Option<Decoded> = Some(Decoded { size: 4, write: true });
    const LOADS: Option<Decoded> = Some(Decoded { size: 4, write: false });

    #[test]
    fn the_syndrome_goes_before_the_instruction() {
        let (data, code) = (0x24 << 26, 0x20 << 26);
        let cases = [
            (false, Some(data | 1 << 6), LOADS, AccessType::Write),
            (false, Some(data), STORES, AccessType::Read),
            // From the same exception level: the kernel's own, which hands on the same numbers.
            (false, Some((0x25 << 26) | 1 << 6), None, AccessType::Write),
            (false, Some(code), STORES, AccessType::Execute),
            (true, Some(data), None, AccessType::Read),
            // Another class says nothing of memory: the instruction is asked.
            (false, Some(0x15 << 26), STORES, AccessType::Write),
        ];
        for (at_pc, syndrome, decoded, expected) in cases {
            assert_eq!(access(at_pc, syndrome, decoded), expected, "{syndrome:x?} {decoded:?}");
        }
    }

    #[test]
    fn what_stands_before_a_return_address_is_a_call() {
        // bl, blr x8, blraaz x8, blraa x8, x9
        for code in [0x9400_0010, 0x97ff_ffff, 0xd63f_0100, 0xd63f_091f, 0xd73f_0909] {
            assert!(is_call(code), "{code:x}");
        }
        // b, br x8, ret, nop, ldr
        for code in [0x1400_0010, 0xd61f_0100, 0xd65f_03c0, 0xd503_201f, 0xf940_0000] {
            assert!(!is_call(code), "{code:x}");
        }
    }

    #[test]
    fn without_a_syndrome_the_instruction_tells() {
        assert_eq!(access(false, None, STORES), AccessType::Write);
        assert_eq!(access(false, None, LOADS), AccessType::Read);
        assert_eq!(access(true, None, None), AccessType::Execute);
        assert_eq!(access(false, None, None), AccessType::None, "not known is said to be not known");
    }
}
