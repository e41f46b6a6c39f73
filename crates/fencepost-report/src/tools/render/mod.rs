//! The forms in which findings leave: for people, for CI systems, for editors.
//!
//! Every form is made from the same [`Collection`] and is complete on its own. Names, paths and source lines come
//! from outside, so each form escapes them by its own rules.

mod asan;
mod github;
mod html;
mod junit;
mod place;
mod sarif;
mod text;

use std::fmt;
use std::path::PathBuf;

use super::Collection;

pub use text::finding as finding_text;

/// A form of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line, as `report=` has it.
    Json,
    /// SARIF 2.1.0, for code scanning.
    Sarif,
    /// JUnit XML, for CI systems.
    Junit,
    /// Workflow commands that annotate lines on GitHub.
    Github,
    /// One page that needs nothing else.
    Html,
    /// Text as AddressSanitizer writes it, for tools that read that.
    Asan,
}

impl Format {
    /// Every form.
    pub const ALL: [Format; 7] = [
        Format::Text,
        Format::Json,
        Format::Sarif,
        Format::Junit,
        Format::Github,
        Format::Html,
        Format::Asan,
    ];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Format::Text => "text",
            Format::Json => "json",
            Format::Sarif => "sarif",
            Format::Junit => "junit",
            Format::Github => "github",
            Format::Html => "html",
            Format::Asan => "asan",
        }
    }
}

/// What a form may need beside the findings.
#[derive(Clone, Debug, Default)]
pub struct Setting {
    /// Paths below this folder are written relative to it: the root of the checkout.
    pub root: Option<PathBuf>,
    /// With colours, where the form has them.
    pub color: bool,
}

/// Writes a collection in a form.
///
/// # Errors
/// Those of `out`.
pub fn render(
    collection: &Collection,
    format: Format,
    setting: &Setting,
    out: &mut dyn fmt::Write,
) -> fmt::Result {
    match format {
        Format::Text => text::write(collection, setting, out),
        Format::Json => json(collection, out),
        Format::Sarif => sarif::write(collection, setting, out),
        Format::Junit => junit::write(collection, out),
        Format::Github => github::write(collection, setting, out),
        Format::Html => html::write(collection, setting, out),
        Format::Asan => asan::write(collection, out),
    }
}

fn json(collection: &Collection, out: &mut dyn fmt::Write) -> fmt::Result {
    collection.findings.iter().try_for_each(|finding| writeln!(out, "{}", finding.to_json()))
}
