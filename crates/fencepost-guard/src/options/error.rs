//! What is wrong with an option, as one line that says what to write instead.

use core::fmt;

use super::keys::{Key, Shown};
use super::line::Line;
use super::values::{Options, PathText, SizeRanges};

/// The class of a mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// No option has this name.
    UnknownKey,
    /// The option does not take this value.
    BadValue,
    /// The option, or this value of it, is not in this version.
    Unsupported,
    /// There is no `=` between a key and a value.
    MissingEquals,
    /// A quote opens and does not close; the rest of the text is not read.
    UnterminatedQuote,
    /// Something other than a comma follows a closing quote.
    TextAfterQuote,
    /// A path is longer than [`PathText::BYTES_MAX`].
    TooLong,
    /// A list has more than [`SizeRanges::RANGES_MAX`] ranges.
    TooManyRanges,
}

/// One mistake in an option text, and what was done about it.
///
/// `Display` gives one line without a line end. It is made of printable ASCII whatever the text held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionError<'a> {
    /// What stood where a key belongs.
    pub key: &'a [u8],
    /// What stood where a value belongs, without its quotes.
    pub value: &'a [u8],
    /// What is wrong.
    pub problem: Problem,
    /// The values that the key takes; for a key that this version does not have, what happens instead.
    pub allowed: &'static str,
    /// Whether `allowed` lists single words rather than describing values.
    pub allowed_words: bool,
    /// A key or value with almost the same name.
    pub nearest: Option<&'static str>,
    /// Which option this is about, if the key is one.
    pub known: Option<Key>,
    /// The value of that option that is in force.
    pub kept: Shown<'static>,
}

impl<'a> OptionError<'a> {
    /// What is wrong and what is allowed, without what is done about it: for a program that refuses to go on.
    pub const fn reason(&self) -> Line {
        let mut line = Line::new();
        self.write_reason(&mut line);
        line
    }

    /// [`OptionError::reason`] as a compile error shows it: with who is speaking and where to read on.
    pub(super) const fn compile_error(&self) -> Line {
        let mut line = Line::new();
        line.text("fencepost options: ");
        self.write_reason(&mut line);
        if self.known.is_none() {
            line.text(if self.nearest.is_some() { " see docs/options.md" } else { "; see docs/options.md" });
        }
        line
    }

    const fn write_reason(&self, line: &mut Line) {
        match self.problem {
            Problem::UnknownKey => {
                line.text("unknown option ");
                self.name_pair(line);
            }
            Problem::BadValue => {
                self.begin(line);
                line.text(if self.allowed_words { " is not one of " } else { " is not " });
                line.text(self.allowed);
            }
            Problem::Unsupported if matches!(self.known, Some(Key::Absent)) => {
                self.begin(line);
                line.text(" is not in this version: ");
                line.text(self.allowed);
            }
            Problem::Unsupported => {
                self.begin(line);
                line.text(" is not in this version, which has ");
                line.text(self.allowed);
            }
            Problem::MissingEquals => {
                line.text("option \"");
                line.foreign(self.key);
                line.text("\" has no \"=\": write key=value, and quote a value that holds a comma");
            }
            Problem::UnterminatedQuote => {
                self.begin(line);
                line.text(" has a quote that does not close, so the rest is not read");
            }
            Problem::TextAfterQuote => {
                self.begin(line);
                line.text(" goes on after its closing quote: a comma must follow");
            }
            Problem::TooLong => {
                self.begin(line);
                line.text(" is longer than ");
                line.number(PathText::BYTES_MAX as u64, 10);
                line.text(" bytes");
            }
            Problem::TooManyRanges => {
                self.begin(line);
                line.text(" makes more than ");
                line.number(SizeRanges::RANGES_MAX as u64, 10);
                line.text(" ranges");
            }
        }
        if let Some(nearest) = self.nearest {
            let separator = match self.problem {
                Problem::UnknownKey => ": did you mean \"",
                _ => "; did you mean \"",
            };
            line.text(separator);
            line.text(nearest);
            line.text("\"?");
        }
    }

    /// [`OptionError::reason`], and which value is used or where to read on.
    pub const fn line(&self) -> Line {
        let mut line = self.reason();
        match self.known {
            Some(Key::Absent) => {}
            Some(_) => {
                line.text(if self.nearest.is_some() { " using " } else { ": using " });
                line.shown(self.kept);
            }
            None => {
                line.text(if self.nearest.is_some() { " see " } else { "; see " });
                line.text("FENCEPOST_OPTIONS=help=1");
            }
        }
        line
    }

    const fn begin(&self, line: &mut Line) {
        line.text("option ");
        self.name_pair(line);
    }

    const fn name_pair(&self, line: &mut Line) {
        line.text("\"");
        line.foreign(self.key);
        line.text("=");
        line.foreign(self.value);
        line.text("\"");
    }

    /// The same, with the value that `options` holds as the one in force.
    pub(super) const fn settled(mut self, options: &Options) -> OptionError<'a> {
        if let Some(key) = self.known {
            self.kept = match options.shown(key) {
                Shown::Word(word) => Shown::Word(word),
                Shown::Number(number) => Shown::Number(number),
                Shown::Size(bytes) => Shown::Size(bytes),
                Shown::Hex(number) => Shown::Hex(number),
                Shown::Path(_) => Shown::Word("the path set before"),
                Shown::Ranges(_) | Shown::Names(_) | Shown::Sites(_) => Shown::Word("the list set before"),
            };
        }
        self
    }
}

impl fmt::Display for OptionError<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.line().as_str())
    }
}
