//! Why a call failed, with the limit that was hit and how to raise it.

use core::fmt;

use fencepost_sys::{Limit, VmError};

/// What was being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Taking addresses.
    Reserve,
    /// Putting memory behind addresses.
    Commit,
    /// Giving memory back and keeping the addresses.
    Decommit,
    /// Dropping content and keeping the memory committed.
    Discard,
    /// Changing what is allowed.
    Protect,
    /// Giving addresses back.
    Release,
    /// Naming a mapping.
    Name,
    /// Counting what is in memory.
    Count,
    /// Growing within a reservation.
    Grow,
}

impl Action {
    const fn words(self) -> &'static str {
        match self {
            Action::Reserve => "reserve addresses for",
            Action::Commit => "commit",
            Action::Decommit => "decommit",
            Action::Discard => "discard",
            Action::Protect => "change the protection of",
            Action::Release => "release",
            Action::Name => "name",
            Action::Count => "count what is resident of",
            Action::Grow => "grow by",
        }
    }
}

/// Why a call failed. Nothing is changed then, unless the call says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MemoryError {
    /// The system refused, or a bound was reached.
    Refused {
        /// What was being done.
        action: Action,
        /// To how many bytes.
        bytes: usize,
        /// The limit that was hit.
        limit: Limit,
        /// The system's answer; `None` for a bound of the program's own.
        error: Option<VmError>,
    },
    /// A range does not begin and end at multiples of the unit.
    Unaligned {
        /// The unit, in bytes: a page, or a huge page.
        unit: usize,
    },
    /// A range does not lie within the reservation, or its end comes before its start.
    OutOfBounds {
        /// The length of the reservation in bytes.
        len: usize,
    },
    /// Some of the range has no memory behind it.
    NotCommitted,
    /// Some of the range was made a guard.
    Guarded,
    /// The size is zero, larger than any address, or the alignment is not a power of two; or huge pages were asked for
    /// whose size is not, or no larger than a page.
    BadSize,
    /// A name holds a zero byte.
    BadName,
}

impl MemoryError {
    /// The limit that was hit, if it was one.
    pub fn limit(&self) -> Option<Limit> {
        match self {
            MemoryError::Refused { limit, .. } => Some(*limit),
            _ => None,
        }
    }

    /// Whether the bound that the program chose was reached, rather than a limit of the system.
    pub fn is_full(&self) -> bool {
        matches!(self.limit(), Some(Limit::Reservation { .. }))
    }
}

impl fmt::Display for MemoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MemoryError::Refused { action, bytes, limit, error } => {
                write!(f, "{} {bytes} bytes: ", action.words())?;
                match (error, limit) {
                    (Some(error), Limit::Unknown) => {
                        write!(f, "{error} (the system does not say which limit)")
                    }
                    (_, limit) => write!(f, "{limit}"),
                }
            }
            MemoryError::Unaligned { unit } => {
                write!(f, "use a range that does not begin and end at multiples of {unit} bytes")
            }
            MemoryError::OutOfBounds { len } => {
                write!(f, "use a range that does not lie within the reservation of {len} bytes")
            }
            MemoryError::NotCommitted => f.write_str("use memory that is not committed"),
            MemoryError::Guarded => f.write_str("use memory that was made a guard"),
            MemoryError::BadSize => f.write_str(
                "use a size of zero or past all addresses, or an alignment or a size of pages that is no power of two",
            ),
            MemoryError::BadName => f.write_str("use a name that holds a zero byte"),
        }
    }
}

impl std::error::Error for MemoryError {}
