//! What sealing, watching and stepping cost, beside `mprotect` by hand and a debugger's watchpoint:
//! `cargo bench -p fencepost-tests --bench sealing`, about a minute.
//!
//! It prints two tables, in the form in which they stand in the documents. Each row of the first is measured by a process
//! of its own, this program once more, in several rounds in turns; readers are measured in pairs in one process, with and
//! without, in turns, so that a busy machine slows both.

mod debugger;
mod measures;
mod readers;

use std::process::Command;

#[global_allocator]
static ALLOC: fencepost::GuardedAlloc = fencepost::GuardedAlloc::new()
    .with_options("on_error=continue,exitcode=0,symbolize=off,log=/dev/null,summary=off");

const ROUNDS: usize = 7;

/// A row: what it is called, what is measured, and under which options and denials.
struct Row {
    name: &'static str,
    measure: &'static str,
    options: &'static str,
    deny: &'static str,
}

const fn row(name: &'static str, measure: &'static str, options: &'static str, deny: &'static str) -> Row {
    Row { name, measure, options, deny }
}

const ROWS: [Row; 17] = [
    row("seal and unseal a block, engine move", "seal", "engine=move", ""),
    row("the same without the note in the page table", "seal", "engine=move", "write-protect"),
    row("the same, engine marker", "seal", "engine=marker", ""),
    row("the same, engine mprotect", "seal", "engine=mprotect", ""),
    row("`mprotect` there and back by hand", "protect", "mode=off", ""),
    row("set and end a watch, by watchpoints", "watch", "", ""),
    row("set and end a watch, by pages", "watch", "", "watchpoints"),
    row("a write that a watch notes, by watchpoints", "noted", "", ""),
    row("a write that a watch notes, by pages", "noted", "", "watchpoints"),
    row("a write that is reported no more, stepped", "violation", "", ""),
    row("a fault, `mprotect` twice, by hand", "fault", "mode=off", ""),
    row("gdb: a write at a hardware watchpoint", "gdb hardware", "mode=off", ""),
    row("gdb: a write at a software watchpoint", "gdb software", "mode=off", ""),
    row("a write beside what is watched by watchpoints", "beside", "", ""),
    row("a write beside what is watched by pages, stepped", "beside", "", "watchpoints"),
    row("a write beside gdb's software watchpoint", "gdb beside", "mode=off", ""),
    row("the same write with nothing watched", "plain", "mode=off", ""),
];

/// The median of some figures, the smallest and the largest.
fn summed(mut figures: Vec<f64>) -> Option<[f64; 3]> {
    figures.sort_by(f64::total_cmp);
    Some([*figures.get(figures.len() / 2)?, *figures.first()?, *figures.last()?])
}

/// Nanoseconds of one turn, measured by a process of its own; or why there are none.
fn measured(row: &Row) -> Result<f64, String> {
    if let Some(what) = row.measure.strip_prefix("gdb ") {
        return debugger::measured(what);
    }
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new(program)
        .args(["--measure", row.measure])
        .env("FENCEPOST_OPTIONS", row.options)
        .env("FENCEPOST_DENY", row.deny)
        .output()
        .map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stdout);
    let last = said.lines().last().unwrap_or_default();
    last.parse().map_err(|_| if last.is_empty() { format!("{}", output.status) } else { last.to_owned() })
}

/// A figure with as many places as it deserves.
fn written(nanoseconds: f64) -> String {
    if nanoseconds < 100.0 { format!("{nanoseconds:.1}") } else { format!("{nanoseconds:.0}") }
}

fn costs(rounds: usize) {
    let mut figures = ROWS.map(|_| (Vec::new(), None));
    for round in 0..rounds {
        for turn in 0..ROWS.len() {
            let index = if round % 2 == 0 { turn } else { ROWS.len() - 1 - turn };
            let (Some(row), Some((known, why))) = (ROWS.get(index), figures.get_mut(index)) else { continue };
            match measured(row) {
                Ok(figure) => known.push(figure),
                Err(reason) => *why = Some(reason),
            }
        }
    }
    println!("| what | ns each: median (smallest to largest of {rounds} rounds) |\n|---|---|");
    for (row, (known, why)) in ROWS.iter().zip(figures) {
        match (summed(known), why) {
            (Some([median, least, most]), _) => {
                println!("| {} | {} ({} to {}) |", row.name, written(median), written(least), written(most));
            }
            (None, why) => println!("| {} | skipped: {} |", row.name, why.unwrap_or_default()),
        }
    }
}

fn machine() {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let processor = read("/proc/cpuinfo");
    let model = processor.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!(
        "{}, {cores} cores; kernel {}",
        model.trim_matches([' ', '\t', ':']),
        read("/proc/sys/kernel/osrelease")
    );
    println!("engine {}; load average {}\n", fencepost::stats().engine, read("/proc/loadavg"));
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["--measure", what] => measures::measure(what),
        ["--debugged", what] => debugger::debugged(what),
        _ => {
            let quick = words.contains(&"--quick");
            machine();
            costs(if quick { 1 } else { ROUNDS });
            println!();
            readers::compare(if quick { 3 } else { 21 });
        }
    }
}
