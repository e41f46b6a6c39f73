//! Blocks of many sizes alive together, and pairs on several threads at once.

use std::alloc::{Layout, alloc, dealloc};
use std::hint::black_box;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use crate::programs::Numbers;

/// Pairs between two looks at the clock.
const STEP: u64 = 256;

fn number<T: std::str::FromStr>(word: &str) -> Result<T, String> {
    word.parse().map_err(|_| format!("not a number: {word}"))
}

/// CPU time of this process so far, user and system.
fn cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place to write to; the clock exists on every Linux.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    assert_eq!(result, 0, "the clock of this process can always be read");
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Keeps `live` blocks and replaces one at random in each operation; sizes are 16 to 1,023 bytes, small ones more often.
pub fn mix(live: &str, operations: &str) -> Result<(), String> {
    let (live, operations): (usize, u64) = (number(live)?, number(operations)?);
    if live == 0 {
        return Err("a mix needs live blocks".into());
    }
    let mut numbers = Numbers::new(11);
    let mut blocks: Vec<Vec<u8>> = Vec::new();
    blocks.resize_with(live, Vec::new);
    let (start, wall) = (cpu(), Instant::now());
    let mut sum = 0_u64;
    for _ in 0..operations {
        let at = numbers.below(live as u64) as usize;
        let shift = numbers.below(7);
        let size = (16 << shift) + numbers.below(16 << shift.min(5)) as usize % 16;
        let mut block = Vec::with_capacity(size);
        block.push(at as u8);
        block.resize(size, 7);
        sum = sum.wrapping_add(u64::from(blocks[at].first().copied().unwrap_or(0)));
        blocks[at] = block;
    }
    let (cpu, wall) = (cpu() - start, wall.elapsed());
    drop(black_box(blocks));
    let share = |time: Duration| time.as_nanos() as f64 / operations.max(1) as f64;
    println!("cpu={:.2} wall={:.2} sum={sum}", share(cpu), share(wall));
    Ok(())
}

/// Pairs of one size on so many threads at once, which share no block: pairs a second in all, by the wall clock.
pub fn threads(threads: &str, size: &str, millis: &str) -> Result<(), String> {
    let (threads, size): (usize, usize) = (number(threads)?, number(size)?);
    let enough = Duration::from_millis(number(millis)?);
    let layout = Layout::from_size_align(size.max(1), 8).map_err(|error| error.to_string())?;
    let start = Barrier::new(threads);
    let rates: Vec<f64> = std::thread::scope(|scope| {
        let work = || {
            let pairs = |enough: Duration| {
                let (begin, mut count) = (Instant::now(), 0);
                while begin.elapsed() < enough {
                    (0..STEP).for_each(|_| pair(layout));
                    count += STEP;
                }
                count as f64 / begin.elapsed().as_secs_f64()
            };
            pairs(enough / 10);
            start.wait();
            pairs(enough)
        };
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        running.into_iter().map(|thread| thread.join().expect("a thread of pairs does not panic")).collect()
    });
    let rate: f64 = rates.iter().sum();
    println!("rate={rate:.0} wall={:.2} cpu={:.2}", 1e9 / rate, 1e9 * threads as f64 / rate);
    Ok(())
}

fn pair(layout: Layout) {
    // SAFETY: the layout is not of size zero; the block is written within it, and freed once with the same layout.
    unsafe {
        let block = black_box(alloc(layout));
        assert!(!block.is_null(), "no memory for a block of {} bytes", layout.size());
        block.write_volatile(1);
        block.add(layout.size() - 1).write_volatile(2);
        dealloc(block, layout);
    }
}
