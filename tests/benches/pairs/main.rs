//! The price of guarding, beside the system allocator and Electric Fence: `cargo bench -p fencepost-tests --bench pairs`.
//!
//! Every figure comes from a child process of its own, one for each pair of a program and a workload. The children
//! run one at a time and in turns, several rounds over, so that a noisy minute of the machine hits all alike; ratios
//! are taken within a round and only then summed up. The programs are `workload_plain`, which has no fencepost in it,
//! and `workload_guarded`, both built by `cargo bench` beside this one.

mod child;
mod figures;
mod machine;
mod plan;
mod tables;

use std::io::{IsTerminal, Write};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use child::Outcome;
use figures::Figures;
use plan::{Effort, Plan};

const USAGE: &str = "\
cargo bench -p fencepost-tests --bench pairs                      everything, at most 4 minutes
cargo bench -p fencepost-tests --bench pairs -- --quick           less of it, at most 40 seconds
cargo bench -p fencepost-tests --bench pairs -- --dev             what programs built without optimisation pay
cargo bench -p fencepost-tests --bench pairs --profile dev        the same, spelled out";

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    // What cargo adds for `cargo bench`; without it, this is `cargo test` asking whether the bench works at all.
    let benching = arguments.iter().any(|word| word == "--bench");
    arguments.retain(|word| word != "--bench");
    let mut effort = if benching { Effort::Full } else { Effort::Smoke };
    for argument in &arguments {
        match argument.as_str() {
            "--quick" => effort = Effort::Quick,
            "--dev" => {}
            "--help" => {
                println!("{USAGE}");
                return ExitCode::SUCCESS;
            }
            _ => {
                eprintln!("pairs: no such option: {argument}\n{USAGE}");
                return ExitCode::from(2);
            }
        }
    }
    let done = if arguments.iter().any(|word| word == "--dev") && !cfg!(debug_assertions) {
        run_in_dev(&arguments)
    } else {
        run(effort)
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("pairs: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Asks cargo for the same bench in a dev build.
fn run_in_dev(arguments: &[String]) -> Result<(), String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let rest = arguments.iter().filter(|word| *word != "--dev");
    let status = Command::new(cargo)
        .args(["bench", "--profile", "dev", "--package", env!("CARGO_PKG_NAME"), "--bench", "pairs", "--"])
        .args(rest)
        .status()
        .map_err(|error| format!("cargo does not start: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("the bench of the dev build: {status}")) }
}

fn run(effort: Effort) -> Result<(), String> {
    let plan = Plan::new(effort)?;
    let started = Instant::now();
    let figures = measure(&plan, started);
    let mut out = std::io::stdout().lock();
    let written = machine::describe(&mut out)
        .and_then(|()| tables::print(&mut out, &plan, &figures))
        .and_then(|()| writeln!(out, "\ntook {:.0} s", started.elapsed().as_secs_f64()));
    written.map_err(|error| format!("the tables cannot be written: {error}"))?;
    figures.verdict(&plan)
}

fn measure(plan: &Plan, started: Instant) -> Figures {
    let mut figures = Figures::default();
    let steps = plan.steps();
    let mut progress = Progress::new(steps.len());
    for step in steps {
        let (program, task) = (&plan.programs[step.program], plan.tasks[step.task]);
        progress.show(&format!("{}: {}", program.name, task.name()));
        if figures.is_hopeless(step.task, step.program) {
            continue;
        }
        let left = plan.effort.time_max().saturating_sub(started.elapsed());
        let outcome = if left < Duration::from_secs(1) {
            Outcome::Skipped("out of time".into())
        } else {
            child::run(program, task, plan.effort, left.as_secs())
        };
        figures.add(step, outcome);
    }
    progress.end();
    figures
}

/// One line that is written over and over; on a terminal only.
struct Progress {
    steps: usize,
    done: usize,
    shown: bool,
}

impl Progress {
    fn new(steps: usize) -> Progress {
        Progress { steps, done: 0, shown: std::io::stderr().is_terminal() }
    }

    fn show(&mut self, what: &str) {
        self.done += 1;
        if self.shown {
            eprint!("\r\x1b[K[{}/{}] {what}", self.done, self.steps);
        }
    }

    fn end(&self) {
        if self.shown {
            eprint!("\r\x1b[K");
        }
    }
}
