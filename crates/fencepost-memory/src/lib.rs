//! Virtual memory as a library: addresses apart from memory, page sizes, guards, and allocators that grow in place.
//!
//! A [`Reservation`] takes addresses, which cost nothing; memory is committed behind them and given back as needed.
//! The allocators of [`growing`] stand on it: each reserves the most it may ever need, commits as it grows, never moves
//! what it holds, and ends in a page that traps. `docs/virtual-memory.md` explains the words from the beginning.
//!
//! ```
//! use fencepost_memory::{Reservation, page_size};
//!
//! let mut table = Reservation::reserve(1 << 40)?; // a terabyte of addresses, and no memory
//! table.commit(0..page_size())?; // one page of memory, which is zero
//! table.slice_mut(0..8).expect("committed").copy_from_slice(b"a begin.");
//! assert_eq!(table.committed(), page_size());
//! # Ok::<(), fencepost_memory::MemoryError>(())
//! ```
//!
//! A crate of its own because it has users of its own: programs that want these allocators and no memory debugger get
//! nothing else with it, neither handlers nor a runtime. Under the debugger (the crate `fencepost`, which re-exports
//! all of this) its errors are reported with the names given here; what the two share is [`regions`], which the fault
//! handler asks.
//!
//! Invariants: every call to the system is fallible and its error names the limit that was hit; what is said to be
//! committed is what the system was told; nothing is ever moved. All that depends on the operating system is asked
//! of `fencepost-sys`, so that the tests can put a simulated one in its place.

mod error;
pub mod growing;
pub mod regions;
mod reservation;
mod sizes;

pub use error::{Action, MemoryError};
pub use fencepost_sys::{Limit, VmError};
pub use reservation::{Access, Builder, HugePages, Reservation};
pub use sizes::{allocation_granularity, huge_page_sizes, page_size, transparent_huge_page_size};

/// The systems that memory can come from: the one this runs on, and in tests a simulated one.
pub(crate) use fencepost_sys::{Host, Pages as System};

/// The examples of the guide, which are tests.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/virtual-memory.md")]
struct Guide;

pub(crate) static HOST: Host = Host::new();

/// Rounds up to a multiple of a power of two; `None` past the end of all addresses.
pub(crate) fn round_up(bytes: usize, unit: usize) -> Option<usize> {
    let low = unit - 1;
    Some(bytes.checked_add(low)? & !low)
}
