//! Taking the C library's place, and standing back from it.

use core::ffi::CStr;

use fencepost_sys::Platform;

use super::MALLOC;

/// The functions of which one that is not ours means that C++'s blocks come from more than one place.
const OPERATORS: [&CStr; 4] = [c"_Znwm", c"_Znam", c"_ZdlPv", c"_ZdaPv"];

/// The libraries that define those functions for everybody. Another that does, as one with a copy of C++'s library inside,
/// may use its own for what it allocates, and leave the freeing to its callers.
const LIBRARIES: [&str; 3] = ["libstdc++.so", "libc++.so", "libc++abi.so"];

/// Runs when the program is loaded: sees whether the process has ours as its `malloc`, and if so starts the runtime.
///
/// A program that exports an allocator of its own has that one for all its blocks: to guard some of them would mix two
/// heaps, so we stand back.
pub extern "C" fn on_load() {
    crate::runtime::GUARD.apart_from_account(load);
    if crate::runtime::GUARD.platform().environment(c"FENCEPOST_CHILDREN") == Some(b"off") {
        fencepost_sys::program::drop_first_of(c"LD_PRELOAD");
    }
}

fn load() {
    MALLOC.prepare();
    let ours = |name: &CStr| fencepost_sys::bound(name).is_none_or(fencepost_sys::is_in_this_object);
    if !ours(c"malloc") || !ours(c"free") {
        MALLOC.decline(
            "malloc is bound to an allocator of the program's own, which is left alone so that no two heaps are mixed",
        );
        return;
    }
    let standard = |name: &'static CStr| {
        let behind = fencepost_sys::Next::new(name).address();
        behind.is_none_or(|address| fencepost_sys::is_in_library(address, &LIBRARIES))
    };
    if !OPERATORS.into_iter().all(|name| ours(name) && standard(name)) {
        MALLOC.mix_families();
    }
    super::buffers::prepare();
    #[cfg(target_arch = "x86_64")]
    super::copies::prepare();
    super::structures::prepare();
    super::signals::prepare();
    super::ending::note_process();
    MALLOC.start();
}

/// Whether the process allocates by the functions of this object. May allocate.
pub(crate) fn is_in_force() -> bool {
    fencepost_sys::bound(c"malloc").is_some_and(fencepost_sys::is_in_this_object)
}

/// Tells a preloaded runtime, if there is one, to stand back: this program guards itself.
pub(crate) fn take_over() {
    let preloaded = fencepost_sys::bound(c"fencepost_preload_step_back");
    if let Some(address) = preloaded.filter(|address| !fencepost_sys::is_in_this_object(*address)) {
        // SAFETY: the preloaded library exports a function of this type under this name.
        let step_back: extern "C" fn() = unsafe { core::mem::transmute(address) };
        step_back();
    }
}

/// Called by a runtime of the program's own: it guards the program, and we no longer do.
pub extern "C" fn step_back() {
    MALLOC.stand_back();
}
