//! The beginning of an instruction: prefixes in all their encodings, and the opcode.

use super::forms::Map;

/// The prefixes of an instruction, in whichever of their encodings.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Prefixes {
    /// Operands of 2 bytes.
    pub(super) narrow: bool,
    /// Addresses of 4 bytes.
    pub(super) address32: bool,
    /// 0xf2 or 0xf3, the last one.
    pub(super) repeat: u8,
    /// Operands of 8 bytes, or another use of that bit.
    pub(super) wide: bool,
    /// What extends the number of the index register, and of the base or operand register.
    pub(super) index_high: u8,
    pub(super) base_high: u8,
    /// Bytes of a vector register.
    pub(super) vector: u32,
    /// Encoded as for AVX: three operands, and other meanings.
    pub(super) vex: bool,
    /// Unit of a one-byte displacement (AVX-512), else 1.
    pub(super) displacement_unit: u32,
}

impl Prefixes {
    /// None, before any is read.
    pub(super) fn none() -> Prefixes {
        Prefixes { vector: 16, displacement_unit: 1, ..Prefixes::default() }
    }

    /// Size of a general operand.
    pub(super) fn operand_size(&self) -> u32 {
        if self.wide {
            8
        } else if self.narrow {
            2
        } else {
            4
        }
    }

    /// Size of a general operand that has no narrow form.
    pub(super) fn double_size(&self) -> u32 {
        if self.wide { 8 } else { 4 }
    }

    /// Size of what a push or pop moves.
    pub(super) fn stack_size(&self) -> u32 {
        if self.narrow { 2 } else { 8 }
    }

    /// Size of an immediate operand that is at most 4 bytes.
    pub(super) fn immediate_size(&self) -> u32 {
        self.operand_size().min(4)
    }

    /// The prefix that selects among instructions of the same opcode, as AVX numbers it: none, 66, f3, f2.
    pub(super) fn selector(&self) -> u8 {
        match (self.repeat, self.narrow) {
            (0xf3, _) => 2,
            (0xf2, _) => 3,
            (_, narrow) => u8::from(narrow),
        }
    }

    pub(super) fn address(&self, address: u64) -> u64 {
        if self.address32 { address & 0xffff_ffff } else { address }
    }
}

/// The bytes of an instruction.
pub(super) struct Code<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

impl Code<'_> {
    pub(super) fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at = self.at.wrapping_add(1);
        Some(byte)
    }

    pub(super) fn dword(&mut self) -> Option<u32> {
        let bytes = self.bytes.get(self.at..)?.first_chunk()?;
        self.at = self.at.wrapping_add(4);
        Some(u32::from_le_bytes(*bytes))
    }
}

/// Reads everything up to and including the opcode.
pub(super) fn opening(code: &mut Code<'_>, prefixes: &mut Prefixes) -> Option<(Map, u8)> {
    let mut byte = code.byte()?;
    loop {
        match byte {
            0x66 => prefixes.narrow = true,
            0x67 => prefixes.address32 = true,
            0xf2 | 0xf3 => prefixes.repeat = byte,
            // Locks, and segments that have no effect in 64-bit mode.
            0xf0 | 0x26 | 0x2e | 0x36 | 0x3e => {}
            // fs and gs.
            0x64 | 0x65 => return None,
            _ => break,
        }
        byte = code.byte()?;
    }
    match byte {
        0x40..=0x4f => {
            prefixes.wide = byte & 8 != 0;
            prefixes.index_high = (byte & 2) << 2;
            prefixes.base_high = (byte & 1) << 3;
            byte = code.byte()?;
        }
        0xc5 | 0xc4 => return vex(byte, code, prefixes),
        0x62 => return evex(code, prefixes),
        _ => {}
    }
    match byte {
        // A prefix behind REX makes REX void; compilers do not emit it.
        0x66
        | 0x67
        | 0xf0
        | 0xf2
        | 0xf3
        | 0x26
        | 0x2e
        | 0x36
        | 0x3e
        | 0x40..=0x4f
        | 0x62
        | 0x64
        | 0x65
        | 0xc4
        | 0xc5 => None,
        0x0f => match code.byte()? {
            0x38 => Some((Map::Three38, code.byte()?)),
            0x3a => Some((Map::Three3a, code.byte()?)),
            opcode => Some((Map::Two, opcode)),
        },
        opcode => Some((Map::One, opcode)),
    }
}

/// Sets the prefixes that AVX forms carry in one field.
fn select(prefixes: &mut Prefixes, selector: u8) {
    prefixes.vex = true;
    prefixes.narrow = selector == 1;
    prefixes.repeat = match selector {
        2 => 0xf3,
        3 => 0xf2,
        _ => 0,
    };
}

fn avx_map(number: u8) -> Option<Map> {
    match number {
        1 => Some(Map::Two),
        2 => Some(Map::Three38),
        3 => Some(Map::Three3a),
        _ => None,
    }
}

fn vex(first: u8, code: &mut Code<'_>, prefixes: &mut Prefixes) -> Option<(Map, u8)> {
    let mut map = Map::Two;
    let mut payload = code.byte()?;
    if first == 0xc4 {
        map = avx_map(payload & 0x1f)?;
        prefixes.index_high = (!payload & 0x40) >> 3;
        prefixes.base_high = (!payload & 0x20) >> 2;
        payload = code.byte()?;
        prefixes.wide = payload & 0x80 != 0;
    }
    prefixes.vector = if payload & 4 != 0 { 32 } else { 16 };
    select(prefixes, payload & 3);
    Some((map, code.byte()?))
}

/// AVX-512: whole-register moves without a mask, the ones that the C library's copy functions use.
fn evex(code: &mut Code<'_>, prefixes: &mut Prefixes) -> Option<(Map, u8)> {
    let [first, second, third] = [code.byte()?, code.byte()?, code.byte()?];
    let (mask, broadcast, length) = (third & 7, third & 0x10, (third >> 5) & 3);
    if first & 8 != 0 || second & 4 == 0 || mask != 0 || broadcast != 0 || length == 3 {
        return None;
    }
    prefixes.index_high = (!first & 0x40) >> 3;
    prefixes.base_high = (!first & 0x20) >> 2;
    prefixes.wide = second & 0x80 != 0;
    prefixes.vector = 16u32.wrapping_shl(u32::from(length));
    prefixes.displacement_unit = prefixes.vector;
    select(prefixes, second & 3);
    let opcode = code.byte()?;
    let selector = second & 3;
    let whole = match opcode {
        0x10 | 0x11 | 0x28 | 0x29 | 0x2b => selector < 2,
        0x6f | 0x7f => selector != 0,
        0xe7 => selector == 1,
        _ => false,
    };
    (first & 7 == 1 && whole).then_some((Map::Two, opcode))
}
