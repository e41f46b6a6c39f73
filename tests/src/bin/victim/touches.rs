//! What all victims do: allocate, free and touch, by functions whose names the tests look for in stacks. They are never
//! inlined, and never end in a call that could become a jump.

use std::alloc::Layout;
use std::hint::black_box;
use std::io::Write;

/// Says that the bug comes next.
pub fn armed() {
    let mut out = std::io::stdout().lock();
    out.write_all(b"armed\n").and_then(|()| out.flush()).expect("stdout takes a line");
}

/// The n-th argument as a number.
pub fn number(words: &[&str], index: usize) -> usize {
    let word = words.get(index).copied().unwrap_or_default();
    word.parse().unwrap_or_else(|_| {
        eprintln!("victim: argument {index} is no number: {word:?}");
        std::process::exit(2);
    })
}

pub fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).expect("a layout")
}

#[inline(never)]
pub fn victim_allocates(size: usize, align: usize) -> *mut u8 {
    // SAFETY: a size of 0 is asked for on purpose by one victim: the guard promises a block for it.
    let block = black_box(unsafe { std::alloc::alloc(black_box(layout(size, align))) });
    assert!(!block.is_null(), "no memory for {size} bytes");
    block
}

#[inline(never)]
pub fn victim_frees(block: *mut u8, size: usize, align: usize) -> usize {
    // SAFETY: the caller's pointer and layout are right, or wrong on purpose.
    unsafe { std::alloc::dealloc(black_box(block), black_box(layout(size, align))) };
    black_box(size)
}

/// How a victim touches memory.
#[derive(Clone, Copy, PartialEq)]
pub enum Touch {
    Read,
    Write,
}

impl Touch {
    pub fn from(word: Option<&&str>) -> Touch {
        match word {
            Some(&"read") => Touch::Read,
            Some(&"write") => Touch::Write,
            _ => {
                eprintln!("victim: read or write?");
                std::process::exit(2);
            }
        }
    }
}

#[inline(never)]
pub fn victim_touches(at: *mut u8, touch: Touch) -> u8 {
    let at = black_box(at);
    let value = match touch {
        // SAFETY: none: this is the bug that the guard has to catch.
        Touch::Read => unsafe { at.read_volatile() },
        Touch::Write => {
            // SAFETY: none: as above.
            unsafe { at.write_volatile(0x5a) };
            0x5a
        }
    };
    black_box(value)
}
