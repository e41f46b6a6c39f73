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
    #[inline(always)]
    pub const fn end(self) -> usize {
        self.start.wrapping_add(self.len)
    }

    /// What two ranges have in common; empty when they do not meet.
    #[inline(always)]
    pub const fn meet(self, other: Range) -> Range {
        let start = if self.start > other.start { self.start } else { other.start };
        let end = if self.end() < other.end() { self.end() } else { other.end() };
        Range { start, len: end.saturating_sub(start) }
    }

    /// Whether an address lies within.
    #[inline(always)]
    pub const fn contains(self, address: usize) -> bool {
        address.wrapping_sub(self.start) < self.len
    }
}

/// What became of the addresses when pages were moved. They are free for a moment, and another thread's mapping may
/// take them then: whoever lost some must never touch the range again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Moved {
    /// Both ranges are the caller's.
    Whole,
    /// The pages were moved, and some of the addresses they came from are somebody else's.
    FromLost,
    /// Nothing was moved, and some of the addresses that they were to go to are somebody else's.
    ToLost,
}
