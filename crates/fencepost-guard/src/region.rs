//! Memory of our own that grows in place: tables whose upper bound is reserved and which are committed as needed.

use fencepost_sys::atomic::{AtomicUsize, Ordering};
use fencepost_sys::{Memory, Range, VmError, VmResult};

/// How far a table is committed ahead of need, in bytes.
const STEP: usize = 1 << 20;

/// A reserved range whose first part is committed.
pub(crate) struct Region {
    start: AtomicUsize,
    len: AtomicUsize,
    committed: AtomicUsize,
}

impl Region {
    pub(crate) const fn new() -> Self {
        Region { start: AtomicUsize::new(0), len: AtomicUsize::new(0), committed: AtomicUsize::new(0) }
    }

    /// Reserves room for `len` bytes.
    pub(crate) fn reserve<M: Memory>(&self, memory: &M, len: usize) -> VmResult {
        let unit = memory.granularity();
        let len = crate::geometry::align_up(len, unit).ok_or(VmError::OutOfMemory)?;
        let start = memory.reserve(len, unit)?;
        self.start.store(start, Ordering::Relaxed);
        self.len.store(len, Ordering::Relaxed);
        Ok(())
    }

    /// Gives the whole range back.
    pub(crate) fn release<M: Memory>(&self, memory: &M) {
        let range = self.range();
        if range.len != 0 {
            // SAFETY: the range is this region's reservation, and the runtime that used it has not started.
            let released = unsafe { memory.release(range) };
            // A range that cannot be given back stays reserved: addresses only, no memory.
            let _ = released;
            self.len.store(0, Ordering::Relaxed);
            self.committed.store(0, Ordering::Relaxed);
        }
    }

    /// The reserved addresses.
    pub(crate) fn range(&self) -> Range {
        Range { start: self.start.load(Ordering::Relaxed), len: self.len.load(Ordering::Relaxed) }
    }

    /// Bytes committed.
    pub(crate) fn committed(&self) -> usize {
        self.committed.load(Ordering::Acquire)
    }

    /// Makes the first `len` bytes usable. The caller holds the runtime's lock, or is alone.
    pub(crate) fn ensure<M: Memory>(&self, memory: &M, len: usize) -> VmResult {
        let committed = self.committed();
        if len <= committed {
            return Ok(());
        }
        let range = self.range();
        if len > range.len {
            return Err(VmError::OutOfMemory);
        }
        let page = memory.page_size();
        let ahead = committed.saturating_add(STEP).max(len).min(range.len);
        let target = crate::geometry::align_up(ahead, page).ok_or(VmError::OutOfMemory)?.min(range.len);
        let more = Range { start: range.start.wrapping_add(committed), len: target.wrapping_sub(committed) };
        // SAFETY: `more` is the uncommitted part of this region's own reservation.
        unsafe { memory.commit(more) }?;
        self.committed.store(target, Ordering::Release);
        Ok(())
    }

    /// The `index`-th `T` of the table.
    ///
    /// # Safety
    /// As for [`Region::get`], and the table must be committed that far.
    #[inline(always)]
    pub(crate) unsafe fn at<T: Sync>(&self, index: usize) -> &'static T {
        let offset = index.wrapping_mul(size_of::<T>());
        let address = self.start.load(Ordering::Relaxed).wrapping_add(offset);
        // SAFETY: as below; that the address is committed is the caller's word, and then it is not null.
        unsafe {
            core::hint::assert_unchecked(address != 0);
            &*(address as *const T)
        }
    }

    /// The `index`-th `T` of the table, if that part is committed.
    ///
    /// # Safety
    /// The region must hold a table of `T` only, and `T` must be valid when zeroed and shareable between threads.
    #[inline(always)]
    pub(crate) unsafe fn get<T: Sync>(&self, index: usize) -> Option<&'static T> {
        const { assert!(size_of::<T>() < 1 << 16, "a number below a count of bytes times this does not wrap") };
        // No division and no call: several of these are in each block's way, also without optimisation.
        let committed = self.committed.load(Ordering::Acquire);
        let end = index.wrapping_add(1).wrapping_mul(size_of::<T>());
        if index >= committed || end > committed {
            return None;
        }
        let offset = index.wrapping_mul(size_of::<T>());
        let address = self.start.load(Ordering::Relaxed).wrapping_add(offset);
        // SAFETY: the address lies in the committed part, which is never given back while the runtime lives; it is
        // aligned because the region starts on a page and `T`'s size is a multiple of its alignment; zeroed memory
        // is a valid `T` by the caller's word.
        Some(unsafe { &*(address as *const T) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_committed_is_not_there_whatever_its_number() {
        let table: [AtomicUsize; 5] = [1, 2, 3, 4, 5].map(AtomicUsize::new);
        let committed = 3 * size_of::<AtomicUsize>() + 1;
        let region = Region::new();
        region.start.store(table.as_ptr().addr(), Ordering::Relaxed);
        region.committed.store(committed, Ordering::Relaxed);
        // SAFETY: the region is the table, which outlives what is given here.
        let found = |index| unsafe { region.get::<AtomicUsize>(index) }.map(|at| at.load(Ordering::Relaxed));
        assert_eq!([0, 2, 3].map(found), [Some(1), Some(3), None]);
        for index in
            [committed - 1, committed, 1 << 61, (1 << 61) - 1, usize::MAX / 8, usize::MAX - 1, usize::MAX]
        {
            assert_eq!(found(index), None, "{index:#x}");
        }
        region.committed.store(0, Ordering::Relaxed);
        assert_eq!(found(0), None);
    }
}
