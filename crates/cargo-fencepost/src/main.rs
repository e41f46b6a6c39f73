//! `cargo fencepost`: any program under the guard, and its reports for people and for CI.
//!
//! Two roles in one binary. As `cargo fencepost COMMAND` it plans a session, lets cargo (or itself) start the
//! programs, and judges what they left behind. As the *runner* that cargo starts in place of each program (cargo's
//! own setting `target.….runner`), it puts the guard on that one program, waits, and resolves its reports; so cargo's
//! own environment, arguments and order of things hold for every program, and each report appears where it happened.
//!
//! Invariants: the program under the guard only writes fixed records, names are resolved here; standard input, the
//! terminal, signals and the exit status go through unchanged; whether the guard was in place is proved by what the
//! program wrote, never assumed.
#![forbid(unsafe_code)]

mod cargo;
mod command_line;
mod doctor;
mod evidence;
mod failure;
mod flags;
mod inspect;
mod judge;
mod launch;
mod outputs;
mod preload;
mod report_files;
mod runner;
mod session;
mod settings;
mod sweeps;
mod system;
mod tests_named;

use std::process::ExitCode;

/// Something was reported.
const REPORTED: i32 = 100;
/// The command line, or a file it names, is wrong.
const BAD_COMMAND_LINE: i32 = 2;
/// The guard could not be put in place.
const NOT_GUARDED: i32 = 3;

fn main() -> ExitCode {
    if let Some(session) = std::env::var_os(session::VARIABLE)
        && runner::is_called()
    {
        return end(runner::run(session.as_ref()));
    }
    end(command_line::run(std::env::args_os().collect()))
}

/// How the process ends.
enum Ending {
    /// With this status.
    Status(i32),
    /// By this signal (on Windows by this exception), as the program did.
    Signal(i32),
}

impl Ending {
    /// As a program ended.
    fn of(status: Option<i32>, signal: Option<i32>) -> Ending {
        match signal {
            Some(signal) => Ending::Signal(signal),
            None => Ending::Status(status.unwrap_or(1)),
        }
    }
}

fn end(result: Result<Ending, failure::Failure>) -> ExitCode {
    match result {
        Ok(Ending::Status(status)) => system::end_with(status),
        Ok(Ending::Signal(signal)) => system::die_by(signal),
        Err(failure) => {
            eprintln!("fencepost: {failure}");
            system::end_with(failure.status)
        }
    }
}
