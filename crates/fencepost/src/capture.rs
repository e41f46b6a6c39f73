//! Walking this thread's stack.
//!
//! The walk goes by unwind tables, so that it is right through C code and without frame pointers. In a program built
//! with `-C force-frame-pointers` the chain of frame pointers is tried first (see `chain`). Either way it runs before
//! any lock of the runtime is taken, and allocates nothing; the walk by tables may run in the fault handler.

#[cfg(fencepost_frame_pointers)]
mod chain;

/// Writes the return addresses of this thread's stack, innermost first, and says how many. Frames younger than the
/// address `anchor` on the stack are left out; 0 leaves out none.
pub(crate) fn capture(anchor: usize, into: &mut [u64]) -> usize {
    #[cfg(fencepost_frame_pointers)]
    if anchor != 0 {
        return chain::capture(anchor, into);
    }
    by_tables(anchor, into)
}

fn by_tables(anchor: usize, into: &mut [u64]) -> usize {
    let mut kept = 0usize;
    let mut room = into.iter_mut();
    // SAFETY: the unsynchronised walk needs that no other thread uses the crate's symbol tables at the same time; a
    // walk alone touches none, it only follows the unwinder of the C runtime, which is made for many threads.
    unsafe {
        backtrace::trace_unsynchronized(|frame| {
            // For a frame that called on, this is where its own part of the stack ends.
            if anchor != 0 && frame.sp().addr() <= anchor {
                return true;
            }
            // Where C's start code ends the chain of callers.
            if frame.ip().is_null() {
                return false;
            }
            match room.next() {
                Some(place) => {
                    *place = frame.ip().addr() as u64;
                    kept = kept.saturating_add(1);
                    true
                }
                None => false,
            }
        });
    }
    kept
}
