//! Reading `report=` files back.
//!
//! Strict about what the format promises: a missing key, a wrong type or an unknown kind is an error that names
//! the line and the key. Unknown keys are let pass, so that a newer writer's lines can be read.

mod copy;
mod documents;
mod leak;
mod numbers;
mod region;
mod seal;
mod sites;

use std::fmt;

use fencepost_record::json::{REPORT_SCHEMA, SITES_SCHEMA, START_SCHEMA, SUMMARY_SCHEMA};
use serde::de::DeserializeOwned;

pub use copy::Copied;
pub use documents::*;
pub use leak::Leak;
pub use numbers::Hex;
pub use region::Region;
pub use seal::{Pages, Seal};
pub use sites::{Call, Site, SitesDocument};

/// Why a line could not be read. Reads after "failed to read".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// The line's number in the file, from 1.
    pub line: usize,
    /// The column in the line, from 1; 0 when the whole line is meant.
    pub column: usize,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}", self.line)?;
        if self.column > 0 {
            write!(f, ", column {}", self.column)?;
        }
        write!(f, ": {}", self.what)
    }
}

impl std::error::Error for ParseError {}

/// What a line holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Line {
    /// An error.
    Report(Box<Document>),
    /// The account at the end of a run.
    Summary(SummaryDocument),
    /// The sign that a process has a guard.
    Start(StartDocument),
    /// Where the blocks of a run came from that left most of them out.
    Sites(SitesDocument),
}

/// Reads every line of a file, blank ones excepted. A line that fails does not keep the others from being read:
/// a process that died while it wrote leaves half a line behind.
pub fn lines(text: &str) -> impl Iterator<Item = Result<Line, ParseError>> {
    let lines = text.split('\n').enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines.map(|(index, line)| parse_line(line, index.saturating_add(1)))
}

/// Reads one line, which is the `number`th of its file.
///
/// # Errors
/// When it is not JSON, not of a known schema, or lacks what its schema promises.
pub fn parse_line(line: &str, number: usize) -> Result<Line, ParseError> {
    #[derive(serde::Deserialize)]
    struct Head {
        schema: String,
    }
    let head: Head = read(line, number)?;
    match head.schema.as_str() {
        REPORT_SCHEMA => Ok(Line::Report(Box::new(read(line, number)?))),
        SUMMARY_SCHEMA => Ok(Line::Summary(read(line, number)?)),
        START_SCHEMA => Ok(Line::Start(read(line, number)?)),
        SITES_SCHEMA => Ok(Line::Sites(read(line, number)?)),
        other => {
            let what = format!(
                "schema `{other}` is none of `{REPORT_SCHEMA}`, `{SUMMARY_SCHEMA}`, `{START_SCHEMA}`, `{SITES_SCHEMA}`"
            );
            Err(ParseError { line: number, column: 0, what })
        }
    }
}

fn read<T: DeserializeOwned>(line: &str, number: usize) -> Result<T, ParseError> {
    serde_json::from_str(line).map_err(|error| {
        let what = error.to_string();
        // The line that serde_json counts is always the first here; ours is the file's.
        let what = what.rsplit_once(" at line ").map_or(what.as_str(), |(what, _)| what).to_owned();
        ParseError { line: number, column: error.column(), what }
    })
}
