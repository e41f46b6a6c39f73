//! Pairs whose blocks die in other orders, or among others, or under a deep stack.

use std::alloc::{Layout, alloc, dealloc};
use std::hint::black_box;
use std::time::Duration;

use super::clock::{self, Reading, Spent, Total};
use super::live::Set;
use super::pairs;

/// Blocks of one round.
const ROUND: usize = 256;

fn layout(size: usize) -> Result<Layout, String> {
    if size == 0 {
        return Err("a block of no bytes cannot be touched".into());
    }
    Layout::from_size_align(size, 8).map_err(|error| error.to_string())
}

fn allocate(layout: Layout) -> Result<*mut u8, String> {
    // SAFETY: the layout is not of size zero.
    let block = black_box(unsafe { alloc(layout) });
    if block.is_null() {
        return Err(format!("no memory for a block of {} bytes", layout.size()));
    }
    // SAFETY: the block was allocated just now with this layout.
    unsafe {
        block.write_volatile(1);
        block.add(layout.size() - 1).write_volatile(2);
    }
    Ok(block)
}

/// The same order in every run.
fn shuffle(places: &mut [usize]) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for at in (1..places.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        places.swap(at, (state >> 33) as usize % (at + 1));
    }
}

/// Rounds of blocks that die in random order: nanoseconds of one pair, and of one allocation by itself.
pub fn births(size: usize, enough: Duration) -> Result<(Spent, Spent), String> {
    let layout = layout(size)?;
    let mut blocks = [core::ptr::null_mut::<u8>(); ROUND];
    let mut order: [usize; ROUND] = core::array::from_fn(|index| index);
    shuffle(&mut order);
    let (mut pairs, mut births, mut rounds) = (Total::default(), Total::default(), 0);
    let mut warm = true;
    while pairs.wall() < enough {
        let start = Reading::now();
        for place in &mut blocks {
            *place = allocate(layout)?;
        }
        if !warm {
            births.add(&start);
        }
        for index in order {
            // SAFETY: the block was allocated in this round with this layout, and each is freed once.
            unsafe { dealloc(black_box(blocks[index]), layout) };
        }
        if !warm {
            pairs.add(&start);
            rounds += ROUND as u64;
        }
        warm = false;
    }
    Ok((pairs.per_round(rounds), births.per_round(rounds)))
}

/// Pairs while `count` other blocks are alive.
pub fn among(size: usize, count: usize, enough: Duration) -> Result<Spent, String> {
    let set = Set::alone(count)?;
    set.build()?;
    let spent = pairs::run(size, enough)?;
    // The set ends with the process: to free it would take longer than what is measured.
    core::mem::forget(set);
    Ok(spent)
}

/// Pairs in a function that so many others have called.
pub fn deep(size: usize, frames: usize, enough: Duration) -> Result<Spent, String> {
    let layout = layout(size)?;
    clock::repeat(enough, ROUND as u64, || below(frames, layout))
}

#[inline(never)]
fn below(frames: usize, layout: Layout) -> Result<(), String> {
    if frames > 0 {
        let result = below(frames - 1, layout);
        // Not a tail call: every level keeps its frame.
        black_box(frames);
        return result;
    }
    for _ in 0..ROUND {
        let block = allocate(layout)?;
        // SAFETY: allocated just now with this layout, and freed once.
        unsafe { dealloc(block, layout) };
    }
    Ok(())
}
