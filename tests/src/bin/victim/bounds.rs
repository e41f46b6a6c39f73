//! Accesses beside a block.

use crate::{Touch, armed, layout, number, victim_allocates, victim_frees, victim_touches};
use std::hint::black_box;
use std::sync::{Arc, Barrier};

/// The byte past the end, or the one before the start.
fn beside(block: *mut u8, side: Option<&&str>, size: usize) -> *mut u8 {
    match side {
        Some(&"end") => block.wrapping_add(size),
        Some(&"start") => block.wrapping_sub(1),
        _ => {
            eprintln!("victim: start or end?");
            std::process::exit(2);
        }
    }
}

fn arguments(words: &[&str]) -> (Touch, usize, usize) {
    (Touch::from(words.first()), number(words, 2), number(words, 3))
}

/// `read|write start|end SIZE ALIGN`: touches one byte beside a block, then frees it.
pub fn overrun(words: &[&str]) {
    let (touch, size, align) = arguments(words);
    let block = victim_allocates(size, align);
    assert!(block.addr().is_multiple_of(align), "{block:p} is not aligned to {align}");
    armed();
    victim_touches(beside(block, words.get(1), size), touch);
    victim_frees(block, size, align);
}

#[inline(never)]
fn victim_resizes(block: *mut u8, size: usize, align: usize, new_size: usize) -> *mut u8 {
    // SAFETY: the block is alive and has this layout; what lies around it was damaged on purpose.
    black_box(unsafe { std::alloc::realloc(black_box(block), layout(size, align), new_size) })
}

/// As [`overrun`], and then resizes the block instead of freeing it.
pub fn overrun_realloc(words: &[&str]) {
    let (touch, size, align) = arguments(words);
    let block = victim_allocates(size, align);
    armed();
    victim_touches(beside(block, words.get(1), size), touch);
    let block = victim_resizes(block, size, align, size * 2);
    victim_frees(block, size * 2, align);
}

/// As [`overrun`], and then has every block checked; prints how many were found damaged.
pub fn overrun_check(words: &[&str]) {
    let (touch, size, align) = arguments(words);
    let block = victim_allocates(size, align);
    let healthy = victim_allocates(size, align);
    armed();
    victim_touches(beside(block, words.get(1), size), touch);
    println!("checked {}", fencepost::check());
    println!("checked again {}", fencepost::check());
    victim_frees(healthy, size, align);
}

/// As [`overrun`], and then leaves the block alive until the end of the process.
pub fn overrun_exit(words: &[&str]) {
    let (touch, size, align) = arguments(words);
    let block = victim_allocates(size, align);
    armed();
    victim_touches(beside(block, words.get(1), size), touch);
    black_box(block);
}

/// `BLOCKS WHICH`: allocates and frees so many blocks of 24 bytes in one place, and reads past one of them only.
pub fn overrun_once(words: &[&str]) {
    let (blocks, which) = (number(words, 0), number(words, 1));
    for round in 0..blocks {
        let block = victim_allocates(24, 1);
        if round == which {
            armed();
            victim_touches(block.wrapping_add(24), Touch::Read);
        }
        victim_frees(block, 24, 1);
    }
}

/// Two overruns of two blocks, for `on_error=continue`.
pub fn overrun_twice() {
    let first = victim_allocates(24, 1);
    let second = victim_allocates(40, 1);
    armed();
    victim_touches(first.wrapping_add(24), Touch::Write);
    victim_touches(second.wrapping_add(40), Touch::Read);
    victim_frees(first, 24, 1);
    victim_frees(second, 40, 1);
    println!("drained {}", fencepost::drain_reports().len());
}

/// Two threads overrun at the same moment.
pub fn two_threads_fault() {
    let start = Arc::new(Barrier::new(2));
    armed();
    let threads: Vec<_> = [100, 200]
        .map(|size| {
            let start = start.clone();
            std::thread::spawn(move || {
                let block = victim_allocates(size, 1);
                start.wait();
                victim_touches(block.wrapping_add(size), Touch::Write);
            })
        })
        .into_iter()
        .collect();
    for thread in threads {
        thread.join().expect("a thread that ends");
    }
}
