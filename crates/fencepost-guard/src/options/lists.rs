//! Reading the values of the list keys, which collect over a text.

use super::error::Problem;
use super::names::NameList;
use super::text::{number, same, size, split_at};
use super::values::{SizeRange, SizeRanges};

/// Which list keys the text has named already.
pub(super) struct Collecting {
    pub(super) only_size: bool,
    pub(super) skip_size: bool,
    pub(super) only_align: bool,
    pub(super) skip_align: bool,
    pub(super) only_thread: bool,
    pub(super) skip_thread: bool,
    pub(super) only_module: bool,
    pub(super) skip_module: bool,
    pub(super) only_fn: bool,
    pub(super) skip_fn: bool,
    pub(super) only_site: bool,
    pub(super) skip_site: bool,
}

impl Collecting {
    /// None of them.
    pub(super) const NOTHING: Collecting = Collecting {
        only_size: false,
        skip_size: false,
        only_align: false,
        skip_align: false,
        only_thread: false,
        skip_thread: false,
        only_module: false,
        skip_module: false,
        only_fn: false,
        skip_fn: false,
        only_site: false,
        skip_site: false,
    };
}

/// What the entries of a list of numbers are.
#[derive(Clone, Copy)]
pub(super) enum Entries {
    /// Sizes, and ranges of them.
    Sizes,
    /// Fingerprints of sites.
    Sites,
}

/// Adds the entries of `value` to a list, which the first of its key in a text empties before.
pub(super) const fn collect(
    target: &mut SizeRanges,
    begun: &mut bool,
    value: &[u8],
    entries: Entries,
) -> Result<(), Problem> {
    let mut ranges = if *begun { *target } else { SizeRanges::EMPTY };
    let mut left = Some(value);
    while let Some(text) = left {
        let (item, after) = split_at(text, b',');
        left = after;
        let item = item.trim_ascii();
        if item.is_empty() {
            continue;
        }
        if same(item, b"none") {
            ranges = SizeRanges::EMPTY;
            continue;
        }
        let range = match entries {
            Entries::Sizes => range(item),
            Entries::Sites => site(item),
        };
        let Some(range) = range else { return Err(Problem::BadValue) };
        let Some(longer) = ranges.with(range) else { return Err(Problem::TooManyRanges) };
        ranges = longer;
    }
    *target = ranges;
    *begun = true;
    Ok(())
}

/// `N`, or `A-B` with A at most B.
const fn range(text: &[u8]) -> Option<SizeRange> {
    let (first, last) = split_at(text, b'-');
    let Some(first) = size(first.trim_ascii()) else { return None };
    let last = match last {
        None => first,
        Some(last) => match size(last.trim_ascii()) {
            Some(last) => last,
            None => return None,
        },
    };
    if first <= last { Some(SizeRange { first, last }) } else { None }
}

const fn site(text: &[u8]) -> Option<SizeRange> {
    match number(text) {
        Some(site) => Some(SizeRange { first: site, last: site }),
        None => None,
    }
}

/// The same for names.
pub(super) const fn collect_names(
    target: &mut NameList,
    begun: &mut bool,
    value: &[u8],
) -> Result<(), Problem> {
    let mut names = if *begun { *target } else { NameList::EMPTY };
    let mut left = Some(value);
    while let Some(text) = left {
        let (item, after) = split_at(text, b',');
        left = after;
        let item = item.trim_ascii();
        if item.is_empty() {
            continue;
        }
        if same(item, b"none") {
            names = NameList::EMPTY;
            continue;
        }
        if !is_name(item) {
            return Err(Problem::BadValue);
        }
        let Some(longer) = names.with(item) else { return Err(Problem::TooLong) };
        names = longer;
    }
    *target = names;
    *begun = true;
    Ok(())
}

/// Whether a name is text that can be written back: without a quote and without control characters.
const fn is_name(item: &[u8]) -> bool {
    let mut rest = item;
    while let Some((&byte, after)) = rest.split_first() {
        if byte == b'"' || byte == b'\'' || byte < b' ' {
            return false;
        }
        rest = after;
    }
    core::str::from_utf8(item).is_ok()
}
