//! What cargo starts in place of each program: puts the guard on it and says what came of it.

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use fencepost_report::tools::render::finding_text;

use crate::Ending;
use crate::failure::Failure;
use crate::launch::{self, Outcome};
use crate::session::{self, Plan};
use crate::system;

/// The name of the link to this binary in a session's folder.
pub const NAME: &str = "runner";

/// Whether this process was started by that name.
pub fn is_called() -> bool {
    let name = std::env::args_os().next().unwrap_or_default();
    Path::new(&name).file_stem().is_some_and(|file| file == NAME)
}

/// Runs the program of our command line.
pub fn run(session: &Path) -> Result<Ending, Failure> {
    let mut arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    if arguments.is_empty() {
        return Err(Failure::usage("no program was given to run"));
    }
    let program = arguments.remove(0);
    let mut plan = session::plan(session)?;
    plan.hidden.push(session::VARIABLE.to_owned());
    if lists_tests(&arguments) {
        let mut command = Command::new(&program);
        command.args(&arguments);
        for name in &plan.hidden {
            command.env_remove(name);
        }
        let error = system::replace_with(&mut command);
        return Err(Failure::usage(format_args!("cannot run {}: {error}", program.to_string_lossy())));
    }
    let outcome = in_session(&plan, session, &program, &arguments)?;
    Ok(outcome.ending())
}

/// Runs a program in a folder of its own within the session, prints its findings and leaves them there.
pub fn in_session(
    plan: &Plan,
    session: &Path,
    program: &OsString,
    arguments: &[OsString],
) -> Result<Outcome, Failure> {
    let folder = tempfile::Builder::new()
        .prefix("run-")
        .tempdir_in(session)
        .map_err(|error| Failure::file("write to", session, &error))?
        .keep();
    let outcome = launch::launch(plan, &folder, program, arguments)?;
    print(plan, &outcome);
    let mut lines: Vec<String> =
        outcome.collection.findings.iter().map(|finding| finding.to_json()).collect();
    lines.push(outcome.other_lines.clone());
    session::leave(&folder, &outcome.account, &lines.join("\n"))
        .map_err(|error| Failure::file("write to", &folder, &error))?;
    Ok(outcome)
}

/// A program that only says which tests it has needs no guard.
fn lists_tests(arguments: &[OsString]) -> bool {
    arguments.iter().take_while(|argument| *argument != "--").any(|argument| argument == "--list")
}

/// The findings, where and when they happened.
fn print(plan: &Plan, outcome: &Outcome) {
    let mut text = String::new();
    for finding in outcome.collection.failures() {
        text.push_str(&finding_text(finding, plan.color));
        text.push('\n');
    }
    for problem in &outcome.collection.problems {
        // Nothing is lost: what we cannot read, a person may.
        text.push_str(&format!("fencepost: a report could not be read: {problem}\n{}\n", problem.line));
    }
    if text.is_empty() || plan.quiet {
        return;
    }
    let to_file = plan.log.as_ref().map(|path| {
        let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
        file.and_then(|mut file| file.write_all(text.as_bytes()))
    });
    match to_file {
        Some(Ok(())) => {}
        Some(Err(error)) => eprintln!("{text}fencepost: the log could not be written: {error}"),
        None => eprint!("{text}"),
    }
}
