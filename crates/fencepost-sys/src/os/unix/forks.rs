//! Handlers of forks. No signal of the program's comes between them: its handler might fork in turn, on a thread that
//! holds every lock of ours already.

use core::cell::Cell;
use core::sync::atomic::{AtomicUsize, Ordering};

use super::raw::Errno;
use super::{signal_calls, signals};
use crate::VmResult;

/// The runtime's functions, as addresses; 0 before there are any.
static BEFORE: AtomicUsize = AtomicUsize::new(0);
static IN_PARENT: AtomicUsize = AtomicUsize::new(0);
static IN_CHILD: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// The signal mask that this thread had, while it forks.
    static MASK: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Has these functions called at every fork from now on.
pub(super) fn note(before: extern "C" fn(), parent: extern "C" fn(), child: extern "C" fn()) -> VmResult {
    for (place, function) in [(&BEFORE, before), (&IN_PARENT, parent), (&IN_CHILD, child)] {
        place.store(function as usize, Ordering::Release);
    }
    // SAFETY: the functions live as long as the program, and are safe to call.
    match unsafe { libc::pthread_atfork(Some(prepare), Some(in_parent), Some(in_child)) } {
        0 => Ok(()),
        error => Err(Errno(error).into()),
    }
}

extern "C" fn prepare() {
    let mask = signal_calls::current_mask();
    // What an instruction raises cannot be held back.
    signal_calls::set_mask(!signals::synchronous_bits());
    MASK.set(Some(mask));
    call(&BEFORE);
}

extern "C" fn in_parent() {
    call(&IN_PARENT);
    give_back_mask();
}

extern "C" fn in_child() {
    call(&IN_CHILD);
    give_back_mask();
}

fn give_back_mask() {
    if let Some(mask) = MASK.take() {
        signal_calls::set_mask(mask);
    }
}

fn call(place: &AtomicUsize) {
    let address = place.load(Ordering::Acquire);
    if address != 0 {
        // SAFETY: `note` stored a function of this type.
        let function: extern "C" fn() = unsafe { core::mem::transmute(address) };
        function();
    }
}
