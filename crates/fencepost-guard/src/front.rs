//! The front: each thread keeps, in a small cache of its own with two places for each key, how often a context may still
//! pass there without anybody being asked. The passes are counted in the table (`contexts.rs`) when they are given; what is left is
//! taken off again when the place is needed for another context, and when the thread ends.

use fencepost_sys::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::contexts::Contexts;
use crate::threads::ThreadState;

/// Places in a thread's front; a power of two.
const FRONT: usize = 1 << 12;
/// Places that a key may have, side by side in one cache line.
const WAYS: usize = 2;
/// Bytes of a thread's front.
pub(crate) const FRONT_BYTES: usize = FRONT * size_of::<Pass>();

/// How often a context may pass on one thread.
#[repr(C)]
pub(crate) struct Pass {
    key: AtomicU64,
    left: AtomicU32,
    /// Its number in the table.
    context: AtomicU32,
}

impl Pass {
    /// A thread's places for a key.
    #[inline]
    fn ways(state: &ThreadState, key: u64) -> Option<&'static [Pass; WAYS]> {
        let first = Pass::at(state, key as usize >> 8 & FRONT.wrapping_sub(WAYS))?;
        // SAFETY: a front has a whole number of such groups, and `first` is the first place of one.
        Some(unsafe { &*core::ptr::from_ref(first).cast::<[Pass; WAYS]>() })
    }

    /// Takes one pass of a key on this thread, if there is one.
    #[inline]
    pub(crate) fn take_one(state: &ThreadState, key: u64) -> bool {
        let Some([one, other]) = Pass::ways(state, key) else { return false };
        one.take(key) || other.take(key)
    }

    /// The place for a key's passes: its own if it has one, else the one where the least is lost.
    pub(crate) fn place_for(state: &ThreadState, key: u64) -> Option<&'static Pass> {
        let passes_lost = |place: &&Pass| match place.key.load(Ordering::Relaxed) == key {
            true => 0,
            false => u64::from(place.left.load(Ordering::Relaxed)).wrapping_add(1),
        };
        Pass::ways(state, key)?.iter().min_by_key(passes_lost)
    }

    #[inline]
    fn at(state: &ThreadState, index: usize) -> Option<&'static Pass> {
        let front = state.front.load(Ordering::Relaxed);
        if front == 0 {
            return None;
        }
        let address = front.wrapping_add(index.wrapping_mul(size_of::<Pass>()));
        // SAFETY: a front that is not 0 is the address of `FRONT` places of this thread's, in a table that is committed
        // and never given back; `index` is below that; a `Pass` is made of atomics and valid when zeroed.
        Some(unsafe { &*(address as *const Pass) })
    }

    /// Takes one pass of a key, if there is one.
    #[inline]
    fn take(&self, key: u64) -> bool {
        let left = self.left.load(Ordering::Relaxed);
        if left == 0 || self.key.load(Ordering::Relaxed) != key {
            return false;
        }
        self.left.store(left.wrapping_sub(1), Ordering::Relaxed);
        true
    }

    /// Gives a context this place, with passes that are counted from here on.
    pub(crate) fn give(
        &self,
        state: &ThreadState,
        contexts: &Contexts,
        key: u64,
        context: usize,
        passes: u32,
    ) {
        self.settle(state, contexts);
        self.key.store(key, Ordering::Relaxed);
        self.context.store(u32::try_from(context).unwrap_or(0), Ordering::Relaxed);
        self.left.store(passes, Ordering::Relaxed);
        if let Some(context) = contexts.at(context) {
            context.uses.fetch_add(u64::from(passes), Ordering::Relaxed);
        }
        state.count_passed(u64::from(passes));
    }

    /// Passes that were not used are no longer counted.
    fn settle(&self, state: &ThreadState, contexts: &Contexts) {
        let left = u64::from(self.left.swap(0, Ordering::Relaxed));
        if left == 0 {
            return;
        }
        if let Some(context) = contexts.at(self.context.load(Ordering::Relaxed) as usize) {
            // A context that was renamed meanwhile has none.
            let less = |uses: u64| Some(uses.saturating_sub(left));
            let updated = context.uses.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
            debug_assert!(updated.is_ok());
        }
        state.count_passed(0u64.wrapping_sub(left));
    }

    /// All that a thread has counted and not used.
    pub(crate) fn counted_ahead(state: &ThreadState) -> u64 {
        let places = (0..FRONT).filter_map(|index| Pass::at(state, index));
        places.fold(0u64, |sum, place| sum.wrapping_add(u64::from(place.left.load(Ordering::Relaxed))))
    }

    /// The thread ends: its places are empty for the next thread that has them.
    pub(crate) fn settle_all(state: &ThreadState, contexts: &Contexts) {
        for place in (0..FRONT).filter_map(|index| Pass::at(state, index)) {
            place.settle(state, contexts);
            place.key.store(0, Ordering::Relaxed);
        }
    }
}
