//! What pages allow.

/// What a page lets a program do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// Nothing.
    None,
    /// Nothing, for an alarm at the first access: the system may have opened the page when the fault is told.
    Once,
    /// Read.
    Read,
    /// Read; and write, to a thread that has opened the key ([`Keys::open_writes`](crate::Keys::open_writes)). Only where there is one.
    Keyed,
    /// Read and write.
    ReadWrite,
}
