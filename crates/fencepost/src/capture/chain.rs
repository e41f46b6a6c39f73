//! The chain of frame pointers, believed only where the unwind tables have agreed with it.
//!
//! Even in a program built with frame pointers, C code on the stack may lack them: the chain then skips frames or ends
//! early. So a chain is followed within the thread's own stack, and the first time this thread sees it, the walk by
//! tables must give the same addresses, all but the last few at the very start of the thread, which belong to the C
//! library. From then on the chain is believed when it comes again *in the same place*: every return address, every
//! frame's address on the stack. A stack that differs has another frame, which takes room for at least its return
//! address, so some address in the chain differs as well.

use core::cell::Cell;

use super::by_tables;
use crate::runtime::GUARD;

/// Chains remembered a thread; a power of two.
const KNOWN: usize = 256;
/// Frames at the start of a thread that belong to the C library, which has no frame pointers on x86_64.
const RUN_UP: usize = 3;

thread_local! {
    static CHAINS: [Cell<u64>; KNOWN] = const { [const { Cell::new(0) }; KNOWN] };
}

/// As [`super::capture`], for an `anchor` in this thread's own stack.
pub(super) fn capture(anchor: usize, into: &mut [u64]) -> usize {
    let Some((followed, hash)) = follow(anchor, into) else { return by_tables(anchor, into) };
    let place = hash as usize % KNOWN;
    let known = CHAINS.with(|chains| chains.get(place).is_some_and(|known| known.get() == hash));
    if known {
        return followed;
    }
    let mut chain = [0u64; fencepost_record::FRAMES_MAX];
    let followed = followed.min(chain.len());
    if let (Some(to), Some(from)) = (chain.get_mut(..followed), into.get(..followed)) {
        to.copy_from_slice(from);
    }
    let walked = by_tables(anchor, into);
    let agree = into.get(..followed) == chain.get(..followed) && walked.saturating_sub(followed) <= RUN_UP;
    if !agree || walked < followed {
        return walked;
    }
    CHAINS.with(|chains| {
        if let Some(known) = chains.get(place) {
            known.set(hash);
        }
    });
    followed
}

/// Follows the chain: how many addresses it gave, and a hash of all that was seen on the way.
fn follow(anchor: usize, into: &mut [u64]) -> Option<(usize, u64)> {
    let stack = GUARD.own_stack()?;
    let mut frame = frame_pointer();
    let mut hash = anchor as u64;
    let mut kept = 0usize;
    while let Some(place) = into.get_mut(kept) {
        // The saved frame pointer and the return address must lie in the stack.
        if !frame.is_multiple_of(8) || frame < stack.start || frame.checked_add(16)? > stack.end() {
            break;
        }
        // SAFETY: both words lie within this thread's stack, above the frames that are running, so they are mapped
        // and nobody writes to them meanwhile.
        let (next, returns_to) =
            unsafe { ((frame as *const usize).read(), (frame as *const usize).add(1).read()) };
        // The caller's part of the stack ends where this frame begins.
        if frame.checked_add(16)? > anchor {
            *place = returns_to as u64;
            kept = kept.checked_add(1)?;
            hash =
                (hash ^ returns_to as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29) ^ frame as u64;
        }
        if next <= frame {
            break;
        }
        frame = next;
    }
    (kept != 0).then_some((kept, hash | 1))
}

#[inline(always)]
fn frame_pointer() -> usize {
    let frame: usize;
    // SAFETY: reading the frame pointer changes nothing.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        core::arch::asm!("mov {}, rbp", out(reg) frame, options(nomem, nostack, preserves_flags));
        #[cfg(target_arch = "aarch64")]
        core::arch::asm!("mov {}, x29", out(reg) frame, options(nomem, nostack, preserves_flags));
    }
    frame
}
