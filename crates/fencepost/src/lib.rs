//! A page-guard memory debugger: every heap block lies flush against a page that traps.
//!
//! One line in a program guards everything it allocates:
//!
//! ```
//! #[global_allocator]
//! static ALLOC: fencepost::GuardedAlloc = fencepost::GuardedAlloc::new();
//! # fn main() {}
//! ```
//!
//! An access past the end of a block, before it, or to a block that was freed ends the program at that instruction,
//! with a report that names the block and shows the stacks of the access, the allocation and the free. Options come
//! from the environment variable `FENCEPOST_OPTIONS` (`FENCEPOST_OPTIONS=help=1` prints them) and from
//! [`GuardedAlloc::with_options`].
//!
//! To keep the guard out of release builds:
//!
//! ```
//! #[cfg(debug_assertions)]
//! #[global_allocator]
//! static ALLOC: fencepost::GuardedAlloc = fencepost::GuardedAlloc::new();
//! # fn main() {}
//! ```
#![deny(clippy::arithmetic_side_effects)]

mod alloc;
mod audit;
#[cfg(any(fencepost_libc, fencepost_interpose))]
mod c_heap;
mod capture;
mod closing;
mod demangle;
mod entry;
mod expected;
#[cfg(fencepost_libc)]
#[doc(hidden)]
pub mod exported;
#[cfg(fencepost_interpose)]
#[doc(hidden)]
#[path = "interposed.rs"]
pub mod exported;
mod grown;
mod questions;
mod reports;
mod runtime;
mod sealed;
mod seals;
#[cfg(feature = "symbolize")]
mod symbolize;
mod watches;

pub use alloc::GuardedAlloc;
pub use audit::{Audit, AuditWay, AuditedPage, audit, audit_writes};
/// Puts fencepost in the place of the C library's allocator, where that can be: not here.
#[cfg(not(fencepost_libc))]
#[macro_export]
macro_rules! export_libc {
    () => {
        compile_error!(
            "export_libc! needs glibc, linked dynamically: here no functions can stand before the C library's. \
             GuardedAlloc works without it"
        );
    };
}

#[doc(hidden)]
#[cfg(not(any(fencepost_libc, fencepost_interpose)))]
#[macro_export]
macro_rules! __export_preload {
    () => {
        compile_error!(
            "the library to preload is made for glibc and for macOS: GuardedAlloc works without it"
        );
    };
}

#[doc(hidden)]
pub use expected::{__assert_faults, __expected_kind};
pub use fencepost_memory::{self as memory, growing};
pub use fencepost_record::{BlockState, ErrorKind, Summary as Stats, Unguarded, Where};
#[cfg(any(fencepost_libc, fencepost_interpose))]
#[doc(hidden)]
pub use fencepost_sys::at_load as __at_load;
pub use questions::{BlockInfo, Origin, check, describe, stats};
#[cfg(feature = "tracing")]
pub use reports::emit_tracing;
pub use reports::{Report, drain_reports};
pub use sealed::Sealed;
pub use seals::{Seal, SealError, seal, seal_raw};
#[cfg(feature = "test-hooks")]
#[doc(hidden)]
pub use watches::__steps;
pub use watches::{Tripwire, Watch, WatchOptions, Way, Write, tripwire, tripwire_raw, watch, watch_raw};
