//! Many blocks alive at once: the time to build and to free the set, and what it costs in memory and mappings.

use std::alloc::{Layout, alloc, dealloc};
use std::sync::atomic::{AtomicU64, Ordering};

use super::clock::{Reading, Spent};
use super::process::{self, Mapping};

/// Size of every block.
const LAYOUT: Layout = Layout::new::<[u64; 8]>();
/// Step through the set when it is freed: a prime, so that blocks do not die in the order in which they were born.
const STRIDE: usize = 7919;

/// A set of blocks that are alive together.
pub struct Set {
    count: usize,
    /// The blocks' addresses, in memory that the measured allocator knows nothing of.
    table: Mapping,
    /// Where the parent process reads how many blocks are alive, also when this one has died.
    progress: Option<Mapping>,
}

/// What the built set costs.
pub struct Built {
    pub spent: Spent,
    /// Resident bytes for a block, page tables included.
    pub bytes: f64,
    /// Of these, bytes of page tables.
    pub tables: f64,
    /// Mappings of the whole process.
    pub mappings: u64,
}

impl Set {
    /// Room for `count` addresses. `progress` is the descriptor of a file of at least 8 bytes.
    pub fn new(count: usize, progress: i32) -> Result<Set, String> {
        if count == 0 || count.is_multiple_of(STRIDE) {
            return Err(format!("a set of {count} blocks cannot be walked in steps of {STRIDE}"));
        }
        let table = Mapping::anonymous(count * size_of::<usize>())?;
        let progress = Some(Mapping::shared(progress, size_of::<AtomicU64>())?);
        let set = Set { count, table, progress };
        // Its pages are there before the set's memory is measured.
        (0..count).for_each(|index| set.entry(index).store(0, Ordering::Relaxed));
        Ok(set)
    }

    /// The same for nobody who waits.
    pub fn alone(count: usize) -> Result<Set, String> {
        let set = Set { count, table: Mapping::anonymous(count * size_of::<usize>())?, progress: None };
        (0..count).for_each(|index| set.entry(index).store(0, Ordering::Relaxed));
        Ok(set)
    }

    fn entry(&self, index: usize) -> &AtomicU64 {
        assert!(index < self.count, "{index} is outside the table");
        // SAFETY: the mapping is `count` words long, page-aligned, and alive as long as `self`.
        unsafe { &*self.table.start().cast::<AtomicU64>().add(index) }
    }

    fn tell(&self, alive: u64) {
        if let Some(progress) = &self.progress {
            // SAFETY: the mapping is at least one word long, page-aligned, and alive as long as `self`.
            unsafe { &*progress.start().cast::<AtomicU64>() }.store(alive, Ordering::Relaxed);
        }
    }

    /// Allocates every block and touches both its ends.
    pub fn build(&self) -> Result<Built, String> {
        let before = process::memory()?;
        let start = Reading::now();
        for index in 0..self.count {
            // SAFETY: the layout is not of size zero.
            let block = unsafe { alloc(LAYOUT) };
            if block.is_null() {
                return Err(format!("no memory for block number {index}"));
            }
            // SAFETY: the block was allocated just now with this layout.
            unsafe {
                block.write_volatile(1);
                block.add(LAYOUT.size() - 1).write_volatile(2);
            }
            self.entry(index).store(block.expose_provenance() as u64, Ordering::Relaxed);
            self.tell(index as u64 + 1);
        }
        let spent = start.per_round(self.count as u64);
        let after = process::memory()?;
        let share = |after: u64, before: u64| after.saturating_sub(before) as f64 / self.count as f64;
        let tables = share(after.tables, before.tables);
        let bytes = share(after.resident, before.resident) + tables;
        Ok(Built { spent, bytes, tables, mappings: process::mappings()? })
    }

    /// Frees every block, in another order.
    pub fn free(self) -> Result<Spent, String> {
        let start = Reading::now();
        let mut index = 0;
        for _ in 0..self.count {
            let address = self.entry(index).swap(0, Ordering::Relaxed) as usize;
            // SAFETY: `build` filled the table with blocks of this layout; the stride shares no divisor with the count,
            // so that each is visited, and freed, once.
            unsafe { dealloc(std::ptr::with_exposed_provenance_mut(address), LAYOUT) };
            index = (index + STRIDE) % self.count;
        }
        Ok(start.per_round(self.count as u64))
    }
}
