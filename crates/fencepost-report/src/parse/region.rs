//! The region of a report, as it stands in a line.

use super::numbers::{Hex, nullable};

/// An arena, a pool or a stack of the program's own.
#[derive(Clone, Debug, PartialEq, serde::Deserialize)]
pub struct Region {
    /// What it is.
    pub kind: String,
    /// Its name.
    #[serde(deserialize_with = "nullable")]
    pub name: Option<String>,
    /// Its first usable byte.
    pub address: Hex,
    /// Usable bytes of addresses.
    pub reserved: u64,
    /// Bytes of memory committed.
    pub committed: u64,
    /// Bytes in use, where use grows from one end.
    #[serde(deserialize_with = "nullable")]
    pub used: Option<u64>,
    /// Where the access lies.
    #[serde(rename = "where")]
    pub place: String,
    /// How far, in bytes.
    pub distance: u64,
    /// Which slot of a pool.
    #[serde(deserialize_with = "nullable")]
    pub slot: Option<u64>,
}
