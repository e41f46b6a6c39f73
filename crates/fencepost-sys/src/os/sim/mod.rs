//! A simulated system, for tests of what stands on [`Platform`].
//!
//! Memory is real memory of the host (`beneath`), always readable and writable underneath; a table keeps the state that a page
//! would have on a real system, and what changes content there changes it here. So a test may write where a program
//! would have trapped, and asks the table instead ([`Sim::would_trap`]). Any call may be made to fail
//! ([`Sim::fail_at`]), misuse is written down ([`Sim::violations`]), and the number of mappings is what a kernel
//! would count, against a limit of choice.
//!
//! Invariants: an instance shares nothing with another; nothing is random and no clock runs but by the test's hand.
//! Unlike the real systems this one uses the heap, so that it must not stand under the allocator of its own process.
#![allow(clippy::disallowed_types, clippy::disallowed_macros, clippy::disallowed_methods)]
#![allow(clippy::panic)] // `die_by_abort` and `exit_now` must not return

mod beneath;
mod faults;
mod mappings;
mod memory;
mod missing;
mod output;
mod pages;
mod remap;
mod space;
mod step;
mod threads;
mod watchpoints;
mod written;

use core::ffi::CStr;
use std::boxed::Box;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::vec::Vec;

pub use space::PageState;

use crate::{MissingOffer, Platform, Range, Steps, WatchpointOffer};

/// What a simulated system is like.
#[derive(Clone, Copy, Debug)]
pub struct SimOptions {
    /// Bytes in a page: a power of two, at least the host's.
    pub page_size: usize,
    /// Whether there are guard markers.
    pub markers: bool,
    /// Whether single pages of a reservation are committed and decommitted without a mapping of their own.
    pub commits_pages: bool,
    /// Whether several ranges may be given in one call.
    pub vectored: bool,
    /// What there is of missing pages.
    pub missing: MissingOffer,
    /// Whether writes to single missing pages can be made to trap.
    pub write_protect: bool,
    /// The most mappings, those that are not the runtime's included.
    pub mappings_max: Option<usize>,
    /// Mappings that are not the runtime's.
    pub mappings_other: usize,
    /// What [`Memory::available`](crate::Memory::available) answers.
    pub available: Option<u64>,
    /// Whether there are explicit huge pages, of 2 MiB.
    pub huge_pages: bool,
    /// Whether explicit huge pages come with their addresses, all at once, or not at all.
    pub huge_reserves: bool,
    /// Whether huge pages are ever made of ordinary ones.
    pub transparent: bool,
    /// How far one instruction can be run by itself.
    pub steps: Steps,
    /// Whether pages can be closed to writing for all threads but some.
    pub write_key: bool,
    /// Whether the system notes which pages are written to.
    pub notes_writes: bool,
    /// What watchpoints of the processor see.
    pub watchpoints: WatchpointOffer,
}

impl SimOptions {
    /// A recent Linux on x86_64 with nothing forbidden and plenty of memory.
    pub const fn new() -> SimOptions {
        SimOptions {
            page_size: 4096,
            markers: true,
            commits_pages: false,
            vectored: true,
            missing: MissingOffer::Moves,
            write_protect: true,
            mappings_max: Some(65530),
            mappings_other: 40,
            available: Some(16 << 30),
            huge_pages: false,
            huge_reserves: false,
            transparent: true,
            steps: Steps::Alone,
            write_key: true,
            notes_writes: true,
            watchpoints: WatchpointOffer::Instructions,
        }
    }
}

impl Default for SimOptions {
    fn default() -> SimOptions {
        SimOptions::new()
    }
}

/// Name and value.
type Variable = (Box<[u8]>, &'static [u8]);

/// A simulated system.
pub struct Sim {
    options: SimOptions,
    memory: Mutex<memory::State>,
    missing: Mutex<missing::State>,
    threads: Mutex<threads::State>,
    output: Mutex<output::State>,
    faults: Mutex<faults::State>,
    steps: Mutex<step::State>,
    watchpoints: Mutex<watchpoints::State>,
    written: Mutex<written::State>,
    environment: Mutex<Vec<Variable>>,
    mapped: Mutex<Option<Vec<Range>>>,
}

impl Sim {
    /// A system with the default options.
    pub const fn new() -> Sim {
        Sim::with(SimOptions::new())
    }

    /// A system with these options.
    pub const fn with(options: SimOptions) -> Sim {
        Sim {
            options,
            memory: Mutex::new(memory::State::new(options.available)),
            missing: Mutex::new(missing::State::new()),
            threads: Mutex::new(threads::State::new()),
            output: Mutex::new(output::State::new()),
            faults: Mutex::new(faults::State::new()),
            steps: Mutex::new(step::State::new()),
            watchpoints: Mutex::new(watchpoints::State::new()),
            written: Mutex::new(written::State::new()),
            environment: Mutex::new(Vec::new()),
            mapped: Mutex::new(Some(Vec::new())),
        }
    }

    /// Sets an environment variable.
    pub fn set_environment(&self, name: &str, value: &str) {
        let value: &'static [u8] = Box::leak(Box::from(value.as_bytes()));
        let mut variables = lock(&self.environment);
        variables.retain(|(known, _)| **known != *name.as_bytes());
        variables.push((Box::from(name.as_bytes()), value));
    }
}

impl Default for Sim {
    fn default() -> Sim {
        Sim::new()
    }
}

impl Platform for Sim {
    fn probe(&self) {}

    fn environment(&self, name: &CStr) -> Option<&'static [u8]> {
        let variables = lock(&self.environment);
        variables.iter().find(|(known, _)| **known == *name.to_bytes()).map(|(_, value)| *value)
    }
}

/// Takes a lock, also after a test panicked with it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
