//! The copy that an access was part of: how much of it there was to be.

use core::fmt;

use crate::wording::{Bytes, Count};
use crate::{AccessType, Record};

/// A copy (or filling) of memory, by a function of the C library's or by one repeated instruction. Only what is known
/// for sure: nothing here is worked out from what such functions usually do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopyInfo {
    /// The function that the program called; empty for a repeated instruction.
    pub function: &'static str,
    /// Where it writes.
    pub to: u64,
    /// Where it reads; `None` where it fills.
    pub from: Option<u64>,
    /// Bytes of the whole.
    pub size: Option<u64>,
    /// Bytes that were still to come, those of the access with them.
    pub left: Option<u64>,
}

impl CopyInfo {
    /// What follows on the first line: `, in memcpy of 64 bytes`.
    pub(crate) fn say_tail(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.function, self.size, self.left) {
            ("", _, Some(left)) => write!(f, ", with {} left of a repeated instruction", Bytes(left)),
            ("", _, None) | (_, None, _) => Ok(()),
            (function, Some(size), _) => write!(f, ", in {function} of {}", Bytes(size)),
        }
    }

    /// The whole of it, and how far it reaches out of the block that `record` is about.
    pub(crate) fn say(&self, record: &Record, out: &mut dyn fmt::Write) -> fmt::Result {
        match (self.function, self.size) {
            ("", _) => write!(out, "a repeated instruction")?,
            (function, None) => write!(out, "{function}")?,
            (function, Some(size)) => write!(out, "{function} of {}", Count(size, "byte"))?,
        }
        write!(out, " to {:#x}", self.to)?;
        if let Some(from) = self.from {
            write!(out, " from {from:#x}")?;
        }
        self.say_reach(record, out)?;
        match self.left {
            Some(left) => write!(out, "; {} left to do", Count(left, "byte")),
            None => Ok(()),
        }
    }

    fn say_reach(&self, record: &Record, out: &mut dyn fmt::Write) -> fmt::Result {
        let start = if record.access.kind == AccessType::Write { Some(self.to) } else { self.from };
        let (Some(block), Some(start), Some(size)) = (&record.block, start, self.size.or(self.left)) else {
            return Ok(());
        };
        let (block_end, end) = (block.address.saturating_add(block.size), start.saturating_add(size));
        if start > block_end || end < block.address {
            return Ok(());
        }
        let (before, past) = (block.address.saturating_sub(start), end.saturating_sub(block_end));
        if before > 0 {
            write!(out, ", {} of it before the block", Count(before, "byte"))?;
        }
        if past > 0 {
            write!(out, ", {} of it past the block", Count(past, "byte"))?;
        }
        Ok(())
    }
}
