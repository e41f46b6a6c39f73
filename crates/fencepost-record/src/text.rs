//! Reports as text, for people.
//!
//! The order follows the reader: what happened, the line of source, who did it, which block, where that block
//! came from, and last what is needed to look further. What is not known is said to be not known. Text from
//! outside (paths, names, source) is cleaned of control characters, so a report cannot move the cursor.

use core::fmt::{self, Write};

use crate::wording::{Clean, Count, Grouped, Percent};
use crate::{ExcerptLine, Frames, Message, Record, replay};

mod sections;

/// How a report is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// With colors, as ANSI escapes.
    pub color: bool,
    /// Names were resolved. Where they were not, the modules and their build ids are listed so that they can be.
    pub resolved: bool,
}

/// Writes the whole report.
///
/// # Errors
/// Those of `out`.
pub fn report(record: &Record, frames: &dyn Frames, style: Style, out: &mut dyn Write) -> fmt::Result {
    if style.color {
        let paint = Paint(true);
        writeln!(out, "{}{}{}", paint.error(), Headline(record), paint.end())?;
    } else {
        headline(record, out)?;
    }
    body(record, frames, style, out)
}

/// Writes the first line, with its end: `fencepost: ERROR: <kind>: <message>`.
///
/// # Errors
/// Those of `out`.
pub fn headline(record: &Record, out: &mut dyn Write) -> fmt::Result {
    writeln!(out, "{}", Headline(record))
}

struct Headline<'a>(&'a Record);

impl fmt::Display for Headline<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fencepost: ERROR: {}: {}", self.0.kind.name(), Message(self.0))
    }
}

/// Writes everything after the first line.
///
/// # Errors
/// Those of `out`.
pub fn body(record: &Record, frames: &dyn Frames, style: Style, out: &mut dyn Write) -> fmt::Result {
    let mut page = Page { record, frames, style, paint: Paint(style.color), nameless: false, out };
    page.excerpt()?;
    page.fault()?;
    page.copy()?;
    page.damage()?;
    page.given_layout()?;
    page.seal()?;
    page.region()?;
    page.leak()?;
    page.block()?;
    page.neighbours()?;
    page.notes()?;
    page.registers()?;
    page.modules()?;
    page.footer()
}

/// ANSI escapes, or nothing.
#[derive(Clone, Copy)]
struct Paint(bool);

impl Paint {
    const fn pick(self, escape: &'static str) -> &'static str {
        if self.0 { escape } else { "" }
    }

    const fn error(self) -> &'static str {
        self.pick("\x1b[1;31m")
    }

    const fn heading(self) -> &'static str {
        self.pick("\x1b[1m")
    }

    const fn gutter(self) -> &'static str {
        self.pick("\x1b[1;34m")
    }

    const fn faint(self) -> &'static str {
        self.pick("\x1b[2m")
    }

    const fn end(self) -> &'static str {
        self.pick("\x1b[0m")
    }
}

/// A report's body on its way out.
struct Page<'a> {
    record: &'a Record,
    frames: &'a dyn Frames,
    style: Style,
    paint: Paint,
    /// A frame of a known module was written without a function's name: the modules must be listed.
    nameless: bool,
    out: &'a mut dyn Write,
}

impl Page<'_> {
    /// The source lines around the first frame of the user's own code, as rustc shows them.
    fn excerpt(&mut self) -> fmt::Result {
        let (mut last, mut place) = (0, None);
        self.frames.excerpt(&mut |line| {
            last = last.max(line.number);
            if line.hit {
                place = Some((line.number, line.column.map(|(column, _)| column)));
            }
        });
        if last == 0 {
            return Ok(());
        }
        let width = usize::try_from(last.checked_ilog10().unwrap_or(0)).unwrap_or(0).saturating_add(1);
        let (gutter, end) = (self.paint.gutter(), self.paint.end());
        let (frames, mut result, mut first) = (self.frames, Ok(()), true);
        frames.excerpt(&mut |line| {
            if result.is_ok() && core::mem::take(&mut first) {
                result = self.excerpt_place(line.file, place, width);
            }
            if result.is_ok() {
                result = self.excerpt_line(line, width);
            }
        });
        result?;
        writeln!(self.out, "{gutter}{:width$} |{end}", "")
    }

    fn excerpt_place(&mut self, file: &str, place: Option<(u32, Option<u32>)>, width: usize) -> fmt::Result {
        let (gutter, end) = (self.paint.gutter(), self.paint.end());
        write!(self.out, "{:width$}{gutter}-->{end} {}", "", Clean(file))?;
        if let Some((number, column)) = place {
            write!(self.out, ":{number}")?;
            if let Some(column) = column {
                write!(self.out, ":{column}")?;
            }
        }
        writeln!(self.out, "\n{gutter}{:width$} |{end}", "")
    }

    fn excerpt_line(&mut self, line: &ExcerptLine<'_>, width: usize) -> fmt::Result {
        let (gutter, end) = (self.paint.gutter(), self.paint.end());
        let text = line.text.trim_end();
        let space = if text.is_empty() { "" } else { " " };
        writeln!(self.out, "{gutter}{:>width$} |{end}{space}{}", line.number, Clean(text))?;
        if !line.hit {
            return Ok(());
        }
        // Without a column the mark stands under the first character of the line.
        let blank = text.chars().take_while(|character| character.is_whitespace()).count();
        let shown = line.column.and_then(|(_, shown)| usize::try_from(shown).ok());
        let before = shown.map_or(blank, |shown| shown.saturating_sub(1));
        let (error, label) = (self.paint.error(), self.excerpt_label(line.stack));
        let place = if line.direct { "here" } else { "in a call from here" };
        writeln!(self.out, "{gutter}{:width$} |{end} {:before$}{error}^ {label}{place}{end}", "", "")
    }

    /// The notes, a line each.
    fn notes(&mut self) -> fmt::Result {
        let record = self.record;
        let low = record.confidence == crate::Confidence::Low;
        if !low && record.notes == crate::Notes::NONE {
            return Ok(());
        }
        writeln!(self.out)?;
        let (heading, end) = (self.paint.heading(), self.paint.end());
        if low {
            writeln!(self.out, "{heading}confidence: low{end}: another reading of the evidence is possible")?;
        }
        for note in record.notes.iter() {
            writeln!(self.out, "{heading}note{end}: {}", note.text())?;
        }
        Ok(())
    }

    /// The registers, four a line.
    fn registers(&mut self) -> fmt::Result {
        let values = self.record.registers.values();
        if values.is_empty() {
            return Ok(());
        }
        let longest = values.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        self.heading("registers:")?;
        for line in values.chunks(4) {
            for (name, value) in line {
                write!(self.out, "  {name:>longest$} {value:016x}")?;
            }
            writeln!(self.out)?;
        }
        Ok(())
    }

    /// The modules of the stacks, for frames that have no name yet.
    fn modules(&mut self) -> fmt::Result {
        let modules = self.record.modules.all();
        if modules.is_empty() || (self.style.resolved && !self.nameless) {
            return Ok(());
        }
        self.heading("modules:")?;
        for module in modules {
            write!(self.out, "  {:#x}-{:#x} {}", module.start, module.end, Clean(module.path.as_str()))?;
            let id = module.build_id.get(..usize::from(module.build_id_len)).unwrap_or(&[]);
            if id.is_empty() {
                write!(self.out, "  no build id")?;
            } else {
                write!(self.out, "  build id ")?;
                id.iter().try_for_each(|byte| write!(self.out, "{byte:02x}"))?;
            }
            writeln!(self.out)?;
        }
        Ok(())
    }

    /// Engine, coverage, fingerprint and the line that runs it again.
    fn footer(&mut self) -> fmt::Result {
        let record = self.record;
        let (heading, end) = (self.paint.heading(), self.paint.end());
        writeln!(self.out)?;
        write!(self.out, "{heading}guard{end}: ")?;
        if !record.engine.is_empty() {
            write!(self.out, "engine {}, ", record.engine)?;
        }
        let coverage = record.coverage;
        if coverage.total > 0 {
            let percent = Percent { part: coverage.guarded, whole: coverage.total, digits: 1 };
            let (guarded, total) = (Grouped(coverage.guarded), Count(coverage.total, "block"));
            write!(self.out, "{guarded} of {total} guarded ({percent}%)")?;
        } else {
            write!(self.out, "coverage not known")?;
        }
        writeln!(self.out, ", seed {:#x}", record.seed)?;
        write!(self.out, "{heading}error{end}: number {} of process {}", record.number, record.process.pid)?;
        writeln!(self.out, ", fingerprint {:#018x}", self.frames.fingerprint())?;
        write!(self.out, "{heading}replay{end}: ")?;
        if !replay::write(record, self.out)? {
            self.out.write_str("not known: the options or the program's path are not known in full")?;
        }
        writeln!(self.out)?;
        if record.block.is_some_and(|block| block.site.is_some()) {
            write!(self.out, "{heading}only this site{end}: ")?;
            if !replay::write_only(record, self.out)? {
                self.out.write_str("not known: as above")?;
            }
            writeln!(self.out)?;
        }
        Ok(())
    }

    /// A blank line and a section's first line.
    fn heading(&mut self, text: &str) -> fmt::Result {
        writeln!(self.out, "\n{}{text}{}", self.paint.heading(), self.paint.end())
    }
}
