//! Drives the built command on real programs: what they end with, what is said, what is left behind. Of Unix: what it is on Windows
//! is in `windows.rs`.
#![cfg(unix)]

#[path = "main/allocators.rs"]
mod allocators;
#[path = "main/carried.rs"]
mod carried;
#[path = "main/demo.rs"]
mod demo;
#[path = "main/files.rs"]
mod files;
#[path = "main/harness.rs"]
mod harness;
#[path = "main/out_of_reach.rs"]
mod out_of_reach;
#[path = "main/programs.rs"]
mod programs;
#[path = "main/settings.rs"]
mod settings;
#[path = "main/sites.rs"]
mod sites;
#[path = "main/terminal.rs"]
mod terminal;
