//! The command that runs the program again with the same random choices, quoted for a POSIX shell.

use core::fmt::{self, Write};

use crate::{ProcessInfo, Record, Text};

/// What a line begins with that needs a library preloaded.
const PRELOAD: &str = "LD_PRELOAD=";

/// What it takes to run a program again.
#[derive(Clone, Copy, Debug)]
pub struct Rerun<'a> {
    /// The program and its arguments.
    pub process: &'a ProcessInfo,
    /// The options that were in force.
    pub options: &'a Text<1024>,
    /// The random seed.
    pub seed: u64,
}

impl Record {
    fn rerun(&self) -> Rerun<'_> {
        Rerun { process: &self.process, options: &self.options, seed: self.seed }
    }
}

/// Writes `FENCEPOST_OPTIONS='…,seed=0x…' program arguments…`.
///
/// False, with nothing written, when the record does not hold the whole of the options or of the program's path:
/// a line that would run something else is worse than none. Arguments that were not kept are owned up to in a
/// shell comment at the end.
///
/// # Errors
/// Those of `out`.
pub fn write(record: &Record, out: &mut dyn Write) -> Result<bool, fmt::Error> {
    write_line(&record.rerun(), &[], out)
}

/// Writes the same command so that it guards every block of the site that the record's block comes from, and no other:
/// false where that is not known.
///
/// # Errors
/// Those of `out`.
pub fn write_only(record: &Record, out: &mut dyn Write) -> Result<bool, fmt::Error> {
    match record.block.and_then(|block| block.site) {
        Some(site) => write_line(&record.rerun(), &[site], out),
        None => Ok(false),
    }
}

/// Writes the command that runs a program again so that every block of these sites is guarded, and no other.
///
/// # Errors
/// Those of `out`.
pub fn write_sites(rerun: &Rerun<'_>, sites: &[u64], out: &mut dyn Write) -> Result<bool, fmt::Error> {
    if sites.is_empty() { Ok(false) } else { write_line(rerun, sites, out) }
}

fn write_line(rerun: &Rerun<'_>, sites: &[u64], out: &mut dyn Write) -> Result<bool, fmt::Error> {
    let Rerun { process, options, seed } = *rerun;
    let kept = process.args.as_str();
    // An argument without its end was cut, by the record or by who read it from the system.
    let (whole, cut) = match kept.rsplit_once('\0') {
        Some((whole, rest)) => (whole, process.args.is_cut() || !rest.is_empty()),
        None => ("", !kept.is_empty()),
    };
    let mut arguments = whole.split('\0');
    let typed = arguments.next().unwrap_or("");
    let exe = process.exe.as_str();
    let program = if exe.is_empty() { typed } else { exe };
    let preload = process.preload.as_str();
    if options.is_cut() || process.exe.is_cut() || process.preload.is_cut() || program.is_empty() {
        return Ok(false);
    }
    if !preload.is_empty() {
        write!(out, "{PRELOAD}'")?;
        quoted(preload, out)?;
        out.write_str("' ")?;
    }
    out.write_str("FENCEPOST_OPTIONS='")?;
    let options = options.as_str().trim().trim_end_matches(',');
    quoted(options, out)?;
    let mut comma = if options.is_empty() { "" } else { "," };
    if let Some((first, more)) = sites.split_first() {
        // What was left out by chance is not this time. A list that was there before is emptied first.
        let strict = if has_key(options, "mode") { "mode=strict," } else { "" };
        let anew = if has_key(options, "only_site") { "only_site=none," } else { "" };
        let quote = if more.is_empty() { "" } else { "\"" };
        write!(out, "{comma}{strict}{anew}only_site={quote}{first:#x}")?;
        for site in more {
            write!(out, ",{site:#x}")?;
        }
        out.write_str(quote)?;
        comma = ",";
    }
    if !has_key(options, "seed") {
        write!(out, "{comma}seed={seed:#x}")?;
    }
    out.write_char('\'')?;
    word(program, out)?;
    for argument in arguments {
        word(argument, out)?;
    }
    if cut {
        out.write_str(" # and arguments that were not kept")?;
    }
    Ok(true)
}

/// A space and one word of a command line, quoted only where the shell would read it otherwise.
fn word(text: &str, out: &mut dyn Write) -> fmt::Result {
    out.write_char(' ')?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./:=@%+,".contains(&byte);
    // A program named `A=b` would be taken for a variable; quotes cost nothing.
    let bare = !text.is_empty() && text.bytes().all(plain) && !text.contains('=');
    if bare {
        return out.write_str(text);
    }
    out.write_char('\'')?;
    quoted(text, out)?;
    out.write_char('\'')
}

/// The inside of a single-quoted word: only the quote itself needs care there.
fn quoted(text: &str, out: &mut dyn Write) -> fmt::Result {
    for (index, part) in text.split('\'').enumerate() {
        if index > 0 {
            out.write_str("'\\''")?;
        }
        out.write_str(part)?;
    }
    Ok(())
}

/// Whether an option string sets `key`, outside of quotes.
fn has_key(options: &str, key: &str) -> bool {
    let mut quote = None;
    let between = |character: char| {
        match quote {
            Some(open) if open == character => quote = None,
            None if character == '\'' || character == '"' => quote = Some(character),
            _ => {}
        }
        quote.is_none() && character == ','
    };
    options.split(between).any(|pair| pair.split('=').next().is_some_and(|name| name.trim() == key))
}
