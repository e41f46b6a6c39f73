//! Text on its way out: a small buffer in front of bare writes, usable in the fault handler.

use core::fmt;

use fencepost_sys::Output;

/// Bytes gathered before a write; small enough for a signal stack.
const BUFFER: usize = 512;

/// Formats into a file, a piece at a time.
pub(crate) struct Line<'a, O: Output> {
    output: &'a O,
    file: i32,
    buffer: [u8; BUFFER],
    used: usize,
    /// Bytes given to the file so far.
    written: u64,
    failed: bool,
}

impl<'a, O: Output> Line<'a, O> {
    pub(crate) fn new(output: &'a O, file: i32) -> Self {
        Line { output, file, buffer: [0; BUFFER], used: 0, written: 0, failed: false }
    }

    fn flush(&mut self) {
        let bytes = self.buffer.get(..self.used).unwrap_or(&[]);
        if self.used != 0 && self.output.write(self.file, bytes).is_err() {
            self.failed = true;
        }
        self.written = self.written.wrapping_add(self.used as u64);
        self.used = 0;
    }

    /// Writes what is left, and says how many bytes went out in all; `None` when some did not.
    pub(crate) fn end(mut self, formatted: fmt::Result) -> Option<u64> {
        self.flush();
        if self.failed || formatted.is_err() { None } else { Some(self.written) }
    }
}

impl<O: Output> fmt::Write for Line<'_, O> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for chunk in text.as_bytes().chunks(BUFFER) {
            if self.used.saturating_add(chunk.len()) > BUFFER {
                self.flush();
            }
            let end = self.used.saturating_add(chunk.len());
            if let Some(room) = self.buffer.get_mut(self.used..end) {
                room.copy_from_slice(chunk);
                self.used = end;
            }
        }
        Ok(())
    }
}
