//! Whose turn it is to step, or to change what sealed pages allow.
//!
//! Not a [`crate::lock::Lock`]: it is held while the program's own instruction runs, so its holder is known by
//! thread, and a holder that does not come back loses it.

use fencepost_sys::Platform;
use fencepost_sys::atomic::{AtomicU64, Ordering};

/// How long who waits sees no news of a turn before it is taken for left, in milliseconds. A step is a few
/// instructions of work; this is for a busy machine.
const ABANDONED_MS: u64 = 2_000;
/// How many rounds of a repeated instruction pass between two beats.
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
    /// Counts up with each turn, and now and then within a long one.
    beats: AtomicU64,
}

/// What a waiting thread has seen, and since when: it goes by its own clock, because a holder may be stopped anywhere.
struct Wait {
    seen: (u64, u64),
    since: u64,
}

impl Turn {
    pub(super) const fn new() -> Self {
        Turn { holder: AtomicU64::new(0), beats: AtomicU64::new(0) }
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
        let mut wait = None;
        loop {
            let holder = self.holder.load(Ordering::Acquire);
            if holder == own {
                return Taken::Held;
            }
            if (holder == 0 || self.is_left(platform, holder, &mut wait))
                && self.holder.compare_exchange(holder, own, Ordering::AcqRel, Ordering::Relaxed).is_ok()
            {
                self.beats.fetch_add(1, Ordering::Relaxed);
                return if holder == 0 { Taken::New } else { Taken::FromAbandoned };
            }
            platform.pause();
        }
    }

    /// Whether nothing has been heard of a holder since this thread began to wait for it.
    fn is_left<P: Platform>(&self, platform: &P, holder: u64, wait: &mut Option<Wait>) -> bool {
        let seen = (holder, self.beats.load(Ordering::Relaxed));
        let now = platform.now_ms();
        match wait {
            Some(wait) if wait.seen == seen => now.saturating_sub(wait.since) >= ABANDONED_MS,
            _ => {
                *wait = Some(Wait { seen, since: now });
                false
            }
        }
    }

    /// Takes it for a change that is no step; false when this thread has it already (in a handler that interrupted it).
    pub(crate) fn take_for_change<P: Platform>(&self, platform: &P) -> bool {
        self.take(platform) != Taken::Held
    }

    /// Waits until another thread's turn has ended, if there is one.
    pub(crate) fn wait_out<P: Platform>(&self, platform: &P) {
        let holder = self.holder.load(Ordering::Acquire);
        if holder == 0 || holder == Self::own(platform) {
            return;
        }
        let mut wait = None;
        while self.holder.load(Ordering::Acquire) == holder && !self.is_left(platform, holder, &mut wait) {
            platform.pause();
        }
    }

    /// Says that the holder is still at it.
    pub(super) fn renew(&self, rounds: usize) {
        if rounds.is_multiple_of(RENEWED_EVERY) {
            self.beats.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Gives it back, unless it was lost to another meanwhile: whose turn it is then goes on.
    pub(crate) fn give_back<P: Platform>(&self, platform: &P) {
        let own = Self::own(platform);
        // A failure is that.
        let _ = self.holder.compare_exchange(own, 0, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// Takes it from whoever has it: on both sides of a fork, of which one has another number than the holder.
    pub(crate) fn clear(&self) {
        self.holder.store(0, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use fencepost_sys::sim::Sim;

    use super::*;

    #[test]
    fn who_has_lost_a_turn_does_not_end_the_next() {
        let (turn, sim) = (Turn::new(), Sim::new());
        assert_eq!(turn.take(&sim), Taken::New);
        assert_eq!(turn.take(&sim), Taken::Held);
        std::thread::scope(|scope| {
            let other = scope.spawn(|| {
                let moves = || sim.advance_ms(ABANDONED_MS);
                std::thread::scope(|inner| {
                    let waits = inner.spawn(|| turn.take(&sim));
                    while !waits.is_finished() {
                        moves();
                        std::thread::yield_now();
                    }
                    waits.join().expect("a thread")
                })
            });
            assert_eq!(other.join().expect("a thread"), Taken::FromAbandoned);
        });
        assert!(!turn.is_mine(&sim));
        let holder = turn.holder.load(Ordering::Relaxed);
        turn.give_back(&sim);
        assert_eq!(turn.holder.load(Ordering::Relaxed), holder, "it is not this thread's");
        turn.clear();
        assert_eq!(turn.take(&sim), Taken::New);
        turn.give_back(&sim);
        assert!(!turn.is_mine(&sim));
    }
}
