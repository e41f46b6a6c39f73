//! Which parts of a reservation hold memory: a sorted list of ranges, neighbours of the same kind in one.

use core::ops::Range;

use super::Access;

/// What a part of a reservation is, where it is more than addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Memory: what it allows, and whether it is in explicit huge pages.
    Memory(Access, bool),
    /// A guard, which is never committed.
    Guard,
}

impl Part {
    pub(super) fn is_memory(self) -> bool {
        matches!(self, Part::Memory(..))
    }
}

/// The list.
#[derive(Clone, Debug, Default)]
pub(super) struct Spans {
    list: Vec<(Range<usize>, Part)>,
    /// Bytes of memory, kept so that asking costs nothing.
    committed: usize,
}

impl Spans {
    pub(super) const fn new() -> Spans {
        Spans { list: Vec::new(), committed: 0 }
    }

    pub(super) fn committed(&self) -> usize {
        self.committed
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Range<usize>, Part)> + '_ {
        self.list.iter().map(|(range, part)| (range.clone(), *part))
    }

    /// The parts of a range in order, also those that are addresses only.
    pub(super) fn within(&self, range: Range<usize>) -> Vec<(Range<usize>, Option<Part>)> {
        let mut found = Vec::new();
        let mut at = range.start;
        let first = self.list.partition_point(|(part, _)| part.end <= range.start);
        for (part, what) in self.list.iter().skip(first).take_while(|(part, _)| part.start < range.end) {
            if part.start > at {
                found.push((at..part.start, None));
            }
            let end = part.end.min(range.end);
            found.push((part.start.max(range.start)..end, Some(*what)));
            at = end;
        }
        if at < range.end {
            found.push((at..range.end, None));
        }
        found
    }

    /// Whether every byte of a range is in a part that answers.
    pub(super) fn all(&self, range: Range<usize>, answers: impl Fn(Part) -> bool) -> bool {
        self.within(range).into_iter().all(|(_, part)| part.is_some_and(&answers))
    }

    /// Makes a range one part, or addresses only.
    pub(super) fn set(&mut self, range: Range<usize>, what: Option<Part>) {
        if range.is_empty() {
            return;
        }
        // All that touches the range, so that neighbours of the same kind become one.
        let from = self.list.partition_point(|(part, _)| part.end < range.start);
        let to = self.list.partition_point(|(part, _)| part.start <= range.end);
        let touched = self.list.get(from..to).unwrap_or(&[]).to_vec();
        let before = memory_in(&touched);
        let mut new: Vec<(Range<usize>, Part)> = Vec::with_capacity(3);
        let mut add = |range: Range<usize>, what: Option<Part>| {
            let Some(what) = what.filter(|_| !range.is_empty()) else { return };
            match new.last_mut() {
                Some((last, same)) if last.end == range.start && *same == what => last.end = range.end,
                _ => new.push((range, what)),
            }
        };
        for (part, kept) in &touched {
            add(part.start..part.end.min(range.start), Some(*kept));
        }
        add(range.clone(), what);
        for (part, kept) in &touched {
            add(part.start.max(range.end)..part.end, Some(*kept));
        }
        self.committed = self.committed - before + memory_in(&new);
        self.list.splice(from..to, new);
    }
}

fn memory_in(parts: &[(Range<usize>, Part)]) -> usize {
    parts.iter().filter(|(_, part)| part.is_memory()).map(|(range, _)| range.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RW: Part = Part::Memory(Access::ReadWrite, false);
    const RO: Part = Part::Memory(Access::Read, false);

    #[test]
    fn neighbours_of_the_same_kind_are_one() {
        let mut spans = Spans::new();
        spans.set(0..10, Some(RW));
        spans.set(20..30, Some(RW));
        spans.set(10..20, Some(RW));
        assert_eq!(spans.iter().collect::<Vec<_>>(), [(0..30, RW)]);
        spans.set(5..15, Some(RO));
        assert_eq!(spans.iter().collect::<Vec<_>>(), [(0..5, RW), (5..15, RO), (15..30, RW)]);
        spans.set(0..30, None);
        assert_eq!((spans.iter().count(), spans.committed()), (0, 0));
    }

    #[test]
    fn it_agrees_with_a_list_of_bytes() {
        // The simplest thing that is right: one entry a byte. A linear generator makes the operations.
        let (mut spans, mut model) = (Spans::new(), [None; 64]);
        let mut seed = 0x1234_5678_u64;
        let mut next = move |bound: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((seed >> 33) % bound) as usize
        };
        for turn in 0..if cfg!(miri) { 300 } else { 20_000 } {
            let (a, b) = (next(65), next(65));
            let what = [None, Some(RW), Some(RO), Some(Part::Guard)][next(4)];
            let range = a.min(b)..a.max(b);
            spans.set(range.clone(), what);
            model[range.clone()].fill(what);
            let expected = model.iter().filter(|part| part.is_some_and(Part::is_memory)).count();
            assert_eq!(spans.committed(), expected, "turn {turn}");
            let list: Vec<_> = spans.iter().collect();
            assert!(list.windows(2).all(|w| w[0].0.end < w[1].0.start || w[0].1 != w[1].1), "turn {turn}");
            let (a, b) = (next(65), next(65));
            for (part, what) in spans.within(a.min(b)..a.max(b)) {
                assert!(model[part].iter().all(|byte| *byte == what), "turn {turn}");
            }
        }
    }
}
