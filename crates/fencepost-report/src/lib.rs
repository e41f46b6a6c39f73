//! Turns a [`Record`] into something that names functions, files and lines.
//!
//! A [`Resolver`] knows what lies at an address; [`Resolved`] asks it about every frame of a record, trims what
//! belongs to the runtime, finds the user's own line of source, and then serves the writers of
//! `fencepost-record` as [`Frames`](fencepost_record::Frames). All work happens in [`Resolved::new`]: writing
//! afterwards reads no file and asks no resolver.
//!
//! Invariants: no unsafe code, nothing here touches the memory of the program that is reported on, and nothing
//! but `fencepost-record` is needed, because every user of the facade compiles this crate. Reading reports back
//! (`parse`, a cargo feature) brings serde, and working on them (`tools`) brings readers of debug information as well:
//! both are for tools.
#![forbid(unsafe_code)]

mod excerpt;
mod fingerprint;
mod name;
#[cfg(feature = "parse")]
pub mod parse;
mod resolved;
#[cfg(feature = "tools")]
pub mod tools;
mod trim;

pub use fencepost_record::text::Style;
pub use resolved::Resolved;

use fencepost_record::{Record, json, text};

/// One function that an address lies in. What is not known is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Symbol {
    /// Demangled name; the hash that mangling adds may still be on it.
    pub function: Option<String>,
    /// Source file.
    pub file: Option<String>,
    /// Line in the file, from 1.
    pub line: Option<u32>,
    /// Column in the line, in bytes, from 1.
    pub column: Option<u32>,
}

/// Knows the functions of a program.
pub trait Resolver {
    /// The functions at `address`, the innermost inlined one first; empty when nothing is known.
    ///
    /// `exact` says that `address` is an instruction that ran; otherwise it is where a call returns to, which may
    /// be the first byte past the calling function, so the byte before it is to be looked up.
    fn resolve(&mut self, address: u64, exact: bool) -> Vec<Symbol>;
}

/// The whole report as text, the first line included.
pub fn render(record: &Record, frames: &Resolved<'_>, style: Style) -> String {
    let mut out = String::new();
    // Writing to a String fails only if a writer of ours invents an error; a short report then says so.
    if text::report(record, frames, style, &mut out).is_err() {
        out.push_str("fencepost: this report could not be written in full\n");
    }
    out
}

/// The report as one JSON object, without the line's end.
pub fn render_json(record: &Record, frames: &Resolved<'_>) -> Result<String, std::fmt::Error> {
    let mut out = String::new();
    json::report(record, frames, &mut out)?;
    Ok(out)
}
