//! Why a command could not be carried out, and the status that says so.

use std::fmt;
use std::path::Path;

use crate::{BAD_COMMAND_LINE, NOT_GUARDED};

/// An end without a result.
#[derive(Debug)]
pub struct Failure {
    /// The process's exit status.
    pub status: i32,
    what: String,
}

impl Failure {
    /// The command line, or a file that it names, is wrong.
    pub fn usage(what: impl fmt::Display) -> Failure {
        Failure { status: BAD_COMMAND_LINE, what: what.to_string() }
    }

    /// The guard could not be put in place.
    pub fn unguarded(what: impl fmt::Display) -> Failure {
        Failure { status: NOT_GUARDED, what: what.to_string() }
    }

    /// A file that was named cannot be used.
    pub fn file(doing: &str, path: &Path, error: &dyn fmt::Display) -> Failure {
        Failure::usage(format_args!("cannot {doing} {}: {error}", path.display()))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}
