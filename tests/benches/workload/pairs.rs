//! One block allocated, touched at both ends and freed, again and again.

use std::alloc::{Layout, alloc, dealloc};
use std::hint::black_box;
use std::time::Duration;

use super::clock::{self, Spent};

/// Pairs between two looks at the clock.
const STEP: u64 = 256;

/// Nanoseconds of one pair.
pub fn run(size: usize, enough: Duration) -> Result<Spent, String> {
    let layout = Layout::from_size_align(size, 8).map_err(|error| error.to_string())?;
    if size == 0 {
        return Err("a block of no bytes cannot be touched".into());
    }
    clock::repeat(enough, STEP, || {
        for _ in 0..STEP {
            one(layout)?;
        }
        Ok(())
    })
}

#[inline(never)]
fn one(layout: Layout) -> Result<(), String> {
    // SAFETY: the layout is not of size zero.
    let block = black_box(unsafe { alloc(layout) });
    if block.is_null() {
        return Err(format!("no memory for a block of {} bytes", layout.size()));
    }
    // SAFETY: the block was allocated just now with `layout`, which has a first and a last byte; it is freed once, with
    // that layout, and not used again.
    unsafe {
        block.write_volatile(1);
        block.add(layout.size() - 1).write_volatile(2);
        dealloc(black_box(block), layout);
    }
    Ok(())
}

/// Blocks that are alive while a random one of them is freed and another allocated.
const LIVE: usize = 1000;

/// Nanoseconds of one pair in random order.
pub fn random(size: usize, enough: Duration) -> Result<Spent, String> {
    let layout = Layout::from_size_align(size, 8).map_err(|error| error.to_string())?;
    if size == 0 {
        return Err("a block of no bytes cannot be touched".into());
    }
    let fresh = || {
        // SAFETY: the layout is not of size zero.
        let block = black_box(unsafe { alloc(layout) });
        if !block.is_null() {
            // SAFETY: the block was allocated just now with `layout`, which has a first and a last byte.
            unsafe {
                block.write_volatile(1);
                block.add(layout.size() - 1).write_volatile(2);
            }
        }
        block
    };
    let mut blocks: Vec<*mut u8> = (0..LIVE).map(|_| fresh()).collect();
    let mut state = 1u32;
    let spent = clock::repeat(enough, STEP, || {
        for _ in 0..STEP {
            state = state.wrapping_mul(1_103_515_245).wrapping_add(12_345);
            let which = (state >> 8) as usize % LIVE;
            // SAFETY: each entry is a block of that layout that is alive.
            unsafe { dealloc(black_box(blocks[which]), layout) };
            blocks[which] = fresh();
            if blocks[which].is_null() {
                return Err(format!("no memory for a block of {size} bytes"));
            }
        }
        Ok(())
    })?;
    for block in blocks {
        // SAFETY: as above; they are freed once.
        unsafe { dealloc(block, layout) };
    }
    Ok(spent)
}

/// Nanoseconds of wall time of a pair while so many threads do pairs: divided by their number, so that threads which do
/// not hinder each other take an N-th of one.
pub fn threads(size: usize, count: usize, enough: Duration) -> Result<Spent, String> {
    let start = std::sync::Barrier::new(count);
    let each = || {
        start.wait();
        run(size, enough)
    };
    let all: Vec<Result<Spent, String>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..count).map(|_| scope.spawn(each)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err("a thread ended early".into())))
            .collect()
    });
    let mut rounds = 0;
    let mut wall = 0.0;
    for spent in all {
        let spent = spent?;
        rounds += spent.rounds;
        wall += spent.wall * spent.rounds as f64;
    }
    // What all spent together, in time that passed for each of them at once.
    let wall = wall / (count as f64 * rounds as f64);
    Ok(Spent { cpu: wall, system: 0.0, wall, rounds })
}
