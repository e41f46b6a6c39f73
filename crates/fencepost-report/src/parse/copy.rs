//! The copy that an access was part of, as it stands in a line.

use super::numbers::{Hex, nullable};

/// A copy or filling of memory, as far as it is known.
#[derive(Clone, Debug, PartialEq, serde::Deserialize)]
pub struct Copied {
    /// The function that the program called; `None` for a repeated instruction.
    #[serde(deserialize_with = "nullable")]
    pub function: Option<String>,
    /// Where it writes.
    pub to: Hex,
    /// Where it reads; `None` where it fills.
    #[serde(deserialize_with = "nullable")]
    pub from: Option<Hex>,
    /// Bytes of the whole.
    #[serde(deserialize_with = "nullable")]
    pub size: Option<u64>,
    /// Bytes that were still to come.
    #[serde(deserialize_with = "nullable")]
    pub left: Option<u64>,
}
