//! The account of `mode=budget`: what guarding costs, and what may be spent on it.
//!
//! The time of every guarded allocation and free is measured and added up. With it what comes after: the program finds caches
//! cold that were its own. The least that such work ever took is what it takes where nothing is cold; what it takes beyond
//! that it waits for memory, and the program will wait some times as long ([`AFTERMATH`]). So a guarded block costs most
//! where they are rare. The program's own time is the process's CPU time without all that, and its share is what may be spent.
//! At first there is an *advance*: [`ADVANCE_NS`] may be spent before they are earned, and [`FIRST_NS`] for first blocks of
//! contexts.
//!
//! Everything is Relaxed: the numbers steer, nothing else is reached through them.

use fencepost_sys::atomic::{AtomicU32, AtomicU64, Ordering};

/// What may be spent before it is earned, in nanoseconds: this much a short program may cost.
const ADVANCE_NS: u64 = 1_000_000;
/// The same for first blocks of contexts.
const FIRST_NS: u64 = 2_500_000;
/// The most that may be earned and not spent: a burst after a quiet time costs no more than this at once.
const CREDIT_NS: u64 = 8_000_000;
/// The pressure begins when what is left is less than this, in nanoseconds.
const WINDOW_NS: u64 = 1_000_000;
/// The pressure when nothing is left.
pub(crate) const FULL: u64 = 1024;
/// One charge is taken to be at most this, in nanoseconds: what takes longer was mostly another process's time.
const CHARGE_MAX: u64 = 50_000;
/// What is charged for cold caches afterwards: how many times what the work took beyond the least that such work takes,
/// and at most this many nanoseconds: after the first block of a context, whose stack takes most of the time, and after
/// others. All three were fitted to whole programs.
const AFTERMATH: u64 = 3;
const AFTERMATH_FIRST_MAX: u64 = 6_000;
const AFTERMATH_MAX: u64 = 24_000;

/// What was earned and spent. In a line of its own: whoever guards a block writes to it.
#[repr(C, align(128))]
pub(crate) struct Budget {
    /// Nanoseconds that guarding took, and what came after.
    spent: AtomicU64,
    /// The same without what came after: measured, but for looks, which are reckoned.
    own: AtomicU64,
    /// The least that an allocation took, and a free.
    least: [AtomicU64; 2],
    /// The part of `spent` that first blocks of contexts took.
    spent_first: AtomicU64,
    /// The share of the program's own time.
    earned: AtomicU64,
    /// What was earned beyond [`CREDIT_NS`], and is lost.
    lapsed: AtomicU64,
    /// When `earned` was worked out last, in milliseconds.
    looked: AtomicU32,
}

/// What guarding spends time on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// The start of the runtime.
    Start,
    /// The first guarded block of a context.
    First,
    /// Another one.
    Block,
    Free,
    /// Looks at contexts, which are reckoned.
    Look,
}

impl Budget {
    pub(crate) const fn new() -> Budget {
        Budget {
            spent: AtomicU64::new(0),
            own: AtomicU64::new(0),
            least: [const { AtomicU64::new(u64::MAX) }; 2],
            spent_first: AtomicU64::new(0),
            earned: AtomicU64::new(0),
            lapsed: AtomicU64::new(0),
            looked: AtomicU32::new(0),
        }
    }

    /// A forked child's time begins anew.
    pub(crate) fn begin_anew(&self) {
        for count in [&self.spent, &self.own, &self.spent_first, &self.earned, &self.lapsed] {
            count.store(0, Ordering::Relaxed);
        }
    }

    /// Adds the time of one piece of work.
    pub(crate) fn charge(&self, nanoseconds: u64, work: Work) {
        let taken = nanoseconds.min(CHARGE_MAX);
        let charge = taken.saturating_add(self.aftermath(taken, work));
        self.own.fetch_add(taken, Ordering::Relaxed);
        self.spent.fetch_add(charge, Ordering::Relaxed);
        if work == Work::First {
            self.spent_first.fetch_add(charge, Ordering::Relaxed);
        }
    }

    /// What the program will wait for memory after work that took this long.
    fn aftermath(&self, taken: u64, work: Work) -> u64 {
        let [allocation, free] = &self.least;
        let (least, most) = match work {
            Work::Start | Work::Look => return 0,
            Work::First => (allocation, AFTERMATH_FIRST_MAX),
            Work::Block => (allocation, AFTERMATH_MAX),
            Work::Free => (free, AFTERMATH_MAX),
        };
        // Written seldom: it only falls.
        let before = least.load(Ordering::Relaxed);
        if taken < before {
            least.fetch_min(taken, Ordering::Relaxed);
        }
        taken.saturating_sub(before).saturating_mul(AFTERMATH).min(most)
    }

    /// Whether `earned` is to be worked out anew at this millisecond, by whoever asks first.
    pub(crate) fn is_due(&self, now: u32) -> bool {
        self.looked.load(Ordering::Relaxed) != now && self.looked.swap(now, Ordering::Relaxed) != now
    }

    /// Microseconds of work, without what was charged beyond them.
    pub(crate) fn spent_us(&self) -> u64 {
        self.own.load(Ordering::Relaxed) / 1000
    }

    /// Works out what was earned by now: the share of the CPU time that was the program's own.
    pub(crate) fn earn(&self, cpu_ns: u64, percent: u64) {
        let spent = self.spent.load(Ordering::Relaxed);
        let earned = cpu_ns.saturating_sub(spent).saturating_mul(percent) / 100;
        self.earned.store(earned, Ordering::Relaxed);
        let lapsed = earned.saturating_sub(spent).saturating_sub(CREDIT_NS);
        self.lapsed.fetch_max(lapsed, Ordering::Relaxed);
    }

    /// What may be spent by now, and what was.
    fn account(&self, advance: u64) -> (u64, u64) {
        let spent = self.spent.load(Ordering::Relaxed).saturating_add(self.lapsed.load(Ordering::Relaxed));
        (self.earned.load(Ordering::Relaxed).max(advance), spent)
    }

    /// How near to what may be spent we are: [`FULL`] when nothing is left.
    pub(crate) fn pressure(&self) -> u64 {
        let (may, spent) = self.account(ADVANCE_NS);
        let left = may.saturating_sub(spent).min(WINDOW_NS);
        FULL.saturating_sub(left.saturating_mul(FULL) / WINDOW_NS)
    }

    /// The least distance of a context's guarded blocks. Once the program lives by what it earns, those that happen to be
    /// due in a quiet moment would take all that was saved: the less the more was.
    pub(crate) fn least_gap(&self, uses: u64) -> u64 {
        if self.earned.load(Ordering::Relaxed) <= ADVANCE_NS {
            return 0;
        }
        let (may, spent) = self.account(ADVANCE_NS);
        match may.saturating_sub(spent) / WINDOW_NS {
            0 | 1 => uses / 32,
            2 | 3 => uses / 256,
            _ => 0,
        }
    }

    /// Whether first blocks may still be guarded.
    pub(crate) fn allows_first(&self) -> bool {
        let (may, spent) = self.account(FIRST_NS);
        let share = may.saturating_sub(may / 4);
        spent < may && self.spent_first.load(Ordering::Relaxed) < share
    }
}

#[cfg(test)]
mod tests {
    use super::super::FREE;
    use super::*;

    /// The most that is charged at once.
    const MOST: u64 = CHARGE_MAX + AFTERMATH_MAX;

    #[test]
    fn what_is_earned_is_a_share_of_the_programs_own_time() {
        let budget = Budget::new();
        budget.charge(9_000, Work::Start);
        assert_eq!((budget.spent.load(Ordering::Relaxed), budget.spent_us()), (9_000, 9));
        budget.earn(10_009_000, 5);
        assert_eq!(budget.earned.load(Ordering::Relaxed), 500_000);
        assert!(budget.pressure() < FREE, "the advance is there");
        budget.charge(1_000, Work::Block);
        budget.charge(u64::MAX, Work::Block);
        assert_eq!(budget.spent.load(Ordering::Relaxed), 10_000 + MOST, "one charge is bounded");
        for _ in 0..FIRST_NS / CHARGE_MAX {
            budget.charge(CHARGE_MAX, Work::First);
        }
        assert!(budget.pressure() == FULL && !budget.allows_first());
        budget.earn(1_000_000_000, 5);
        assert!(budget.pressure() == 0 && budget.allows_first(), "what comes in is spent again");
    }

    #[test]
    fn what_takes_longer_than_the_least_costs_the_program_as_well() {
        let budget = Budget::new();
        let charge = |taken, work| {
            let before = budget.spent.load(Ordering::Relaxed);
            budget.charge(taken, work);
            budget.spent.load(Ordering::Relaxed) - before
        };
        assert_eq!(charge(800, Work::Block), 800, "the first is the least");
        assert_eq!(charge(500, Work::Block), 500, "and so is one that takes less");
        assert_eq!(charge(700, Work::Block), 700 + 200 * AFTERMATH);
        assert_eq!(charge(500, Work::Block), 500);
        assert_eq!(charge(20_000, Work::First), 20_000 + AFTERMATH_FIRST_MAX, "of an allocation as well");
        assert_eq!(charge(1_200, Work::Free), 1_200, "frees have a least of their own");
        assert_eq!(budget.own.load(Ordering::Relaxed), 800 + 500 + 700 + 500 + 20_000 + 1_200);
    }

    #[test]
    fn a_long_quiet_time_buys_one_burst_of_a_bounded_cost() {
        let budget = Budget::new();
        budget.charge(0, Work::Block);
        budget.earn(100_000_000_000, 5);
        assert_eq!(budget.lapsed.load(Ordering::Relaxed), 5_000_000_000 - CREDIT_NS);
        for _ in 0..CREDIT_NS / MOST {
            assert!(budget.pressure() < FULL);
            budget.charge(CHARGE_MAX, Work::Block);
        }
        budget.charge(CHARGE_MAX, Work::Block);
        assert_eq!(budget.pressure(), FULL);
        budget.begin_anew();
        assert_eq!(budget.pressure(), 0);
    }
}
