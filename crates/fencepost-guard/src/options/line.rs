//! One line of text of a fixed size, built in `const fn`.
//!
//! A message about compiled-in options is made while the user's program compiles, where formatting does not exist,
//! and the same message at run time must not allocate. So lines are put together by hand, once, for both.
//!
//! Invariant: the bytes in use are printable ASCII. Whatever came from outside is escaped, and what does not fit is
//! cut off.

use super::keys::Shown;
use super::values::SizeRanges;

/// The most bytes of a foreign text that a line shows.
const FOREIGN_BYTES_MAX: usize = 48;

/// A line of printable ASCII, without a line end.
#[derive(Clone, Copy)]
pub struct Line {
    bytes: [u8; Line::BYTES_MAX],
    len: usize,
}

impl Line {
    /// The longest line, in bytes.
    pub const BYTES_MAX: usize = 800;

    pub(super) const fn new() -> Line {
        Line { bytes: [0; Line::BYTES_MAX], len: 0 }
    }

    /// The text of the line.
    pub const fn as_str(&self) -> &str {
        let used = match self.bytes.split_at_checked(self.len) {
            Some((used, _)) => used,
            None => &self.bytes,
        };
        match core::str::from_utf8(used) {
            Ok(text) => text,
            Err(_) => "",
        }
    }

    const fn push(&mut self, byte: u8) {
        if let Some((_, room)) = self.bytes.split_at_mut_checked(self.len)
            && let Some(cell) = room.first_mut()
        {
            *cell = byte;
            self.len = self.len.wrapping_add(1);
        }
    }

    /// Appends a text of our own, which is printable ASCII.
    pub(super) const fn text(&mut self, text: &'static str) {
        let mut rest = text.as_bytes();
        while let Some((&byte, after)) = rest.split_first() {
            self.push(byte);
            rest = after;
        }
    }

    /// Appends the beginning of a text from outside, escaped.
    pub(super) const fn foreign(&mut self, text: &[u8]) {
        let mut rest = text;
        let mut count = 0_usize;
        while let Some((&byte, after)) = rest.split_first() {
            if count == FOREIGN_BYTES_MAX {
                self.text("...");
                return;
            }
            match byte {
                b'\n' => self.text("\\n"),
                b'\t' => self.text("\\t"),
                b' '..=b'~' => self.push(byte),
                _ => {
                    self.text("\\x");
                    self.digit((byte >> 4) as u64);
                    self.digit((byte & 0xf) as u64);
                }
            }
            rest = after;
            count = count.wrapping_add(1);
        }
    }

    const fn digit(&mut self, value: u64) {
        if let Some(digit) = char::from_digit(value as u32, 16) {
            self.push(digit as u8);
        }
    }

    pub(super) const fn number(&mut self, value: u64, radix: u64) {
        let mut place = 1_u64;
        while let Some(next) = place.checked_mul(radix)
            && next <= value
        {
            place = next;
        }
        let mut rest = value;
        while let (Some(digit), Some(after)) = (rest.checked_div(place), rest.checked_rem(place)) {
            self.digit(digit);
            rest = after;
            place = match place.checked_div(radix) {
                Some(next) => next,
                None => 0,
            };
        }
    }

    /// Appends a number of bytes in the largest unit that shows it exactly.
    pub(super) const fn size(&mut self, bytes: u64) {
        let (shift, unit) = match bytes.trailing_zeros() {
            _ if bytes == 0 => (0, ""),
            40.. => (40, "T"),
            30.. => (30, "G"),
            20.. => (20, "M"),
            10.. => (10, "K"),
            _ => (0, ""),
        };
        self.number(bytes >> shift, 10);
        self.text(unit);
    }

    pub(super) const fn ranges(&mut self, ranges: &SizeRanges) {
        let mut rest = ranges.as_slice();
        while let Some((range, after)) = rest.split_first() {
            self.size(range.first);
            if range.last != range.first {
                self.text("-");
                self.size(range.last);
            }
            if !after.is_empty() {
                self.text(",");
            }
            rest = after;
        }
    }

    pub(super) const fn sites(&mut self, sites: &SizeRanges) {
        let mut rest = sites.as_slice();
        while let Some((site, after)) = rest.split_first() {
            self.text("0x");
            self.number(site.first, 16);
            if !after.is_empty() {
                self.text(",");
            }
            rest = after;
        }
    }

    pub(super) const fn shown(&mut self, value: Shown<'_>) {
        match value {
            Shown::Word(word) => self.text(word),
            Shown::Number(number) => self.number(number, 10),
            Shown::Size(bytes) => self.size(bytes),
            Shown::Hex(number) => {
                self.text("0x");
                self.number(number, 16);
            }
            Shown::Path(path) => self.foreign(path.as_bytes()),
            Shown::Ranges(ranges) => self.ranges(ranges),
            Shown::Names(names) => self.foreign(names.as_bytes()),
            Shown::Sites(sites) => self.sites(sites),
        }
    }
}
