//! The one runtime of a program, and the entries by which the system calls back into it.

use fencepost_guard::{Guard, Hooks};
use fencepost_sys::{AfterStep, Fault, Hit, Host, Keys, Verdict};

use crate::capture::{self, capture};

/// The runtime.
pub(crate) static GUARD: Guard<Host> = Guard::new(
    Host::new(),
    Hooks {
        capture,
        trace: capture::trace,
        trace_memory: capture::MEMORY,
        region: crate::grown::region,
        copy,
        demangle: crate::demangle::demangle,
        regions: crate::grown::totals,
        on_fault,
        on_step,
        on_hit,
        thread_exit,
        fork_prepare,
        fork_parent,
        fork_child,
        at_exit,
        #[cfg(feature = "symbolize")]
        render: Some(crate::symbolize::render),
        #[cfg(not(feature = "symbolize"))]
        render: None,
    },
);

#[cfg(all(fencepost_libc, target_arch = "x86_64"))]
use crate::exported::copies::under_way as copy;

#[cfg(not(all(fencepost_libc, target_arch = "x86_64")))]
fn copy(_sp: usize, _frames: &[u64]) -> Option<fencepost_guard::Copying> {
    None
}

fn on_fault(fault: &Fault) -> Verdict {
    GUARD.on_fault(fault)
}

fn on_step(next: usize) -> AfterStep {
    GUARD.on_step(next)
}

fn on_hit(hit: &Hit) {
    GUARD.on_hit(hit);
}

extern "C" fn thread_exit(word: usize) {
    GUARD.thread_exit(word);
}

extern "C" fn fork_prepare() {
    crate::closing::before_fork();
    GUARD.fork_prepare();
}

extern "C" fn fork_parent() {
    GUARD.fork_parent();
    crate::closing::after_fork();
}

extern "C" fn fork_child() {
    if GUARD.fork_child() {
        capture::after_fork_of_several();
    }
    #[cfg(fencepost_libc)]
    crate::exported::ending::note_process();
    crate::closing::after_fork();
}

extern "C" fn at_exit() {
    #[cfg(fencepost_libc)]
    crate::exported::ending::fall_silent();
    GUARD.at_exit(here());
}

/// Starts the runtime with the options that the program was built with. A preloaded runtime of another program's is told
/// first that this one guards itself.
#[cold]
pub(crate) fn begin(options: &'static str) {
    if !GUARD.has_begun() {
        #[cfg(fencepost_libc)]
        {
            crate::exported::take_over();
            if crate::exported::is_in_force() {
                GUARD.note_exported();
            }
        }
    }
    GUARD.start(options);
    // Threads that are made from now on have what this one has of the key.
    GUARD.platform().has_write_key();
}

/// An address in the caller's stack frame, for [`Guard::allocate`] and its like: that frame and younger ones are ours.
/// The caller must not be inlined into code that is not ours.
#[inline(always)]
pub(crate) fn here() -> usize {
    let local = 0u8;
    core::hint::black_box(&raw const local).addr()
}

// The program's allocator may be ours or not; one small allocation finds out, and if it is ours, starts it before
// the language's runtime looks at the signal handlers and before any thread exists.
extern "C" fn on_load() {
    // Where C's functions are ours the runtime runs already, and this block is not to look like one of the program's.
    if GUARD.is_exported() { GUARD.apart_from_account(try_allocator) } else { try_allocator() }
}

fn try_allocator() {
    let layout = core::alloc::Layout::new::<u8>();
    // SAFETY: the layout is not of size zero, and the block is freed with the layout it was allocated with.
    unsafe {
        let block = core::hint::black_box(std::alloc::alloc(layout));
        if !block.is_null() {
            std::alloc::dealloc(block, layout);
        }
    }
}

fencepost_sys::at_load!(on_load);
