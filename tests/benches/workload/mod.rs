//! What a child process of the bench `pairs` does: one workload, timed from within, one line of results.
//!
//! The same modules are compiled into a program without fencepost and into one that is guarded by it, because the
//! global allocator is fixed when a program is compiled. A child prints `key=value` pairs on one line; it allocates
//! nothing but the measured blocks between the two readings of a clock.

mod clock;
mod kernel;
mod live;
mod moves;
mod orders;
mod pairs;
mod process;

use std::process::ExitCode;
use std::time::Duration;

/// What the guard did, as far as this program can tell.
pub struct Coverage {
    /// The engine's name, or `none`.
    pub engine: &'static str,
    /// Blocks guarded so far.
    pub guarded: u64,
    /// Blocks asked for so far.
    pub total: u64,
    /// Memory calls made to the kernel so far.
    pub calls: u64,
}

/// Runs the workload that the arguments name; without one, says who does that.
pub fn main(coverage: impl Fn() -> Coverage) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["--child", "pair", size, millis] => pair(pairs::run, size, millis, &coverage),
        ["--child", "random", size, millis] => pair(pairs::random, size, millis, &coverage),
        ["--child", "threads", count, millis] => {
            let threads = |size, enough| pairs::threads(size, number(count)?, enough);
            pair(threads, "100", millis, &coverage)
        }
        ["--child", "live", count, progress] => live(count, progress, &coverage),
        ["--child", "kernel", what, millis] => kernel(what, millis),
        ["--child", "births", size, millis] => births(size, millis, &coverage),
        ["--child", "among", size, count, millis] => among(size, count, millis),
        ["--child", "deep", size, frames, millis] => deep(size, frames, millis),
        ["--child", ..] => Err(format!("no such workload: {}", words.join(" "))),
        _ => {
            println!("run by the bench `pairs`: nothing to do here");
            Ok(())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("workload: {why}");
            ExitCode::FAILURE
        }
    }
}

fn number(word: &str) -> Result<usize, String> {
    word.parse().map_err(|_| format!("not a number: {word}"))
}

fn time(word: &str) -> Result<Duration, String> {
    Ok(Duration::from_millis(number(word)? as u64))
}

fn pair(
    run: impl Fn(usize, Duration) -> Result<clock::Spent, String>,
    size: &str,
    millis: &str,
    coverage: &impl Fn() -> Coverage,
) -> Result<(), String> {
    let spent = run(number(size)?, time(millis)?)?;
    let Coverage { engine, guarded, total, .. } = coverage();
    println!(
        "cpu={:.2} sys={:.2} wall={:.2} rounds={} engine={engine} guarded={guarded} total={total}",
        spent.cpu, spent.system, spent.wall, spent.rounds
    );
    Ok(())
}

fn births(size: &str, millis: &str, coverage: &impl Fn() -> Coverage) -> Result<(), String> {
    let before = coverage();
    let (pair, birth) = orders::births(number(size)?, time(millis)?)?;
    let after = coverage();
    let share = |count: u64| count as f64 / pair.rounds.max(1) as f64;
    println!(
        "cpu={:.2} wall={:.2} alloc={birth:.2} calls={:.4} engine={}",
        pair.cpu,
        pair.wall,
        share(after.calls.saturating_sub(before.calls)),
        after.engine
    );
    Ok(())
}

fn among(size: &str, count: &str, millis: &str) -> Result<(), String> {
    let spent = orders::among(number(size)?, number(count)?, time(millis)?)?;
    println!("cpu={:.2} wall={:.2}", spent.cpu, spent.wall);
    Ok(())
}

fn deep(size: &str, frames: &str, millis: &str) -> Result<(), String> {
    let spent = orders::deep(number(size)?, number(frames)?, time(millis)?)?;
    println!("cpu={:.2} wall={:.2}", spent.cpu, spent.wall);
    Ok(())
}

fn live(count: &str, progress: &str, coverage: &impl Fn() -> Coverage) -> Result<(), String> {
    let set = live::Set::new(number(count)?, number(progress)? as i32)?;
    let before = coverage();
    let built = set.build()?;
    let after = coverage();
    let freed = set.free()?;
    println!(
        "cpu={:.2} wall={:.2} free_cpu={:.2} free_wall={:.2} bytes={:.1} tables={:.1} mappings={} engine={} guarded={} total={}",
        built.spent.cpu,
        built.spent.wall,
        freed.cpu,
        freed.wall,
        built.bytes,
        built.tables,
        built.mappings,
        after.engine,
        after.guarded.saturating_sub(before.guarded),
        after.total.saturating_sub(before.total),
    );
    Ok(())
}

fn kernel(what: &str, millis: &str) -> Result<(), String> {
    let spent = kernel::run(what, time(millis)?)?;
    println!("cpu={:.2} sys={:.2} wall={:.2} rounds={}", spent.cpu, spent.system, spent.wall, spent.rounds);
    Ok(())
}
