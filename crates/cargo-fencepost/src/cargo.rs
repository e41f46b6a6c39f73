//! Runs that cargo leads: cargo builds, chooses and starts the programs, and starts us as the runner of each.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use crate::Ending;
use crate::failure::Failure;
use crate::inspect;
use crate::runner;
use crate::session::{Plan, Session, VARIABLE};
use crate::settings::Settings;
use crate::sweeps::{self, Work};
use crate::system::{self, Forwarding};

/// `cargo run`, `cargo test` or `cargo nextest` with these arguments, under the guard.
pub fn run(name: &str, settings: &Settings, arguments: &[OsString]) -> Result<Ending, Failure> {
    let mut words = vec![OsString::from(name)];
    words.extend_from_slice(arguments);
    let before = |words: &[OsString], flag: &str| words.iter().take_while(|w| *w != "--").any(|w| w == flag);
    match name {
        "nextest" => {
            if inspect::find(Path::new("cargo-nextest")).is_none() {
                return Err(Failure::usage(
                    "cargo-nextest is not installed: `cargo install --locked cargo-nextest`, or use `cargo fencepost test`",
                ));
            }
            if arguments.is_empty() {
                words.push("run".into());
            }
            let is_run = words.get(1).is_some_and(|word| word == "run" || word == "r");
            if is_run && !before(&words, "--no-fail-fast") && !before(&words, "--fail-fast") {
                words.insert(2, "--no-fail-fast".into());
            }
        }
        // One binary that fails does not keep the others from being tested.
        "test" if !before(&words, "--no-fail-fast") => words.insert(1, "--no-fail-fast".into()),
        _ => {}
    }
    sweeps::run(settings, &Work::Cargo { tests: name != "run", words })
}

/// Starts cargo with ourselves as the runner, and waits.
pub fn start(words: &[OsString], plan: &mut Plan) -> Result<(Session, Ending), Failure> {
    let variable = runner_variable(words)?;
    plan.hidden = vec![variable.clone()];
    let session = Session::new(plan)?;
    let link = session.path().join(runner::NAME).with_extension(std::env::consts::EXE_EXTENSION);
    if link.to_string_lossy().contains(char::is_whitespace) {
        return Err(Failure::unguarded(format_args!(
            "the folder for temporary files has a space in its path ({}), which cargo's runner cannot have: set TMPDIR",
            session.path().display()
        )));
    }
    let this = std::env::current_exe()
        .map_err(|error| Failure::unguarded(format_args!("cannot find this program: {error}")))?;
    system::link(&this, &link).map_err(|error| Failure::file("make", &link, &error))?;
    if std::env::var_os(&variable).is_some() {
        eprintln!("fencepost: the runner in {variable} is not used: fencepost runs the programs itself");
    }
    let mut command = Command::new(cargo());
    command.args(words).env(&variable, &link).env(VARIABLE, session.path());
    let cannot = |error: std::io::Error| Failure::usage(format_args!("cannot run cargo: {error}"));
    let mut forwarding = Forwarding::prepare().map_err(cannot)?;
    let mut child = command.spawn().map_err(cannot)?;
    forwarding.to(child.id());
    let (status, signal) = system::ended(child.wait().map_err(cannot)?);
    Ok((session, Ending::of(status, signal)))
}

fn cargo() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// The variable by which cargo is told the runner of the target that is built for.
fn runner_variable(words: &[OsString]) -> Result<String, Failure> {
    let mut words = words.iter().take_while(|word| *word != "--").map(|word| word.to_string_lossy());
    let mut target = None;
    while let Some(word) = words.next() {
        if word == "--target" {
            target = words.next().map(|word| word.into_owned());
        } else if let Some(value) = word.strip_prefix("--target=") {
            target = Some(value.to_owned());
        }
    }
    let target = target.or_else(|| std::env::var("CARGO_BUILD_TARGET").ok()).map_or_else(host, Ok)?;
    let triple = target.replace(['-', '.'], "_").to_uppercase();
    Ok(format!("CARGO_TARGET_{triple}_RUNNER"))
}

/// The target that this machine builds for.
fn host() -> Result<String, Failure> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(&rustc).arg("-vV").output();
    let output = output.map_err(|error| Failure::usage(format_args!("cannot run rustc: {error}")))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.strip_prefix("host: "));
    line.map(str::to_owned).ok_or_else(|| Failure::usage("rustc -vV does not say which target it is for"))
}
