//! What starting and ending programs asks of the system, and what there is to say of it: one folder for each, with the same
//! names. What a program does while it runs is no matter of this crate's.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub use unix::{
    Forwarding, NOWHERE, die_by, end_with, ended, link, machine, may_be_run, refuses_preload, replace_with,
};
#[cfg(windows)]
pub use windows::{
    Forwarding, NOWHERE, die_by, end_with, ended, link, machine, may_be_run, refuses_preload, replace_with,
};
