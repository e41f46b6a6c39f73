//! Chooses the operating system this is built for.
//!
//! One folder per system, the same file names in each: to bring the project to another system is to write one more
//! folder. The simulated system is there for tests on every host.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "macos")]
mod macos;
#[cfg(any(test, feature = "sim"))]
pub mod sim;

#[cfg(target_os = "linux")]
pub use linux::program;
#[cfg(target_os = "linux")]
pub use linux::{ErrorNumber, Host, LibcHeap, Next, bound, is_in_library, is_in_this_object};

#[cfg(target_os = "macos")]
pub use macos::{ErrorNumber, Host, LibcHeap, is_in_this_object};

/// The decoder is about a processor and not about a system: it stands with the system that had it first, and what needs
/// it here stands beside it.
#[cfg(target_os = "windows")]
#[path = "linux"]
mod processor {
    #[path = "../windows/context.rs"]
    pub(super) mod context;
    mod decode_x86_64;
}
#[cfg(target_os = "windows")]
mod windows;
#[cfg(target_os = "windows")]
pub(crate) use windows::stack as switching;
#[cfg(target_os = "windows")]
pub use windows::{Host, is_in_this_object};

#[cfg(not(any(target_os = "linux", target_os = "macos", target_os = "windows")))]
compile_error!(
    "fencepost-sys has no backend for this operating system; docs/platforms.md says what one must give"
);
