//! Every reservation of this process: what it is called, how much of it is used, and what an address in it means.
//!
//! A fault handler asks this, so nothing here waits: the table is a chain of blocks that only grows, an entry is made of
//! atomic words, and a reader that meets an entry in the middle of a change sees its version change and reads again, a
//! few times. Writers of one entry are its one owner. A few words of an entry are where its allocator keeps its own state
//! (`frontier`, `limit`), so that keeping the table true costs the allocators nothing.
//!
//! What an address means is decided by [`Region::place_of`], a pure function of an entry's copy.

use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use core::{fmt, ptr};

/// What a reservation is used as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
#[repr(u32)]
pub enum RegionKind {
    /// Used by the program directly.
    #[default]
    Reservation,
    /// A [`crate::growing::Arena`].
    Arena,
    /// A [`crate::growing::AppendArena`].
    AppendArena,
    /// A [`crate::growing::Stack`].
    Stack,
    /// A [`crate::growing::Pool`].
    Pool,
    /// A [`crate::growing::GrowVec`].
    Vector,
    /// A [`crate::growing::CallStack`].
    CallStack,
}

impl RegionKind {
    const ALL: [RegionKind; 7] = [
        RegionKind::Reservation,
        RegionKind::Arena,
        RegionKind::AppendArena,
        RegionKind::Stack,
        RegionKind::Pool,
        RegionKind::Vector,
        RegionKind::CallStack,
    ];

    /// The word that reports use.
    pub const fn name(self) -> &'static str {
        match self {
            RegionKind::Reservation => "reservation",
            RegionKind::Arena => "arena",
            RegionKind::AppendArena => "append-only arena",
            RegionKind::Stack => "stack",
            RegionKind::Pool => "pool",
            RegionKind::Vector => "vector",
            RegionKind::CallStack => "call stack",
        }
    }
}

/// The most bytes of a name that are kept.
pub const NAME_MAX: usize = 40;
const NAME_WORDS: usize = NAME_MAX / 8;

/// A copy of what is known about one reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Region {
    /// What it is used as.
    pub kind: RegionKind,
    name: [u8; NAME_MAX],
    /// The first usable address.
    pub start: usize,
    /// Usable bytes of addresses.
    pub reserved: usize,
    /// Bytes of memory committed.
    pub committed: usize,
    /// One past the last byte in use: exact for arenas and stacks, the end of what is committed for vectors; 0 where
    /// use does not grow from one end.
    pub frontier: usize,
    /// The highest that `frontier` was before it was wound back; 0 if it never was.
    pub peak: usize,
    /// Of a strict pool: bytes from one slot to the next.
    pub stride: usize,
    /// Of a strict pool: bytes of a slot, which ends at the end of a page with a closed one behind.
    pub slot: usize,
    /// Bytes of guard before the first usable address and after the last.
    pub guards: [usize; 2],
}

/// What an address is to a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// In the guard before it, so many bytes before the last byte there.
    Before {
        /// 0 is the byte next to the region.
        distance: usize,
    },
    /// In memory that is in use, so many bytes from the start (of the slot, in a strict pool).
    Inside {
        /// Bytes from the start.
        distance: usize,
    },
    /// In memory that was given back by `rewind`, `reset`, `truncate` or `pop`: so many bytes past what is in use.
    GivenBack {
        /// 0 is the first byte past what is in use.
        distance: usize,
    },
    /// In a slot of a pool that was freed, or beside one, so many bytes from its start.
    FreedSlot {
        /// Which slot.
        index: usize,
        /// Bytes from the start of the slot.
        distance: usize,
    },
    /// Past what was ever in use, or past a slot: so many bytes past the end.
    Past {
        /// 0 is the first byte past the end.
        distance: usize,
    },
}

impl Region {
    /// The name it was given; empty if none. Longer names are cut.
    pub fn name(&self) -> &str {
        let len = self.name.iter().position(|byte| *byte == 0).unwrap_or(NAME_MAX);
        let bytes = self.name.get(..len).unwrap_or(&[]);
        match core::str::from_utf8(bytes) {
            Ok(name) => name,
            // Cut in the middle of a character.
            Err(error) => core::str::from_utf8(bytes.get(..error.valid_up_to()).unwrap_or(&[])).unwrap_or(""),
        }
    }

    /// Bytes in use, where use grows from one end.
    pub fn used(&self) -> Option<usize> {
        (self.frontier != 0).then(|| self.frontier.saturating_sub(self.start))
    }

    /// One past the last usable address.
    pub fn end(&self) -> usize {
        self.start.saturating_add(self.reserved)
    }

    /// Whether an address lies within it or its guards.
    pub fn holds(&self, address: usize) -> bool {
        let [before, after] = self.guards;
        address >= self.start.saturating_sub(before) && address < self.end().saturating_add(after)
    }

    /// What an address within it or its guards means.
    pub fn place_of(&self, address: usize) -> Place {
        if address < self.start {
            return Place::Before { distance: self.start.saturating_sub(address).saturating_sub(1) };
        }
        let offset = address.saturating_sub(self.start);
        if address < self.end()
            && let (Some(index), Some(at)) =
                (offset.checked_div(self.stride), offset.checked_rem(self.stride))
            && address < self.frontier
        {
            return self.place_in_slot(index, at);
        }
        if self.frontier == 0 {
            return match address < self.end() {
                true => Place::Inside { distance: offset },
                false => Place::Past { distance: address.saturating_sub(self.end()) },
            };
        }
        let distance = address.saturating_sub(self.frontier);
        match address {
            _ if address < self.frontier => Place::Inside { distance: offset },
            _ if address < self.peak => Place::GivenBack { distance },
            _ => Place::Past { distance },
        }
    }

    /// Slots of a strict pool end at the end of their pages, and the last page of each stride is closed.
    fn place_in_slot(&self, index: usize, at: usize) -> Place {
        let page = self.guards[1].max(1);
        let end = self.stride.saturating_sub(page);
        match at.checked_sub(end) {
            Some(distance) => Place::Past { distance },
            None => Place::FreedSlot { index, distance: at.saturating_sub(end.saturating_sub(self.slot)) },
        }
    }
}

/// `arena 'frames'`, or `an unnamed arena`.
impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            "" => write!(f, "an unnamed {}", self.kind.name()),
            name => write!(f, "{} '{name}'", self.kind.name()),
        }
    }
}

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
        for word in [&entry.frontier, &entry.peak, &entry.committed, &entry.limit, &entry.stride, &entry.slot]
        {
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

    pub(crate) fn set_slots(&self, stride: usize, slot: usize) {
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
    fn copy(&self) -> Option<Region> {
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

fn entries() -> impl Iterator<Item = &'static Entry> {
    let mut next = Some(&FIRST);
    core::iter::from_fn(move || {
        let block = next?;
        next = block.next();
        Some(block)
    })
    .flat_map(|block| &block.entries)
}

/// The reservation that an address belongs to, or in whose guards it lies.
///
/// # Signal context
/// May run in a fault handler: it takes no lock and allocates nothing.
pub fn find(address: usize) -> Option<Region> {
    entries().filter_map(Entry::copy).find(|region| region.holds(address))
}

/// Every reservation of this process.
///
/// ```
/// use fencepost_memory::{Reservation, regions};
///
/// let pages = Reservation::builder(1 << 30).name("pages").reserve()?;
/// let all = regions::all();
/// let found = all.iter().find(|region| region.name() == "pages").expect("it is there");
/// assert_eq!((found.start, found.committed), (pages.addresses().start, 0));
/// # Ok::<(), fencepost_memory::MemoryError>(())
/// ```
pub fn all() -> Vec<Region> {
    entries().filter_map(Entry::copy).collect()
}

/// What all reservations of one name come to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// The name; empty for those without.
    pub name: String,
    /// How many there are.
    pub regions: usize,
    /// Bytes of addresses.
    pub reserved: usize,
    /// Bytes of memory committed.
    pub committed: usize,
    /// Bytes in use, of those where use grows from one end.
    pub used: usize,
}

/// Memory by name: the largest first.
pub fn usage() -> Vec<Usage> {
    let mut all: Vec<Usage> = Vec::new();
    for region in self::all() {
        let used = region.used().unwrap_or(0);
        match all.iter_mut().find(|usage| usage.name == region.name()) {
            Some(usage) => {
                usage.regions += 1;
                usage.reserved += region.reserved;
                usage.committed += region.committed;
                usage.used += used;
            }
            None => all.push(Usage {
                name: region.name().to_owned(),
                regions: 1,
                reserved: region.reserved,
                committed: region.committed,
                used,
            }),
        }
    }
    all.sort_by_key(|usage| core::cmp::Reverse(usage.committed));
    all
}

/// The sums over all reservations: how many, bytes of addresses, bytes committed. Nothing is allocated for it.
pub fn totals() -> (usize, usize, usize) {
    entries().filter_map(Entry::copy).fold((0, 0, 0), |(count, reserved, committed), region| {
        (count + 1, reserved.saturating_add(region.reserved), committed.saturating_add(region.committed))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARENA: Region = Region {
        kind: RegionKind::Arena,
        name: [0; NAME_MAX],
        start: 0x10000,
        reserved: 0x10000,
        committed: 0x2000,
        frontier: 0x11800,
        peak: 0x14000,
        stride: 0,
        slot: 0,
        guards: [0x1000, 0x1000],
    };

    #[test]
    fn an_address_means_what_the_words_say() {
        assert_eq!(ARENA.place_of(0xffff), Place::Before { distance: 0 });
        assert_eq!(ARENA.place_of(0x117ff), Place::Inside { distance: 0x17ff });
        assert_eq!(ARENA.place_of(0x11800), Place::GivenBack { distance: 0 });
        assert_eq!(ARENA.place_of(0x14000), Place::Past { distance: 0x2800 });
        assert_eq!(ARENA.place_of(0x20010), Place::Past { distance: 0xe810 });
        assert!(ARENA.holds(0xf000) && !ARENA.holds(0xefff) && ARENA.holds(0x20fff) && !ARENA.holds(0x21000));
    }

    #[test]
    fn a_strict_pool_tells_a_freed_slot_from_the_guard_behind_it() {
        let pool = Region { kind: RegionKind::Pool, stride: 0x2000, slot: 24, frontier: 0x16000, ..ARENA };
        assert_eq!(pool.place_of(0x10fe8), Place::FreedSlot { index: 0, distance: 0 });
        assert_eq!(pool.place_of(0x12ff0), Place::FreedSlot { index: 1, distance: 8 });
        assert_eq!(pool.place_of(0x13000), Place::Past { distance: 0 });
    }

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
