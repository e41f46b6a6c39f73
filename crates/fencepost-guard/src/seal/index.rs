//! Which entries lie on some pages, so that a fault need not look through all of them.
//!
//! An entry of up to 2^n pages is filed at *level* n, under each stretch of 2^n pages that it touches: two at most. So
//! what lies on a page is found under one stretch for each level that was ever in use. Stretches share a table of chains
//! by a hash; chains run through the entries.
//!
//! Who changes it has the seals' lock. It is read without a lock, also by a handler that has interrupted a change: a number
//! is odd while there is one, and whoever finds it odd, or not as it was, looks through all entries instead. So does who would have to look at too many places. The order is that of a sequence lock:
//! the number's first store goes before the changes (the fence), and its second after them (Release); a reader's loads lie
//! between its own two (Acquire, and the fence).

use fencepost_sys::Range;
use fencepost_sys::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use super::table::{Seal, Seals, overlap};
use crate::pattern::mix;

/// Chains; a power of two.
pub(super) const CHAINS: u32 = 1 << 15;
/// Places looked at before all entries are.
const PLACES_MAX: u32 = 64;
/// Entries found before all are looked at.
const FEW: usize = 16;
/// The unit of stretches, as a power of two: no system's pages are smaller.
const UNIT: u32 = 12;

/// An entry's two links.
pub(super) struct Filed {
    /// The next in the chain: an entry's number times two, plus which of its links, plus one; 0 at the end.
    next: [AtomicU32; 2],
    /// The chain, plus one; 0 while the link is in none.
    chain: [AtomicU32; 2],
}

/// The index. Where its chains begin is in the entries' table.
pub(super) struct Index {
    /// Odd while it changes.
    version: AtomicU32,
    /// Bit n: something was filed at level n.
    levels: AtomicU64,
}

/// Numbers of entries, the smallest first.
#[derive(Clone, Copy, Default)]
pub(super) struct Few {
    numbers: [usize; FEW],
    count: usize,
}

impl Few {
    /// Adds a number, once; `None` when there is no room.
    fn add(&mut self, number: usize) -> Option<()> {
        let held = self.numbers.get(..self.count)?;
        let Err(place) = held.binary_search(&number) else { return Some(()) };
        let after = self.numbers.get_mut(place..=self.count)?;
        after.rotate_right(1);
        *after.first_mut()? = number;
        self.count = self.count.wrapping_add(1);
        Some(())
    }
}

impl IntoIterator for Few {
    type Item = usize;
    type IntoIter = core::iter::Take<core::array::IntoIter<usize, FEW>>;

    fn into_iter(self) -> Self::IntoIter {
        self.numbers.into_iter().take(self.count)
    }
}

/// The first and the last unit of a range.
fn units_of(range: Range) -> (usize, usize) {
    (range.start >> UNIT, range.end().saturating_sub(1).max(range.start) >> UNIT)
}

fn level_of(first: usize, last: usize) -> u32 {
    let more = last.saturating_sub(first);
    usize::BITS.wrapping_sub(more.leading_zeros())
}

fn chain_of(level: u32, stretch: usize) -> u32 {
    (mix(stretch as u64 ^ (u64::from(level) << 58)) as u32) % CHAINS
}

impl Filed {
    fn link(&self, which: usize) -> Option<(&AtomicU32, &AtomicU32)> {
        self.next.get(which).zip(self.chain.get(which))
    }
}

impl Index {
    pub(super) const fn new() -> Index {
        Index { version: AtomicU32::new(0), levels: AtomicU64::new(0) }
    }

    /// Changes it. Under the lock.
    fn change(&self, change: impl FnOnce()) {
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        change();
        self.version.store(version.wrapping_add(2), Ordering::Release);
    }
}

impl Seals {
    /// Files an entry under its pages, and no longer under what it was filed under before. Under the lock.
    pub(super) fn file(&self, number: usize, seal: &Seal) {
        self.unfile(number, seal);
        let (first, last) = units_of(seal.lies_on());
        let level = level_of(first, last);
        let stretches = [first, last].map(|unit| unit.wrapping_shr(level));
        let chains = stretches.map(|stretch| chain_of(level, stretch));
        self.index.change(|| {
            let bit = 1u64.wrapping_shl(level);
            self.index.levels.fetch_or(bit, Ordering::Relaxed);
            let links = if stretches.first() == stretches.last() { 1 } else { 2 };
            for (which, chain) in chains.into_iter().enumerate().take(links) {
                if let (Some(head), Some((next, filed))) = (self.head(chain), seal.filed.link(which)) {
                    next.store(head.load(Ordering::Relaxed), Ordering::Relaxed);
                    head.store(node_of(number, which), Ordering::Relaxed);
                    filed.store(chain.wrapping_add(1), Ordering::Relaxed);
                }
            }
        });
    }

    /// Takes an entry out of the index. Under the lock.
    pub(super) fn unfile(&self, number: usize, seal: &Seal) {
        if seal.filed.chain.iter().all(|chain| chain.load(Ordering::Relaxed) == 0) {
            return;
        }
        self.index.change(|| {
            for which in 0..2 {
                let Some((next, filed)) = seal.filed.link(which) else { continue };
                let chain = filed.swap(0, Ordering::Relaxed);
                let head = chain.checked_sub(1).and_then(|chain| self.head(chain));
                let Some(mut link) = head else { continue };
                let node = node_of(number, which);
                while link.load(Ordering::Relaxed) != node {
                    let Some(after) = self.next_of(link.load(Ordering::Relaxed)) else { break };
                    link = after;
                }
                if link.load(Ordering::Relaxed) == node {
                    link.store(next.load(Ordering::Relaxed), Ordering::Relaxed);
                }
            }
        });
    }

    fn next_of(&self, node: u32) -> Option<&'static AtomicU32> {
        let (number, which) = of_node(node)?;
        self.entry(number)?.filed.next.get(which)
    }

    /// The entries that lie on some pages; `None` where all have to be looked through. Takes no lock.
    pub(super) fn filed_on(&self, range: Range) -> Option<Few> {
        let index = &self.index;
        let version = index.version.load(Ordering::Acquire);
        if version & 1 != 0 {
            return None;
        }
        let (first, last) = units_of(range);
        let mut found = Few::default();
        let mut places = 0u32;
        let mut levels = index.levels.load(Ordering::Relaxed);
        while levels != 0 {
            let level = levels.trailing_zeros();
            levels &= levels.wrapping_sub(1);
            for stretch in first.wrapping_shr(level)..=last.wrapping_shr(level) {
                let mut node = self.head(chain_of(level, stretch))?.load(Ordering::Relaxed);
                places = places.wrapping_add(1);
                while let Some((number, which)) = of_node(node) {
                    places = places.wrapping_add(1);
                    let seal = self.entry(number)?;
                    if overlap(seal.lies_on(), range) {
                        found.add(number)?;
                    }
                    node = seal.filed.next.get(which)?.load(Ordering::Relaxed);
                    if places > PLACES_MAX {
                        return None;
                    }
                }
                if places > PLACES_MAX {
                    return None;
                }
            }
        }
        fence(Ordering::Acquire);
        (index.version.load(Ordering::Relaxed) == version).then_some(found)
    }
}

fn node_of(number: usize, which: usize) -> u32 {
    u32::try_from(number.wrapping_mul(2).wrapping_add(which).wrapping_add(1)).unwrap_or(0)
}

fn of_node(node: u32) -> Option<(usize, usize)> {
    let place = node.checked_sub(1)? as usize;
    Some((place >> 1, place & 1))
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use fencepost_sys::sim::Sim;

    use super::super::table::Purpose;
    use super::*;
    use crate::slot::Act;

    #[test]
    fn a_range_touches_two_stretches_of_its_level_at_most() {
        for first in 0..70usize {
            for len in 1..70usize {
                let last = first + len - 1;
                let level = level_of(first, last);
                assert!((last >> level) - (first >> level) <= 1, "{first} {last}");
                assert!(len <= 1 << level && (level == 0 || len > 1 << (level - 1)));
            }
        }
    }

    #[test]
    fn few_are_kept_in_order_and_once() {
        let mut few = Few::default();
        for number in [7, 3, 9, 3, 7, 1] {
            assert!(few.add(number).is_some());
        }
        assert!(few.into_iter().eq([1, 3, 7, 9]));
        assert!((100..112).all(|number| few.add(number).is_some()));
        assert!(few.add(5).is_none() && few.add(9).is_some());
    }

    #[test]
    fn links_have_numbers_and_none_is_zero() {
        for (number, which) in [(0, 0), (0, 1), (1, 0), (32_767, 1)] {
            assert_eq!(of_node(node_of(number, which)), Some((number, which)));
        }
        assert_eq!(of_node(0), None);
    }

    /// The entries that `near` must find, found by looking at all.
    fn by_looking(seals: &Seals, range: Range) -> Vec<usize> {
        let all = seals.active().filter(|(_, seal)| overlap(seal.lies_on(), range));
        all.map(|(number, _)| number).collect()
    }

    #[test]
    fn the_index_finds_what_looking_at_all_finds() {
        const PAGE: usize = 4096;
        let (seals, sim) = (Seals::new(), Sim::new());
        let mut seed = 11u64;
        let mut draw = |below: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as usize % below
        };
        let (mut held, mut found, mut given_up) = (Vec::new(), 0, 0);
        for round in 0..6000 {
            let len = [1, 2, 3, 70, 5000][draw(5)] * PAGE;
            let pages = Range { start: (1000 + draw(60_000)) * PAGE, len };
            let added = seals.add(&sim, Purpose::Seal, pages, pages, Act::default(), None).expect("memory");
            held.push(added.expect("room").0);
            // Some end with a word, and some, as tripwires do, without.
            if held.len() > 400 {
                let number = held.swap_remove(draw(held.len()));
                let seal = seals.entry(number).expect("an entry");
                seal.serial.store(0, Ordering::Release);
                if draw(2) == 0 {
                    seals.unfile(number, seal);
                    seals.give_back(number);
                    seals.trim();
                }
            }
            let asked = Range { start: (990 + draw(66_000)) * PAGE + draw(PAGE), len: 1 + draw(3 * PAGE) };
            let near: Vec<usize> = seals.near(asked).map(|(number, _)| number).collect();
            let expected = by_looking(&seals, asked);
            match seals.filed_on(asked) {
                Some(_) => assert_eq!(near, expected, "round {round}"),
                None => given_up += 1,
            }
            assert!(expected.iter().all(|number| near.contains(number)), "round {round}");
            found += expected.len();
        }
        assert!(found > 1000 && given_up < 600, "{found} found, {given_up} times all were looked through");
        seals.table.release(&sim);
    }

    #[test]
    fn in_the_middle_of_a_change_all_entries_are_looked_through() {
        let (seals, sim) = (Seals::new(), Sim::new());
        let pages = Range { start: 8192, len: 4096 };
        seals.add(&sim, Purpose::Seal, pages, pages, Act::default(), None).expect("memory");
        assert!(seals.filed_on(pages).is_some());
        seals.index.change(|| {
            assert!(seals.filed_on(pages).is_none());
            assert_eq!(seals.near(pages).count(), 1);
        });
        assert!(seals.filed_on(pages).is_some());
        seals.table.release(&sim);
    }
}
