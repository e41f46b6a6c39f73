//! The options as text: the table for people, and the options in force as a user would write them.

use core::fmt::{Result, Write};

use super::VARIABLE;
use super::keys::{KEYS, Key, Shown};
use super::line::Line;
use super::values::{Options, PathText};

/// Writes every key with its value in force, what it may be, its default, and what it does.
///
/// Two lines a key. A value longer than its column pushes the rest of its line to the right.
///
/// # Errors
///
/// Those of `out`.
pub fn write_table(options: &Options, out: &mut dyn Write) -> Result {
    writeln!(out, "{VARIABLE}: key=value pairs separated by commas; a value that holds a comma is quoted")?;
    writeln!(out, "\n  {:<12} {:<11} {:<10} values", "key", "in force", "default")?;
    for spec in KEYS {
        if spec.key == Key::Absent {
            continue;
        }
        write!(out, "  {:<12} ", spec.name)?;
        match options.shown(spec.key) {
            Shown::Path(path) => write!(out, "{:<11} ", path.as_str())?,
            value => write!(out, "{:<11} ", written(value).as_str())?,
        }
        writeln!(out, "{:<10} {}", spec.default, spec.allowed)?;
        writeln!(out, "  {:<12} {}", "", spec.meaning)?;
    }
    writeln!(out, "\nnot in this version:\n")?;
    for spec in KEYS {
        for value in spec.later {
            writeln!(out, "  {}={value}", spec.name)?;
        }
    }
    for spec in KEYS {
        if spec.key == Key::Absent {
            writeln!(out, "  {:<12} {} ({})", spec.name, spec.meaning, spec.instead)?;
        }
    }
    Ok(())
}

/// Writes every option that differs from its default, as a text that [`parse`](super::parse) reads back to `options`.
///
/// Nothing is written if none differs. Values are quoted where this grammar asks for it; quoting for a shell is the
/// caller's. A path that is exactly `stderr` or `none` comes from no option text and has no form in one: the file is
/// written `./stderr`.
///
/// # Errors
///
/// Those of `out`.
pub fn write_in_force(options: &Options, out: &mut dyn Write) -> Result {
    let mut separator = "";
    for spec in KEYS {
        let value = options.shown(spec.key);
        if value == Options::DEFAULT.shown(spec.key) {
            continue;
        }
        write!(out, "{separator}{}=", spec.name)?;
        separator = ",";
        match value {
            Shown::Path(path) => write_path(path, out)?,
            Shown::Ranges(ranges) if ranges.as_slice().len() > 1 => {
                write!(out, "\"{}\"", written(value).as_str())?;
            }
            Shown::Sites(sites) if sites.as_slice().len() > 1 => {
                write!(out, "\"{}\"", written(value).as_str())?;
            }
            // No name holds a quote.
            Shown::Names(names) => write!(out, "\"{}\"", names.as_str())?,
            _ => out.write_str(written(value).as_str())?,
        }
    }
    Ok(())
}

fn written(value: Shown<'_>) -> Line {
    let mut line = Line::new();
    line.shown(value);
    line
}

fn write_path(path: &PathText, out: &mut dyn Write) -> Result {
    let text = path.as_str();
    let bytes = path.as_bytes();
    let reads_back_bare =
        !bytes.contains(&b',') && !text.starts_with(['"', '\'']) && bytes.trim_ascii().len() == bytes.len();
    if reads_back_bare {
        return out.write_str(text);
    }
    let quote = if bytes.contains(&b'"') { '\'' } else { '"' };
    out.write_char(quote)?;
    for letter in text.chars() {
        if letter == quote {
            out.write_char(quote)?;
        }
        out.write_char(letter)?;
    }
    out.write_char(quote)
}
