//! Blocks of every shape, used rightly to their last byte.

use crate::{Dice, Marked};
use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, realloc};
use std::collections::{BTreeMap, HashMap};
use std::hint::black_box;

/// What programs do all day.
pub fn work() {
    let mut words: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for index in 0..2000 {
        words.entry(format!("word {}", index * 7919 % 500)).or_default().push(index);
    }
    let lengths: HashMap<&str, usize> = words.iter().map(|(word, at)| (word.as_str(), at.len())).collect();
    let sum: usize = words.values().flatten().sum();
    println!("{} words, {} places, sum {sum}", words.len(), lengths.values().sum::<usize>());
}

/// A vector that grows and shrinks by realloc and keeps its content.
pub fn realloc_growth() {
    let mut numbers: Vec<u64> = Vec::new();
    for index in 0..50_000 {
        numbers.push(index);
        if index % 1000 == 999 {
            numbers.shrink_to_fit();
            assert!(numbers.iter().enumerate().all(|(at, number)| at as u64 == *number));
        }
    }
    let mut text = String::new();
    for index in 0..20_000 {
        text.push(char::from(b'a' + (index % 26) as u8));
    }
    println!("{} {} {}", numbers.iter().sum::<u64>(), text.len(), text.bytes().map(u64::from).sum::<u64>());
}

/// Compares with shifted self: one call to C's `memcmp`, fast in a debug build, too.
///
/// # Safety
/// `block` must have `size` bytes, and at least one.
unsafe fn is_zero(block: *const u8, size: usize) -> bool {
    // SAFETY: the caller's.
    let bytes = unsafe { std::slice::from_raw_parts(block, size) };
    bytes[0] == 0 && bytes[1..] == bytes[..size - 1]
}

/// Fills a block to its last byte, resizes it both ways, checks what stays, and frees it.
fn exercise(size: usize, align: usize) {
    let layout = Layout::from_size_align(size, align).expect("a layout");
    // SAFETY: the size is not 0. Every access below stays within the size that was asked for last.
    unsafe {
        let zeroed = alloc_zeroed(layout);
        assert!(!zeroed.is_null() && zeroed.addr().is_multiple_of(align));
        assert!(is_zero(zeroed, size), "{size}: not zeroed");
        zeroed.write_bytes(0xaa, size);
        dealloc(zeroed, layout);

        let block = alloc(layout);
        assert!(!block.is_null() && block.addr().is_multiple_of(align), "{size} {align}: {block:p}");
        // A large block's bytes one by one would take long in a debug build; its last byte is always among them.
        let step = size / 5000 + 1;
        for index in (0..size).rev().step_by(step) {
            block.add(index).write_volatile(index as u8);
        }
        let mut now = (block, size);
        for new_size in [size * 2 + 1, size / 2 + 1, size] {
            let layout = Layout::from_size_align(now.1, align).expect("a layout");
            let moved = realloc(black_box(now.0), layout, new_size);
            assert!(!moved.is_null() && moved.addr().is_multiple_of(align));
            let kept = now.1.min(new_size).min(size / 2 + 1);
            let mut written = (0..size).rev().step_by(step).filter(|index| *index < kept);
            assert!(written.all(|index| moved.add(index).read_volatile() == index as u8), "{size}: not kept");
            moved.add(new_size - 1).write_volatile((new_size - 1) as u8);
            now = (moved, new_size);
        }
        dealloc(now.0, layout);
    }
}

/// Alignments from 1 to 2 MiB.
pub fn over_aligned() {
    for shift in 0..=21 {
        let align = 1usize << shift;
        for size in [1, 7, align.max(2) - 1, align, align + 1] {
            exercise(size, align);
        }
    }
    println!("over-aligned");
}

/// Every size around the boundaries of words, lines, pages and large blocks.
pub fn sizes() {
    let mut count = 0;
    for base in [8usize, 64, 256, 2048, 4096, 8192, 16_384, 65_536, 131_072, 262_144, 1 << 20, 4 << 20] {
        for size in base - 3..=base + 3 {
            for align in [1, 8, 16] {
                exercise(size, align);
                count += 1;
            }
        }
    }
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let mut kept: Vec<Marked> = Vec::new();
    for round in 0..2000 {
        if kept.len() > 100 {
            kept.swap_remove(dice.roll(100)).verify();
        }
        kept.push(Marked::new(round as u8, dice.roll(9000)));
    }
    kept.iter().for_each(Marked::verify);
    println!("{count} shapes, {} bytes kept", kept.iter().map(|block| block.bytes.len()).sum::<usize>());
}

/// Values without a size, which never reach the allocator, and blocks of one byte beside them.
pub fn zero_size() {
    let mut units: Vec<()> = Vec::new();
    units.resize(1000, ());
    let empty: Vec<u8> = Vec::with_capacity(0);
    let boxes: Vec<Box<[u8; 0]>> = (0..10).map(|_| Box::new([])).collect();
    let mut bytes: Vec<Box<u8>> = (0..100).map(Box::new).collect();
    bytes.iter_mut().for_each(|byte| **byte = byte.wrapping_add(1));
    println!(
        "{} {} {} {}",
        units.len(),
        empty.len(),
        boxes.len(),
        bytes.iter().map(|b| u32::from(**b)).sum::<u32>()
    );
}
