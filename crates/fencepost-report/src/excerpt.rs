//! The lines of source around the first frame of the user's own code.
//!
//! Read once, when a record is resolved, and bounded: a report never waits for a huge or endless file.

use std::fs::File;
use std::io::Read;

use fencepost_record::Which;

use crate::name::Place;

/// Lines shown before and after the one that counts.
const AROUND: u32 = 3;
/// The most bytes read of a file: generated code can be huge.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// The most characters shown of a line.
const LINE_CHARACTERS_MAX: usize = 160;
/// Columns between tab stops.
const TAB: usize = 4;

/// Where to look: a frame's place in the source.
pub(crate) struct Spot<'a> {
    pub stack: Which,
    /// The frame is the first of its stack.
    pub direct: bool,
    pub file: &'a str,
    pub line: u32,
    pub column: Option<u32>,
}

/// Lines of one file.
pub(crate) struct Excerpt {
    pub stack: Which,
    pub direct: bool,
    pub file: String,
    pub lines: Vec<Line>,
}

/// One line of it.
pub(crate) struct Line {
    pub number: u32,
    pub text: String,
    pub hit: bool,
    /// As told, and as seen in `text`.
    pub column: Option<(u32, u32)>,
}

/// The excerpt at the first of `spots` that lies in the user's own code; none if its file cannot be read.
pub(crate) fn read<'a>(spots: impl Iterator<Item = Spot<'a>>) -> Option<Excerpt> {
    for spot in spots {
        if Place::of(spot.file) != Place::Own {
            continue;
        }
        let lines = lines(&spot);
        // C libraries name files that only their builders have; those frames are not the user's own.
        if lines.is_none() && !spot.file.ends_with(".rs") {
            continue;
        }
        let lines = lines?;
        return Some(Excerpt { stack: spot.stack, direct: spot.direct, file: spot.file.to_owned(), lines });
    }
    None
}

fn lines(spot: &Spot<'_>) -> Option<Vec<Line>> {
    let file = File::open(spot.file).ok()?;
    // Opening a pipe or a device could wait for ever or have effects; a source is a regular file.
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    let from = spot.line.saturating_sub(AROUND).max(1);
    let to = spot.line.saturating_add(AROUND);
    let mut lines = Vec::new();
    for (number, line) in (1_u32..=to).zip(bytes.split(|byte| *byte == b'\n')) {
        if number < from {
            continue;
        }
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let line = String::from_utf8_lossy(line);
        let hit = number == spot.line;
        let column = spot.column.filter(|_| hit).map(|column| (column, shown_column(&line, column)));
        lines.push(Line { number, text: expand(&line), hit, column });
    }
    // The end of a file's last line is no line of its own.
    if lines.last().is_some_and(|line| line.text.is_empty() && !line.hit) {
        lines.pop();
    }
    // A file that has become shorter since the build shows something else.
    lines.iter().any(|line| line.hit).then_some(lines)
}

/// A line with its tabs as spaces, cut where it is long.
fn expand(line: &str) -> String {
    let mut out = String::new();
    let mut count = 0;
    for character in line.chars() {
        if count >= LINE_CHARACTERS_MAX {
            out.push('…');
            break;
        }
        let width = width(character, count);
        if character == '\t' {
            out.extend(std::iter::repeat_n(' ', width));
        } else {
            out.push(character);
        }
        count += width;
    }
    out
}

/// The column in the expanded line of a column in bytes.
fn shown_column(line: &str, column: u32) -> u32 {
    let before = usize::try_from(column).unwrap_or(usize::MAX).saturating_sub(1);
    let mut count = 0;
    for (index, character) in line.char_indices() {
        if index >= before || count >= LINE_CHARACTERS_MAX {
            break;
        }
        count += width(character, count);
    }
    u32::try_from(count).unwrap_or(u32::MAX).saturating_add(1)
}

const fn width(character: char, at: usize) -> usize {
    if character == '\t' { TAB - at % TAB } else { 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tabs_and_wide_letters_keep_the_mark_in_place() {
        assert_eq!(expand("\tlet\tx"), "    let x");
        assert_eq!(shown_column("\tlet x", 2), 5);
        assert_eq!(shown_column("ää = 1", 6), 4);
        assert_eq!(shown_column("ab", 99), 3);
        let long = "x".repeat(500);
        assert_eq!(expand(&long).chars().count(), LINE_CHARACTERS_MAX + 1);
        assert_eq!(shown_column(&long, 400), 161);
    }
}
