//! macOS, x86_64 and aarch64. Type-checked only: nothing here has run.
//!
//! Invariants: state is in atomics that are valid when zeroed, so that [`Host`] works in a static before `main` and before
//! [`Platform::probe`]; the system is called by functions of its library, since the numbers behind them are not promised,
//! and each keeps `errno` ([`raw::kept`]).
//!
//! What handlers, chains and stacks do is in `os/unix`. Missing pages, unwind tables and names of code are absent for the
//! same reasons as on Windows, and answered by the same files.

#[path = "../unix/chain.rs"]
mod chain;
#[cfg(target_arch = "aarch64")]
#[path = "context_aarch64.rs"]
mod context;
#[cfg(target_arch = "x86_64")]
#[path = "context_x86_64.rs"]
mod context;
#[cfg(target_arch = "aarch64")]
#[path = "../linux/decode_aarch64.rs"]
mod decode_aarch64;
#[cfg(target_arch = "x86_64")]
#[path = "../linux/decode_x86_64.rs"]
mod decode_x86_64;
#[path = "../unix/emergency.rs"]
mod emergency;
#[path = "../unix/error_number.rs"]
mod error_number;
#[cfg(target_arch = "aarch64")]
#[path = "../unix/fault_aarch64.rs"]
mod fault_aarch64;
#[cfg(target_arch = "x86_64")]
#[path = "../unix/fault_x86_64.rs"]
mod fault_x86_64;
#[path = "../unix/forks.rs"]
mod forks;
#[path = "../windows/loader.rs"]
mod loader;
mod mappings;
mod memory;
#[path = "../windows/missing.rs"]
mod missing;
mod modules;
mod next;
mod output;
mod pages;
mod probe;
mod raw;
mod read;
mod signal_calls;
#[path = "../unix/signals.rs"]
#[allow(dead_code, reason = "what a program asks about its signals is not answered here")]
mod signals;
#[path = "../unix/stack.rs"]
mod stack;
mod step;
mod threads;
mod watchpoints;
#[path = "../windows/written.rs"]
mod written;

use core::ffi::CStr;

use crate::Platform;
pub use error_number::ErrorNumber;
pub use next::{LibcHeap, is_in_this_object};

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
        threads::prepare();
    }

    /// The system's library is set up before any other, so it can always be asked.
    fn environment(&self, name: &CStr) -> Option<&'static [u8]> {
        // SAFETY: getenv reads a zero-ended name and neither allocates nor sets errno.
        let value = unsafe { libc::getenv(name.as_ptr()) };
        if value.is_null() {
            return None;
        }
        // SAFETY: getenv gives a zero-ended string; what setenv puts in its place is leaked, not freed.
        Some(unsafe { CStr::from_ptr(value) }.to_bytes())
    }
}
