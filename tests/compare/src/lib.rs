//! What every program of the comparison does, whatever its allocator is: one piece of work, named by the arguments,
//! and one line of results on standard output.
//!
//! Work on blocks (`pair`, `live`, `mix`, `threads`) times itself from within. Whole programs print a checksum of what
//! they computed, so that the comparison sees that a guard did not change it; they are timed from outside.

mod blocks;
mod programs;
// The same pairs and sets as in the bench `pairs`.
#[path = "../../benches/workload/mod.rs"]
mod workload;

pub use workload::Coverage;

use std::process::ExitCode;

/// Does what the arguments say.
pub fn main(coverage: impl Fn() -> Coverage) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["mix", live, operations] => blocks::mix(live, operations),
        ["threads", threads, size, millis] => blocks::threads(threads, size, millis),
        ["program", name] => programs::run(name, "1").map(|sum| println!("sum={sum:016x}")),
        ["program", name, times] => programs::run(name, times).map(|sum| println!("sum={sum:016x}")),
        _ => return workload::main(coverage),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("compare: {why}");
            ExitCode::FAILURE
        }
    }
}
