//! The counts of a leak, as they stand in a line.

/// Blocks of one allocation stack that nothing reaches, and what is reached through them alone.
#[derive(Clone, Debug, PartialEq, serde::Deserialize)]
pub struct Leak {
    /// Blocks that nothing reaches.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Blocks that only those reach.
    pub through_blocks: u64,
    /// Their bytes.
    pub through_bytes: u64,
}
