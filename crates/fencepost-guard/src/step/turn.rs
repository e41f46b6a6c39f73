//! Whose turn it is to step, or to change what sealed pages allow.
//!
//! Not a [`crate::lock::Lock`]: it is held while the program's own instruction runs, so its holder is known by
//! thread, and a holder that does not come back loses it.

use core::sync::atomic::{AtomicU64, Ordering};

use fencepost_sys::Platform;

/// How long a turn may last without news, in milliseconds. A step is a few instructions of work; this is for a busy
/// machine.
const ABANDONED_MS: u64 = 2_000;
/// How many rounds of a repeated instruction pass between two looks at the clock.
const RENEWED_EVERY: usize = 1024;

/// How the turn was had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It was free.
    New,
    /// Another thread had it and did not come back.
    FromAbandoned,
    /// This thread had it already.
    Held,
}

/// The turn: 0 when it is free, else the holder's process and thread.
pub(crate) struct Turn {
    holder: AtomicU64,
    /// When the holder was last heard of, in milliseconds.
    since: AtomicU64,
}

impl Turn {
    pub(super) const fn new() -> Self {
        Turn { holder: AtomicU64::new(0), since: AtomicU64::new(0) }
    }

    fn own<P: Platform>(platform: &P) -> u64 {
        (u64::from(platform.process_id()) << 32) | u64::from(platform.thread_id())
    }

    /// Whether this thread has it.
    pub(super) fn is_mine<P: Platform>(&self, platform: &P) -> bool {
        let holder = self.holder.load(Ordering::Acquire);
        holder != 0 && holder == Self::own(platform)
    }

    /// Takes it, waiting as long as the holder is heard of.
    pub(super) fn take<P: Platform>(&self, platform: &P) -> Taken {
        let own = Self::own(platform);
        loop {
            let holder = self.holder.load(Ordering::Acquire);
            if holder == own {
                return Taken::Held;
            }
            let now = platform.now_ms();
            let heard = now.saturating_sub(self.since.load(Ordering::Relaxed)) < ABANDONED_MS;
            if (holder == 0 || !heard)
                && self.holder.compare_exchange(holder, own, Ordering::AcqRel, Ordering::Relaxed).is_ok()
            {
                self.since.store(now, Ordering::Relaxed);
                return if holder == 0 { Taken::New } else { Taken::FromAbandoned };
            }
            platform.pause();
        }
    }

    /// Takes it for a change that is no step; false when this thread has it already (in a handler that interrupted it).
    pub(crate) fn take_for_change<P: Platform>(&self, platform: &P) -> bool {
        self.take(platform) != Taken::Held
    }

    /// Waits until another thread's turn has ended, if there is one.
    pub(crate) fn wait_out<P: Platform>(&self, platform: &P) {
        let holder = self.holder.load(Ordering::Acquire);
        while holder != 0
            && holder != Self::own(platform)
            && self.holder.load(Ordering::Acquire) == holder
            && platform.now_ms().saturating_sub(self.since.load(Ordering::Relaxed)) < ABANDONED_MS
        {
            platform.pause();
        }
    }

    /// Says that the holder is still at it.
    pub(super) fn renew<P: Platform>(&self, platform: &P, rounds: usize) {
        if rounds.is_multiple_of(RENEWED_EVERY) {
            self.since.store(platform.now_ms(), Ordering::Relaxed);
        }
    }

    /// Gives it back, whoever has it: also on both sides of a fork.
    pub(crate) fn give_back(&self) {
        self.holder.store(0, Ordering::Release);
    }
}
