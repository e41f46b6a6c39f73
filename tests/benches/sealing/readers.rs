//! Readers of memory that is sealed, or of which another word is watched: they must not be slower for it.

use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::summed;

const READERS: usize = 8;
/// What is wanted: at most this many times the time without.
const GOAL: f64 = 1.01;

/// CPU time of this process.
fn cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call fills in one timespec.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) }, 0);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Seconds of CPU and of wall time that eight threads take to sum a table many times.
fn reading(table: &[u64]) -> [f64; 2] {
    let (began, start) = (cpu(), Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..READERS {
            scope.spawn(|| {
                (0..8_000).fold(0u64, |sum, _| sum ^ black_box(table).iter().fold(0, |a, b| a ^ b))
            });
        }
    });
    [(cpu() - began).as_secs_f64(), start.elapsed().as_secs_f64()]
}

/// Pairs of readings, with and without what `begin` does.
fn pairs<T>(rounds: usize, table: &[u64], begin: impl Fn() -> Option<T>) -> Option<[Vec<f64>; 2]> {
    let mut ratios = [Vec::new(), Vec::new()];
    for round in 0..rounds {
        let with = |table| {
            let held = begin()?;
            let took = reading(table);
            drop(held);
            Some(took)
        };
        let (with, without) = if round % 2 == 0 {
            (with(table)?, reading(table))
        } else {
            let without = reading(table);
            (with(table)?, without)
        };
        for ((ratios, with), without) in ratios.iter_mut().zip(with).zip(without) {
            ratios.push(with / without);
        }
    }
    Some(ratios)
}

pub fn compare(rounds: usize) {
    let table: Vec<u64> = (0..4096).collect();
    let nothing = || Some(());
    let sealed = || fencepost::seal(&table[..]).ok();
    let watched = || {
        // SAFETY: the table outlives the watch.
        let watch = unsafe { fencepost::watch_raw(table.as_ptr().cast(), 8, fencepost::WatchOptions::new()) };
        watch.ok().filter(|watch| watch.way() == fencepost::Way::Watchpoints)
    };
    println!(
        "| {READERS} readers, in pairs with and without | CPU time: median (smallest to largest of {rounds} pairs) | wall time | goal {GOAL} |\n|---|---|---|---|"
    );
    print("nothing at all: what the machine does by itself", pairs(rounds, &table, nothing));
    print("their memory is sealed", pairs(rounds, &table, sealed));
    print("a word of it is watched by a watchpoint", pairs(rounds, &table, watched));
}

fn print(name: &str, ratios: Option<[Vec<f64>; 2]>) {
    let Some([cpu, wall]) = ratios.map(|ratios| ratios.map(summed)) else {
        return println!("| {name} | skipped: not to be had here | | |");
    };
    let (Some(cpu), Some(wall)) = (cpu, wall) else { return };
    let told = |[median, least, most]: [f64; 3]| format!("{median:.3} ({least:.3} to {most:.3})");
    let met = if cpu[0] <= GOAL { "met" } else { "not met" };
    println!("| {name} | {} | {} | {met} |", told(cpu), told(wall));
}
