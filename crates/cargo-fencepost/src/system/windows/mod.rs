//! Windows: statuses of 32 bits, of which those of exceptions say how a program died; no signals, and nothing to preload.

mod machine;

use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::SigId;
use signal_hook::consts::SIGINT;

pub use machine::machine;

/// Where what nobody wants to read goes.
pub const NOWHERE: &str = "NUL";
/// Why no library can be preloaded into any program here.
const NO_PRELOAD: &str = "nothing is preloaded into programs on Windows: make GuardedAlloc the #[global_allocator] of this program";
/// The C runtime's word for Ctrl-Break, and for a console that is closed.
const SIGBREAK: i32 = 21;
/// Statuses from here on are those of exceptions (`ntstatus.h`, severity "error").
const EXCEPTIONS: u32 = 0xc000_0000;

/// Keeps this process alive while the console's keys end the program, until it is dropped.
///
/// The console tells every program of it of its keys, so the child has had its own.
pub struct Forwarding {
    kept: Vec<SigId>,
}

impl Forwarding {
    /// From now on the keys end the child only. Call it before that starts.
    pub fn prepare() -> std::io::Result<Forwarding> {
        let seen = Arc::new(AtomicBool::new(false));
        let keep = |number| signal_hook::flag::register(number, Arc::clone(&seen));
        Ok(Forwarding { kept: vec![keep(SIGINT)?, keep(SIGBREAK)?] })
    }

    /// There is nothing to send.
    pub fn to(&mut self, _child: u32) {}
}

impl Drop for Forwarding {
    fn drop(&mut self) {
        for id in self.kept.drain(..) {
            signal_hook::low_level::unregister(id);
        }
    }
}

/// The status of a program that ended by itself, or the number of the exception that it died by.
pub fn ended(status: ExitStatus) -> (Option<i32>, Option<i32>) {
    match status.code() {
        Some(code) if code as u32 >= EXCEPTIONS => (None, Some(code)),
        other => (other, None),
    }
}

/// Ends with the status of a program.
pub fn end_with(status: i32) -> ExitCode {
    std::process::exit(status)
}

/// Ends as a program ended that died by an exception: by its number.
pub fn die_by(exception: i32) -> ExitCode {
    std::process::exit(exception)
}

/// Runs another program in our place; comes back only where that cannot be.
pub fn replace_with(command: &mut Command) -> std::io::Error {
    match command.status() {
        Ok(status) => std::process::exit(status.code().unwrap_or(1)),
        Err(error) => error,
    }
}

/// Whether a file is a program.
pub fn may_be_run(path: &Path) -> bool {
    path.is_file()
}

/// Gives a file another name as well: by a copy, since links of one kind take a right that not everybody has, and those of the
/// other cannot be taken away while the file runs.
pub fn link(file: &Path, name: &Path) -> std::io::Result<()> {
    std::fs::copy(file, name).map(|_| ())
}

/// Why the system loads nothing into this program that it did not ask for.
pub fn refuses_preload(_path: &Path) -> Option<&'static str> {
    Some(NO_PRELOAD)
}
