//! What has been reported already, for a program that goes on after errors.
//!
//! Two tables without locks, each a hash in the first free of a few places. *Distinct*: the errors themselves, by kind
//! and all stacks; the same one is written once. *Sites*: the instructions that errors come from, with the allocation's
//! stack; each has so many walks of its stack, and is only counted after: a loop of a million wrong accesses costs a
//! million steps, not a million walks. A full table counts what it has no place for as known.

use fencepost_sys::atomic::{AtomicU32, AtomicUsize, Ordering};

/// Distinct errors remembered.
const DISTINCT: usize = 1024;
/// Sites remembered.
const SITES: usize = 1024;
/// Places looked at for one entry.
const PROBES: usize = 32;
/// How many errors of one site have their stacks walked.
const WALKS_MAX: u32 = 32;

/// What has been reported.
pub(crate) struct Known {
    distinct: [AtomicUsize; DISTINCT],
    sites: [Site; SITES],
}

struct Site {
    hash: AtomicUsize,
    count: AtomicU32,
}

impl Known {
    pub(crate) const fn new() -> Self {
        Known {
            distinct: [const { AtomicUsize::new(0) }; DISTINCT],
            sites: [const { Site { hash: AtomicUsize::new(0), count: AtomicU32::new(0) } }; SITES],
        }
    }

    /// Forgets everything: a forked child has reported nothing.
    pub(crate) fn clear(&self) {
        for place in &self.distinct {
            place.store(0, Ordering::Relaxed);
        }
        for site in &self.sites {
            site.count.store(0, Ordering::Relaxed);
        }
    }

    /// Whether an error with this hash has been reported; remembers it.
    pub(crate) fn is_repeated(&self, hash: usize) -> bool {
        let hash = hash | 1;
        for place in self.distinct.iter().cycle().skip(hash % DISTINCT).take(PROBES) {
            let known = claim(place, hash);
            if known == 0 {
                return false;
            }
            if known == hash {
                return true;
            }
        }
        true
    }

    /// Whether a site has had its share of reports; counts one more.
    pub(crate) fn is_full(&self, hash: usize) -> bool {
        let hash = hash | 1;
        for site in self.sites.iter().cycle().skip(hash % SITES).take(PROBES) {
            let known = claim(&site.hash, hash);
            if known == 0 || known == hash {
                let count = site.count.fetch_add(1, Ordering::Relaxed);
                if count >= WALKS_MAX {
                    // The count stays where it is, so that it never comes round.
                    site.count.store(WALKS_MAX, Ordering::Relaxed);
                }
                return count >= WALKS_MAX;
            }
        }
        false
    }
}

/// Takes a free place for a hash: 0 if it was free, else the hash that has it.
fn claim(place: &AtomicUsize, hash: usize) -> usize {
    match place.compare_exchange(0, hash, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(free) => free,
        Err(known) => known,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_errors_that_share_a_place_are_both_known() {
        let known = Known::new();
        let (one, other) = (3, 3 + DISTINCT);
        assert!(!known.is_repeated(one) && !known.is_repeated(other));
        assert!(known.is_repeated(one) && known.is_repeated(other));
        known.clear();
        assert!(!known.is_repeated(other));
    }

    #[test]
    fn a_full_table_writes_no_flood() {
        let known = Known::new();
        let new = (0..100_000usize)
            .filter(|number| !known.is_repeated(crate::pattern::mix(*number as u64) as usize));
        assert!((DISTINCT / 2..=DISTINCT).contains(&new.count()));
    }

    #[test]
    fn a_site_is_walked_so_often_and_then_counted() {
        let known = Known::new();
        let walked = (0..1000).filter(|_| !known.is_full(77)).count();
        assert_eq!(walked, WALKS_MAX as usize);
        assert!(!known.is_full(78));
    }
}
