//! Programs that die on purpose, one bug a subcommand.
//!
//! Each prints `armed` and flushes it just before its bug, and `survived` if it lives to its end. Accesses are
//! volatile and pointers go through `black_box`, so that an optimised build keeps the bug. The functions that the
//! tests look for in stacks are named after what they do (`victim_allocates`, `victim_frees`, `victim_touches`, …),
//! are never inlined, and never end in a call that could become a jump.

mod bounds;
mod calls;
mod frees;
mod growing;
mod leaks;
mod lost;
mod pointers;
mod races;
mod seals;
mod stacks;
mod steps;

use std::alloc::Layout;
use std::hint::black_box;
use std::io::Write;

#[global_allocator]
static ALLOC: fencepost::GuardedAlloc = fencepost::GuardedAlloc::new();

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let Some((name, rest)) = words.split_first() else {
        eprintln!("usage: victim NAME [ARGUMENT]...");
        std::process::exit(2);
    };
    match *name {
        "engine" => println!("{}", fencepost::stats().engine),
        "overrun" => bounds::overrun(rest),
        "overrun-realloc" => bounds::overrun_realloc(rest),
        "overrun-check" => bounds::overrun_check(rest),
        "overrun-exit" => bounds::overrun_exit(rest),
        "overrun-twice" => bounds::overrun_twice(),
        "use-after-free" => frees::use_after_free(rest),
        "write-after-free" => frees::write_after_free(rest),
        "use-after-realloc" => frees::use_after_realloc(),
        "use-after-growth" => frees::use_after_growth(rest),
        "lose" => leaks::lose(rest),
        "keep" => leaks::keep(),
        "execute-freed" => frees::execute_freed(),
        "double-free" => frees::double_free(),
        "double-free-threads" => frees::double_free_threads(),
        "realloc-stale" => frees::realloc_stale(),
        "layout-mismatch" => frees::layout_mismatch(rest),
        "invalid-free" => pointers::invalid_free(rest),
        "non-canonical" => pointers::non_canonical(),
        "null" => pointers::null(),
        "wild" => pointers::wild(),
        "fill-pattern" => pointers::fill_pattern(),
        "stack-overflow" => stacks::overflow(rest),
        "seal" => seals::violate(rest),
        "step" => steps::step(rest),
        "race" => races::race(rest),
        "growing" => growing::misuse(rest),
        "memcpy" => calls::memcpy_overrun(),
        "qsort" => calls::qsort_overrun(),
        "fork" => calls::fork_overrun(),
        "two-threads" => calls::two_threads_fault(),
        "close-all" => lost::overrun_after_close_all(),
        "raw-clone" => lost::use_after_free_in_raw_clone(),
        _ => {
            eprintln!("victim: no such bug: {name}");
            std::process::exit(2);
        }
    }
    println!("survived");
}

/// Says that the bug comes next.
fn armed() {
    let mut out = std::io::stdout().lock();
    out.write_all(b"armed\n").and_then(|()| out.flush()).expect("stdout takes a line");
}

/// The n-th argument as a number.
fn number(words: &[&str], index: usize) -> usize {
    let word = words.get(index).copied().unwrap_or_default();
    word.parse().unwrap_or_else(|_| {
        eprintln!("victim: argument {index} is no number: {word:?}");
        std::process::exit(2);
    })
}

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).expect("a layout")
}

#[inline(never)]
fn victim_allocates(size: usize, align: usize) -> *mut u8 {
    // SAFETY: a size of 0 is asked for on purpose by one victim: the guard promises a block for it.
    let block = black_box(unsafe { std::alloc::alloc(black_box(layout(size, align))) });
    assert!(!block.is_null(), "no memory for {size} bytes");
    block
}

#[inline(never)]
fn victim_frees(block: *mut u8, size: usize, align: usize) -> usize {
    // SAFETY: the caller's pointer and layout are right, or wrong on purpose.
    unsafe { std::alloc::dealloc(black_box(block), black_box(layout(size, align))) };
    black_box(size)
}

/// How a victim touches memory.
#[derive(Clone, Copy, PartialEq)]
enum Touch {
    Read,
    Write,
}

impl Touch {
    fn from(word: Option<&&str>) -> Touch {
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
fn victim_touches(at: *mut u8, touch: Touch) -> u8 {
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
