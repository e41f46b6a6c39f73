//! Reads `/proc/self/maps` as a stream, from a small buffer on the stack.
//!
//! A guarded program may have tens of thousands of mappings, and the reader may be the fault handler: so no
//! allocation, no lock of the loader's, and no limit on how many lines there are. The kernel keeps the table
//! consistent within a read only; a mapping made meanwhile may be missed.

use super::probe::{Feature, denied};
use super::raw::File;

/// One line: a mapping.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Line<'a> {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) readable: bool,
    pub(super) writable: bool,
    pub(super) executable: bool,
    /// Where in the file it begins.
    pub(super) offset: u64,
    /// The file: device and number; zero for memory without a file.
    pub(super) file: (u64, u64),
    /// The path, as the kernel prints it; cut where it is longer than the buffer.
    pub(super) path: &'a [u8],
}

/// The stream. 4 KiB of stack.
pub(super) struct Maps {
    source: File,
    buffer: [u8; 4096],
    from: usize,
    to: usize,
}

impl Maps {
    /// Opens the table; `None` where the system does not show it.
    pub(super) fn open() -> Option<Maps> {
        if denied(Feature::Proc) {
            return None;
        }
        let source = File::open(c"/proc/self/maps").ok()?;
        Some(Maps { source, buffer: [0; 4096], from: 0, to: 0 })
    }

    /// Calls `each` with every mapping until it answers false.
    pub(super) fn each(mut self, mut each: impl FnMut(&Line<'_>) -> bool) {
        while let Some((from, to)) = self.next_line() {
            let line = self.buffer.get(from..to).and_then(parse);
            if let Some(line) = line
                && !each(&line)
            {
                return;
            }
        }
    }

    /// Where in the buffer the next line lies.
    fn next_line(&mut self) -> Option<(usize, usize)> {
        loop {
            let rest = self.buffer.get(self.from..self.to)?;
            if let Some(len) = rest.iter().position(|byte| *byte == b'\n') {
                let line = (self.from, self.from.saturating_add(len));
                self.from = line.1.saturating_add(1);
                return Some(line);
            }
            self.buffer.copy_within(self.from..self.to, 0);
            self.to = self.to.saturating_sub(self.from);
            self.from = 0;
            if self.to == self.buffer.len() {
                // A line that fills the buffer: give its beginning. What follows of it parses as nothing.
                self.from = self.to;
                return Some((0, self.to));
            }
            match self.source.read(self.buffer.get_mut(self.to..)?) {
                Ok(more) if more > 0 => self.to = self.to.saturating_add(more),
                _ => return None,
            }
        }
    }
}

/// Takes a line apart; `None` for what is not one (the tail of a line that was cut).
fn parse(line: &[u8]) -> Option<Line<'_>> {
    let mut fields = line.splitn(6, |byte| *byte == b' ');
    let mut range = fields.next()?.splitn(2, |byte| *byte == b'-');
    let start = hex(range.next()?)?;
    let end = hex(range.next()?)?;
    let permissions = fields.next()?;
    let offset = hex(fields.next()?)?;
    let mut device = fields.next()?.splitn(2, |byte| *byte == b':');
    let device = hex(device.next()?)?.wrapping_shl(32) | hex(device.next()?)?;
    let number = decimal(fields.next()?)?;
    let path = fields.next().unwrap_or(&[]).trim_ascii_start();
    let may = |index: usize, letter: u8| permissions.get(index) == Some(&letter);
    let (readable, writable, executable) = (may(0, b'r'), may(1, b'w'), may(2, b'x'));
    Some(Line {
        start: start as usize,
        end: end as usize,
        readable,
        writable,
        executable,
        offset,
        file: (device, number),
        path,
    })
}

fn hex(digits: &[u8]) -> Option<u64> {
    let text = core::str::from_utf8(digits).ok()?;
    u64::from_str_radix(text, 16).ok()
}

/// A decimal number at the start of some text; what follows it is ignored.
pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    let len = digits.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(digits.len());
    core::str::from_utf8(digits.get(..len)?).ok()?.parse().ok()
}
