//! The opcode tables: how many bytes an instruction with one memory operand touches, and how.

use super::Access::{self, Both, Read, Write};
use super::Prefixes;

/// Which of the processor's opcode maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Map {
    /// One byte.
    One,
    /// 0f and one byte.
    Two,
    /// 0f 38 and one byte.
    Three38,
    /// 0f 3a and one byte.
    Three3a,
}

/// What an instruction does with its memory operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Form {
    pub(super) size: u32,
    pub(super) access: Access,
    /// Bytes that follow the operand.
    pub(super) immediate: u32,
}

/// Selectors, as AVX numbers them.
const NONE: u8 = 0;
const P66: u8 = 1;
const PF3: u8 = 2;
const PF2: u8 = 3;

fn plain(access: Access, size: u32) -> Option<Form> {
    Some(Form { size, access, immediate: 0 })
}

fn with_byte(access: Access, size: u32) -> Option<Form> {
    Some(Form { size, access, immediate: 1 })
}

/// Looks an instruction up.
pub(super) fn form(map: Map, opcode: u8, extension: u8, prefixes: &Prefixes) -> Option<Form> {
    match map {
        Map::One => one_byte(opcode, extension, prefixes),
        Map::Two if prefixes.vex => vector(opcode, prefixes),
        Map::Two => general(opcode, extension, prefixes).or_else(|| vector(opcode, prefixes)),
        Map::Three38 => general_38(opcode, extension, prefixes).or_else(|| vector_38(opcode, prefixes)),
        Map::Three3a => vector_3a(opcode, prefixes),
    }
}

fn one_byte(opcode: u8, extension: u8, prefixes: &Prefixes) -> Option<Form> {
    let size = if opcode & 1 == 0 { 1 } else { prefixes.operand_size() };
    let full = prefixes.operand_size();
    let immediate = if opcode & 1 == 0 { 1 } else { prefixes.immediate_size() };
    let compare_only = |compares: bool| if compares { Read } else { Both };
    match opcode {
        // Eight arithmetic operations, of which the last is a comparison.
        0x00..=0x3f => match opcode & 7 {
            0 | 1 => plain(compare_only(opcode >= 0x38), size),
            2 | 3 => plain(Read, size),
            _ => None,
        },
        0x63 if !prefixes.narrow || prefixes.wide => plain(Read, 4),
        0x69 => Some(Form { size: full, access: Read, immediate: prefixes.immediate_size() }),
        0x6b => with_byte(Read, full),
        0x80 | 0x81 => Some(Form { size, access: compare_only(extension == 7), immediate }),
        0x83 => with_byte(compare_only(extension == 7), full),
        0x84 | 0x85 | 0x8a | 0x8b => plain(Read, size),
        0x86 | 0x87 => plain(Both, size),
        0x88 | 0x89 => plain(Write, size),
        0x8c => plain(Write, 2),
        0x8e => plain(Read, 2),
        0xc0 | 0xc1 => with_byte(Both, size),
        0xd0..=0xd3 => plain(Both, size),
        0xc6 | 0xc7 if extension == 0 => Some(Form { size, access: Write, immediate }),
        0xd8..=0xdf => floating(opcode, extension),
        0xf6 | 0xf7 => match extension {
            0 | 1 => Some(Form { size, access: Read, immediate }),
            2 | 3 => plain(Both, size),
            _ => plain(Read, size),
        },
        0xfe | 0xff if extension < 2 => plain(Both, size),
        _ => None,
    }
}

/// The x87 instructions that load, store or compute with one number.
fn floating(opcode: u8, extension: u8) -> Option<Form> {
    match (opcode, extension) {
        (0xd8 | 0xda, _) | (0xd9 | 0xdb, 0) => plain(Read, 4),
        (0xd9, 2 | 3) | (0xdb, 1..=3) => plain(Write, 4),
        (0xd9, 5) | (0xde, _) | (0xdf, 0) => plain(Read, 2),
        (0xd9 | 0xdd, 7) | (0xdf, 1..=3) => plain(Write, 2),
        (0xdb, 5) | (0xdf, 4) => plain(Read, 10),
        (0xdb, 7) | (0xdf, 6) => plain(Write, 10),
        (0xdc, _) | (0xdd, 0) | (0xdf, 5) => plain(Read, 8),
        (0xdd, 1..=3) | (0xdf, 7) => plain(Write, 8),
        _ => None,
    }
}

/// Instructions on general registers in the second map.
fn general(opcode: u8, extension: u8, prefixes: &Prefixes) -> Option<Form> {
    let full = prefixes.operand_size();
    match (opcode, prefixes.selector()) {
        (0x40..=0x4f | 0xaf | 0xbc | 0xbd, _) | (0xb8, PF3) => plain(Read, full),
        (0x90..=0x9f, _) => plain(Write, 1),
        (0xa4 | 0xac, _) => with_byte(Both, full),
        (0xa5 | 0xad | 0xb1 | 0xc1, _) => plain(Both, full),
        (0xae, NONE) if extension == 2 => plain(Read, 4),
        (0xae, NONE) if extension == 3 => plain(Write, 4),
        (0xb0 | 0xc0, _) => plain(Both, 1),
        (0xb6 | 0xbe, _) => plain(Read, 1),
        (0xb7 | 0xbf, _) => plain(Read, 2),
        (0xba, _) if extension == 4 => with_byte(Read, full),
        (0xba, _) if extension > 4 => with_byte(Both, full),
        (0xc3, NONE) => plain(Write, prefixes.double_size()),
        (0xc7, NONE | PF3 | PF2) if extension == 1 => plain(Both, prefixes.double_size().wrapping_mul(2)),
        _ => None,
    }
}

/// Instructions on general registers in the third map.
fn general_38(opcode: u8, extension: u8, prefixes: &Prefixes) -> Option<Form> {
    let selector = prefixes.selector();
    let double = prefixes.double_size();
    if prefixes.vex {
        return match (opcode, selector) {
            (0xf2, NONE) | (0xf5, NONE | PF2 | PF3) | (0xf6, PF2) | (0xf7, _) => plain(Read, double),
            (0xf3, NONE) if (1..=3).contains(&extension) => plain(Read, double),
            _ => None,
        };
    }
    match (opcode, selector) {
        (0xf0, NONE | P66) => plain(Read, prefixes.operand_size()),
        (0xf1, NONE | P66) => plain(Write, prefixes.operand_size()),
        (0xf0, PF2) => plain(Read, 1),
        (0xf1, PF2) => plain(Read, prefixes.operand_size()),
        (0xf6, P66 | PF3) => plain(Read, double),
        _ => None,
    }
}

/// Size of an operation that comes in four kinds: packed single, packed double, one single, one double.
fn packed_or_one(selector: u8, whole: u32) -> u32 {
    match selector {
        PF3 => 4,
        PF2 => 8,
        _ => whole,
    }
}

/// Vector instructions of the second map.
fn vector(opcode: u8, prefixes: &Prefixes) -> Option<Form> {
    let whole = prefixes.vector;
    let double = prefixes.double_size();
    let selector = prefixes.selector();
    let any = packed_or_one(selector, whole);
    let mmx = selector == NONE && !prefixes.vex;
    match (opcode, selector) {
        (0x10 | 0x51 | 0x58 | 0x59 | 0x5c..=0x5f, _) => plain(Read, any),
        (0x11, _) => plain(Write, any),
        (0x12 | 0x16, NONE | P66) => plain(Read, 8),
        (0x12 | 0x16, PF3) => plain(Read, whole),
        // Doubles every other number: half of a small register, all of a large one.
        (0x12, PF2) => plain(Read, if whole == 16 { 8 } else { whole }),
        (0x13 | 0x17, NONE | P66) => plain(Write, 8),
        (0x14 | 0x15 | 0x28 | 0x54..=0x57, NONE | P66) => plain(Read, whole),
        (0x29 | 0x2b, NONE | P66) => plain(Write, whole),
        (0x2a, PF3 | PF2) => plain(Read, double),
        (0x2c | 0x2d, PF3) | (0x2e | 0x2f, NONE) => plain(Read, 4),
        (0x2c | 0x2d, PF2) | (0x2e | 0x2f, P66) => plain(Read, 8),
        (0x52 | 0x53, NONE | PF3) => plain(Read, any),
        (0x5a, NONE) => plain(Read, whole / 2),
        (0x5a, _) => plain(Read, any),
        (0x5b, NONE | P66 | PF3) => plain(Read, whole),
        (0x60..=0x6d | 0x74..=0x76, P66) => plain(Read, whole),
        (0x6e, P66) => plain(Read, double),
        (0x6e, NONE) if mmx => plain(Read, double),
        (0x6f, P66 | PF3) => plain(Read, whole),
        // AVX-512 only: it has no older form.
        (0x6f, PF2) if prefixes.vex => plain(Read, whole),
        (0x7f, PF2) if prefixes.vex => plain(Write, whole),
        (0x6f, NONE) if mmx => plain(Read, 8),
        (0x70, P66 | PF3 | PF2) => with_byte(Read, whole),
        (0x70, NONE) if mmx => with_byte(Read, 8),
        (0x7c | 0x7d | 0xd0, P66 | PF2) => plain(Read, whole),
        (0x7e, P66) => plain(Write, double),
        (0x7e, NONE) if mmx => plain(Write, double),
        (0x7e, PF3) => plain(Read, 8),
        (0x7f, P66 | PF3) => plain(Write, whole),
        (0x7f | 0xe7, NONE) if mmx => plain(Write, 8),
        (0xc2, _) => with_byte(Read, any),
        (0xc4, P66) => with_byte(Read, 2),
        (0xc6, NONE | P66) => with_byte(Read, whole),
        (0xd6, P66) => plain(Write, 8),
        // Shifts by a count, which is 16 bytes whatever the register.
        (0xd1..=0xd3 | 0xe1 | 0xe2 | 0xf1..=0xf3, P66) => plain(Read, 16),
        (0xe6, PF3) => plain(Read, whole / 2),
        (0xe6, P66 | PF2) => plain(Read, whole),
        (0xe7, P66) => plain(Write, whole),
        (0xf0, PF2) => plain(Read, whole),
        (0xd4 | 0xd5 | 0xd8..=0xe0 | 0xe3..=0xe5 | 0xe8..=0xef | 0xf4..=0xf6 | 0xf8..=0xfe, P66) => {
            plain(Read, whole)
        }
        _ => None,
    }
}

/// Vector instructions of the third map, all with prefix 66.
fn vector_38(opcode: u8, prefixes: &Prefixes) -> Option<Form> {
    if prefixes.selector() != P66 {
        return None;
    }
    let whole = prefixes.vector;
    match opcode {
        0x00..=0x0b | 0x17 | 0x1c..=0x1e | 0x28..=0x2b | 0x37..=0x40 | 0xdb..=0xdf => plain(Read, whole),
        // Widening: the register's size over how much each element grows.
        0x20 | 0x23 | 0x25 | 0x30 | 0x33 | 0x35 => plain(Read, whole / 2),
        0x21 | 0x24 | 0x31 | 0x34 => plain(Read, whole / 4),
        0x22 | 0x32 => plain(Read, whole / 8),
        0x41 => plain(Read, 16),
        0x10 | 0x14 | 0x15 if !prefixes.vex => plain(Read, whole),
        _ if !prefixes.vex => None,
        0x0c..=0x0f | 0x16 | 0x36 | 0x45..=0x47 => plain(Read, whole),
        // Half-size numbers that become whole ones.
        0x13 => plain(Read, whole / 2),
        // Broadcasts.
        0x78 => plain(Read, 1),
        0x79 => plain(Read, 2),
        0x18 | 0x58 => plain(Read, 4),
        0x19 | 0x59 => plain(Read, 8),
        0x1a | 0x5a => plain(Read, 16),
        // Fused multiply and add: even opcodes on all numbers, odd ones from 9 of each row on one.
        0x96..=0x98 | 0xa6..=0xa8 | 0xb6..=0xb8 => plain(Read, whole),
        0x99..=0x9f | 0xa9..=0xaf | 0xb9..=0xbf => {
            plain(Read, if opcode & 1 == 0 { whole } else { prefixes.double_size() })
        }
        _ => None,
    }
}

/// Vector instructions of the last map, all with a byte that follows.
fn vector_3a(opcode: u8, prefixes: &Prefixes) -> Option<Form> {
    let whole = prefixes.vector;
    let double = prefixes.double_size();
    if prefixes.vex && opcode == 0xf0 && prefixes.selector() == PF2 {
        return with_byte(Read, double);
    }
    if prefixes.selector() != P66 {
        return None;
    }
    match opcode {
        0x08 | 0x09 | 0x0c..=0x0f | 0x40 | 0x42 | 0x44 => with_byte(Read, whole),
        0x0a | 0x21 => with_byte(Read, 4),
        0x0b => with_byte(Read, 8),
        0x14 => with_byte(Write, 1),
        0x15 => with_byte(Write, 2),
        0x16 => with_byte(Write, double),
        0x17 => with_byte(Write, 4),
        0x20 => with_byte(Read, 1),
        0x22 => with_byte(Read, double),
        0x41 | 0x60..=0x63 | 0xdf => with_byte(Read, 16),
        _ if !prefixes.vex => None,
        0x00..=0x02 | 0x04..=0x06 | 0x46 | 0x4a..=0x4c => with_byte(Read, whole),
        0x18 | 0x38 => with_byte(Read, 16),
        0x19 | 0x39 => with_byte(Write, 16),
        0x1d => with_byte(Write, whole / 2),
        _ => None,
    }
}
