//! Walking this thread's stack.
//!
//! | way | used |
//! |---|---|
//! | what this thread remembers of the same stack (`recall`) | first: most stacks come again and again |
//! | rules made of the unwind tables, each read once (`tables`, `rules`) | where all code on the stack has plain ones |
//! | the chain of frame pointers (`chain`) | in a program built with `-C force-frame-pointers`, once the unwinder agreed |
//! | `backtrace`, that is the unwinder of the C runtime | everywhere else, and in the fault handler |
//!
//! Every one of them runs before any lock of the runtime is taken, and allocates nothing.

#[cfg(fencepost_frame_pointers)]
mod chain;
mod recall;
mod rules;
mod tables;
#[cfg(test)]
mod tests;

pub(crate) use tables::after_fork_of_several;

use fencepost_guard::{Keep, Tracing};

/// Bytes of a thread's own memory that [`trace`] asks for.
pub(crate) const MEMORY: usize = size_of::<recall::Recall>();

/// Gives the number of this thread's stack, as `keep` numbers stacks.
pub(crate) fn trace(tracing: &Tracing, keep: Keep<'_>) -> u32 {
    if let Some(number) = tables::trace(tracing, keep) {
        return number;
    }
    let mut frames = [0u64; fencepost_record::FRAMES_MAX];
    let room = frames.get_mut(..tracing.depth).unwrap_or_default();
    let kept = capture(tracing.anchor, room);
    keep(room.get(..kept).unwrap_or_default())
}

/// Writes the return addresses of this thread's stack, innermost first, and says how many. Frames younger than the
/// address `anchor` on the stack are left out; 0 leaves out none. May run in the fault handler.
pub(crate) fn capture(anchor: usize, into: &mut [u64]) -> usize {
    #[cfg(fencepost_frame_pointers)]
    if anchor != 0 {
        return chain::capture(anchor, into);
    }
    by_unwinder(anchor, into)
}

fn by_unwinder(anchor: usize, into: &mut [u64]) -> usize {
    let mut kept = 0usize;
    let mut ours = anchor != 0;
    let mut room = into.iter_mut();
    // SAFETY: the unsynchronised walk needs that no other thread uses the crate's symbol tables at the same time; a
    // walk alone touches none, it only follows the unwinder of the C runtime, which is made for many threads.
    unsafe {
        backtrace::trace_unsynchronized(|frame| {
            // For a frame that called on, this is where its own part of the stack ends. Only the frames before the
            // first old one are ours: a coroutine's callers may stand on a stack that lies below.
            ours = ours && frame.sp().addr() <= anchor;
            if ours {
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
