//! The runtime of fencepost: a heap whose every block lies flush against a page that traps.
//!
//! [`Guard`] is the whole of it, generic over the operating system beneath ([`fencepost_sys::Platform`]). Allocation
//! is in `allocate`, freeing in `free`, what runs in the fault handler in `handler`, the pure diagnosis in
//! `diagnose`, reports in `report` and `write`, the ways to close a page in `engine`, address space and its
//! quarantine in `heap`.
//!
//! Invariants:
//! - nothing allocates: all memory comes from the platform, in regions reserved at the start;
//! - nothing panics: arithmetic wraps or saturates by name, slices are asked, and on an impossible state of our own
//!   the runtime says so once, guards no further block, and the program goes on;
//! - a stack is taken before any lock of ours;
//! - all state that the fault handler reads is atomic and valid when zeroed.
#![no_std]
#![deny(
    clippy::panic,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(
    test,
    allow(
        clippy::panic,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

#[cfg(test)]
extern crate std;

mod allocate;
mod arena;
mod budget;
mod calls;
mod contexts;
mod defer;
mod depot;
mod diagnose;
mod engine;
mod expect;
mod family;
mod filter;
mod free;
mod front;
mod geometry;
mod grown;
mod handler;
mod heap;
mod hooks;
mod inspect;
mod leaks;
mod leaving;
mod limits;
mod lock;
mod moving;
pub mod options;
mod output;
mod pattern;
mod quick;
mod region;
mod remains;
mod report;
mod resize;
mod runtime;
mod seal;
mod select;
mod sites;
mod slot;
mod span;
mod start;
mod steady;
mod step;
mod stock;
mod threads;
mod tight;
mod write;

pub use allocate::Placed;
pub use contexts::Door;
pub use expect::{Expecting, Noted};
pub use family::{Family, Given};
pub use free::{Freed, Resize};
pub use hooks::{Hooks, Keep, RenderStyle, Rendered, Tracing};
pub use inspect::BlockFacts;
pub use report::Copying;
pub use resize::Content;
pub use runtime::Guard;
pub use seal::{Change, Log, Purpose, SealFailure, SealTicket};
pub use tight::Taken;
