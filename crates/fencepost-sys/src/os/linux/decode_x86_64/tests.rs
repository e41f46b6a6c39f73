//! The decoder against a processor's behaviour, and against addresses worked out by hand.
//!
//! `measured.txt` was made by running each instruction at every distance before an inaccessible page: its size is
//! the smallest distance without a fault, and the page-fault error code tells reads from writes. Bytes by the GNU
//! assembler.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic,
    clippy::disallowed_types,
    clippy::disallowed_macros
)]

use std::{vec, vec::Vec};

use super::*;

const PC: u64 = 0x40_0000;

/// A value for each register that shows which it is: 1, 2, 3, … in the upper half.
fn r(number: u64) -> u64 {
    ((number + 1) << 32) + 0x1000
}

fn state() -> State {
    State { general: core::array::from_fn(|number| r(number as u64)), pc: PC }
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(|byte| *byte != b' ').collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(core::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn operand(address: u64, size: u32, access: Access) -> Option<Operand> {
    access.at(address, size)
}

#[test]
fn sizes_are_those_that_a_processor_showed() {
    let mut seen = 0;
    for line in include_str!("measured.txt").lines() {
        let mut fields = line.split_ascii_whitespace();
        let code = bytes(fields.next().unwrap());
        let size: u32 = fields.next().unwrap().parse().unwrap();
        let writes = fields.next().unwrap() == "write";
        let decoded = decode(&code, &state()).unwrap_or_else(|| panic!("not understood: {line}"));
        let [Some(operand), None] = decoded.operands else { panic!("not one operand: {line}: {decoded:?}") };
        assert_eq!((operand.address, operand.size, operand.write), (r(7), size, writes), "{line}");
        assert!(operand.read || operand.write);
        for len in 0..code.len() {
            // The last bytes may be an immediate that nobody needs.
            let cut = decode(&code[..len], &state());
            assert!(cut.is_none() || cut == Some(decoded), "{line}, cut at {len}: {cut:?}");
        }
        seen += 1;
    }
    assert_eq!(seen, 598);
}

#[test]
fn addresses_are_worked_out_as_the_processor_does() {
    use Access::{Read, Write};
    let (next, scaled) = (|len: u64| PC + len, |number: u64, scale: u64| r(number) * scale);
    let cases = [
        ("8b 03", r(3), 4, Read),                                             // mov eax, [rbx]
        ("41 8b 04 24", r(12), 4, Read),                                      // mov eax, [r12]
        ("41 8b 45 00", r(13), 4, Read),                                      // mov eax, [r13]
        ("8b 45 f8", r(5) - 8, 4, Read),                                      // mov eax, [rbp-8]
        ("8b 44 24 10", r(4) + 0x10, 4, Read),                                // mov eax, [rsp+0x10]
        ("8b 04 8b", r(3) + scaled(1, 4), 4, Read),                           // mov eax, [rbx+rcx*4]
        ("42 8b 44 e3 80", r(3) + scaled(12, 8) - 0x80, 4, Read),             // mov eax, [rbx+r12*8-0x80]
        ("43 8b 84 75 00 10 00 00", r(13) + scaled(14, 2) + 0x1000, 4, Read), // mov eax, [r13+r14*2+0x1000]
        ("8b 04 cd 78 56 34 12", scaled(1, 8) + 0x1234_5678, 4, Read),        // mov eax, [rcx*8+0x12345678]
        ("8b 04 25 00 10 00 00", 0x1000, 4, Read),                            // mov eax, [0x1000]
        ("8b 05 00 01 00 00", next(6) + 0x100, 4, Read),                      // mov eax, [rip+0x100]
        ("81 3d 00 01 00 00 44 33 22 11", next(10) + 0x100, 4, Read),         // cmp [rip+0x100], 0x11223344
        ("c6 05 f0 ff ff ff 07", next(7) - 0x10, 1, Write),                   // mov byte [rip-0x10], 7
        ("67 8b 43 10", (r(3) + 0x10) & 0xffff_ffff, 4, Read),                // mov eax, [ebx+0x10]
        ("a1 88 77 66 55 44 33 22 11", 0x1122_3344_5566_7788, 4, Read),       // movabs eax, [...]
        ("a2 88 77 66 55 44 33 22 11", 0x1122_3344_5566_7788, 1, Write),      // movabs [...], al
        ("43 0f 10 0c 11", r(9) + r(10), 16, Read),                           // movups xmm1, [r9+r10]
        ("c4 81 7e 6f 4c 91 20", r(9) + scaled(10, 4) + 0x20, 32, Read),      // vmovdqu ymm1, [r9+r10*4+0x20]
        ("c5 fe 6f 4b 20", r(3) + 0x20, 32, Read),                            // vmovdqu ymm1, [rbx+0x20]
        ("62 e1 7f 48 6f 46 01", r(6) + 0x40, 64, Read),                      // vmovdqu8 zmm16, [rsi+0x40]
        ("62 e1 fe 28 6f 46 02", r(6) + 0x40, 32, Read),                      // vmovdqu64 ymm16, [rsi+0x40]
        ("62 e1 fe 28 7f 4f ff", r(7) - 0x20, 32, Write),                     // vmovdqu64 [rdi-0x20], ymm17
        ("62 81 fd 48 7f 14 08", r(8) + r(9), 64, Write),                     // vmovdqa64 [r8+r9], zmm18
        ("62 f1 7c 48 10 8e 07 00 00 00", r(6) + 7, 64, Read),                // vmovups zmm1, [rsi+7]
        ("ac", r(6), 1, Read),                                                // lodsb
        ("67 ad", r(6) & 0xffff_ffff, 4, Read),                               // lodsd, 32-bit address
        ("f3 aa", r(7), 1, Write),                                            // rep stosb
        ("48 ab", r(7), 8, Write),                                            // stosq
        ("f2 ae", r(7), 1, Read),                                             // repne scasb
        ("d7", r(3) + (r(0) & 0xff), 1, Read),                                // xlatb
        ("50", r(4) - 8, 8, Write),                                           // push rax
        ("41 51", r(4) - 8, 8, Write),                                        // push r9
        ("66 50", r(4) - 2, 2, Write),                                        // push ax
        ("6a 05", r(4) - 8, 8, Write),                                        // push 5
        ("68 45 23 01 00", r(4) - 8, 8, Write),                               // push 0x12345
        ("9c", r(4) - 8, 8, Write),                                           // pushfq
        ("5b", r(4), 8, Read),                                                // pop rbx
        ("41 5f", r(4), 8, Read),                                             // pop r15
        ("c9", r(5), 8, Read),                                                // leave
    ];
    for (hex, address, size, access) in cases {
        let decoded = decode(&bytes(hex), &state());
        let expected = Decoded { operands: [operand(address, size, access), None], target: None };
        assert_eq!(decoded, Some(expected), "{hex}");
    }
}

#[test]
fn two_operands_and_targets_are_told() {
    use Access::{Read, Write};
    let push = operand(r(4) - 8, 8, Write);
    let top = operand(r(4), 8, Read);
    let stored = |place| Some(Target::StoredAt(place));
    let there = |place| Some(Target::Address(place));
    let cases = vec![
        ("f3 a4", [operand(r(6), 1, Read), operand(r(7), 1, Write)], None), // rep movsb
        ("f3 48 a5", [operand(r(6), 8, Read), operand(r(7), 8, Write)], None), // rep movsq
        ("a5", [operand(r(6), 4, Read), operand(r(7), 4, Write)], None),    // movsd
        ("a6", [operand(r(6), 1, Read), operand(r(7), 1, Read)], None),     // cmpsb
        ("ff 74 24 08", [operand(r(4) + 8, 8, Read), push], None),          // push [rsp+8]
        ("8f 44 24 08", [top, operand(r(4) + 16, 8, Write)], None),         // pop [rsp+8]: the new rsp counts
        ("8f 00", [top, operand(r(0), 8, Write)], None),                    // pop [rax]
        ("c3", [top, None], stored(r(4))),                                  // ret
        ("c2 08 00", [top, None], stored(r(4))),                            // ret 8
        ("ff d0", [push, None], there(r(0))),                               // call rax
        ("41 ff d4", [push, None], there(r(12))),                           // call r12
        ("ff 53 08", [operand(r(3) + 8, 8, Read), push], stored(r(3) + 8)), // call [rbx+8]
        ("ff e2", [None, None], there(r(2))),                               // jmp rdx
        ("ff 25 20 00 00 00", [operand(PC + 0x26, 8, Read), None], stored(PC + 0x26)), // jmp [rip+0x20]
        ("e8 00 01 00 00", [push, None], there(PC + 0x105)),                // call
    ];
    for (hex, operands, target) in cases {
        assert_eq!(decode(&bytes(hex), &state()), Some(Decoded { operands, target }), "{hex}");
    }
}

#[test]
fn what_is_not_certain_has_no_answer() {
    let cases = [
        "c4 e2 6d 2c 0f",    // vmaskmovps: masked
        "c4 e2 6d 8e 0f",    // vpmaskmovd: masked
        "c4 e2 6d 90 0c 9f", // vpgatherdd: many addresses
        "62 e1 7f 49 6f 06", // vmovdqu8 with a mask
        "0f a3 0f",          // bt [rdi], ecx: the register moves the address
        "48 0f ab 0f",       // bts [rdi], rcx: the same
        "48 8d 07",          // lea: no access
        "0f 1f 07",          // nop
        "0f 18 0f",          // prefetcht0: never faults
        "0f 0d 0f",          // prefetchw
        "0f ae 07",          // fxsave
        "0f ae 27",          // xsave: size depends on the processor
        "0f ae 3f",          // clflush
        "d9 37",             // fnstenv
        "d9 27",             // fldenv
        "64 48 8b 07",       // mov rax, fs:[rdi]
        "65 89 07",          // mov gs:[rdi], eax
        "0f 01 17",          // lgdt
        "66 0f f7 ca",       // maskmovdqu: masked
        "ff 1f",             // call far
        "0f 60 0f",          // punpcklbw mm1: size depends on the processor
        "a8 05",             // test al, 5
        "b8 00 00 00 00",    // mov eax, 0
        "90",                // nop
        "0f 05",             // syscall
        "0f 0b",             // ud2
        "cc",                // int3
        "75 10",             // jne
        "89 c8",             // mov eax, ecx
        "0f 28 c1",          // movaps xmm0, xmm1
        "c5 fd 6f c1",       // vmovdqa ymm0, ymm1
        "48",                // REX and nothing
        "48 48 8b 07",       // REX before REX
        "66 66 66 66 66",    // prefixes and nothing
        "8f e9 78 80 07",    // XOP vfrczps
        "",                  // nothing
    ];
    for hex in cases {
        assert_eq!(decode(&bytes(hex), &state()), None, "{hex}");
    }
}

/// No bytes whatever make it panic, or look past the fifteenth.
#[test]
fn any_bytes_are_survived() {
    let mut seed = 1u64;
    for _ in 0..400_000 {
        let mut code = [0u8; 15];
        for byte in &mut code {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = (seed >> 56) as u8;
        }
        if let Some(decoded) = decode(&code, &state()) {
            assert!(decoded.operands().all(|operand| (1..=64).contains(&operand.size)));
        }
    }
}

#[test]
fn what_is_left_of_a_repeated_instruction_is_in_the_registers() {
    let mut state = state();
    state.general[1] = 5;
    let of = |hex: &str, down: bool| {
        let copy = repeated(&bytes(hex), &state, down)?;
        Some((copy.to, copy.from, copy.left.unwrap()))
    };
    let (to, from) = (r(7), r(6));
    assert_eq!(of("f3 a4", false), Some((to, Some(from), 5)), "rep movsb");
    assert_eq!(of("f3 48 a5", false), Some((to, Some(from), 40)), "rep movsq");
    assert_eq!(of("f3 a5", true), Some((to - 16, Some(from - 16), 20)), "rep movsd, downwards");
    assert_eq!(of("66 f3 ab", false), Some((to, None, 10)), "rep stosw");
    assert_eq!(of("f2 aa", true), Some((to - 4, None, 5)), "repne stosb, which the processor takes for rep");
    for other in ["a4", "48 ab", "f3 a6", "f3 ae", "f3 ac", "f3 0f 6f 00", "c5 fa 6f 07", ""] {
        assert_eq!(of(other, false), None, "{other}");
    }
    let huge = State { general: core::array::from_fn(|_| u64::MAX / 4), pc: PC };
    assert_eq!(repeated(&bytes("f3 48 a5"), &huge, false), None, "more than there are addresses");
}
