//! What each thread counts.

use fencepost_record::{UNGUARDED_REASONS, Unguarded};
use fencepost_sys::atomic::{AtomicU64, Ordering};

/// Counters of one thread. Only their thread writes them; anyone may read.
#[repr(C)]
pub(crate) struct Counters {
    pub(crate) guarded: AtomicU64,
    pub(crate) freed: AtomicU64,
    pub(crate) unguarded: [AtomicU64; UNGUARDED_REASONS],
}

impl Counters {
    pub(crate) const fn new() -> Self {
        Counters {
            guarded: AtomicU64::new(0),
            freed: AtomicU64::new(0),
            unguarded: [const { AtomicU64::new(0) }; UNGUARDED_REASONS],
        }
    }

    /// Adds to a counter that only this thread writes: no locked instruction.
    #[inline(always)]
    pub(crate) fn bump(counter: &AtomicU64, by: u64) {
        counter.store(counter.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
    }

    /// Blocks guarded.
    pub(crate) fn guarded(&self) -> u64 {
        self.guarded.load(Ordering::Relaxed)
    }

    /// Guarded blocks freed.
    pub(crate) fn freed(&self) -> u64 {
        self.freed.load(Ordering::Relaxed)
    }

    /// Blocks that were not guarded, for one reason.
    pub(crate) fn unguarded_by(&self, why: Unguarded) -> u64 {
        self.unguarded.get(why as usize).map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    /// Counts a block that was not guarded.
    pub(crate) fn not_guarded(&self, why: Unguarded) {
        if let Some(counter) = self.unguarded.get(why as usize) {
            Self::bump(counter, 1);
        }
    }
}
