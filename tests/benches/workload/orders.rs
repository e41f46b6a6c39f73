//! Pairs a few at a time, among many other blocks, or under a deep stack.

use std::alloc::{Layout, alloc, dealloc};
use std::hint::black_box;
use std::time::{Duration, Instant};

use super::clock::{self, Spent};
use super::live::Set;
use super::pairs;

/// Pairs between two looks at the clock.
const ROUND: usize = 256;
/// Blocks that are alive together, and rounds of which the time is kept.
const FEW: usize = 8;
const SAMPLES: usize = 1 << 16;

fn layout(size: usize) -> Result<Layout, String> {
    if size == 0 {
        return Err("a block of no bytes cannot be touched".into());
    }
    Layout::from_size_align(size, 8).map_err(|error| error.to_string())
}

fn allocate(layout: Layout) -> Result<*mut u8, String> {
    let block = untouched(layout);
    if block.is_null() {
        return Err(format!("no memory for a block of {} bytes", layout.size()));
    }
    touch(block, layout);
    Ok(block)
}

fn untouched(layout: Layout) -> *mut u8 {
    // SAFETY: the layouts here are not of size zero.
    black_box(unsafe { alloc(layout) })
}

fn touch(block: *mut u8, layout: Layout) {
    // SAFETY: the callers have allocated the block with this layout and not freed it.
    unsafe {
        block.write_volatile(1);
        block.add(layout.size() - 1).write_volatile(2);
    }
}

/// A few blocks allocated and then freed, again and again: nanoseconds of a pair, and of one allocation by itself, the
/// median of the rounds by the wall clock. That is without the touch, which finds another page each time, and without what
/// the clock takes.
pub fn births(size: usize, enough: Duration) -> Result<(Spent, f64), String> {
    let layout = layout(size)?;
    let mut blocks = [core::ptr::null_mut::<u8>(); FEW];
    let mut taken = Vec::with_capacity(SAMPLES);
    let pair = clock::repeat(enough, FEW as u64, || {
        let start = Instant::now();
        for place in &mut blocks {
            *place = untouched(layout);
        }
        let spent = start.elapsed();
        if taken.len() < SAMPLES {
            taken.push(spent);
        }
        if blocks.iter().any(|block| block.is_null()) {
            return Err(format!("no memory for a block of {size} bytes"));
        }
        blocks.iter().for_each(|block| touch(*block, layout));
        for block in blocks.iter().rev() {
            // SAFETY: the block was allocated in this round with this layout, and each is freed once.
            unsafe { dealloc(black_box(*block), layout) };
        }
        Ok(())
    })?;
    let clock = (0..SAMPLES).map(|_| Instant::now().elapsed()).collect();
    let spent = median(taken).saturating_sub(median(clock));
    Ok((pair, spent.as_nanos() as f64 / FEW as f64))
}

fn median(mut all: Vec<Duration>) -> Duration {
    all.sort_unstable();
    all.get(all.len() / 2).copied().unwrap_or_default()
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
