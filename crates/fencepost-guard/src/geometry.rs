//! Where things lie: pure arithmetic over spans, slots and blocks.
//!
//! ```text
//! span (2 MiB) of slots with 1 data page each
//! | guard | data 0 | guard | data 1 | guard | data 2 | guard | ...
//! ```
//!
//! Every data page has a guard page on both sides, so one layout serves both placements, and the page before the
//! first slot keeps a span apart from its neighbour. A block larger than [`Geometry::small_pages_max`] pages has a
//! run of whole spans to itself, closed up to its first page and from its last.
//!
//! Invariant: nothing here touches memory or knows what a slot's state is.

use fencepost_sys::Range;

/// Bytes in a span: what one page of page table covers with 4 KiB pages.
pub(crate) const SPAN_BYTES: usize = 2 << 20;
/// Slot records set aside for each span.
pub(crate) const SLOTS_STRIDE: usize = 256;
/// The most data pages a small slot has.
pub(crate) const SMALL_PAGES: usize = 16;

/// Which end of a block sits on the guard page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The end.
    Right,
    /// The start.
    Left,
}

/// Rounds down to a multiple of a power of two.
#[inline(always)]
pub(crate) const fn align_down(value: usize, align: usize) -> usize {
    value & !align.wrapping_sub(1)
}

/// Rounds up to a multiple of a power of two; `None` past the end of the address space.
#[inline(always)]
pub(crate) const fn align_up(value: usize, align: usize) -> Option<usize> {
    match value.checked_add(align.wrapping_sub(1)) {
        Some(sum) => Some(align_down(sum, align)),
        None => None,
    }
}

/// How a block is housed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum House {
    /// In a slot with this many data pages.
    Small(usize),
    /// In this many spans of its own.
    Large(usize),
}

/// The machine's page size and what follows from it. What every block asks for is worked out once: a division costs as
/// much as much of the rest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Geometry {
    page: usize,
    /// The page is 1 shifted left by this.
    shift: u32,
    /// The most data pages of a small slot.
    small_pages_max: usize,
    /// Slots in a span, by their data pages.
    slots: [u16; SMALL_PAGES + 1],
    /// What to multiply a number of pages by to divide it by a slot's, guard page included: see [`divide`].
    inverses: [u32; SMALL_PAGES + 1],
}

impl Geometry {
    pub(crate) const fn new(page: usize) -> Self {
        let shift = if page.is_power_of_two() { page.trailing_zeros() } else { 0 };
        let (mut slots, mut inverses) = ([0; SMALL_PAGES + 1], [0; SMALL_PAGES + 1]);
        let (mut slots_left, mut inverses_left): (&mut [u16], &mut [u32]) = (&mut slots, &mut inverses);
        let (mut pages, mut stride) = (0usize, 1u32);
        while let (Some((slots, more_slots)), Some((inverted, more_inverses))) =
            (slots_left.split_first_mut(), inverses_left.split_first_mut())
        {
            // At most SLOTS_STRIDE, which is small.
            *slots = count_slots(page, pages) as u16;
            *inverted = inverse(stride);
            (pages, stride) = (pages.wrapping_add(1), stride.wrapping_add(1));
            (slots_left, inverses_left) = (more_slots, more_inverses);
        }
        let half = pages_per_span(page) / 2;
        let small_pages_max =
            if half.saturating_sub(1) < SMALL_PAGES { half.saturating_sub(1) } else { SMALL_PAGES };
        Geometry { page, shift, small_pages_max, slots, inverses }
    }

    /// Bytes in a page.
    #[inline(always)]
    pub(crate) const fn page(&self) -> usize {
        self.page
    }

    /// The most data pages a small slot has with this page size.
    #[inline(always)]
    pub(crate) const fn small_pages_max(&self) -> usize {
        self.small_pages_max
    }

    /// The most bytes of a block in a small slot.
    pub(crate) const fn small_bytes_max(&self) -> usize {
        self.small_pages_max().wrapping_mul(self.page)
    }

    /// How many slots with `pages` data pages a span has.
    #[inline(always)]
    pub(crate) fn slots_per_span(&self, pages: usize) -> usize {
        match self.slots.get(pages) {
            Some(slots) => *slots as usize,
            None => 0,
        }
    }

    /// Bytes from one slot to the next.
    #[inline(always)]
    pub(crate) const fn slot_stride(&self, pages: usize) -> usize {
        pages.wrapping_add(1).wrapping_mul(self.page)
    }

    /// The data pages of a small slot, relative to its span.
    #[inline(always)]
    pub(crate) const fn slot_data(&self, pages: usize, slot: usize) -> Range {
        Range {
            start: self.page.wrapping_add(slot.wrapping_mul(self.slot_stride(pages))),
            len: pages.wrapping_mul(self.page),
        }
    }

    /// Where a byte of a span of small slots lies.
    #[inline(always)]
    pub(crate) fn locate(&self, pages: usize, offset: usize) -> Place {
        if offset < self.page {
            return Place::GuardBefore(0);
        }
        let past = (offset.wrapping_sub(self.page) >> self.shift) as u32;
        let Some(inverse) = self.inverses.get(pages) else { return Place::Beyond };
        let (slot, within) = divide(past, (pages as u32).wrapping_add(1), *inverse);
        let slot = slot as usize;
        if slot >= self.slots_per_span(pages) {
            Place::Beyond
        } else if within < pages as u32 {
            Place::Data(slot)
        } else {
            Place::GuardBefore(slot.wrapping_add(1))
        }
    }

    /// How a block of this size and alignment is housed; `None` when no address space could hold it.
    #[inline(always)]
    pub(crate) const fn house(&self, size: usize, align: usize) -> Option<House> {
        let rounded = match align_up(size, align) {
            Some(rounded) if rounded <= isize::MAX as usize => rounded,
            _ => return None,
        };
        if align <= self.page {
            let pages = match rounded.wrapping_add(self.page).wrapping_sub(1) >> self.shift {
                0 => 1,
                pages => pages,
            };
            if pages <= self.small_pages_max() {
                return Some(House::Small(pages));
            }
        }
        // Room for the block wherever its alignment puts it, and a guard page on each side.
        let most = rounded.checked_add(2usize.wrapping_mul(self.page));
        let most = match (most, align > SPAN_BYTES) {
            (Some(most), true) => most.checked_add(align),
            (Some(most), false) if align > self.page => most.checked_add(align),
            (most, _) => most,
        };
        match most {
            Some(most) => match align_up(most, SPAN_BYTES) {
                Some(bytes) => Some(House::Large(bytes / SPAN_BYTES)),
                None => None,
            },
            None => None,
        }
    }

    /// Where a block starts within the room it may use.
    #[inline(always)]
    pub(crate) const fn place(&self, room: Range, size: usize, align: usize, side: Side) -> usize {
        match side {
            Side::Right => align_down(room.end().wrapping_sub(size), align),
            Side::Left => align_down(room.start.wrapping_add(align).wrapping_sub(1), align),
        }
    }

    /// Where a large block starts in its run. All begin in the same page of theirs where their alignment allows: the kernel
    /// moves the pages of a block that is resized by whole page tables then.
    pub(crate) const fn place_large(&self, run: Range, size: usize, align: usize, side: Side) -> usize {
        let room = self.large_room(run);
        let room = match align_up(size, self.page) {
            Some(len) if align <= self.page => Range { start: room.start, len },
            _ => room,
        };
        self.place(room, size, align, side)
    }

    /// The whole pages that a block touches: none for a block of no bytes at the start of a page.
    #[inline(always)]
    pub(crate) const fn pages_of(&self, pointer: usize, size: usize) -> Range {
        let start = align_down(pointer, self.page);
        let end = align_down(pointer.wrapping_add(size).wrapping_add(self.page).wrapping_sub(1), self.page);
        Range { start, len: end.wrapping_sub(start) }
    }

    /// The part of a run of spans that a large block may use: all but a guard page on each side.
    pub(crate) const fn large_room(&self, run: Range) -> Range {
        Range {
            start: run.start.wrapping_add(self.page),
            len: run.len.wrapping_sub(2usize.wrapping_mul(self.page)),
        }
    }
}

/// The smallest page there is.
const PAGE_MIN: usize = 4096;
/// Bits after the point of an [`inverse`].
const POINT: u32 = 16;

/// One over a number, rounded up.
const fn inverse(number: u32) -> u32 {
    match (1u32 << POINT).checked_div(number) {
        Some(part) => part.wrapping_add(1),
        None => 0,
    }
}

/// Quotient and remainder of a number of pages in a span and a slot's: a multiplication is a third of a division. Exact as
/// long as the product of both is below two to the power of [`POINT`], by which the inverse is too large at most.
#[inline(always)]
const fn divide(number: u32, by: u32, inverse: u32) -> (u32, u32) {
    let quotient = number.wrapping_mul(inverse) >> POINT;
    (quotient, number.wrapping_sub(quotient.wrapping_mul(by)))
}

const _: () =
    assert!((SPAN_BYTES / PAGE_MIN) * (SMALL_PAGES + 1) < 1 << POINT, "exact for every page of a span");

const fn pages_per_span(page: usize) -> usize {
    match SPAN_BYTES.checked_div(page) {
        Some(pages) => pages,
        None => 0,
    }
}

/// How many slots with `pages` data pages a span has room for.
const fn count_slots(page: usize, pages: usize) -> usize {
    match pages_per_span(page).wrapping_sub(1).checked_div(pages.wrapping_add(1)) {
        Some(slots) if slots < SLOTS_STRIDE => slots,
        Some(_) => SLOTS_STRIDE.wrapping_sub(1),
        None => 0,
    }
}

impl Place {
    /// The slot of a block that starts here: one of no bytes may start where its pages end.
    #[inline(always)]
    pub(crate) const fn slot_of_block(self) -> Option<usize> {
        match self {
            Place::Data(slot) => Some(slot),
            Place::GuardBefore(after) => after.checked_sub(1),
            Place::Beyond => None,
        }
    }
}

/// Where a byte of a span of small slots lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the data pages of this slot.
    Data(usize),
    /// In the guard page before this slot, which is also the one after the slot before it.
    GuardBefore(usize),
    /// In the unused end of the span.
    Beyond,
}

#[cfg(test)]
mod tests {
    use super::*;

    const G: Geometry = Geometry::new(4096);

    #[test]
    fn every_page_of_a_span_is_data_of_one_slot_or_a_guard() {
        for page in [4096, 16384, 65536] {
            let geometry = Geometry::new(page);
            for pages in 1..=geometry.small_pages_max() {
                let slots = geometry.slots_per_span(pages);
                assert!(slots > 0 && slots < SLOTS_STRIDE, "{page} {pages} {slots}");
                let mut data = 0;
                for offset in (0..SPAN_BYTES).step_by(page) {
                    if let Place::Data(slot) = geometry.locate(pages, offset) {
                        let range = geometry.slot_data(pages, slot);
                        assert!(range.contains(offset) && range.contains(offset + page - 1));
                        data += 1;
                    }
                }
                assert_eq!(data, slots * pages);
                let last = geometry.slot_data(pages, slots - 1);
                assert!(last.end() + page <= SPAN_BYTES, "the last slot has its guard page");
            }
        }
    }

    #[test]
    fn guard_pages_name_the_slot_after_them() {
        assert_eq!(G.locate(1, 0), Place::GuardBefore(0));
        assert_eq!(G.locate(1, 4096), Place::Data(0));
        assert_eq!(G.locate(1, 8191), Place::Data(0));
        assert_eq!(G.locate(1, 8192), Place::GuardBefore(1));
        assert_eq!(G.locate(1, 12288), Place::Data(1));
        assert_eq!(G.locate(3, 4096 * 4), Place::GuardBefore(1));
        assert_eq!(G.locate(1, 511 * 4096), Place::Beyond);
    }

    #[test]
    fn blocks_end_on_the_guard_page_to_the_byte_when_the_alignment_allows() {
        let room = Range { start: 0x10000, len: 4096 };
        assert_eq!(G.place(room, 24, 8, Side::Right), 0x11000 - 24);
        assert_eq!(G.place(room, 13, 1, Side::Right), 0x11000 - 13);
        assert_eq!(G.place(room, 13, 8, Side::Right), 0x11000 - 16);
        assert_eq!(G.place(room, 0, 8, Side::Right), 0x11000);
        assert_eq!(G.place(room, 13, 8, Side::Left), 0x10000);
    }

    #[test]
    fn houses_hold_their_blocks() {
        assert_eq!(G.house(0, 1), Some(House::Small(1)));
        assert_eq!(G.house(4096, 1), Some(House::Small(1)));
        assert_eq!(G.house(4097, 1), Some(House::Small(2)));
        assert_eq!(G.house(16 * 4096, 4096), Some(House::Small(16)));
        assert_eq!(G.house(16 * 4096 + 1, 1), Some(House::Large(1)));
        assert_eq!(G.house(1, 8192), Some(House::Large(1)));
        assert_eq!(G.house(usize::MAX, 1), None);
        assert_eq!(G.house(isize::MAX as usize, 1 << 40), None);
        for size in [0, 1, 65537, 2 << 20, (2 << 20) + 1, (100 << 20) + 3] {
            for align in [1, 64, 4096, 8192, 65536, 2 << 20, 16 << 20] {
                let Some(House::Large(spans)) = G.house(size, align) else { continue };
                // Runs start at any multiple of the span.
                for start in (0..9).map(|n| (1 << 30) + n * SPAN_BYTES) {
                    let run = Range { start, len: spans * SPAN_BYTES };
                    for side in [Side::Right, Side::Left] {
                        let pointer = G.place_large(run, size, align, side);
                        assert_eq!(pointer % align, 0);
                        let pages = G.pages_of(pointer, size);
                        assert!(pages.start >= run.start + 4096, "{size} {align} {side:?}");
                        assert!(pages.end() + 4096 <= run.end(), "{size} {align} {side:?}");
                        if align <= 4096 {
                            assert_eq!(pages.start, run.start + 4096, "{size} {align} {side:?}");
                            let end = pointer + size.next_multiple_of(align);
                            assert!(side == Side::Left || end == pages.end(), "{size} {align}");
                        }
                    }
                }
            }
        }
    }
}
