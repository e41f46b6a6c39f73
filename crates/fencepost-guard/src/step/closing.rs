//! How a page is closed again after a step: a decision about what lies there, without a system beneath.

use core::sync::atomic::Ordering;

use fencepost_record::{ErrorKind, RegionPlace};
use fencepost_sys::Platform;

use crate::engine::Engine;
use crate::geometry::Place;
use crate::heap::Found;
use crate::runtime::{Guard, Setup};
use crate::slot::SlotState;
use crate::span::{Life, Zone};

/// How a page is closed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Closing {
    /// By its mapping, so that what was written to it is there at the next step.
    Keep,
    /// As the engine closes it, without content: it may be handed out to a block.
    Anew,
    /// As fresh reserved addresses.
    Reserve,
    /// Read-only, if a seal still holds it.
    Sealed,
    /// Not at all: nothing keeps it closed.
    Leave,
}

impl Closing {
    pub(super) fn of_number(number: u32) -> Closing {
        [Closing::Keep, Closing::Anew, Closing::Reserve, Closing::Sealed]
            .into_iter()
            .find(|closing| *closing as u32 == number)
            .unwrap_or(Closing::Leave)
    }

    /// Whether the page is one that the engine closes.
    pub(super) fn is_heap(self) -> bool {
        matches!(self, Closing::Keep | Closing::Anew)
    }
}

/// How a page of the heap is closed, from what the page is.
fn closing_of_heap(found: &Found, state: Option<SlotState>) -> Closing {
    match (found, state) {
        (Found::Unused, _) => Closing::Reserve,
        (Found::Forgotten | Found::Large { .. }, _) => Closing::Keep,
        (Found::Small { place: Place::Data(_), .. }, Some(SlotState::Empty) | None) => Closing::Anew,
        (Found::Small { place: Place::Data(_), .. }, Some(SlotState::Live)) => Closing::Leave,
        (Found::Small { .. }, _) => Closing::Keep,
        (Found::Outside, _) => Closing::Leave,
    }
}

impl<P: Platform> Guard<P> {
    /// How the page of an address is closed again after a step.
    pub(super) fn closing_of(&self, setup: &Setup, address: usize, kind: ErrorKind) -> Closing {
        if kind == ErrorKind::SealViolation {
            return Closing::Sealed;
        }
        let found = self.heap.find(setup.geometry(), address);
        match found {
            Found::Outside => match (self.hooks.region)(address) {
                // What the program itself protects, in memory that it uses, is not ours to close.
                Some(region) if region.place == RegionPlace::Inside => Closing::Leave,
                Some(_) => Closing::Reserve,
                None => Closing::Leave,
            },
            Found::Small { index, place: Place::Data(slot), .. } => {
                let state = self.heap.slot(index, slot).map(|slot| slot.state());
                // Slots are opened ahead of their use.
                let is_ready = self
                    .heap
                    .span(index)
                    .is_some_and(|span| (slot as u64) < u64::from(span.ready.load(Ordering::Acquire)));
                match closing_of_heap(&found, state) {
                    Closing::Anew if is_ready => Closing::Leave,
                    closing => closing,
                }
            }
            // The next spans are open already, until one is taken and closed.
            Found::Unused if setup.heap.lazy == Engine::Marker && self.heap.is_opened(address) => {
                Closing::Leave
            }
            // Or nothing is there, and they have to stay as they are.
            Found::Unused if self.heap.zone_of(address) == Zone::Missing => Closing::Anew,
            Found::Large { .. } if self.is_live_large(setup, address) => Closing::Leave,
            _ => closing_of_heap(&found, None),
        }
    }

    /// Whether an address lies in the pages of a large block that is alive.
    fn is_live_large(&self, setup: &Setup, address: usize) -> bool {
        self.surroundings(setup, address).here.is_some_and(|slot| slot.state == SlotState::Live)
    }

    /// How a page is closed whose content cannot be kept.
    pub(super) fn closing_without_content(&self, setup: &Setup, address: usize) -> Closing {
        let retired = match self.heap.find(setup.geometry(), address) {
            Found::Forgotten => true,
            Found::Small { index, .. } | Found::Large { index } => {
                self.heap.span(index).is_some_and(|span| span.life() == Life::Retired)
            }
            _ => true,
        };
        if retired { Closing::Reserve } else { Closing::Anew }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_never_handed_out_again_keeps_content() {
        let data = Found::Small { index: 1, pages: 1, place: Place::Data(3) };
        assert_eq!(closing_of_heap(&data, Some(SlotState::Empty)), Closing::Anew);
        assert_eq!(closing_of_heap(&data, Some(SlotState::Freed)), Closing::Keep);
        assert_eq!(closing_of_heap(&data, Some(SlotState::Freeing)), Closing::Keep);
        assert_eq!(closing_of_heap(&data, Some(SlotState::Live)), Closing::Leave);
        let guard = Found::Small { index: 1, pages: 1, place: Place::GuardBefore(3) };
        assert_eq!(closing_of_heap(&guard, None), Closing::Keep);
        assert_eq!(closing_of_heap(&Found::Unused, None), Closing::Reserve);
        assert_eq!(closing_of_heap(&Found::Forgotten, None), Closing::Keep);
        assert_eq!(closing_of_heap(&Found::Outside, None), Closing::Leave);
    }

    #[test]
    fn numbers_come_back() {
        for closing in [Closing::Keep, Closing::Anew, Closing::Reserve, Closing::Sealed, Closing::Leave] {
            assert_eq!(Closing::of_number(closing as u32), closing);
        }
    }
}
