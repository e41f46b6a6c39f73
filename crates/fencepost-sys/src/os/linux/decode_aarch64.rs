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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_and_stores_are_told_apart() {
        let cases = [
            (0xf940_0001_u32, Some((8, false))), // ldr x1, [x0]
            (0xb900_0001, Some((4, true))),      // str w1, [x0]
            (0x3940_0001, Some((1, false))),     // ldrb w1, [x0]
            (0x7880_2001, Some((2, false))),     // ldursh x1, [x0, #2]
            (0xb980_0001, Some((4, false))),     // ldrsw x1, [x0]
            (0x3c81_0400, Some((16, true))),     // str q0, [x0], #16
            (0x3dc0_0000, Some((16, false))),    // ldr q0, [x0]
            (0xfd00_0000, Some((8, true))),      // str d0, [x0]
            (0xf862_6801, Some((8, false))),     // ldr x1, [x0, x2]
            (0x3822_6801, Some((1, true))),      // strb w1, [x0, x2]
            (0xa9bf_7bfd, Some((16, true))),     // stp x29, x30, [sp, #-16]!
            (0xa8c1_7bfd, Some((16, false))),    // ldp x29, x30, [sp], #16
            (0x6940_0801, Some((8, false))),     // ldpsw x1, x2, [x0]
            (0xad00_0400, Some((32, true))),     // stp q0, q1, [x0]
            (0x2900_0801, Some((8, true))),      // stp w1, w2, [x0]
            (0x5800_0041, Some((8, false))),     // ldr x1, literal
            (0x885f_7c01, Some((4, false))),     // ldxr w1, [x0]
            (0xc802_7c01, Some((8, true))),      // stxr w2, x1, [x0]
            (0xc89f_fc01, Some((8, true))),      // stlr x1, [x0]
            (0xc8df_fc01, Some((8, false))),     // ldar x1, [x0]
            (0x88e1_fc02, Some((4, true))),      // casal w1, w2, [x0]
            (0xc87f_0801, Some((16, false))),    // ldxp x1, x2, [x0]
            (0x4820_7c82, Some((16, true))),     // casp x0, x1, x2, x3, [x4]
            (0xf821_0002, Some((8, true))),      // ldadd x1, x2, [x0]
            (0xb8a1_8002, Some((4, true))),      // swpa w1, w2, [x0]
            (0xf8bf_c001, Some((8, false))),     // ldapr x1, [x0]
            (0xf980_0000, None),                 // prfm
            (0x6900_0801, None),                 // stgp x1, x2, [x0]
            (0xf83f_d000, None),                 // ld64b x0, [x0]
            (0x9100_0400, None),                 // add x0, x0, #1
            (0xd503_201f, None),                 // nop
            (0xd65f_03c0, None),                 // ret
        ];
        for (word, expected) in cases {
            let found = decode(word).map(|decoded| (decoded.size, decoded.write));
            assert_eq!(found, expected, "{word:#010x}");
        }
    }
}
