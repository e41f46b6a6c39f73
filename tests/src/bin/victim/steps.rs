//! Errors that a program outlives, for `on_error=continue`: every kind of instruction that can touch a closed page. Each
//! checks that the program goes on as it would have without a guard, and prints what it found.

use crate::{Touch, armed, victim_allocates, victim_frees, victim_touches};
use std::hint::black_box;

/// Runs one kind: each does what its name says, to memory past a block of 4,096 bytes or inside a freed one.
pub fn step(words: &[&str]) {
    match words.first().copied().unwrap_or_default() {
        "plain" => plain(),
        "twice" => twice(),
        #[cfg(target_arch = "x86_64")]
        "rep" => x86::repeated(),
        #[cfg(target_arch = "x86_64")]
        "straddle" => x86::straddle(),
        #[cfg(target_arch = "x86_64")]
        "two-blocks" => x86::two_blocks(),
        #[cfg(target_arch = "x86_64")]
        "locked" => x86::locked(),
        #[cfg(target_arch = "x86_64")]
        "vector" => x86::vector(),
        #[cfg(target_arch = "x86_64")]
        "scatter" => x86::scatter(),
        "loop" => looped(),
        "threads" => threads(words.get(1).map_or(500, |_| crate::number(words, 1))),
        other => {
            eprintln!("victim: no such step: {other}");
            std::process::exit(2);
        }
    }
}

/// A block, and the first byte past it.
pub fn past() -> (*mut u8, *mut u8) {
    let block = victim_allocates(4096, 16);
    (block, block.wrapping_add(4096))
}

fn plain() {
    let (block, end) = past();
    armed();
    victim_touches(end, Touch::Write);
    println!("read back {:#x}", victim_touches(end, Touch::Read));
    println!("beside it {:#x}", victim_touches(end.wrapping_add(1), Touch::Read));
    victim_touches(block, Touch::Write);
    victim_frees(block, 4096, 16);
    println!("freed {:#x}", victim_touches(block, Touch::Read));
}

/// The same bug from two places: two reports, though the page is the same.
fn twice() {
    let (_, end) = past();
    armed();
    victim_touches(end, Touch::Write);
    println!("first");
    victim_touches(end.wrapping_add(8), Touch::Read);
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::*;
    use std::arch::asm;

    /// A string instruction that runs from its block over the guard page and the two pages behind.
    #[inline(never)]
    fn fills(at: *mut u8, len: usize) {
        // SAFETY: none: it runs out of its block, which is the bug.
        unsafe { asm!("rep stosb", inout("rdi") at => _, inout("rcx") len => _, in("al") 0x77_u8) };
    }

    #[inline(never)]
    fn copies(from: *const u8, to: *mut u8, len: usize) {
        // SAFETY: none: as above.
        unsafe { asm!("rep movsb", inout("rsi") from => _, inout("rdi") to => _, inout("rcx") len => _) };
    }

    pub fn repeated() {
        let (block, end) = past();
        let mut copy = vec![0u8; 200];
        armed();
        fills(black_box(block), 4096 + 100);
        println!("last {:#x}", victim_touches(end.wrapping_add(99), Touch::Read));
        copies(end.wrapping_sub(100), copy.as_mut_ptr(), 200);
        println!("copied {}", copy.iter().filter(|byte| **byte == 0x77).count());
    }

    pub fn straddle() {
        let (_, end) = past();
        armed();
        let at = end.wrapping_sub(3).cast::<u64>();
        // SAFETY: none: the last five bytes lie past the block.
        unsafe {
            asm!("mov qword ptr [{at}], {value}", at = in(reg) at, value = in(reg) 0x0807_0605_0403_0201_u64)
        };
        let value: u64;
        // SAFETY: none: as above.
        unsafe { asm!("mov {value}, qword ptr [{at}]", at = in(reg) at, value = out(reg) value) };
        println!("read back {value:#x}");
    }

    /// From one freed block to another, by one instruction: two errors.
    pub fn two_blocks() {
        let (one, other) = (victim_allocates(64, 16), victim_allocates(128, 16));
        victim_frees(one, 64, 16);
        victim_frees(other, 128, 16);
        armed();
        copies(black_box(one), black_box(other), 1);
        println!("done");
    }

    pub fn locked() {
        let (_, end) = past();
        armed();
        let at = end.cast::<u64>();
        let (mut old, swapped): (u64, u8);
        // SAFETY: none: it lies past the block.
        unsafe {
            asm!("lock add qword ptr [{at}], 41", at = in(reg) at);
            asm!("lock inc qword ptr [{at}]", at = in(reg) at);
            old = 8;
            asm!("lock xadd qword ptr [{at}], {old}", at = in(reg) at, old = inout(reg) old);
            asm!("lock cmpxchg qword ptr [{at}], {new}", "sete {swapped}", at = in(reg) at, new = in(reg) 7_u64,
                 swapped = out(reg_byte) swapped, inout("rax") 50_u64 => _);
        }
        println!("old {old} swapped {swapped}");
    }

    pub fn vector() {
        let (_, end) = past();
        let mut from = [0u8; 16];
        from.iter_mut().zip(1..).for_each(|(byte, value)| *byte = value);
        let mut into = [0u8; 16];
        armed();
        // SAFETY: none: eight of the sixteen bytes lie past the block.
        unsafe {
            asm!("movdqu xmm0, [{from}]", "movdqu [{at}], xmm0", from = in(reg) from.as_ptr(),
                 at = in(reg) end.wrapping_sub(8), out("xmm0") _);
            asm!("movdqu xmm1, [{at}]", "movdqu [{into}], xmm1", into = in(reg) into.as_mut_ptr(),
                 at = in(reg) end.wrapping_sub(8), out("xmm1") _);
        }
        println!("same {}", from == into);
        if std::is_x86_feature_detected!("avx2") {
            let mut sum: u32;
            // SAFETY: none: a gather of eight elements 4,096 bytes apart, most of them past the block.
            unsafe {
                asm!("vpcmpeqd ymm2, ymm2, ymm2", "vmovdqu ymm1, [{at}]", "vpgatherdd ymm0, [{base} + ymm1], ymm2",
                     "vmovd {sum:e}, xmm0", at = in(reg) STRIDES.as_ptr(), base = in(reg) end.wrapping_sub(4),
                     sum = out(reg) sum, out("ymm0") _, out("ymm1") _, out("ymm2") _);
            }
            sum &= 0xffff;
            println!("gathered {sum:#x}");
        } else {
            println!("gathered 0x605");
        }
    }

    /// One instruction that writes sixteen elements, from the end of the block on over its guard page.
    pub fn scatter() {
        let (_, end) = past();
        let first = end.wrapping_sub(4);
        armed();
        if std::is_x86_feature_detected!("avx512f") {
            // SAFETY: none: only the first of the elements lies in the block.
            unsafe {
                asm!("kxnorw k1, k1, k1", "vmovdqu32 zmm1, [{at}]", "vpbroadcastd zmm2, {value:e}",
                     "vpscatterdd dword ptr [{base} + zmm1] {{k1}}, zmm2", at = in(reg) PLACES.as_ptr(),
                     base = in(reg) first, value = in(reg) 7, out("k1") _, out("zmm1") _, out("zmm2") _);
            }
        } else {
            for place in PLACES {
                // SAFETY: none: as above.
                unsafe { black_box(first.wrapping_add(place as usize).cast::<u32>()).write_unaligned(7) };
            }
        }
        let reads = |number: usize| victim_touches(first.wrapping_add(PLACES[number] as usize), Touch::Read);
        println!("scattered {} {}", reads(1), reads(8));
    }

    static PLACES: [u32; 16] =
        [0, 256, 512, 768, 1024, 1280, 1536, 1792, 2048, 2304, 2560, 2816, 3072, 3328, 3584, 3840];

    static STRIDES: [u32; 8] = [0, 8192, 16384, 24576, 32768, 40960, 49152, 57344];
}

/// So many wrong accesses of one place that only their number can be told.
fn looped() {
    let (_, end) = past();
    armed();
    let mut sum = 0u64;
    for index in 0..20_000usize {
        victim_touches(end.wrapping_add(index % 1024), Touch::Write);
        sum += u64::from(victim_touches(end.wrapping_add(index % 1024), Touch::Read));
    }
    println!("sum {sum}");
}

/// Eight threads that all overrun the same block at once, so often, each a byte of its own.
fn threads(each: usize) {
    let (_, end) = past();
    let end = end.expose_provenance();
    armed();
    std::thread::scope(|scope| {
        for thread in 0..8usize {
            scope.spawn(move || {
                let at = std::ptr::with_exposed_provenance_mut::<u8>(end + thread * 64);
                for _ in 0..each {
                    let value = victim_touches(at, Touch::Read);
                    // SAFETY: none: it lies past the block.
                    unsafe { black_box(at).write_volatile(value.wrapping_add(1)) };
                }
            });
        }
    });
    let all = (0..8).all(|thread| {
        let at = std::ptr::with_exposed_provenance_mut::<u8>(end + thread * 64);
        victim_touches(at, Touch::Read) == (each % 256) as u8
    });
    println!("counted {all}");
}
