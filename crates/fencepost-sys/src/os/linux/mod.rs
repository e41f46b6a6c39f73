//! Linux, x86_64 and aarch64.
//!
//! Invariants: state is in atomics that are valid when zeroed, so that [`Host`] works in a static before `main` and
//! before [`Platform::probe`]; system calls are bare ones, so that `errno` stays as the
//! program left it.
//!
//! What the kernel offers is proved by use ([`probe`]). To test the ways around what older or stricter kernels lack,
//! the environment variable `FENCEPOST_DENY` holds a list, separated by commas, of what to treat as missing:
//!
//! | word | as if |
//! |---|---|
//! | `markers` | the kernel had no guard markers (before 6.13, or under user-mode emulation) |
//! | `vectored` | it took one range a call (before 6.15, or a system call filter) |
//! | `process_vm_readv` | a filter forbade reading memory by system call |
//! | `proc` | `/proc` were not mounted |
//! | `keys` | the processor had no protection keys |
//! | `steps` | single steps raised no signal (as under a debugger) |
//! | `userfaultfd` | the kernel had no userfaultfd, or a filter forbade it |
//! | `move` | userfaultfd could not move pages (before 6.8) |
//! | `watchpoints` | the processor had no watchpoints, or the system forbade them |
//! | `watch-kernel` | they might watch the program only, not what the kernel writes for it |
//! | `pagemap` | the kernel could not tell which pages were written to (before 6.7) |
//! | `tables` | the loader did not tell where unwind tables are: stacks are walked by the language's own unwinder |
//! | `mremap` | pages could not be moved by it |

#[path = "../unix/chain.rs"]
mod chain;
mod code;
#[cfg(target_arch = "aarch64")]
#[path = "context_aarch64.rs"]
mod context;
#[cfg(target_arch = "x86_64")]
#[path = "context_x86_64.rs"]
mod context;
#[cfg(any(test, target_arch = "aarch64"))]
mod decode_aarch64;
#[cfg(any(test, target_arch = "x86_64"))]
mod decode_x86_64;
#[path = "../unix/emergency.rs"]
mod emergency;
mod environment;
#[path = "../unix/error_number.rs"]
mod error_number;
#[cfg(any(test, target_arch = "aarch64"))]
#[cfg_attr(not(target_arch = "aarch64"), allow(dead_code, reason = "its decision is tested everywhere"))]
#[path = "../unix/fault_aarch64.rs"]
mod fault_aarch64;
#[cfg(target_arch = "x86_64")]
#[path = "../unix/fault_x86_64.rs"]
mod fault_x86_64;
#[path = "../unix/forks.rs"]
mod forks;
mod keys;
mod limits;
mod mappings;
mod maps;
mod memory;
mod modules;
mod next;
mod output;
mod pages;
mod probe;
pub mod program;
mod raw;
mod read;
mod refusal;
mod signal_calls;
#[path = "../unix/signals.rs"]
mod signals;
#[path = "../unix/stack.rs"]
mod stack;
mod step;
mod symbols;
mod threads;
mod userfault;
mod watchpoints;
mod word;
mod write_key;
mod written;
#[cfg(target_arch = "aarch64")]
#[path = "xstate_aarch64.rs"]
mod xstate;
#[cfg(target_arch = "x86_64")]
#[path = "xstate_x86_64.rs"]
mod xstate;

use core::ffi::CStr;

use crate::Platform;
pub use error_number::ErrorNumber;
pub use next::{LibcHeap, Next, bound, is_in_library, is_in_this_object};

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
        probe::probe();
    }

    fn environment(&self, name: &CStr) -> Option<&'static [u8]> {
        environment::environment(name)
    }
}
