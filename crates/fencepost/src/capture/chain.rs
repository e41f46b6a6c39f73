//! The chain of frame pointers, believed only where the unwind tables have agreed with it.
//!
//! Even in a program built with frame pointers, C code on the stack may lack them: the chain then skips frames or ends
//! early. So a chain is followed within the thread's own stack, and the first time this thread sees it, the walk by
//! the unwinder must give the same addresses, all but the last few at the very start of the thread, which belong to the C
//! library. From then on the chain is believed when it comes again *in the same place*: every return address, every
//! frame's address on the stack. A stack that differs has another frame, which takes room for at least its return
//! address, so some address in the chain differs as well.

use core::cell::Cell;

use super::by_unwinder;
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
    let Some((followed, hash)) = follow(anchor, into) else { return by_unwinder(anchor, into) };
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
    let walked = by_unwinder(anchor, into);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{GUARD, here};

    /// Both walks from the same place: the chain first, so that it meets the stack unseen and then known.
    #[inline(never)]
    fn both(depth: u32) -> (Vec<u64>, Vec<u64>, Vec<u64>) {
        if depth > 0 {
            let result = both(depth - 1);
            // Not a tail call: every level keeps its frame.
            std::hint::black_box(depth);
            return result;
        }
        let anchor = here();
        let walk = |walk: fn(usize, &mut [u64]) -> usize| {
            let mut frames = [0; 64];
            let count = walk(anchor, &mut frames);
            frames[..count].to_vec()
        };
        let mut seen = Vec::new();
        for _ in 0..2 {
            seen.push(walk(capture));
        }
        let by_chain = seen.pop().unwrap_or_default();
        (seen.pop().unwrap_or_default(), by_chain, walk(by_unwinder))
    }

    #[test]
    fn the_chain_gives_what_the_tables_give() {
        start();
        for depth in [0, 1, 5, 30] {
            let (unseen, known, tables) = both(depth);
            let followed = follow(here(), &mut [0; 64]);
            assert!(followed.is_some(), "this test needs a program built with frame pointers");
            // The first return address is where each walk was called from, so it differs.
            assert_eq!(unseen[1..], known[1..], "depth {depth}");
            let count = known.len();
            assert!(tables.len() - count <= RUN_UP, "depth {depth}: {count} of {}", tables.len());
            assert_eq!(known[1..], tables[1..count], "depth {depth}");
        }
    }

    #[test]
    fn through_c_without_frame_pointers_the_tables_decide() {
        start();
        extern "C" fn compare(_: *const core::ffi::c_void, _: *const core::ffi::c_void) -> i32 {
            let (unseen, known, tables) = both(3);
            assert_eq!(unseen[1..], tables[1..unseen.len()]);
            assert_eq!(known[1..], tables[1..known.len()]);
            assert!(tables.len() - known.len() <= RUN_UP, "{} of {}", known.len(), tables.len());
            0
        }
        unsafe extern "C" {
            fn qsort(
                base: *mut core::ffi::c_void,
                count: usize,
                size: usize,
                compare: extern "C" fn(*const core::ffi::c_void, *const core::ffi::c_void) -> i32,
            );
        }
        let mut numbers = [2u32, 1];
        // SAFETY: the array has two elements of four bytes, and `compare` does not unwind unless the test fails.
        unsafe { qsort(numbers.as_mut_ptr().cast(), 2, 4, compare) };
    }

    /// The runtime knows the stacks of threads only while it runs: this test's allocator is not ours.
    fn start() {
        // Another test's start must be over, not only begun.
        static STARTED: std::sync::Once = std::sync::Once::new();
        STARTED.call_once(|| GUARD.start("summary=off"));
        if let fencepost_guard::Placed::Here(block) =
            GUARD.allocate(core::alloc::Layout::new::<u64>(), false, here())
        {
            let layout = core::alloc::Layout::new::<u64>();
            GUARD.free(block, layout, fencepost_record::AccessType::Free, here());
        }
    }
}
