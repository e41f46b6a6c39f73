//! Programs that limit their own memory: what this runtime has taken of a limit, and what it leaves of the rest.

use core::sync::atomic::Ordering;

use fencepost_sys::Platform;

use crate::geometry::align_up;
use crate::options::MaxMemory;
use crate::pattern::FILL_RANGE;
use crate::runtime::{Guard, Setup};
use crate::start::AVAILABLE_SHARE;

/// What the runtime has of its own, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Addresses that it has reserved.
    pub addresses: u64,
    /// Of these, memory that may be written to, or might be when it was opened.
    pub data: u64,
}

impl<P: Platform> Guard<P> {
    /// What the runtime has taken of the process's addresses and writable memory; nothing where it guards nothing.
    pub fn taken(&self) -> Taken {
        let Some(setup) = self.ready() else { return Taken::default() };
        let threads = &self.threads;
        let parts = [
            &self.heap.regions()[..],
            &self.depot.regions(),
            &self.filters.regions(),
            &[&threads.states, &threads.names, &threads.fronts, &threads.trace_memories],
            &self.contexts.regions(),
            &self.arena.regions(),
            &self.remains.regions(),
            &self.reporter.regions(),
            &[&self.misc],
        ];
        let mut taken = Taken { addresses: 0, data: self.heap.opened_bytes() };
        for region in parts.into_iter().flatten() {
            taken.addresses = taken.addresses.saturating_add(region.range().len as u64);
            taken.data = taken.data.saturating_add(region.committed() as u64);
        }
        taken.data = taken.data.saturating_add(setup.report_stack.len as u64);
        if setup.keeps_fill {
            taken.addresses = taken.addresses.saturating_add(FILL_RANGE.len as u64);
        }
        taken
    }

    /// The program has set limits on its memory (or lifted them, where it is not `limited`): guarded blocks share what
    /// is left with it, as at the start, and of its addresses no more than `more` bytes are opened for them, if that is given.
    pub fn share_what_is_left(&self, limited: bool, more: Option<u64>) {
        let Some(setup) = self.ready() else { return };
        self.heap.fence(more);
        // Who says that nothing limits guarding means this as well.
        let limited = limited && setup.options.max_memory != MaxMemory::None;
        let available = self.platform.available().filter(|_| limited);
        let room = available.map(|bytes| bytes.saturating_sub(bytes / AVAILABLE_SHARE));
        self.limits.leave_room(&setup.bounds, self.table_bytes(), room);
    }

    /// Bytes that guarded blocks hold now: their pages, of a large block one.
    pub fn held_by_blocks(&self) -> u64 {
        let untold = self.threads.owned().map(|state| state.held_delta.load(Ordering::Relaxed));
        self.limits.held_with(untold.fold(0, u64::wrapping_add))
    }

    /// What a large block holds where all of it is counted.
    pub(crate) fn whole_of(&self, setup: &Setup, size: usize) -> u64 {
        align_up(size, setup.geometry().page()).unwrap_or(size) as u64
    }

    /// Whether all of a large block is counted.
    pub(crate) fn is_counted(&self, index: usize) -> bool {
        self.heap.span(index).is_some_and(|span| span.counted.load(Ordering::Relaxed) != 0)
    }
}
