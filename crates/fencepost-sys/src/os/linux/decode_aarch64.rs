//! Whether an aarch64 instruction loads or stores, and how many bytes.
//!
//! Only the encodings whose meaning is certain; for all others, nothing. Source: Arm Architecture Reference Manual
//! for A-profile, "Loads and Stores". Of use beside the processor's own word, which has no size.

/// What one instruction does to memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decoded {
    /// Bytes touched from the lowest address on.
    pub(super) size: u32,
    /// Whether it stores (also where it loads as well).
    pub(super) write: bool,
}

/// Looks at one instruction.
pub(super) fn decode(word: u32) -> Option<Decoded> {
    let bits = |high: u32, low: u32| {
        (word >> low) & 1u32.wrapping_shl(high.wrapping_sub(low).wrapping_add(1)).wrapping_sub(1)
    };
    let scale = bits(31, 30);
    let vector = bits(26, 26) == 1;
    match (bits(29, 27), bits(25, 24)) {
        (0b001, 0b00) if !vector => exclusive(scale, bits(23, 23) == 1, bits(22, 22) == 1, bits(21, 21) == 1),
        (0b011, 0b00) => literal(scale, vector),
        (0b101, 0b00..=0b01) => pair(scale, vector, bits(22, 22) == 1),
        // Unsigned offset; or a register offset or one of the nine-bit offsets.
        (0b111, 0b01) => single(scale, vector, bits(23, 22)),
        (0b111, 0b00) if bits(21, 21) == 0 || bits(11, 10) == 0b10 => single(scale, vector, bits(23, 22)),
        // Atomic operations in one instruction. The form without a result register is told apart by nobody here.
        (0b111, 0b00) if !vector && bits(21, 21) == 1 && bits(11, 10) == 0b00 => {
            match bits(15, 12) {
                0b1100 => Some(Decoded { size: power(scale), write: false }),
                0b0000..=0b1000 => Some(Decoded { size: power(scale), write: true }),
                // Accesses of 64 bytes, and others that are rare.
                _ => None,
            }
        }
        _ => None,
    }
}

fn power(scale: u32) -> u32 {
    1u32.wrapping_shl(scale)
}

fn exclusive(scale: u32, ordered: bool, load: bool, pair: bool) -> Option<Decoded> {
    match (ordered, pair) {
        // Exclusive pair; with the small sizes it is compare-and-swap of a pair.
        (false, true) if scale >= 2 => Some(Decoded { size: power(scale).wrapping_mul(2), write: !load }),
        (false, true) => Some(Decoded { size: power(scale).wrapping_mul(8), write: true }),
        // Compare-and-swap.
        (true, true) => Some(Decoded { size: power(scale), write: true }),
        (_, false) => Some(Decoded { size: power(scale), write: !load }),
    }
}

fn literal(scale: u32, vector: bool) -> Option<Decoded> {
    let size = match (scale, vector) {
        (0b00, _) | (0b10, false) => 4,
        (0b01, _) => 8,
        (0b10, true) => 16,
        // A prefetch, which never faults, or nothing.
        _ => return None,
    };
    Some(Decoded { size, write: false })
}

fn pair(scale: u32, vector: bool, load: bool) -> Option<Decoded> {
    let each = match (scale, vector) {
        (0b00, _) | (0b01, false) => 4,
        (0b10, false) | (0b01, true) => 8,
        (0b10, true) => 16,
        _ => return None,
    };
    // With memory tags the middle encoding without vectors stores a tag: a store of another size.
    if scale == 0b01 && !vector && !load {
        return None;
    }
    Some(Decoded { size: u32::wrapping_mul(each, 2), write: !load })
}

fn single(scale: u32, vector: bool, operation: u32) -> Option<Decoded> {
    match (vector, scale, operation) {
        // 128 bits are the byte size with the upper operation bit.
        (true, 0b00, 0b10) => Some(Decoded { size: 16, write: true }),
        (true, 0b00, 0b11) => Some(Decoded { size: 16, write: false }),
        (true, _, 0b00..=0b01) => Some(Decoded { size: power(scale), write: operation == 0 }),
        (true, ..) => None,
        // A prefetch.
        (false, 0b11, 0b10) => None,
        (false, 0b10 | 0b11, 0b11) => None,
        (false, ..) => Some(Decoded { size: power(scale), write: operation == 0 }),
    }
}
