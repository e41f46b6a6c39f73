//! The price of a pair of malloc and free, beside the system's own heap, in one run.

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::time::Instant;

const ROUNDS: usize = 7;
const PAIRS: u32 = 2000;

fn time(mut pair: impl FnMut()) -> f64 {
    let start = Instant::now();
    (0..PAIRS).for_each(|_| pair());
    start.elapsed().as_nanos() as f64 / f64::from(PAIRS)
}

/// Prints a table: the medians, and the ratio within a round.
pub fn measure() {
    for size in [16, 1000, 5000] {
        let layout = Layout::from_size_align(size, 8).expect("a layout");
        let mut times: Vec<(f64, f64)> = (0..ROUNDS)
            .map(|_| {
                let ours = time(|| {
                    // SAFETY: the layout is not of size zero; the block is freed with it.
                    unsafe { std::alloc::dealloc(black_box(std::alloc::alloc(layout)), layout) };
                });
                let theirs = time(|| {
                    // SAFETY: as above.
                    unsafe { System.dealloc(black_box(System.alloc(layout)), layout) };
                });
                (ours, theirs)
            })
            .collect();
        times.sort_by(|a, b| (a.0 / a.1).total_cmp(&(b.0 / b.1)));
        let (ours, theirs) = times[ROUNDS / 2];
        let engine = fencepost::stats().engine;
        println!(
            "{size:>6} bytes: {ours:>10.0} ns guarded by {engine}, {theirs:>8.0} ns by the system's heap, x {:.0}",
            ours / theirs
        );
    }
}
