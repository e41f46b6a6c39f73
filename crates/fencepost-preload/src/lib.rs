//! `libfencepost_preload.so`: put into `LD_PRELOAD`, it guards what a program allocates with C's and C++'s functions,
//! without a change to the program.
//!
//! All that this library does is to export the functions; what they do is in the crates beneath. `docs/preload.md` says
//! how to use it and what it changes for the program.

fencepost::__export_preload!();

/// A program that has fencepost compiled in calls this when it starts: its own runtime guards it.
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_preload_step_back() {
    fencepost::exported::step_back();
}
