//! Every reservation of this process: what it is called, how much of it is used, and what an address in it means.
//!
//! A fault handler asks this, so nothing here waits: the table is a chain of blocks that only grows, an entry is made of
//! atomic words, and a reader that meets an entry in the middle of a change sees its version change and reads again, a
//! few times. Writers of one entry are its one owner. A few words of an entry are where its allocator keeps its own state
//! (`frontier`, `limit`), so that keeping the table true costs the allocators nothing.
//!
//! What an address means is decided by [`Region::place_of`], a pure function of an entry's copy.

mod entry;

use core::fmt;

pub(crate) use entry::Entry;
use entry::entries;
use fencepost_sys::Range;

use crate::{HOST, System};

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
    /// Of a strict pool: bytes that are closed at the end of each stride.
    pub slot_guard: usize,
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
    /// In the guard behind a slot of a strict pool, so many bytes past its end.
    PastSlot {
        /// Which slot.
        index: usize,
        /// 0 is the first byte past the slot.
        distance: usize,
    },
    /// Past what was ever in use: so many bytes past the end.
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

    /// Bytes of it that are in memory now: the system is asked. Of a stack that code runs on, this is how far it has grown.
    /// `None` where the system does not say, or the region has gone since.
    pub fn resident(&self) -> Option<usize> {
        HOST.resident(Range { start: self.start, len: self.reserved }).ok()
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
        let end = self.stride.saturating_sub(self.slot_guard.max(1));
        match at.checked_sub(end) {
            Some(distance) => Place::PastSlot { index, distance },
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
        slot_guard: 0,
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
        let pool = Region {
            kind: RegionKind::Pool,
            stride: 0x2000,
            slot: 24,
            slot_guard: 0x1000,
            frontier: 0x16000,
            ..ARENA
        };
        assert_eq!(pool.place_of(0x10fe8), Place::FreedSlot { index: 0, distance: 0 });
        assert_eq!(pool.place_of(0x12ff0), Place::FreedSlot { index: 1, distance: 8 });
        assert_eq!(pool.place_of(0x13000), Place::PastSlot { index: 1, distance: 0 });
    }
}
