//! How to get from a frame to its caller's: one rule for each code address, made of the unwind tables.
//!
//! An unwinder looks the tables up anew in every walk, or keeps the results in a small cache that other addresses push
//! out. But what the tables say of an address changes only with the modules, and a program calls from a bounded number of
//! addresses: so every rule is kept once, for all threads, in a table that only grows. A walk is then a loop of a lookup, two
//! additions and two reads a frame.
//!
//! What is published is never changed and never taken back, so a reader needs no lock: it sees the address, and if the
//! rule's word is not 0, the whole rule. A rule for code that may be unloaded holds only as long as no module has
//! gone since; the next one for that address goes to another place.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Rules kept; a power of two.
const RULES: usize = 1 << 16;
/// Places looked at for one address. Where all are taken, the address gets no rule.
const PROBES: usize = 32;

/// One step outwards. All offsets are multiples of 8 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// Nobody called this frame.
    End,
    /// The tables say something that a plain rule cannot.
    Odd,
    /// The frame ends at the stack or frame pointer plus an offset; the return address and, if it was saved, the
    /// caller's frame pointer lie at offsets from there.
    Step { from_fp: bool, end: i64, returns: i64, fp: Option<i64> },
}

/// A rule as it is kept: 0 is none. Bits 0 to 3 say what follows, then three offsets of 20 bits each, in units of 8 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packed(pub(super) u64);

impl Packed {
    pub(super) const PRESENT: u64 = 1;
    pub(super) const PLAIN: u64 = 2;
    pub(super) const FROM_FP: u64 = 4;
    pub(super) const SAVES_FP: u64 = 8;
    const BITS: u32 = 20;

    pub(super) fn of(rule: Rule) -> Packed {
        let Rule::Step { from_fp, end, returns, fp } = rule else {
            // An end is told from what is odd by the bit of the frame pointer, which neither uses.
            return Packed(if rule == Rule::End { Self::PRESENT | Self::FROM_FP } else { Self::PRESENT });
        };
        let (Some(end), Some(returns), Some(at)) = (field(end), field(returns), field(fp.unwrap_or(0)))
        else {
            return Packed(Self::PRESENT);
        };
        let flags = Self::PRESENT
            | Self::PLAIN
            | if from_fp { Self::FROM_FP } else { 0 }
            | if fp.is_some() { Self::SAVES_FP } else { 0 };
        Packed(flags | end << 4 | returns << 24 | at << 44)
    }

    pub(super) fn is_end(self) -> bool {
        self.0 == Self::PRESENT | Self::FROM_FP
    }

    // Bits 4, 24 and 44 are where the three offsets begin; the sign comes down with the shift.
    #[inline]
    pub(super) fn end(self) -> usize {
        ((self.0 << 40) as i64 >> 44 << 3) as usize
    }

    #[inline]
    pub(super) fn returns(self) -> usize {
        ((self.0 << 20) as i64 >> 44 << 3) as usize
    }

    #[inline]
    pub(super) fn fp(self) -> usize {
        (self.0 as i64 >> 44 << 3) as usize
    }
}

/// An offset as it is kept; `None` if it does not fit.
fn field(offset: i64) -> Option<u64> {
    let units = offset >> 3;
    let sign = units >> (Packed::BITS.wrapping_sub(1));
    (offset & 7 == 0 && (sign == 0 || sign == -1)).then_some(units.cast_unsigned() & 0xf_ffff)
}

struct Place {
    address: AtomicU64,
    /// How many modules had gone, plus 1; 0 for code that stays.
    gone: AtomicU64,
    rule: AtomicU64,
}

static FULL: AtomicBool = AtomicBool::new(false);

static TABLE: [Place; RULES] =
    [const { Place { address: AtomicU64::new(0), gone: AtomicU64::new(0), rule: AtomicU64::new(0) } }; RULES];

/// What is known of an address.
pub(super) enum Known {
    /// A rule for as long as the process lives.
    Lasting(Packed),
    /// A rule that holds if no more modules have gone than these.
    Since(Packed, u64),
    Nothing,
}

/// The rule for an address. `gone` says how many modules have gone, where the caller knows it already.
#[inline]
pub(super) fn find(address: u64, gone: Option<u64>) -> Known {
    let mut index = first(address);
    for _ in 0..PROBES {
        let Some(place) = TABLE.get(index) else { break };
        let known = place.address.load(Ordering::Acquire);
        if known == 0 {
            break;
        }
        if known == address {
            let rule = Packed(place.rule.load(Ordering::Acquire));
            match place.gone.load(Ordering::Relaxed).checked_sub(1) {
                // Being written just now.
                _ if rule.0 == 0 => {}
                None => return Known::Lasting(rule),
                // One that may hold; an outdated one if the caller knows better.
                Some(since) if gone.is_none_or(|now| now == since) => return Known::Since(rule, since),
                Some(_) => {}
            }
        }
        index = next(index);
    }
    Known::Nothing
}

/// Keeps a rule; false if there is no room. `gone` is `None` for code that stays.
pub(super) fn keep(address: u64, rule: Packed, gone: Option<u64>) -> bool {
    let mut index = first(address);
    for _ in 0..PROBES {
        let Some(place) = TABLE.get(index) else { break };
        if place.address.compare_exchange(0, address, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            place.gone.store(gone.map_or(0, |count| count.wrapping_add(1)), Ordering::Relaxed);
            place.rule.store(rule.0, Ordering::Release);
            return true;
        }
        index = next(index);
    }
    FULL.store(true, Ordering::Relaxed);
    false
}

/// Whether a rule has found no room: from then on new ones are not made, because to make one for each walk costs more
/// than to walk another way.
pub(super) fn are_full() -> bool {
    FULL.load(Ordering::Relaxed)
}

#[inline(always)]
fn first(address: u64) -> usize {
    (address.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48) as usize
}

#[inline(always)]
fn next(index: usize) -> usize {
    index.wrapping_add(1) & RULES.wrapping_sub(1)
}

const _: () = assert!(RULES == 1 << 16, "`first` takes 16 bits");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_kept_as_it_is() {
        for (end, returns, fp) in [(8, -8, None), (16, -8, Some(-16)), (4 << 20, -8, Some(-(4 << 20)))] {
            for from_fp in [false, true] {
                let packed = Packed::of(Rule::Step { from_fp, end, returns, fp });
                let fits = end < 4 << 20;
                assert_eq!(packed.0 & Packed::PLAIN != 0, fits);
                if fits {
                    assert_eq!(packed.end() as i64, end);
                    assert_eq!(packed.returns() as i64, returns);
                    assert_eq!(packed.fp() as i64, fp.unwrap_or(0));
                    assert_eq!(packed.0 & Packed::FROM_FP != 0, from_fp);
                    assert_eq!(packed.0 & Packed::SAVES_FP != 0, fp.is_some());
                }
            }
        }
        assert!(Packed::of(Rule::End).is_end());
        assert!(!Packed::of(Rule::Odd).is_end());
        let uneven = Rule::Step { from_fp: false, end: 12, returns: -8, fp: None };
        assert_eq!(Packed::of(uneven), Packed::of(Rule::Odd));
    }

    #[test]
    fn an_outdated_rule_is_not_found_and_a_newer_one_is() {
        let (address, old, new) = (0x1234_5678, Packed::of(Rule::End), Packed::of(Rule::Odd));
        assert!(keep(address, old, Some(7)));
        assert!(matches!(find(address, Some(7)), Known::Since(rule, 7) if rule == old));
        assert!(matches!(find(address, Some(8)), Known::Nothing));
        assert!(keep(address, new, Some(8)));
        assert!(matches!(find(address, Some(8)), Known::Since(rule, 8) if rule == new));
        assert!(keep(0x8765_4321, new, None));
        assert!(matches!(find(0x8765_4321, Some(9)), Known::Lasting(rule) if rule == new));
    }
}
