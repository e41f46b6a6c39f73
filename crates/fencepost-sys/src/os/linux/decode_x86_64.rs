//! Which memory an x86_64 instruction touches: addresses, sizes, reads or writes.
//!
//! The processor tells the address of a page fault but not how many bytes were asked for, and of a non-canonical
//! pointer it tells nothing. Both are in the instruction and the registers. Only encodings whose meaning is certain
//! are understood; for all others there is no answer, never a wrong one. So masked, gathered and conditional
//! accesses have none, and neither has anything relative to `fs` or `gs`, whose bases are not at hand.
//!
//! Pure functions of bytes and registers. Source: Intel 64 and IA-32 Architectures Software Developer's Manual,
//! volume 2, chapter 2 (formats) and appendix A (opcode maps).

#[path = "decode_x86_64/forms.rs"]
mod forms;
#[path = "decode_x86_64/opening.rs"]
mod opening;
#[path = "decode_x86_64/repeated.rs"]
mod repeated;

use forms::{Form, Map};
use opening::{Code, Prefixes, opening};
pub(super) use repeated::repeated;

/// Memory that an instruction touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Operand {
    /// The lowest address.
    pub(super) address: u64,
    /// Bytes. Of a repeated string instruction, one element: the one whose turn it is.
    pub(super) size: u32,
    pub(super) read: bool,
    pub(super) write: bool,
}

/// Where an instruction jumps to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// There.
    Address(u64),
    /// To the address that is stored there.
    StoredAt(u64),
}

/// What one instruction does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Decoded {
    pub(super) operands: [Option<Operand>; 2],
    pub(super) target: Option<Target>,
}

impl Decoded {
    /// The memory it touches.
    pub(super) fn operands(&self) -> impl Iterator<Item = &Operand> {
        self.operands.iter().flatten()
    }
}

/// The processor's state before the instruction.
pub(super) struct State {
    /// rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8 to r15.
    pub(super) general: [u64; 16],
    /// The instruction's address.
    pub(super) pc: u64,
}

const RBX: u8 = 3;
const RSP: u8 = 4;
const RBP: u8 = 5;
const RSI: u8 = 6;
const RDI: u8 = 7;

impl State {
    fn register(&self, number: u8) -> u64 {
        self.general.get(usize::from(number)).copied().unwrap_or(0)
    }
}

/// How memory is touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Read,
    Write,
    Both,
}

impl Access {
    fn at(self, address: u64, size: u32) -> Option<Operand> {
        Some(Operand { address, size, read: self != Access::Write, write: self != Access::Read })
    }
}

/// Looks at one instruction; `None` for what is not understood.
pub(super) fn decode(bytes: &[u8], state: &State) -> Option<Decoded> {
    let mut code = Code { bytes, at: 0 };
    let mut prefixes = Prefixes::none();
    let (map, opcode) = opening(&mut code, &mut prefixes)?;
    if map == Map::One
        && !prefixes.vex
        && let Some(found) = implicit(opcode, &mut code, &prefixes, state)
    {
        return Some(found);
    }
    let modrm = code.byte()?;
    if modrm >> 6 == 3 {
        return register_branch(map, opcode, modrm, &prefixes, state);
    }
    let extension = (modrm >> 3) & 7;
    if map == Map::One && opcode == 0xff && matches!(extension, 2 | 4 | 6) {
        return through_memory(extension, modrm, &mut code, &prefixes, state);
    }
    if map == Map::One && opcode == 0x8f {
        return pop_to_memory(extension, modrm, &mut code, &prefixes, state);
    }
    let Form { size, access, immediate } = forms::form(map, opcode, extension, &prefixes)?;
    let address = effective(modrm, &mut code, &prefixes, state, 0, immediate)?;
    Some(Decoded { operands: [access.at(address, size), None], target: None })
}

/// The address of a memory operand. `popped` is what the instruction adds to the stack pointer before it is used,
/// `immediate` how many bytes of the instruction follow.
fn effective(
    modrm: u8,
    code: &mut Code<'_>,
    prefixes: &Prefixes,
    state: &State,
    popped: u32,
    immediate: u32,
) -> Option<u64> {
    let (mode, low) = (modrm >> 6, modrm & 7);
    let base_value = |number: u8| {
        let popped = if number == RSP { popped } else { 0 };
        state.register(number).wrapping_add(u64::from(popped))
    };
    let mut address = 0u64;
    let mut relative = false;
    let mut has_dword = mode == 2;
    if low == RSP {
        let sib = code.byte()?;
        let index = ((sib >> 3) & 7) | prefixes.index_high;
        if index != RSP {
            address = state.register(index).wrapping_shl(u32::from(sib >> 6));
        }
        if sib & 7 == RBP && mode == 0 {
            has_dword = true;
        } else {
            address = address.wrapping_add(base_value((sib & 7) | prefixes.base_high));
        }
    } else if low == RBP && mode == 0 {
        (has_dword, relative) = (true, true);
    } else {
        address = base_value(low | prefixes.base_high);
    }
    if has_dword {
        address = address.wrapping_add_signed(i64::from(code.dword()?.cast_signed()));
    } else if mode == 1 {
        let displacement = i64::from(code.byte()?.cast_signed());
        address =
            address.wrapping_add_signed(displacement.wrapping_mul(i64::from(prefixes.displacement_unit)));
    }
    if relative {
        let len = (code.at as u64).wrapping_add(u64::from(immediate));
        address = address.wrapping_add(state.pc).wrapping_add(len);
    }
    Some(prefixes.address(address))
}

/// Instructions whose memory is named by the opcode alone.
fn implicit(opcode: u8, code: &mut Code<'_>, prefixes: &Prefixes, state: &State) -> Option<Decoded> {
    use Access::{Read, Write};
    let top = state.register(RSP);
    let stack_size = prefixes.stack_size();
    let push = Write.at(top.wrapping_sub(u64::from(stack_size)), stack_size);
    let pop = Read.at(top, stack_size);
    let size = if opcode & 1 == 0 { 1 } else { prefixes.operand_size() };
    let at = |register: u8, access: Access| access.at(prefixes.address(state.register(register)), size);
    let mut target = None;
    let operands = match opcode {
        0x50..=0x57 | 0x68 | 0x6a | 0x9c => [push, None],
        0x58..=0x5f | 0x9d => [pop, None],
        0xa0 | 0xa1 => [Read.at(absolute(code, prefixes)?, size), None],
        0xa2 | 0xa3 => [Write.at(absolute(code, prefixes)?, size), None],
        0xa4 | 0xa5 => [at(RSI, Read), at(RDI, Write)],
        0xa6 | 0xa7 => [at(RSI, Read), at(RDI, Read)],
        0xaa | 0xab => [at(RDI, Write), None],
        0xac | 0xad => [at(RSI, Read), None],
        0xae | 0xaf => [at(RDI, Read), None],
        0xc2 | 0xc3 if !prefixes.narrow => {
            target = Some(Target::StoredAt(top));
            [pop, None]
        }
        0xc9 if !prefixes.narrow => [Read.at(state.register(RBP), 8), None],
        0xd7 => {
            let place = state.register(RBX).wrapping_add(state.register(0) & 0xff);
            [Read.at(prefixes.address(place), 1), None]
        }
        0xe8 if !prefixes.narrow => {
            let distance = i64::from(code.dword()?.cast_signed());
            let next = state.pc.wrapping_add(code.at as u64);
            target = Some(Target::Address(next.wrapping_add_signed(distance)));
            [push, None]
        }
        _ => return None,
    };
    Some(Decoded { operands, target })
}

/// An address given in the instruction itself.
fn absolute(code: &mut Code<'_>, prefixes: &Prefixes) -> Option<u64> {
    let low = u64::from(code.dword()?);
    if prefixes.address32 {
        return Some(low);
    }
    Some(low | (u64::from(code.dword()?) << 32))
}

/// A call or jump to the address in a register.
fn register_branch(map: Map, opcode: u8, modrm: u8, prefixes: &Prefixes, state: &State) -> Option<Decoded> {
    if map != Map::One || opcode != 0xff || prefixes.narrow {
        return None;
    }
    let target = Some(Target::Address(state.register((modrm & 7) | prefixes.base_high)));
    match (modrm >> 3) & 7 {
        2 => {
            let push = Access::Write.at(state.register(RSP).wrapping_sub(8), 8);
            Some(Decoded { operands: [push, None], target })
        }
        4 => Some(Decoded { operands: [None; 2], target }),
        _ => None,
    }
}

/// Calls, jumps and pushes whose operand is in memory.
fn through_memory(
    extension: u8,
    modrm: u8,
    code: &mut Code<'_>,
    prefixes: &Prefixes,
    state: &State,
) -> Option<Decoded> {
    let is_push = extension == 6;
    if prefixes.narrow && !is_push {
        return None;
    }
    let size = prefixes.stack_size();
    let place = effective(modrm, code, prefixes, state, 0, 0)?;
    let push = Access::Write.at(state.register(RSP).wrapping_sub(u64::from(size)), size);
    Some(Decoded {
        operands: [Access::Read.at(place, size), push.filter(|_| extension != 4)],
        target: (!is_push).then_some(Target::StoredAt(place)),
    })
}

fn pop_to_memory(
    extension: u8,
    modrm: u8,
    code: &mut Code<'_>,
    prefixes: &Prefixes,
    state: &State,
) -> Option<Decoded> {
    if extension != 0 {
        return None;
    }
    let size = prefixes.stack_size();
    let place = effective(modrm, code, prefixes, state, size, 0)?;
    let pop = Access::Read.at(state.register(RSP), size);
    Some(Decoded { operands: [pop, Access::Write.at(place, size)], target: None })
}

#[cfg(test)]
#[path = "decode_x86_64/tests.rs"]
mod tests;
