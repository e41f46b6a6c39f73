//! Everything fencepost asks of an operating system: virtual memory, threads, faults, output.
//!
//! [`Platform`] says what is asked; [`Host`] is the system this was built for; `sim` (a feature) is a simulated one whose
//! calls can be made to fail. All foreign functions, all knowledge of registers and every `cfg(target_os)` of the
//! project live here.
//!
//! Invariants: nothing allocates from the program's heap, nothing panics, every result is checked.
#![deny(
    clippy::panic,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

pub mod atomic;
mod fault;
mod keys;
mod load;
mod loader;
mod mappings;
mod missing;
mod names;
mod os;
mod pages;
mod platform;
mod prefetch;
mod protection;
mod range;
mod stepping;
pub mod switching;
mod watchpoints;
mod written;

pub use fault::Fault;
pub use keys::Keys;
pub use loader::{Code, Loader};
pub use mappings::Mappings;
pub use missing::{Missing, MissingError, MissingOffer, Partly};
pub use names::{CodePlace, Names};
#[cfg(target_os = "linux")]
pub use os::program;
#[cfg(any(test, feature = "sim"))]
pub use os::sim;
#[cfg(target_os = "macos")]
pub use os::{ErrorNumber, LibcHeap};
#[cfg(target_os = "linux")]
pub use os::{ErrorNumber, LibcHeap, Next, bound, is_in_library};
pub use os::{Host, is_in_this_object};
pub use pages::{Limit, Pages, Wish};
pub use platform::{Faults, Memory, Offers, Output, Platform, Threads, VmError, VmResult};
pub use prefetch::prefetch;
pub use protection::Protection;
pub use range::{Moved, Range};
pub use stepping::{AfterStep, OnFault, OnStep, Stepping, Steps, Verdict};
pub use watchpoints::{Hit, NoWatchpoints, OnHit, WATCHPOINTS, WatchpointOffer, Watchpoints, watchpoints_of};
pub use written::{Noting, Written};
