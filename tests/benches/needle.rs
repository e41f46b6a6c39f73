//! How likely `mode=budget` finds an error in one of a thousand calling contexts, and what it costs in the same runs:
//! `cargo bench -p fencepost-tests --bench needle`.
//!
//! The program makes ten million allocations from a thousand contexts (a place in a chain of calls, and a size), in an
//! order drawn by chance, with some work at each. One context has an error: from its k-th use on it reads one byte past
//! its block (*lasting*), or at its k-th use only (*once*). A run finds it or it does not; another run of the same program
//! without the guard, in turns, tells what the guard took. An error that shows once can only be found if just that block
//! is guarded: its rows say what sampling can do for it, and no goal is set there, so that `-- --lasting` leaves them out.

use std::hint::black_box;
use std::process::{Command, ExitCode, ExitStatus, Stdio};

#[global_allocator]
static ALLOC: fencepost::GuardedAlloc = fencepost::GuardedAlloc::new();

const CONTEXTS: u64 = 1000;
/// From the k-th use on, and at the k-th use only.
const KINDS: [&str; 2] = ["lasting", "once"];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["--child", allocations, seed, k, lasting] => child(allocations, seed, k, *lasting == "lasting"),
        words => {
            let benching = words.contains(&"--bench");
            let seeds = if !benching {
                2
            } else if words.contains(&"--quick") {
                10
            } else {
                100
            };
            let kinds = if words.contains(&"--lasting") { &KINDS[..1] } else { &KINDS[..] };
            everything(seeds, if benching { 10_000_000 } else { 200_000 }, kinds)
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("needle: {why}");
            ExitCode::FAILURE
        }
    }
}

fn everything(seeds: u64, allocations: u64, kinds: &[&str]) -> Result<(), String> {
    println!(
        "{allocations} allocations from {CONTEXTS} contexts, an error from the k-th use of one; {seeds} seeds, mode=budget"
    );
    println!("{:>6} {:>8} {:>8} {:>22}", "k", "error", "found", "slowdown, median");
    for kind in kinds {
        for k in [1, 100, 5000].into_iter().filter(|k| *k <= allocations / CONTEXTS / 2) {
            let (mut found, mut ratios) = (0, Vec::new());
            for seed in 0..seeds {
                found += u64::from(run(allocations, seed, k, kind, "mode=budget")?.0);
                // An error that is found ends the run early: what the guard takes shows in one without an error.
                let pair = |options| run(allocations, seed, u64::MAX, kind, options).map(|(_, taken)| taken);
                let (guarded, plain) = if seed % 2 == 0 {
                    let guarded = pair("mode=budget")?;
                    (guarded, pair("mode=off")?)
                } else {
                    let plain = pair("mode=off")?;
                    (pair("mode=budget")?, plain)
                };
                ratios.push(guarded / plain);
            }
            ratios.sort_by(f64::total_cmp);
            let slowdown = (ratios[ratios.len() / 2] - 1.0) * 100.0;
            println!("{k:>6} {kind:>8} {:>7.0}% {:>21.1}%", 100.0 * found as f64 / seeds as f64, slowdown);
        }
    }
    Ok(())
}

/// Whether the error was found, and the seconds of CPU time that the run took.
fn run(allocations: u64, seed: u64, k: u64, kind: &str, options: &str) -> Result<(bool, f64), String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new(program)
        .args(["--child", &allocations.to_string(), &seed.to_string(), &k.to_string(), kind])
        .env("FENCEPOST_OPTIONS", format!("{options},summary=off,symbolize=off,seed={}", seed + 1))
        .stderr(Stdio::null())
        .output()
        .map_err(|error| format!("a child does not start: {error}"))?;
    if output.status.success() {
        let text = String::from_utf8_lossy(&output.stdout);
        return Ok((false, text.trim().parse().map_err(|_| format!("no time in {text:?}"))?));
    }
    if died_of_a_fault(output.status) { Ok((true, 0.0)) } else { Err(format!("a child: {}", output.status)) }
}

fn died_of_a_fault(status: ExitStatus) -> bool {
    use std::os::unix::process::ExitStatusExt;
    matches!(status.signal(), Some(libc::SIGSEGV | libc::SIGBUS))
}

/// Numbers that only look random (SplitMix64).
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let value = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value ^ (value >> 31)
    }
}

fn child(allocations: &str, seed: &str, k: &str, lasting: bool) -> Result<(), String> {
    let number = |word: &str| word.parse::<u64>().map_err(|_| format!("not a number: {word}"));
    let (allocations, seed, k) = (number(allocations)?, number(seed)?, number(k)?);
    let mut draw = Draw(seed);
    let needle = draw.next() % CONTEXTS;
    let mut uses = vec![0u64; CONTEXTS as usize];
    let begun = cpu_seconds();
    let mut sum = 0u64;
    for _ in 0..allocations {
        let context = draw.next() % CONTEXTS;
        let used = &mut uses[context as usize];
        *used += 1;
        let wrong = context == needle && if lasting { *used >= k } else { *used == k };
        sum = sum.wrapping_add(through(context % 10, context / 10, wrong));
        // Some work of the program's own: about as long as two allocations.
        for _ in 0..8 {
            sum = black_box(sum.wrapping_add(draw.next()));
        }
    }
    black_box(sum);
    println!("{:.4}", cpu_seconds() - begun);
    Ok(())
}

/// Ten ways to allocate, a hundred sizes: the depth of the calls and the size make the context.
#[inline(never)]
fn through(depth: u64, size: u64, wrong: bool) -> u64 {
    if depth > 0 {
        return black_box(through(depth - 1, size, wrong)).wrapping_add(1);
    }
    let size = 8 * (size as usize + 1);
    let block = black_box(vec![1u8; size]);
    let at = if wrong { size } else { size - 1 };
    // SAFETY: none where `wrong`: that is the error that is looked for. Without the guard, the byte is the allocator's.
    u64::from(unsafe { block.as_ptr().add(at).read_volatile() })
}

fn cpu_seconds() -> f64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: clock_gettime writes one timespec. The clock exists since Linux 2.6.12.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut now) };
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}
