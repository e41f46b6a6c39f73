//! The options: what a user writes in `FENCEPOST_OPTIONS` or in `with_options`, as typed values.
//!
//! Parsing is `const fn`, so that options compiled into a program are checked while it compiles, and the same code
//! reads the environment before the first allocation. Nothing here allocates, panics (except [`check`], whose use is
//! to fail a build) or reads the environment: text comes in as an argument.
//!
//! One table, [`KEYS`], names every key with its values; the parser, the error lines, the help and the test of the
//! documentation all read it, so that they cannot disagree.

mod error;
mod help;
mod keys;
mod line;
mod lists;
mod names;
mod parse;
mod text;
mod values;

pub use error::{OptionError, Problem};
pub use help::{write_in_force, write_table};
pub use keys::{KEYS, Key, KeySpec, Shown};
pub use line::Line;
pub use names::NameList;
pub use parse::{ERRORS_MAX, Parsed, check, parse};
pub use values::{
    Color, EngineChoice, MallocAlign, MaxMemory, Mode, OnError, Options, PathText, Place, SizeRange,
    SizeRanges, When,
};

/// The environment variable that holds options; what it says goes before what is compiled in.
pub const VARIABLE: &str = "FENCEPOST_OPTIONS";
