//! Unix: signals, modes of files, links.

mod machine;
mod signals;

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus};

pub use machine::machine;
pub use signals::{Forwarding, die_by};

/// Where what nobody wants to read goes.
pub const NOWHERE: &str = "/dev/null";
/// The set-user-id and set-group-id bits of a file's mode.
const SET_ID: u32 = 0o6000;

/// The status of a program that ended, and the signal that it died by.
pub fn ended(status: ExitStatus) -> (Option<i32>, Option<i32>) {
    (status.code(), status.signal())
}

/// Ends with the status of a program: the system keeps eight bits of it.
pub fn end_with(status: i32) -> ExitCode {
    ExitCode::from(u8::try_from(status & 0xff).unwrap_or(1))
}

/// Becomes another program; comes back only where that cannot be.
pub fn replace_with(command: &mut Command) -> std::io::Error {
    command.exec()
}

/// Whether a file is a program.
pub fn may_be_run(path: &Path) -> bool {
    path.metadata().is_ok_and(|data| data.is_file() && data.mode() & 0o111 != 0)
}

/// Gives a file another name as well.
pub fn link(file: &Path, name: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(file, name)
}

/// Why the system loads nothing into this program that it did not ask for.
pub fn refuses_preload(path: &Path) -> Option<&'static str> {
    let set = path.metadata().is_ok_and(|data| data.mode() & SET_ID != 0);
    (set && !rustix::process::geteuid().is_root()).then_some(
        "it is set-uid or set-gid, and the system preloads nothing into such programs: \
         run a copy without that bit",
    )
}
