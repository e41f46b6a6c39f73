//! Sealed memory of a report, as it stands in a line.

use super::documents::Event;
use super::numbers::{Hex, nullable};

/// Memory that was made read-only, or was under a tripwire.
#[derive(Clone, Debug, PartialEq, serde::Deserialize)]
pub struct Seal {
    /// Its first byte.
    pub address: Hex,
    /// Its size in bytes.
    pub size: u64,
    /// The whole pages that are closed for it.
    #[serde(default)]
    pub pages: Option<Pages>,
    /// What the accessed bytes held before, as pairs of hex digits.
    #[serde(default, deserialize_with = "nullable")]
    pub old: Option<String>,
    /// What they held after.
    #[serde(default, deserialize_with = "nullable")]
    pub new: Option<String>,
    /// Who sealed it.
    pub sealer: Event,
}

/// Whole pages.
#[derive(Clone, Debug, PartialEq, serde::Deserialize)]
pub struct Pages {
    /// First byte.
    pub address: Hex,
    /// Bytes.
    pub size: u64,
}
