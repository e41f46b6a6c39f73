//! Which error an address is: a pure function of what is known about the memory around it.
//!
//! Nothing here reads memory, takes a lock or asks the system, so the tests ask it about invented addresses.

use fencepost_record::{AccessType, BlockState, Confidence, ErrorKind, Note, Notes, Where};

use crate::slot::{SlotState, SlotView};

/// What lies at and around an address of the guarded heap.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Surroundings {
    /// The slot whose own pages hold the address.
    pub(crate) here: Option<SlotView>,
    /// The nearest slot below.
    pub(crate) below: Option<SlotView>,
    /// The nearest slot above.
    pub(crate) above: Option<SlotView>,
    /// The records of this memory have been recycled.
    pub(crate) forgotten: bool,
    /// Bytes in a page.
    pub(crate) page: usize,
}

/// What an access was.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Finding {
    pub(crate) kind: ErrorKind,
    pub(crate) block: Option<Beside>,
    /// The nearest blocks, when `block` is not known.
    pub(crate) neighbours: [Option<SlotView>; 2],
    pub(crate) confidence: Confidence,
    pub(crate) notes: Notes,
}

/// A block and where an address lies beside it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Beside {
    pub(crate) slot: SlotView,
    pub(crate) place: Where,
    pub(crate) distance: usize,
}

impl Beside {
    /// Where an address lies beside a block; the first byte past the end and the last before the start have
    /// distance 0.
    pub(crate) fn of(slot: SlotView, address: usize) -> Beside {
        let (place, distance) = if address < slot.pointer {
            (Where::Before, slot.pointer.wrapping_sub(address).wrapping_sub(1))
        } else if address >= slot.end() {
            (Where::After, address.wrapping_sub(slot.end()))
        } else {
            (Where::Inside, address.wrapping_sub(slot.pointer))
        };
        Beside { slot, place, distance }
    }
}

/// A freed block may be seen between the start of its free and its end.
pub(crate) fn state_of(slot: &SlotView) -> BlockState {
    match slot.state {
        SlotState::Live => BlockState::Live,
        SlotState::Freeing | SlotState::Freed => BlockState::Freed,
        SlotState::Empty => BlockState::Unknown,
    }
}

/// What an access that trapped at `address` in the guarded heap was.
pub(crate) fn diagnose(around: &Surroundings, address: usize, access: AccessType) -> Finding {
    if around.forgotten {
        return Finding {
            notes: Notes::NONE.with(Note::LongFreed),
            ..finding(ErrorKind::UseAfterFree, None, Confidence::High)
        };
    }
    if let Some(here) = used(around.here) {
        return in_own_pages(here, address, access);
    }
    let below = used(around.below).map(|slot| Beside::of(slot, address));
    let above = used(around.above).map(|slot| Beside::of(slot, address));
    let chosen = match (below, above) {
        (Some(below), Some(above)) if above.distance < below.distance => Some((above, Some(below))),
        (Some(below), above) => Some((below, above)),
        (None, Some(above)) => Some((above, None)),
        (None, None) => None,
    };
    let in_guard = around.here.is_none();
    match chosen {
        Some((nearest, other)) if in_guard || nearest.distance < around.page => {
            beside(nearest, other, around.page)
        }
        _ => Finding {
            neighbours: [used(around.below), used(around.above)],
            notes: Notes::NONE.with(Note::NeverAllocated),
            ..finding(ErrorKind::WildAccess, None, Confidence::High)
        },
    }
}

/// The address lies in pages that belong to one block.
fn in_own_pages(slot: SlotView, address: usize, access: AccessType) -> Finding {
    let beside = Beside::of(slot, address);
    match slot.state {
        SlotState::Live if slot.sealed && access == AccessType::Write => {
            finding(ErrorKind::SealViolation, Some(beside), Confidence::High)
        }
        SlotState::Live => match (access, beside.place) {
            (AccessType::Execute, _) | (_, Where::Inside) => {
                finding(ErrorKind::WildAccess, Some(beside), Confidence::Low)
            }
            // A large block's spare pages, or a page that another thread is closing.
            (_, Where::After) => finding(ErrorKind::HeapBufferOverflow, Some(beside), Confidence::High),
            (_, Where::Before) => finding(ErrorKind::HeapBufferUnderflow, Some(beside), Confidence::High),
        },
        _ => finding(ErrorKind::UseAfterFree, Some(beside), Confidence::High),
    }
}

/// The address lies in closed memory beside a block.
fn beside(nearest: Beside, other: Option<Beside>, page: usize) -> Finding {
    let kind = match (state_of(&nearest.slot), nearest.place) {
        (BlockState::Freed, _) => ErrorKind::UseAfterFree,
        (_, Where::Before) => ErrorKind::HeapBufferUnderflow,
        _ => ErrorKind::HeapBufferOverflow,
    };
    let mut result = finding(kind, Some(nearest), Confidence::High);
    if nearest.distance >= page {
        result.notes.add(Note::Far);
        result.confidence = Confidence::Low;
    }
    // The wrong one of two is named only if the access went a long way: within a quarter of the page of each other.
    if other.is_some_and(|other| other.distance.abs_diff(nearest.distance) < page / 4) {
        result.notes.add(Note::TwoNear);
        result.confidence = Confidence::Low;
    }
    result
}

fn used(slot: Option<SlotView>) -> Option<SlotView> {
    slot.filter(|slot| slot.state != SlotState::Empty)
}

fn finding(kind: ErrorKind, block: Option<Beside>, confidence: Confidence) -> Finding {
    Finding { kind, block, neighbours: [None; 2], confidence, notes: Notes::NONE }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slot::Act;

    const PAGE: usize = 4096;

    fn slot(state: SlotState, pointer: usize, size: usize) -> SlotView {
        SlotView {
            state,
            pointer,
            size,
            align: 1,
            sealed: false,
            allocated: Act::default(),
            freed: Act::default(),
        }
    }

    fn guard(below: Option<SlotView>, above: Option<SlotView>) -> Surroundings {
        Surroundings { below, above, page: PAGE, ..Surroundings::default() }
    }

    #[test]
    fn the_first_byte_past_the_end_has_distance_zero() {
        let around = guard(Some(slot(SlotState::Live, 0x2fe8, 24)), None);
        let found = diagnose(&around, 0x3000, AccessType::Write);
        let block = found.block.expect("a block");
        assert_eq!(
            (found.kind, block.place, block.distance),
            (ErrorKind::HeapBufferOverflow, Where::After, 0)
        );
        assert_eq!(found.confidence, Confidence::High);
    }

    #[test]
    fn the_last_byte_before_the_start_has_distance_zero() {
        let around = guard(Some(slot(SlotState::Live, 0x1000, 24)), Some(slot(SlotState::Live, 0x4000, 24)));
        let found = diagnose(&around, 0x3fff, AccessType::Read);
        let block = found.block.expect("a block");
        assert_eq!(
            (found.kind, block.place, block.distance, block.slot.pointer),
            (ErrorKind::HeapBufferUnderflow, Where::Before, 0, 0x4000)
        );
    }

    #[test]
    fn a_freed_block_is_named_with_the_place_inside_it() {
        let around = Surroundings {
            here: Some(slot(SlotState::Freed, 0x2f00, 256)),
            page: PAGE,
            ..Surroundings::default()
        };
        let found = diagnose(&around, 0x2f10, AccessType::Read);
        let block = found.block.expect("a block");
        assert_eq!((found.kind, block.place, block.distance), (ErrorKind::UseAfterFree, Where::Inside, 16));
    }

    #[test]
    fn past_the_end_of_a_freed_block_is_still_a_use_of_it() {
        let around = guard(Some(slot(SlotState::Freed, 0x2fe8, 24)), None);
        assert_eq!(diagnose(&around, 0x3000, AccessType::Write).kind, ErrorKind::UseAfterFree);
    }

    #[test]
    fn two_blocks_about_as_near_lower_the_confidence() {
        let around = guard(Some(slot(SlotState::Live, 0x2fe8, 24)), Some(slot(SlotState::Live, 0x4000, 8)));
        let found = diagnose(&around, 0x3810, AccessType::Read);
        assert!(found.notes.has(Note::TwoNear));
        assert_eq!(found.confidence, Confidence::Low);
    }

    #[test]
    fn a_write_to_a_sealed_block_is_a_seal_violation_and_a_read_is_not() {
        let sealed = SlotView { sealed: true, ..slot(SlotState::Live, 0x2000, 64) };
        let around = Surroundings { here: Some(sealed), page: PAGE, ..Surroundings::default() };
        assert_eq!(diagnose(&around, 0x2010, AccessType::Write).kind, ErrorKind::SealViolation);
        assert_eq!(diagnose(&around, 0x2010, AccessType::Read).kind, ErrorKind::WildAccess);
    }

    #[test]
    fn memory_that_was_never_handed_out_names_its_neighbours() {
        let around = Surroundings {
            here: Some(slot(SlotState::Empty, 0, 0)),
            below: Some(slot(SlotState::Live, 0x1000, 8)),
            page: PAGE,
            ..Surroundings::default()
        };
        let found = diagnose(&around, 0x9000, AccessType::Write);
        assert_eq!(found.kind, ErrorKind::WildAccess);
        assert!(found.block.is_none() && found.neighbours[0].is_some());
        assert!(found.notes.has(Note::NeverAllocated));
    }

    #[test]
    fn a_recycled_record_never_names_a_block() {
        let around = Surroundings { forgotten: true, page: PAGE, ..Surroundings::default() };
        let found = diagnose(&around, 0x9000, AccessType::Read);
        assert_eq!(found.kind, ErrorKind::UseAfterFree);
        assert!(found.block.is_none() && found.notes.has(Note::LongFreed));
    }
}
