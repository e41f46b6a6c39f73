//! One run or several of the same: both sides of the blocks, or one failing allocation after another.

use std::ffi::OsString;
use std::io::{IsTerminal, Write};

use fencepost_report::tools::Collection;

use crate::Ending;
use crate::cargo;
use crate::failure::Failure;
use crate::judge::{self, Verdict};
use crate::outputs::Outputs;
use crate::preload;
use crate::runner;
use crate::session::{Plan, Session};
use crate::settings::Settings;

/// What is run.
pub enum Work {
    /// Cargo with these words, which starts programs.
    Cargo { tests: bool, words: Vec<OsString> },
    /// A program and its arguments.
    Program(Vec<OsString>),
}

/// Runs the work as often as the settings ask for, and judges the whole.
pub fn run(settings: &Settings, work: &Work) -> Result<Ending, Failure> {
    // Before anything runs: an hour of tests whose result cannot be written is lost.
    let outputs = Outputs::open(settings)?;
    let library = if settings.preload { preload::library()? } else { None };
    let plan = Plan { tests: matches!(work, Work::Cargo { tests: true, .. }), ..Plan::of(settings, library) };
    let is_test = |words: &[OsString]| words.first().is_some_and(|word| word == "test");
    let tests_share = matches!(work, Work::Cargo { words, .. } if is_test(words));
    let mut verdict = Verdict::of(tests_share);
    let mut ending = if settings.both_sides {
        let first = once(&with(&plan, "place=right"), work, &mut verdict)?;
        let second = once(&with(&plan, "place=left"), work, &mut verdict)?;
        if matches!(first, Ending::Status(0)) { second } else { first }
    } else {
        once(&plan, work, &mut verdict)?
    };
    if settings.fail_sweep {
        // What the ordinary run shows stands; each further one is about one allocation.
        let swept = sweep(settings, &plan, work, &mut verdict)?;
        if matches!(ending, Ending::Status(0)) && swept > 0 {
            ending = Ending::Status(0);
        }
    }
    judge::judge(settings, verdict, outputs, ending)
}

fn with(plan: &Plan, option: &str) -> Plan {
    let between = if plan.options.is_empty() { "" } else { "," };
    Plan { options: format!("{}{between}{option}", plan.options), ..plan.clone() }
}

fn once(plan: &Plan, work: &Work, verdict: &mut Verdict) -> Result<Ending, Failure> {
    let mut plan = plan.clone();
    match work {
        Work::Cargo { words, .. } => {
            let (session, ending) = cargo::start(words, &mut plan)?;
            verdict.take(&session);
            Ok(ending)
        }
        Work::Program(words) => {
            let session = Session::new(&plan)?;
            let (program, arguments) =
                words.split_first().ok_or_else(|| Failure::usage("no program was given to run"))?;
            let outcome = runner::in_session(&plan, session.path(), program, arguments)?;
            verdict.take(&session);
            Ok(outcome.ending())
        }
    }
}

/// One run for each allocation, in which that one fails; says how many were made.
fn sweep(settings: &Settings, plan: &Plan, work: &Work, verdict: &mut Verdict) -> Result<u64, Failure> {
    let most = verdict.collection.summaries.iter().map(|summary| summary.total).max().unwrap_or(0);
    if most == 0 {
        return Err(Failure::unguarded("--fail-sweep: no program said how many allocations it makes"));
    }
    let runs = settings.fail_sweep_max.unwrap_or(most).min(most);
    let terminal = std::io::stderr().is_terminal();
    let (mut clean, mut by_signal) = (0_u64, 0_u64);
    for run in 0..runs {
        // Spread evenly, the first and the last among them.
        let at = 1 + u64::try_from(u128::from(run) * u128::from(most - 1) / u128::from((runs - 1).max(1)))
            .unwrap_or(run);
        if terminal {
            eprint!("\rfencepost: fail-sweep: allocation {at} of {most} ");
            drop(std::io::stderr().flush());
        }
        let plan = Plan { quiet: true, ..with(plan, &format!("fail_at={at}")) };
        let mut one = Verdict::default();
        match once(&plan, work, &mut one)? {
            Ending::Status(_) => clean += 1,
            Ending::Signal(_) => by_signal += 1,
        }
        verdict.add(one.collection);
    }
    if terminal {
        eprintln!();
    }
    eprintln!(
        "fencepost: fail-sweep: {runs} of {most} allocations failed, one a run: {clean} runs ended by themselves, \
         {by_signal} by a signal (Rust ends by SIGABRT where memory is short)"
    );
    Ok(runs)
}

/// Puts the findings of one run beside those of others.
pub fn join(into: &mut Collection, from: Collection) {
    into.findings.extend(from.findings);
    into.summaries.extend(from.summaries);
    into.starts.extend(from.starts);
    into.sites.extend(from.sites);
    into.problems.extend(from.problems);
}
