//! The document that the live side writes and the cold side reads.
//!
//! A [`Record`] holds everything known about one error as plain data of fixed size. The fault handler fills it
//! in without allocating, and [`text`] and [`json`] turn it into what a person or a CI system reads, also
//! without allocating. Names of functions come from outside, through [`Frames`]: the same writers serve the
//! handler, which knows only modules and offsets, and the reporter, which has resolved them.
//!
//! Invariants: no heap, no unsafe code, nothing here knows an operating system.
#![no_std]
#![forbid(unsafe_code)]
#![deny(
    clippy::panic,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod copy;
mod frames;
pub mod json;
mod kind;
mod message;
mod module;
mod note;
mod record;
mod region;
pub mod replay;
mod seal;
mod string;
mod summary;
pub mod text;
mod wording;

pub use copy::CopyInfo;
pub use frames::{ExcerptLine, Fnv, FrameView, Frames, RawFrames, Which};
pub use kind::{AccessType, BlockState, Confidence, ErrorKind, Where};
pub use message::Message;
pub use module::{MODULES_MAX, Module, ModuleTable};
pub use note::{Note, Notes};
pub use record::{
    Access, Block, Coverage, FRAMES_MAX, LeakInfo, Neighbour, ProcessInfo, REGISTERS_MAX, Record, Registers,
    Stack, ThreadInfo, Trace,
};
pub use region::{RegionInfo, RegionPlace};
pub use seal::{Bytes, CHANGED_MAX, SealInfo};
pub use string::Text;
pub use summary::{REFUSAL_NAMES, REFUSALS, Summary, UNGUARDED_REASONS, Unguarded};
