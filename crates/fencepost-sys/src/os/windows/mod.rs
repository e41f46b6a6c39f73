//! Windows, x86_64.
//!
//! Invariants: state is in atomics that are valid when zeroed, so that [`Host`] works in a static before `main` and
//! before [`Platform::probe`]; no call takes memory from the program's heap (what the system takes for itself, it takes
//! from the process heap, which is not ours); the thread's last error stays as the program left it ([`teb::Kept`]).
//!
//! Engine `commit`: addresses are reserved, and what is not committed traps and is charged to nobody.

mod emergency;
mod ending;
mod environment;
mod faults;
mod large;
mod loader;
mod mappings;
mod memory;
mod missing;
mod modules;
mod output;
mod pages;
mod probe;
pub(crate) mod stack;
mod stepping;
pub(super) mod teb;
mod text;
mod threads;
mod watchdog;
mod watchpoints;
mod word;
mod written;

use core::ffi::CStr;

use crate::Platform;
pub use modules::is_in_this_object;

/// The system this was built for. Has no state of its own: every value is the same one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Host;

impl Host {
    /// The host, for a static.
    pub const fn new() -> Host {
        Host
    }
}

impl Platform for Host {
    fn probe(&self) {
        probe::prepare();
        threads::prepare();
        memory::prepare();
        stepping::prepare();
        watchdog::prepare();
        watchpoints::prepare();
    }

    fn environment(&self, name: &CStr) -> Option<&'static [u8]> {
        environment::environment(name)
    }
}
