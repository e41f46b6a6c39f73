//! Ranges of addresses.

/// A range of addresses, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// First address.
    pub start: usize,
    /// Length in bytes.
    pub len: usize,
}

impl Range {
    /// One past the last address.
    pub const fn end(self) -> usize {
        self.start.wrapping_add(self.len)
    }

    /// What two ranges have in common; empty when they do not meet.
    pub const fn meet(self, other: Range) -> Range {
        let start = if self.start > other.start { self.start } else { other.start };
        let end = if self.end() < other.end() { self.end() } else { other.end() };
        Range { start, len: end.saturating_sub(start) }
    }

    /// Whether an address lies within.
    pub const fn contains(self, address: usize) -> bool {
        address.wrapping_sub(self.start) < self.len
    }
}
