//! What the runtime is told of the program's arenas, pools and stacks: the table of `fencepost-memory` in its own words.

use fencepost_memory::regions::{self, Place, Region};
use fencepost_record::{BlockState, RegionInfo, RegionPlace, Text, Where};

/// The region that an address belongs to. Runs in the fault handler: takes no lock, allocates nothing.
pub(crate) fn region(address: usize) -> Option<RegionInfo> {
    let region = regions::find(address)?;
    let (place, distance, slot) = place_of(&region, address);
    Some(RegionInfo {
        kind: Text::new(region.kind.name().as_bytes()),
        name: Text::new(region.name().as_bytes()),
        address: region.start as u64,
        reserved: region.reserved as u64,
        committed: region.committed as u64,
        used: region.used().map(|used| used as u64),
        place,
        distance: distance as u64,
        slot: slot.map(|slot| slot as u64),
    })
}

fn place_of(region: &Region, address: usize) -> (RegionPlace, usize, Option<usize>) {
    match region.place_of(address) {
        Place::Before { distance } => (RegionPlace::Before, distance, None),
        Place::Inside { distance } => (RegionPlace::Inside, distance, None),
        Place::GivenBack { distance } => (RegionPlace::GivenBack, distance, None),
        Place::FreedSlot { index, distance } => (RegionPlace::FreedSlot, distance, Some(index)),
        Place::PastSlot { index, distance } => (RegionPlace::Past, distance, Some(index)),
        Place::Past { distance } => (RegionPlace::Past, distance, None),
        // What later versions may know more is in use.
        _ => (RegionPlace::Inside, 0, None),
    }
}

/// How many regions there are, and how many bytes they have reserved and committed.
pub(crate) fn totals() -> [u64; 3] {
    let (count, reserved, committed) = regions::totals();
    [count as u64, reserved as u64, committed as u64]
}

/// A region as a block: its used part, whether the address is in use, and where it lies.
pub(crate) fn as_block(region: &Region, address: usize) -> (usize, BlockState, Where, usize) {
    let size = region.used().unwrap_or(region.reserved);
    let (state, place, distance) = match place_of(region, address) {
        (RegionPlace::Before, distance, _) => (BlockState::Live, Where::Before, distance),
        (RegionPlace::Inside, distance, _) => (BlockState::Live, Where::Inside, distance),
        (RegionPlace::GivenBack | RegionPlace::FreedSlot, distance, _) => {
            (BlockState::Freed, Where::After, distance)
        }
        (RegionPlace::Past, distance, _) => (BlockState::Live, Where::After, distance),
    };
    (size, state, place, distance)
}
