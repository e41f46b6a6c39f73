//! Growth to gigabytes, what stays in memory, and what a terabyte of addresses costs.

use std::hint::black_box;
use std::time::{Duration, Instant};

use super::clock::cpu_ns;
use fencepost_memory::Reservation;
use fencepost_memory::growing::GrowVec;

/// A cache line.
type Line = [u64; 8];
/// The largest step, unless asked for otherwise.
const STEP_MAX: usize = 256 << 10;
/// Pushes between two looks at the clock, which costs as much as dozens of them.
const BATCH: usize = 64;

/// How long batches of pushes took: the worst, and how many took longer than half a millisecond.
struct Pauses {
    worst: f64,
    long: usize,
    total: f64,
}

fn pauses(count: usize, mut push: impl FnMut(Line)) -> Pauses {
    let (mut worst, mut long) = (0, 0);
    let start = cpu_ns();
    let mut before = start;
    for n in 0..count / BATCH {
        (0..BATCH).for_each(|m| push([(n * BATCH + m) as u64; 8]));
        let now = cpu_ns();
        worst = worst.max(now - before);
        long += usize::from(now - before > 500_000);
        before = now;
    }
    Pauses { worst: worst as f64 / 1e6, long, total: (before - start) as f64 / 1e9 }
}

fn show(name: &str, pauses: &Pauses) {
    let Pauses { worst, long, total } = pauses;
    println!("  {name:<34}{worst:>14.3} ms{total:>10.2} s {long:>24}");
}

/// What a vector does where the allocator cannot move mappings: a new block, and every element copied.
struct Copying(Vec<Line>);

impl Copying {
    fn push(&mut self, line: Line) {
        if self.0.len() == self.0.capacity() {
            let mut larger = Vec::with_capacity((self.0.capacity() * 2).max(4));
            larger.extend_from_slice(&self.0);
            self.0 = larger;
        }
        self.0.push(line);
    }
}

/// Measures, prints, and says what holds.
pub fn claims(bytes: usize) -> Vec<(&'static str, bool)> {
    let count = bytes / size_of::<Line>();
    println!("\ngrowth to {} MiB, {BATCH} pushes of 64 bytes at a time (CPU time)", bytes >> 20);
    println!("  {:<34}{:>17}{:>12} {:>24}", "", "the worst", "in all", "how many over 0.5 ms");
    // On a virtual machine the host gives memory at its first use ever: nobody who is measured should pay for that.
    let mut first_use = memmap2::MmapMut::map_anon(bytes).expect("memory");
    (0..bytes).step_by(4096).for_each(|at| first_use[at] = 1);
    drop(black_box(first_use));
    let mut ours = GrowVec::<Line>::reserve(count).expect("addresses");
    let first = ours.as_ptr();
    let grown = pauses(count, |line| ours.push(line).expect("memory"));
    show("GrowVec", &grown);
    let still = ours.as_ptr() == first && ours.last() == Some(&[count as u64 - 1; 8]);
    let resident = ours.resident().expect("countable");
    let tight = resident >= bytes && resident <= bytes + STEP_MAX;
    println!("  (its memory: {resident} bytes resident of {bytes} used)");
    ours.truncate(count / 4);
    ours.shrink_to_fit().expect("memory is taken back");
    let kept = ours.resident().expect("countable");
    println!("  (after truncate to a quarter and shrink_to_fit: {kept} bytes resident)");
    drop(ours);

    let mut vector = Vec::new();
    show("Vec", &pauses(count, |line| vector.push(line)));
    drop(black_box(vector));
    let mut copying = Copying(Vec::new());
    let copied = pauses(count, |line| copying.push(line));
    show("Vec, where growth has to copy", &copied);
    drop(black_box(copying.0));

    let mut times: Vec<Duration> = (0..200).map(|_| terabyte()).collect();
    times.sort();
    println!("\nto reserve and release 1 TiB: {:?} in the middle, {:?} at worst", times[100], times[199]);
    vec![
        ("a vector of gigabytes grew in place: no element moved", still),
        ("its worst push is shorter than that of a vector that copies", grown.worst < copied.worst),
        ("it is within one step of what it uses, in memory", tight),
        ("what it no longer uses goes back to the system", kept <= bytes / 4 + 4096),
        ("1 TiB of addresses costs less than 100 us", times[100] < Duration::from_micros(100)),
    ]
}

fn terabyte() -> Duration {
    let start = Instant::now();
    let space = Reservation::reserve(1 << 40).expect("addresses");
    assert_eq!((space.committed(), space.resident()), (0, Ok(0)), "addresses only");
    drop(space);
    start.elapsed()
}
