//! A stack for the handler of a thread that has overflowed its own.
//!
//! A thread asks the system to keep some of its stack for such handlers, which others ask for as well, and less. So an
//! overflow is handled on a stack of ours, one thread at a time. Whether anybody else's handler has room to answer is
//! seen from what is left.

use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use super::{Host, memory, stack, teb};
use crate::{Memory, Range, Stepping, Threads, VmResult};

const LEN: usize = 256 << 10;
/// What a handler of somebody else's needs, and the system's search for it: with less it would overflow again.
const ROOM_OF_OTHERS: usize = 16 << 10;
/// How long who waits for the stack waits at most, in milliseconds: a report by its owner ends the process.
const WAIT_MAX_MS: u64 = 60_000;

/// Where it starts; 0 before there is one.
static START: AtomicUsize = AtomicUsize::new(0);
/// The thread that is on it; 0 for none.
static OWNER: AtomicU32 = AtomicU32::new(0);

/// Makes the stack.
pub(super) fn prepare() -> VmResult {
    if START.load(Ordering::Acquire) != 0 {
        return Ok(());
    }
    let start = Host.reserve(LEN, 1)?;
    // SAFETY: the range was reserved just now. It is never given back.
    unsafe { Host.commit(Range { start, len: LEN }) }?;
    START.store(start, Ordering::Release);
    Ok(())
}

/// Whether a handler of somebody else's could run where the stack that ends at `stack` has overflowed at `sp`.
pub(super) fn others_have_room(stack: usize, sp: usize) -> bool {
    // The lowest page is nobody's: who gets there is ended without a word.
    let end = stack.saturating_add(Host.page_size());
    sp.saturating_sub(end) >= ROOM_OF_OTHERS
}

/// Keeps what a thread has asked of its stack, where the system takes note of that and does nothing: Wine commits a stack
/// as a whole, with a guard page at its very end, which leaves too little for its own search for handlers. A guard page
/// where the guarantee begins makes it notice there.
pub(super) fn keep_guarantee(bytes: usize) {
    if !memory::is_wine() {
        return;
    }
    let page = Range { start: teb::read(teb::STACK_RESERVED).saturating_add(bytes), len: Host.page_size() };
    let here = (&raw const page).addr();
    // Only where it is committed, and far from what is in use.
    let plain = memory::query(page.start).is_some_and(|info| memory::is_plain(&info));
    if plain && here.saturating_sub(page.end()) > ROOM_OF_OTHERS {
        // SAFETY: the page lies in this thread's own stack, below all that it uses; growing down to it takes the guard away.
        let guarded = unsafe { memory::guard(page) };
        // Without it an overflow ends the process without a report.
        let _ = guarded;
    }
}

/// Runs `work` with `argument` on the stack; false when it could not be had.
///
/// # Safety
/// `work` must be safe to call with `argument`, and must come back.
pub(super) unsafe fn run(work: extern "C" fn(usize), argument: usize) -> bool {
    let start = START.load(Ordering::Acquire);
    let own = Host.thread_id();
    if start == 0 || OWNER.load(Ordering::Acquire) == own {
        return false;
    }
    let begun = Host.now_ms();
    while OWNER.compare_exchange(0, own, Ordering::AcqRel, Ordering::Relaxed).is_err() {
        if Host.now_ms().saturating_sub(begun) > WAIT_MAX_MS {
            return false;
        }
        Host.pause();
    }
    // SAFETY: the stack is ours while we own it; the rest is the caller's promise.
    unsafe { stack::run(Range { start, len: LEN }, work, argument) };
    OWNER.store(0, Ordering::Release);
    true
}
