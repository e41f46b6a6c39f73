//! What a block that is not guarded costs over the inner allocator alone: `cargo bench -p fencepost-tests --bench passing`.
//!
//! Both allocators are called in one process, in turns of a fraction of a millisecond, so that a noisy minute of the
//! machine hits both alike; the differences of neighbouring turns are what is summed up, with the interval that holds
//! their mean with 95% confidence. Every mode has a process of its own. Where valgrind is installed, the instructions of
//! a pair are counted as well, by its `callgrind`: those do not depend on the machine's other work.

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

#[global_allocator]
static ALLOC: fencepost::GuardedAlloc = fencepost::GuardedAlloc::new();

/// The second guards hardly a block within a run: what it costs is what a block costs that is not guarded. The third's cost
/// is that and a thousandth of a guarded block, the fourth's that of a look at the context and a twentieth of the time.
const MODES: [&str; 4] = [
    "mode=off",
    "mode=sample,sample_rate=1000000000",
    "mode=sample,sample_rate=1000",
    "mode=budget,budget=5",
];
const SIZES: [usize; 3] = [16, 100, 1000];
/// Pairs in a turn.
const TURN: u32 = 4000;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let given = |option: &str| arguments.iter().any(|word| word == option);
    // `cargo bench` says so; without it, this is a test asking whether the bench works at all. The other options are
    // those of the bench `pairs`, which `cargo bench` runs with the same.
    let turns = if !given("--bench") {
        20
    } else if given("--quick") {
        400
    } else {
        4000
    };
    let options = ["--bench", "--quick", "--dev"];
    let words: Vec<&str> =
        arguments.iter().map(String::as_str).filter(|word| !options.contains(word)).collect();
    let done = match words.as_slice() {
        ["--child", "turns", size, turns] => paired(size, turns),
        ["--child", "count", which, size, pairs] => counted(which, size, pairs),
        [] => everything(&turns.to_string(), given("--bench") && !given("--quick")),
        _ => Err("this bench has no options".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("passing: {why}");
            ExitCode::FAILURE
        }
    }
}

fn everything(turns: &str, count: bool) -> Result<(), String> {
    println!("a pair of allocation and free over the system allocator's, touched at one end; one thread");
    println!(
        "{:36} {:>6} {:>10} {:>18} {:>14}",
        "mode", "bytes", "inner, ns", "more, ns (95%)", "instructions"
    );
    for mode in MODES {
        for size in SIZES {
            let size = size.to_string();
            let line = child(mode, &["--child", "turns", &size, turns])?;
            let of = |which: &str| if count { instructions(mode, which, &size) } else { None };
            let more = match (of("guarded"), of("inner")) {
                (Some(guarded), Some(inner)) => format!("{inner:.1} + {:.1}", guarded - inner),
                _ if count => "no valgrind".into(),
                _ => "not counted".into(),
            };
            println!("{mode:36} {size:>6} {} {more:>14}", line.trim_end());
        }
    }
    Ok(())
}

fn child(mode: &str, arguments: &[&str]) -> Result<String, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new(program)
        .args(arguments)
        .env("FENCEPOST_OPTIONS", format!("{mode},summary=off"))
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("a child does not start: {error}"))?;
    if !output.status.success() {
        return Err(format!("a child under {mode}: {}", output.status));
    }
    String::from_utf8(output.stdout).map_err(|error| error.to_string())
}

/// Instructions of one pair: the difference between many pairs and few, by valgrind.
fn instructions(mode: &str, which: &str, size: &str) -> Option<f64> {
    let program = std::env::current_exe().ok()?;
    let count = |pairs: u32| -> Option<u64> {
        let output = Command::new("valgrind")
            .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
            .arg(&program)
            .args(["--child", "count", which, size, &pairs.to_string()])
            .env("FENCEPOST_OPTIONS", format!("{mode},seed=1,quarantine=64M,summary=off"))
            // What valgrind does not emulate, or not as the kernel does.
            .env("FENCEPOST_DENY", "markers")
            .output()
            .ok()?;
        let text = String::from_utf8_lossy(&output.stderr);
        let line = text.lines().find(|line| line.contains("Collected :"))?;
        line.rsplit(' ').next()?.parse().ok()
    };
    let (few, many) = (count(10_000)?, count(110_000)?);
    Some((many as f64 - few as f64) / 100_000.0)
}

/// One pair.
///
/// # Safety
/// `layout` must not be of size zero.
#[inline(always)]
unsafe fn pair(allocator: &impl GlobalAlloc, layout: Layout) {
    // SAFETY: the caller's word; the block is written to within its size, freed once with its layout, and there is one:
    // blocks of such sizes are refused to nobody here.
    unsafe {
        let block = black_box(allocator.alloc(layout));
        block.write_volatile(1);
        allocator.dealloc(black_box(block), layout);
    }
}

#[inline(never)]
fn inner(layout: Layout, pairs: u32) {
    for _ in 0..pairs {
        // SAFETY: no layout here is of size zero.
        unsafe { pair(&System, layout) };
    }
}

#[inline(never)]
fn guarded(layout: Layout, pairs: u32) {
    for _ in 0..pairs {
        // SAFETY: as above.
        unsafe { pair(&ALLOC, layout) };
    }
}

fn layout(size: &str) -> Result<Layout, String> {
    let size = size.parse().ok().filter(|size| *size > 0).ok_or("not a size")?;
    Layout::from_size_align(size, 8).map_err(|error| error.to_string())
}

fn counted(which: &str, size: &str, pairs: &str) -> Result<(), String> {
    let (layout, pairs) = (layout(size)?, pairs.parse().map_err(|_| "not a number")?);
    match which {
        "inner" => inner(layout, pairs),
        _ => guarded(layout, pairs),
    }
    Ok(())
}

/// Turns of both allocators, and what came of them.
fn paired(size: &str, turns: &str) -> Result<(), String> {
    let layout = layout(size)?;
    let turns: usize = turns.parse().map_err(|_| "not a number")?;
    let time = |run: fn(Layout, u32)| {
        let begun = Instant::now();
        run(layout, TURN);
        begun.elapsed().as_secs_f64() * 1e9 / f64::from(TURN)
    };
    let (mut alone, mut more) = (Vec::new(), Vec::new());
    for turn in 0..turns {
        // In changing order, so that neither always follows the other.
        let (first, second) = if turn % 2 == 0 {
            let first = time(inner);
            (first, time(guarded))
        } else {
            let second = time(guarded);
            (time(inner), second)
        };
        alone.push(first);
        more.push(second - first);
    }
    alone.sort_by(f64::total_cmp);
    let (low, high) = interval(&mut more);
    println!("{:10.2} {:>18}", alone[alone.len() / 2], format!("{low:.2} to {high:.2}"));
    Ok(())
}

/// The interval that holds the mean with 95% confidence, without the tenth at each end: turns that were interrupted.
fn interval(values: &mut [f64]) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    let cut = values.len() / 10;
    let kept = &values[cut..values.len() - cut];
    let count = kept.len() as f64;
    let mean = kept.iter().sum::<f64>() / count;
    let variance = kept.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0).max(1.0);
    let half = 1.96 * (variance / count).sqrt();
    (mean - half, mean + half)
}
