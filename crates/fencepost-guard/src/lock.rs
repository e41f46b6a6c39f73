//! The one lock of the runtime: small, never allocating, sound in a forked child once reset.
//!
//! Only slow paths take it (a new span, a dying thread, a dead span), so contention is rare and fairness does not
//! matter. The word is 0 when free, 1 when held, 2 when held and somebody waits. parking_lot would not do here:
//! its slow path allocates, and we are the allocator.

use fencepost_sys::atomic::{AtomicU32, Ordering};
use fencepost_sys::{Platform, Threads};

const FREE: u32 = 0;
const HELD: u32 = 1;
const AWAITED: u32 = 2;
/// Turns of the loop before a waiter sleeps: about as long as the longest hold without a system call.
const SPINS: u32 = 64;

/// A lock that guards no data of its own.
pub(crate) struct Lock {
    word: AtomicU32,
}

/// Holds the lock until dropped.
pub(crate) struct Held<'a, P: Threads> {
    lock: &'a Lock,
    platform: &'a P,
}

impl Lock {
    pub(crate) const fn new() -> Self {
        Lock { word: AtomicU32::new(FREE) }
    }

    /// Takes the lock, waiting as long as it needs.
    pub(crate) fn hold<'a, P: Threads>(&'a self, platform: &'a P) -> Held<'a, P> {
        self.acquire(platform);
        Held { lock: self, platform }
    }

    /// Takes the lock without a guard value, for the two sides of a fork.
    pub(crate) fn acquire<P: Threads>(&self, platform: &P) {
        for _ in 0..SPINS {
            if self.word.compare_exchange_weak(FREE, HELD, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                return;
            }
            core::hint::spin_loop();
        }
        // Whoever gets the lock here leaves it marked as awaited: at worst one wake too many.
        while self.word.swap(AWAITED, Ordering::Acquire) != FREE {
            platform.wait(&self.word, AWAITED);
        }
    }

    /// Takes the lock if it comes free within some milliseconds.
    pub(crate) fn acquire_within<P: Platform>(&self, platform: &P, ms: u64) -> bool {
        let since = platform.now_ms();
        while self.word.compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed).is_err() {
            if platform.now_ms().saturating_sub(since) > ms {
                return false;
            }
            platform.pause();
        }
        true
    }

    /// Gives the lock back; the counterpart of [`Lock::acquire`].
    pub(crate) fn release<P: Threads>(&self, platform: &P) {
        if self.word.swap(FREE, Ordering::Release) == AWAITED {
            platform.wake(&self.word);
        }
    }
}

impl<P: Threads> Drop for Held<'_, P> {
    fn drop(&mut self) {
        self.lock.release(self.platform);
    }
}
