//! A region of the program's own: an arena, a pool or a stack that grows within addresses it has reserved.

use core::fmt;

use crate::Text;
use crate::wording::{Bytes, Clean};

/// What an address is to a region.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum RegionPlace {
    /// In the guard before it.
    Before,
    /// In memory that is in use.
    #[default]
    Inside,
    /// In memory that was given back.
    GivenBack,
    /// In a slot that was freed.
    FreedSlot,
    /// Past what is in use, or past a slot.
    Past,
}

impl RegionPlace {
    /// Every place.
    pub const ALL: [RegionPlace; 5] = [
        RegionPlace::Before,
        RegionPlace::Inside,
        RegionPlace::GivenBack,
        RegionPlace::FreedSlot,
        RegionPlace::Past,
    ];

    /// The name used in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            RegionPlace::Before => "before",
            RegionPlace::Inside => "inside",
            RegionPlace::GivenBack => "given-back",
            RegionPlace::FreedSlot => "freed-slot",
            RegionPlace::Past => "past",
        }
    }
}

/// The region that an error concerns.
#[derive(Clone, Copy, Debug, Default)]
pub struct RegionInfo {
    /// What it is: `arena`, `pool`, …
    pub kind: Text<24>,
    /// The name that the program gave it; empty if none.
    pub name: Text<40>,
    /// Its first usable byte.
    pub address: u64,
    /// Usable bytes of addresses.
    pub reserved: u64,
    /// Bytes of memory committed.
    pub committed: u64,
    /// Bytes in use, where use grows from one end.
    pub used: Option<u64>,
    /// Where the access lies.
    pub place: RegionPlace,
    /// How far, in bytes: 0 is the first byte past the end, or the last before the start; inside, from the start.
    pub distance: u64,
    /// Which slot of a pool.
    pub slot: Option<u64>,
}

/// `arena 'frames'`, `an unnamed pool`.
impl fmt::Display for RegionInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind.as_str();
        match self.name.as_str() {
            "" => write!(f, "an unnamed {}", Clean(kind)),
            name => write!(f, "{} '{}'", Clean(kind), Clean(name)),
        }
    }
}

impl RegionInfo {
    /// `, 0 bytes past the frontier of arena 'frames'`: what a message says after the access.
    pub(crate) fn say_place(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let distance = Bytes(self.distance);
        match (self.place, self.slot) {
            (RegionPlace::Before, _) => write!(f, ", {distance} before {self}"),
            (RegionPlace::Inside, _) if self.used.is_none() => write!(f, ", {distance} into {self}"),
            (RegionPlace::Inside, _) => write!(f, ", {distance} into {self}, in memory that is in use"),
            (RegionPlace::GivenBack, _) => {
                write!(f, ", {distance} past the frontier of {self}, in memory that was given back")
            }
            (RegionPlace::FreedSlot, Some(slot)) => {
                write!(f, ", {distance} into slot {slot} of {self}, which was freed")
            }
            (RegionPlace::FreedSlot, None) => write!(f, ", in a freed slot of {self}"),
            (RegionPlace::Past, Some(slot)) => write!(f, ", {distance} past slot {slot} of {self}"),
            (RegionPlace::Past, None) => write!(f, ", {distance} past the frontier of {self}"),
        }
    }
}
