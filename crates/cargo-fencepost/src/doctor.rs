//! `cargo fencepost doctor`: what this machine can do, found out by trying it, and what to change.

use std::path::Path;

use fencepost_guard::options::KEYS;
use fencepost_sys::{Host, Memory, MissingOffer, Platform};

use crate::failure::Failure;
use crate::launch;
use crate::session::{Guard, Plan, Session};
use crate::{Ending, NOT_GUARDED, inspect, preload, system};

/// One line of the answer.
pub struct Finding {
    pub what: &'static str,
    pub state: String,
    /// What to change; `None` if all is well.
    pub change: Option<String>,
}

/// Says everything; the status tells whether anything can be guarded here.
pub fn run() -> Result<Ending, Failure> {
    let (first, rest) = system::machine();
    let (engines, works) = engines()?;
    let mut findings = vec![first];
    findings.extend(engines);
    findings.extend(rest);
    let mut out = String::new();
    for Finding { what, state, change } in &findings {
        let mark = if change.is_some() { "!" } else { " " };
        out.push_str(&format!("{mark} {what:<22} {state}\n"));
        if let Some(change) = change {
            out.push_str(&format!("  {:<22} -> {change}\n", ""));
        }
    }
    print!("{out}");
    Ok(Ending::Status(if works { 0 } else { NOT_GUARDED }))
}

/// Each engine, tried on a small program; and whether any works.
fn engines() -> Result<(Vec<Finding>, bool), Failure> {
    let library = preload::library()?;
    // One that asks for a buffer: a program without a block proves nothing.
    let program = inspect::find(Path::new("cat"));
    let (Some(library), Some(program)) = (library, program) else { return Ok((offers(), true)) };
    let words = KEYS.iter().find(|spec| spec.name == "engine").map(|spec| spec.words).unwrap_or_default();
    let (mut findings, mut works) = (Vec::new(), false);
    // Engine commit is for systems that count pages when they are asked for.
    let is_here = |word: &&&str| **word != "commit" || Host::new().offers().commits_pages;
    for word in words.iter().filter(is_here) {
        let plan = Plan {
            options: format!("engine={word}"),
            preload: Some(library.clone()),
            quiet: true,
            ..Plan::default()
        };
        let session = Session::new(&plan)?;
        let outcome = launch::launch(&plan, session.path(), program.as_os_str(), &["/dev/null".into()])?;
        let used = outcome.collection.starts.first().and_then(|start| start.engine.clone());
        let guarded = outcome.account.guard != Guard::None && outcome.account.status == Some(0);
        works |= guarded;
        let (state, change) = match used {
            Some(used) if guarded && *word == "auto" => (format!("takes {used}"), None),
            Some(used) if guarded && used == *word => ("works".to_owned(), None),
            Some(used) if guarded => {
                (format!("does not work here: {used} is used instead"), engine_advice(word))
            }
            _ => {
                let why = outcome.account.why.unwrap_or_else(|| "a small program failed under it".to_owned());
                ("does not work here".to_owned(), Some(why))
            }
        };
        findings.push(Finding { what: engine_label(word), state, change });
    }
    Ok((findings, works))
}

fn engine_label(word: &str) -> &'static str {
    match word {
        "auto" => "engine auto",
        "move" => "engine move",
        "marker" => "engine marker",
        "mprotect" => "engine mprotect",
        "commit" => "engine commit",
        _ => "engine",
    }
}

fn engine_advice(word: &str) -> Option<String> {
    let advice = match word {
        "move" => "needs Linux 6.8 and userfaultfd: see the line on it below",
        "marker" => "needs Linux 6.13 or later",
        _ => return None,
    };
    Some(advice.to_owned())
}

/// What this process itself sees, where there is no library to try a program with.
fn offers() -> Vec<Finding> {
    let host = Host::new();
    host.probe();
    let offers = host.offers();
    let engines = [
        ("move", offers.missing != MissingOffer::Nothing),
        ("marker", offers.guard_markers),
        ("commit", offers.commits_pages),
    ];
    // Where single pages are committed there are none of the others, and elsewhere not this one.
    let of_here = engines.into_iter().filter(|(word, _)| (*word == "commit") == offers.commits_pages);
    let finding = |(word, works): (&'static str, bool)| {
        let state = if works { "works" } else { "does not work here" }.to_owned();
        Finding { what: engine_label(word), state, change: engine_advice(word).filter(|_| !works) }
    };
    of_here.map(finding).collect()
}
