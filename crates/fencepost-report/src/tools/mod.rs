//! Reports after the fact: gathered from files, given names, merged, judged and rendered for people and machines.
//!
//! A [`Collection`] is what several runs, shards or processes left behind. The steps are taken in this order:
//! [`read`](Collection::read) any number of files, [`resolve`](Collection::resolve) what has no names yet,
//! [`merge`](Collection::merge) what is one bug, [`suppress`](Collection::suppress) and
//! [`compare`](Collection::compare) with a baseline, and [`render`].
//!
//! Invariants: a line that cannot be read is kept as a problem and said, never dropped; keys that this version does
//! not know pass through unchanged.

mod collection;
mod offline;
mod restore;
mod suppress;

pub mod render;

pub use collection::{Collection, Finding, Problem, Status};
pub use offline::{Modules, NoNames};
pub use suppress::{Suppression, glob};
