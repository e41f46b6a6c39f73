//! Chooses the operating system this is built for.
//!
//! One folder per system, the same file names in each: to bring the project to another system is to write one more
//! folder. The simulated system is there for tests on every host.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(any(test, feature = "sim"))]
pub mod sim;

#[cfg(target_os = "linux")]
pub use linux::program;
#[cfg(target_os = "linux")]
pub use linux::{ErrorNumber, Host, LibcHeap, Next, bound, is_in_library, is_in_this_object};

#[cfg(not(target_os = "linux"))]
compile_error!(
    "fencepost-sys has no backend for this operating system; docs/platforms.md says what one must give"
);
