//! Workflow commands: GitHub shows each as an annotation at its line.

use std::fmt::{self, Write};

use super::super::{Collection, Finding};
use super::{Setting, place};

pub(super) fn write(collection: &Collection, setting: &Setting, out: &mut dyn Write) -> fmt::Result {
    for finding in collection.failures() {
        command(finding, setting, out)?;
    }
    Ok(())
}

fn command(finding: &Finding, setting: &Setting, out: &mut dyn Write) -> fmt::Result {
    let document = &finding.document;
    out.write_str("::error ")?;
    if let Some(frame) = place::primary(document)
        && let (Some(file), Some(line)) = (&frame.file, frame.line)
    {
        write!(out, "file={},line={line},", property(&place::relative(file, setting).0))?;
        if let Some(column) = frame.column {
            write!(out, "col={column},")?;
        }
    }
    write!(out, "title={}::", property(&format!("fencepost: {}", document.kind.name())))?;
    writeln!(out, "{}", data(&body(finding, setting)))
}

fn body(finding: &Finding, setting: &Setting) -> String {
    let document = &finding.document;
    let mut text = document.message.clone();
    if let Some(test) = &finding.test {
        text.push_str(&format!("\nin test {test}"));
    }
    for (which, what) in place::history(document).into_iter().rev() {
        let frames = super::super::restore::stack_of(document, which);
        text.push_str(&format!("\n\n{what}:"));
        for (number, frame) in frames.iter().enumerate().take(8) {
            text.push_str(&format!("\n  #{number} {}", place::function(frame)));
            if let Some(position) = place::position(frame, setting) {
                text.push_str(&format!("  {position}"));
            }
        }
        if frames.len() > 8 {
            text.push_str(&format!("\n  … {} more", frames.len() - 8));
        }
    }
    if let Some(replay) = &document.replay {
        text.push_str(&format!("\n\nreplay: {replay}"));
    }
    text
}

/// The message: what would end the command or start another is escaped, as the runner undoes it.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// A property: also what would end it.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    #[test]
    fn nothing_from_outside_ends_a_command() {
        assert_eq!(super::data("a%\r\nb::c"), "a%25%0D%0Ab::c");
        assert_eq!(super::property("a:b,c\n"), "a%3Ab%2Cc%0A");
    }
}
