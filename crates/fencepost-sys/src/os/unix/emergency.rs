//! A stack for handlers whose own is too small.
//!
//! A thread may fault before it has an alternate stack of ours: on the 8 KiB that the standard library gives its
//! threads, of which the kernel's frame takes up to half. A handler that overflows there faults just outside, where
//! the kernel sees nobody on the stack and starts at its top again, for ever. So such a thread borrows this one; the
//! others wait their turn.

use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use super::chain::Delivery;
use super::raw::{process_id, thread_id};
use super::{Host, signal_calls, stack};
use crate::Threads;

/// End of the stack; 0 before there is one.
static TOP: AtomicUsize = AtomicUsize::new(0);
/// Whose it is: the process in the upper half, the thread in the lower; 0 when it is free.
static OWNER: AtomicU64 = AtomicU64::new(0);
/// How often it was given back: what those who wait look at.
static FREED: AtomicU32 = AtomicU32::new(0);

/// Makes the stack, once. One caller at a time.
pub(super) fn prepare() {
    if TOP.load(Ordering::Relaxed) == 0
        && let Ok(range) = stack::create()
    {
        TOP.store(range.end(), Ordering::Release);
    }
}

/// Runs `work` with `argument`, here if there is room, else on the emergency stack.
pub(super) fn run(delivery: &Delivery, work: extern "C" fn(usize), argument: usize) {
    let top = TOP.load(Ordering::Acquire);
    if top == 0 || !is_cramped(delivery) {
        work(argument);
        return;
    }
    take();
    let back = AtomicUsize::new(0);
    // SAFETY: the stack is this thread's as long as it owns it. Nobody abandons this call: `back` is ours alone.
    unsafe { stack::away(top, work, argument, &back) };
    OWNER.store(0, Ordering::Release);
    FREED.fetch_add(1, Ordering::Release);
    Host.wake(&FREED);
}

/// Whether this handler runs on an alternate stack with little room left.
fn is_cramped(delivery: &Delivery) -> bool {
    // SAFETY: the kernel hands a handler a valid context.
    let alternate = unsafe { signal_calls::alternate_of(delivery.context) };
    let local = 0u8;
    let room = (&raw const local).addr().wrapping_sub(alternate.ss_sp.addr());
    alternate.ss_flags & libc::SS_DISABLE == 0 && room < alternate.ss_size && room < stack::STACK_ENOUGH / 2
}

fn take() {
    let process = u64::from(process_id() as u32);
    let own = (process << 32) | u64::from(thread_id() as u32);
    loop {
        let freed = FREED.load(Ordering::Acquire);
        let owner = OWNER.load(Ordering::Relaxed);
        // An owner of another process was another thread's at the moment of a fork.
        let free = owner == 0 || owner >> 32 != process;
        if free && OWNER.compare_exchange(owner, own, Ordering::Acquire, Ordering::Relaxed).is_ok() {
            return;
        }
        Host.wait(&FREED, freed);
    }
}
