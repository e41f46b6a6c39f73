//! The table of pages: which state each has, kept as runs of equal pages so that terabytes cost nothing.

use std::collections::BTreeMap;
use std::vec::Vec;

use crate::{Protection, Range};

/// What a page is to the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageState {
    /// Taken, not committed: traps.
    Reserved,
    /// Committed and usable.
    Committed,
    /// Committed, with a guard marker: traps.
    Guarded,
    /// Committed and registered, and no page is there: traps.
    Missing,
    /// Committed, and a write traps.
    ReadOnly,
    /// Committed, its content kept, and every access traps.
    NoAccess,
    /// Never taken, or given back: traps, or is somebody else's.
    Released,
}

/// What the table holds for a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) committed: bool,
    pub(super) guarded: bool,
    pub(super) protection: Protection,
    /// Traps while no page is there.
    pub(super) registered: bool,
    /// A page is there; means something for registered memory only.
    pub(super) present: bool,
    /// Shared with a process that was forked.
    pub(super) shared: bool,
    /// Writes to the page trap, whatever its mapping allows.
    pub(super) writes_trap: bool,
}

/// A page that is taken and nothing else.
pub(super) const RESERVED: Page = Page {
    committed: false,
    guarded: false,
    protection: Protection::None,
    registered: false,
    present: false,
    shared: false,
    writes_trap: false,
};

impl Page {
    pub(super) fn state(self) -> PageState {
        match (self.committed, self.guarded, self.protection) {
            (false, ..) => PageState::Reserved,
            (true, true, _) => PageState::Guarded,
            (true, false, _) if self.registered && !self.present => PageState::Missing,
            (true, false, Protection::None | Protection::Once) => PageState::NoAccess,
            (true, false, Protection::Read | Protection::Keyed) => PageState::ReadOnly,
            (true, false, Protection::ReadWrite) if self.writes_trap => PageState::ReadOnly,
            (true, false, Protection::ReadWrite) => PageState::Committed,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    end: usize,
    page: Page,
}

/// Runs of equal pages, by their start.
pub(super) struct Space {
    runs: BTreeMap<usize, Run>,
    mappings: usize,
}

impl Space {
    pub(super) const fn new() -> Space {
        Space { runs: BTreeMap::new(), mappings: 0 }
    }

    /// Mappings that a kernel would have for these pages: neighbours with the same protection share one if both or
    /// neither are registered, and guard markers are not seen.
    pub(super) fn mappings(&self) -> usize {
        self.mappings
    }

    pub(super) fn page(&self, address: usize) -> Option<Page> {
        let (_, run) = self.runs.range(..=address).next_back()?;
        (address < run.end).then_some(run.page)
    }

    /// The pages of a range, as runs; `None` for those that are not taken.
    pub(super) fn within(&self, range: Range) -> Vec<(Range, Option<Page>)> {
        let mut found = Vec::new();
        let mut at = range.start;
        let first = self.runs.range(..=at).next_back().map_or(at, |(start, _)| *start);
        for (start, run) in self.runs.range(first..range.end()) {
            if run.end <= at {
                continue;
            }
            if *start > at {
                found.push((Range { start: at, len: start.wrapping_sub(at) }, None));
            }
            let (from, to) = (at.max(*start), run.end.min(range.end()));
            found.push((Range { start: from, len: to.wrapping_sub(from) }, Some(run.page)));
            at = to;
        }
        if at < range.end() {
            found.push((Range { start: at, len: range.end().wrapping_sub(at) }, None));
        }
        found
    }

    /// Every run that is taken.
    pub(super) fn taken(&self) -> impl Iterator<Item = (Range, Page)> {
        self.runs
            .iter()
            .map(|(start, run)| (Range { start: *start, len: run.end.wrapping_sub(*start) }, run.page))
    }

    /// Gives all pages of a range one state, or none; false, and nothing changed, if that would make more than
    /// `mappings_max` mappings.
    pub(super) fn set(&mut self, range: Range, page: Option<Page>, mappings_max: usize) -> bool {
        self.change(range, mappings_max, |_| page)
    }

    /// Changes the state of each taken page of a range, under the same limit.
    pub(super) fn update(
        &mut self,
        range: Range,
        mappings_max: usize,
        mut change: impl FnMut(Page) -> Page,
    ) -> bool {
        self.change(range, mappings_max, |page| page.map(&mut change))
    }

    fn change(
        &mut self,
        range: Range,
        mappings_max: usize,
        mut new: impl FnMut(Option<Page>) -> Option<Page>,
    ) -> bool {
        // One page more on either side, where a run may join what is changed.
        let window = Range { start: range.start.saturating_sub(1), len: range.len.saturating_add(2) };
        let before = self.within(window);
        let after: Vec<_> = before
            .iter()
            .flat_map(|(part, page)| {
                let low = part.start.max(range.start).min(part.end());
                let high = part.end().min(range.end()).max(low);
                let piece = |from: usize, to: usize| Range { start: from, len: to.wrapping_sub(from) };
                let outside = [(piece(part.start, low), *page), (piece(high, part.end()), *page)];
                let inside = piece(low, high);
                let inside = (inside, if inside.len == 0 { *page } else { new(*page) });
                let [left, right] = outside;
                [left, inside, right]
            })
            .filter(|(part, _)| part.len > 0)
            .collect();
        let mappings =
            self.mappings.wrapping_sub(count_mappings(&before)).wrapping_add(count_mappings(&after));
        if mappings > mappings_max && mappings > self.mappings {
            return false;
        }
        self.mappings = mappings;
        self.split(range.start);
        self.split(range.end());
        for (part, page) in after.iter().filter(|(part, _)| range.contains(part.start)) {
            self.runs.retain_outside(*part);
            if let Some(page) = page {
                self.runs.insert(part.start, Run { end: part.end(), page: *page });
            }
        }
        self.join(window);
        true
    }

    fn split(&mut self, at: usize) {
        if let Some((start, run)) = self.runs.range(..at).next_back().map(|(start, run)| (*start, *run))
            && run.end > at
        {
            self.runs.insert(start, Run { end: at, page: run.page });
            self.runs.insert(at, run);
        }
    }

    /// Joins equal neighbours around a window.
    fn join(&mut self, window: Range) {
        let from = self.runs.range(..=window.start).next_back().map_or(window.start, |(start, _)| *start);
        let mut starts: Vec<usize> = self.runs.range(from..window.end()).map(|(start, _)| *start).collect();
        starts.dedup();
        let mut last: Option<usize> = None;
        for start in starts {
            let Some(run) = self.runs.get(&start).copied() else { continue };
            match last.and_then(|at| self.runs.get_mut(&at)) {
                Some(before) if before.end == start && before.page == run.page => {
                    before.end = run.end;
                    self.runs.remove(&start);
                }
                _ => last = Some(start),
            }
        }
    }
}

trait RetainOutside {
    fn retain_outside(&mut self, range: Range);
}

impl RetainOutside for BTreeMap<usize, Run> {
    /// Removes the runs that start in a range; both its ends are known to be borders.
    fn retain_outside(&mut self, range: Range) {
        let starts: Vec<usize> = self.range(range.start..range.end()).map(|(start, _)| *start).collect();
        for start in starts {
            self.remove(&start);
        }
    }
}

/// Mappings in a row of runs.
fn count_mappings(runs: &[(Range, Option<Page>)]) -> usize {
    let mut last: Option<(usize, Protection, bool)> = None;
    let mut count = 0usize;
    for (part, page) in runs {
        if let Some(page) = page {
            if last != Some((part.start, page.protection, page.registered)) {
                count = count.wrapping_add(1);
            }
            last = Some((part.end(), page.protection, page.registered));
        }
    }
    count
}
