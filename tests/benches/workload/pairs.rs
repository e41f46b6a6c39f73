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
