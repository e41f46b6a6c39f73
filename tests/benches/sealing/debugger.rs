//! The same by a debugger: gdb's watchpoints, by the processor and by single steps.

use std::hint::black_box;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// What gdb watches, and what lies beside it.
#[unsafe(no_mangle)]
pub static FENCEPOST_BENCH_WATCHED: [AtomicU64; 8] = [const { AtomicU64::new(0) }; 8];

/// Where gdb stops to set its watchpoint.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn fencepost_bench_begins() {
    black_box(&FENCEPOST_BENCH_WATCHED);
}

/// What gdb is told, and how often is written: a step by the debugger takes a thousand times as long as a trap.
pub fn measured(what: &str) -> Result<f64, String> {
    let software = what != "hardware";
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut gdb = Command::new("gdb");
    gdb.args(["-nx", "-batch", "-iex", "set startup-with-shell off", "-iex", "set debuginfod enabled off"]);
    let watch = "watch *(unsigned long *)&FENCEPOST_BENCH_WATCHED";
    let hardware = if software { "set can-use-hw-watchpoints 0" } else { "set can-use-hw-watchpoints 1" };
    let count = if software { "20" } else { "300" };
    let shown = if what == "beside" { "beside" } else { "watched" };
    let run = format!("run --debugged {shown}:{count}");
    let go = r#"python exec("while True:\n try: gdb.execute('continue', to_string=True)\n except gdb.error: break")"#;
    for command in [
        "set environment FENCEPOST_OPTIONS mode=off",
        hardware,
        "break fencepost_bench_begins",
        &run,
        watch,
        go,
    ] {
        gdb.args(["-ex", command]);
    }
    let output = gdb.arg(program).output().map_err(|_| "gdb is not installed".to_owned())?;
    let said = String::from_utf8_lossy(&output.stdout);
    let figure = said.lines().find_map(|line| line.strip_prefix("each "));
    figure
        .and_then(|figure| figure.trim().parse().ok())
        .ok_or_else(|| "gdb cannot run a program here".to_owned())
}

/// The program under the debugger.
pub fn debugged(what: &str) {
    let (place, count) = what.split_once(':').unwrap_or((what, "1"));
    let count: u64 = count.parse().unwrap_or(1);
    let index = if place == "beside" { 4 } else { 0 };
    fencepost_bench_begins();
    let start = Instant::now();
    for round in 1..=count {
        if let Some(word) = black_box(&FENCEPOST_BENCH_WATCHED).get(index) {
            word.store(round, Ordering::Relaxed);
        }
    }
    println!("each {}", start.elapsed().as_nanos() as f64 / count as f64);
    // The way out is long, step by step.
    // SAFETY: the process ends here; what it printed went out with the line.
    unsafe { libc::_exit(0) };
}
