//! Threads that run past the end of their stack.

use crate::armed;
use std::hint::black_box;

#[inline(never)]
pub fn victim_recurses(depth: usize) -> usize {
    let frame = black_box([depth; 64]);
    // The sum after the call keeps it from becoming a loop.
    if depth == usize::MAX { 0 } else { victim_recurses(depth + 1) + frame[depth % 64] }
}

/// `main|thread`: overflows that stack.
pub fn overflow(words: &[&str]) {
    match words.first() {
        Some(&"main") => {
            armed();
            black_box(victim_recurses(0));
        }
        Some(&"thread") => {
            let thread = std::thread::Builder::new().name("deep".into()).spawn(|| {
                armed();
                black_box(victim_recurses(0));
            });
            thread.expect("a thread").join().expect("a thread that ends");
        }
        _ => {
            eprintln!("victim: which stack?");
            std::process::exit(2);
        }
    }
}
