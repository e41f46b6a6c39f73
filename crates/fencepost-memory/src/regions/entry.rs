//! The table of regions: entries of atomic words, in blocks that form a chain.
//!
//! A writer makes an entry's version odd, changes its words, and makes it even again; a reader copies the words and
//! believes the copy only if the version was even before and the same after. `frontier`, `peak` and the committed bytes
//! change without that: each is right by itself.

use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use super::{NAME_MAX, Region, RegionKind};

const NAME_WORDS: usize = NAME_MAX / 8;
const FREE: u32 = 0;
const TAKEN: u32 = 1;

/// One reservation's words. A cache line and its neighbour to itself: allocators of different threads write here.
#[repr(align(128))]
#[derive(Debug)]
pub(crate) struct Entry {
    state: AtomicU32,
    /// Odd while the words below are being replaced.
    version: AtomicU32,
    /// One past the last byte in use. The allocator's own state.
    pub(crate) frontier: AtomicUsize,
    /// One past the last byte that the allocator may use without committing. Its own state as well.
    pub(crate) limit: AtomicUsize,
    peak: AtomicUsize,
    committed: AtomicUsize,
    start: AtomicUsize,
    len: AtomicUsize,
    guards: [AtomicUsize; 2],
    stride: AtomicUsize,
    slot: AtomicUsize,
    slot_guard: AtomicUsize,
    kind: AtomicU32,
    name: [AtomicU64; NAME_WORDS],
}

impl Entry {
    const fn new() -> Entry {
        Entry {
            state: AtomicU32::new(FREE),
            version: AtomicU32::new(0),
            frontier: AtomicUsize::new(0),
            limit: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            committed: AtomicUsize::new(0),
            start: AtomicUsize::new(0),
            len: AtomicUsize::new(0),
            guards: [const { AtomicUsize::new(0) }; 2],
            stride: AtomicUsize::new(0),
            slot: AtomicUsize::new(0),
            slot_guard: AtomicUsize::new(0),
            kind: AtomicU32::new(0),
            name: [const { AtomicU64::new(0) }; NAME_WORDS],
        }
    }

    /// Takes an entry for a new reservation.
    pub(crate) fn take(
        kind: RegionKind,
        start: usize,
        len: usize,
        guards: [usize; 2],
        name: &str,
    ) -> &'static Entry {
        let entry = free_entry();
        entry.version.fetch_add(1, Ordering::AcqRel);
        let mut bytes = [0; NAME_MAX];
        for (place, byte) in bytes.iter_mut().zip(name.bytes()) {
            *place = byte;
        }
        for (word, bytes) in entry.name.iter().zip(bytes.chunks_exact(8)) {
            word.store(
                bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)),
                Ordering::Relaxed,
            );
        }
        entry.kind.store(kind as u32, Ordering::Relaxed);
        entry.len.store(len, Ordering::Relaxed);
        for (word, bytes) in entry.guards.iter().zip(guards) {
            word.store(bytes, Ordering::Relaxed);
        }
        for word in [
            &entry.frontier,
            &entry.peak,
            &entry.committed,
            &entry.limit,
            &entry.stride,
            &entry.slot,
            &entry.slot_guard,
        ] {
            word.store(0, Ordering::Relaxed);
        }
        entry.start.store(start, Ordering::Relaxed);
        entry.version.fetch_add(1, Ordering::Release);
        entry
    }

    /// Ends the entry's use; its words are another's after this.
    pub(crate) fn give_back(&self) {
        self.version.fetch_add(1, Ordering::AcqRel);
        self.start.store(0, Ordering::Relaxed);
        self.len.store(0, Ordering::Relaxed);
        self.version.fetch_add(1, Ordering::Release);
        self.state.store(FREE, Ordering::Release);
    }

    pub(crate) fn set_committed_bytes(&self, bytes: usize) {
        self.committed.store(bytes, Ordering::Relaxed);
    }

    pub(crate) fn set_slots(&self, stride: usize, slot: usize, guard: usize) {
        self.slot_guard.store(guard, Ordering::Relaxed);
        self.slot.store(slot, Ordering::Relaxed);
        self.stride.store(stride, Ordering::Relaxed);
    }

    /// Winds the frontier back, and remembers how far it had come.
    pub(crate) fn wind_back(&self, to: usize) {
        let from = self.frontier.load(Ordering::Relaxed);
        self.peak.fetch_max(from, Ordering::Relaxed);
        self.frontier.store(to, Ordering::Relaxed);
    }

    /// A copy, if the entry is in use and does not change under our eyes.
    pub(super) fn copy(&self) -> Option<Region> {
        for _ in 0..8 {
            let version = self.version.load(Ordering::Acquire);
            if version & 1 != 0 {
                core::hint::spin_loop();
                continue;
            }
            let load = |word: &AtomicUsize| word.load(Ordering::Relaxed);
            let mut name = [0; NAME_MAX];
            for (bytes, word) in name.chunks_exact_mut(8).zip(&self.name) {
                bytes.copy_from_slice(&word.load(Ordering::Relaxed).to_le_bytes());
            }
            let kind = self.kind.load(Ordering::Relaxed);
            let region = Region {
                kind: RegionKind::ALL.into_iter().find(|known| *known as u32 == kind).unwrap_or_default(),
                name,
                start: load(&self.start),
                reserved: load(&self.len),
                committed: load(&self.committed),
                frontier: load(&self.frontier),
                peak: load(&self.peak),
                stride: load(&self.stride),
                slot: load(&self.slot),
                slot_guard: load(&self.slot_guard),
                guards: [load(&self.guards[0]), load(&self.guards[1])],
            };
            core::sync::atomic::fence(Ordering::Acquire);
            if self.version.load(Ordering::Relaxed) == version {
                return (region.start != 0).then_some(region);
            }
        }
        None
    }
}

const BLOCK: usize = 64;

/// Entries that are taken together. The first block is static, further ones are never freed.
struct Block {
    entries: [Entry; BLOCK],
    next: AtomicPtr<Block>,
}

impl Block {
    const fn new() -> Block {
        Block { entries: [const { Entry::new() }; BLOCK], next: AtomicPtr::new(ptr::null_mut()) }
    }

    fn next(&self) -> Option<&'static Block> {
        // SAFETY: the pointer is null or comes from `Box::leak`, stored with Release after the block was made.
        unsafe { self.next.load(Ordering::Acquire).as_ref() }
    }
}

static FIRST: Block = Block::new();

fn free_entry() -> &'static Entry {
    let mut block = &FIRST;
    loop {
        for entry in &block.entries {
            if entry.state.load(Ordering::Relaxed) == FREE
                && entry.state.compare_exchange(FREE, TAKEN, Ordering::AcqRel, Ordering::Relaxed).is_ok()
            {
                return entry;
            }
        }
        block = match block.next() {
            Some(next) => next,
            None => more(block),
        };
    }
}

/// Adds a block behind the last one.
fn more(last: &'static Block) -> &'static Block {
    let new = Box::into_raw(Box::new(Block::new()));
    match last.next.compare_exchange(ptr::null_mut(), new, Ordering::AcqRel, Ordering::Acquire) {
        // SAFETY: the block was made above and is never freed.
        Ok(_) => unsafe { &*new },
        Err(other) => {
            // SAFETY: `new` was made above and nobody else has seen it; `other` is a block that is never freed.
            unsafe {
                drop(Box::from_raw(new));
                &*other
            }
        }
    }
}

pub(super) fn entries() -> impl Iterator<Item = &'static Entry> {
    let mut next = Some(&FIRST);
    core::iter::from_fn(move || {
        let block = next?;
        next = block.next();
        Some(block)
    })
    .flat_map(|block| &block.entries)
}

#[cfg(test)]
mod tests {
    use super::super::find;
    use super::*;

    #[test]
    fn names_are_cut_at_a_character() {
        let entry = Entry::take(RegionKind::Arena, 0x1000, 0x1000, [0, 0], &"ü".repeat(30));
        let region = entry.copy().expect("in use");
        assert_eq!(region.name(), "ü".repeat(20));
        let odd = Entry::take(RegionKind::Arena, 0x3000, 0x1000, [0, 0], &format!("x{}", "ü".repeat(30)));
        assert_eq!(odd.copy().expect("in use").name(), format!("x{}", "ü".repeat(19)));
        entry.give_back();
        odd.give_back();
        assert!(find(0x1000).is_none() && find(0x3000).is_none());
    }

    #[test]
    fn the_table_grows_and_its_entries_are_used_again() {
        let taken: Vec<_> = (0..3 * BLOCK)
            .map(|n| Entry::take(RegionKind::Pool, 0x7000_0000_0000 + n * 0x1000, 0x1000, [0, 0], "many"))
            .collect();
        let found = find(0x7000_0000_0000 + 150 * 0x1000).expect("the 151st");
        assert_eq!(found.start, 0x7000_0000_0000 + 150 * 0x1000);
        let blocks = entries().count();
        taken.iter().for_each(|entry| entry.give_back());
        let again: Vec<_> =
            (0..BLOCK).map(|_| Entry::take(RegionKind::Pool, 0x1000, 1, [0, 0], "")).collect();
        assert_eq!(entries().count(), blocks, "no new block while there are free entries");
        again.iter().for_each(|entry| entry.give_back());
    }
}
