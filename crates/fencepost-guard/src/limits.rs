//! What guarding may cost: memory and mappings, and the decision to guard less near a limit.

use fencepost_record::Unguarded;
use fencepost_sys::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The most that may be held where nothing limits it: so much that it is never reached, and that differences fit.
pub(crate) const HELD_MAX: u64 = 1 << 62;
/// Bytes of held memory that a thread counts by itself before it adds them to the common count.
pub(crate) const HELD_STEP: u64 = 256 << 10;
/// Mappings that pages of their own permissions cost in the midst of others.
pub(crate) const MAPPINGS_BY_PROTECTION: usize = 2;
/// Mappings that a large block costs whose run is closed by them: itself, its guard page, and the rest on both sides.
pub(crate) const MAPPINGS_BY_RUN: usize = 4;
/// The part of the mappings that such blocks may take: half. Past it they are closed by markers.
const MAPPINGS_BY_RUNS: usize = 2;
/// Live blocks that a thread counts by itself before it adds them to the common count.
pub(crate) const LIVE_STEP: u64 = 64;
/// Mappings left for the program's own use: one in this many of the limit.
const MAPPINGS_SHARE: usize = 8;
/// Above three quarters of the mappings, one block in this many is guarded, and above seven eighths one in its square.
const SCARCE_RATE: u64 = 16;

/// What guarding may cost and does cost.
pub(crate) struct Limits {
    /// Bytes that guarded blocks hold.
    held: AtomicU64,
    /// Guarded blocks alive, and the most there were.
    live: AtomicU64,
    live_max: AtomicU64,
    /// Mappings that open blocks cost.
    mappings: AtomicUsize,
    /// Bytes that nobody holds and that are counted as held, so that the program has them; not 0 while it limits itself.
    withheld: AtomicU64,
}

/// The limits themselves, fixed at the start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Bytes that guarded blocks and our tables may hold.
    pub(crate) held_max: u64,
    /// Mappings that open blocks may cost; `None` where nobody limits them.
    pub(crate) mappings_max: Option<usize>,
}

impl Bounds {
    /// Mappings that blocks may cost, of those the system allows and the process already has.
    pub(crate) fn mappings(system_max: usize, now: usize) -> usize {
        let reserve = system_max / MAPPINGS_SHARE;
        system_max.saturating_sub(now).saturating_sub(reserve)
    }

    /// With fewer mappings than this every block may be guarded as far as they go: see [`Limits::allow`].
    pub(crate) fn mappings_roomy(&self) -> usize {
        self.mappings_max.map_or(usize::MAX, |most| (most / 4).saturating_mul(3))
    }
}

impl Limits {
    pub(crate) const fn new() -> Self {
        Limits {
            held: AtomicU64::new(0),
            live: AtomicU64::new(0),
            live_max: AtomicU64::new(0),
            mappings: AtomicUsize::new(0),
            withheld: AtomicU64::new(0),
        }
    }

    /// From here blocks and tables may hold no more than they do and `room`; `None`: all that the bounds allow.
    pub(crate) fn leave_room(&self, bounds: &Bounds, tables: u64, room: Option<u64>) {
        let most = |room| self.held().saturating_add(tables).saturating_add(room);
        let withheld = room.map_or(0, |room| bounds.held_max.saturating_sub(most(room)).max(1));
        let before = self.withheld.swap(withheld, Ordering::Relaxed);
        self.add_held(withheld.wrapping_sub(before));
    }

    /// Whether the program has limited itself.
    pub(crate) fn is_tight(&self) -> bool {
        self.withheld.load(Ordering::Relaxed) != 0
    }

    /// What will be held with a block of `bytes` and with the tables. Below zero, which the count can be for a moment, is a
    /// huge number.
    #[inline(always)]
    pub(crate) fn held_and(&self, tables: u64, bytes: u64) -> u64 {
        self.held.load(Ordering::Relaxed).wrapping_add(tables).wrapping_add(bytes)
    }

    /// Mappings that open blocks cost.
    #[inline(always)]
    pub(crate) fn mappings(&self) -> usize {
        self.mappings.load(Ordering::Relaxed)
    }

    /// Whether a block that will hold `bytes` may be guarded, given what is held for tables and where to get a random number.
    #[inline]
    pub(crate) fn allow(
        &self,
        bounds: &Bounds,
        tables: u64,
        bytes: u64,
        random: impl FnOnce() -> u64,
    ) -> Result<(), Unguarded> {
        let held = self.held.load(Ordering::Relaxed).saturating_add(tables);
        // The common count is a sum of wrapping differences: briefly below zero reads as huge.
        let held = if held > i64::MAX as u64 { 0 } else { held };
        if held.saturating_add(bytes) > bounds.held_max {
            return Err(Unguarded::Memory);
        }
        let Some(most) = bounds.mappings_max else { return Ok(()) };
        let used = self.mappings.load(Ordering::Relaxed);
        let rate = match used {
            used if used >= most => return Err(Unguarded::Mappings),
            used if used / 7 >= most / 8 => SCARCE_RATE.wrapping_mul(SCARCE_RATE),
            used if used / 3 >= most / 4 => SCARCE_RATE,
            _ => return Ok(()),
        };
        if random().is_multiple_of(rate) { Ok(()) } else { Err(Unguarded::Mappings) }
    }

    /// Adds a thread's own count of held bytes (wrapping).
    pub(crate) fn add_held(&self, delta: u64) {
        self.held.fetch_add(delta, Ordering::Relaxed);
    }

    /// Adds a thread's own count of live blocks (wrapping), and the most that it was.
    pub(crate) fn add_live(&self, delta: u64, peak: u64) {
        let most = self.live.fetch_add(delta, Ordering::Relaxed).wrapping_add(peak);
        if most <= i64::MAX as u64 {
            self.live_max.fetch_max(most, Ordering::Relaxed);
        }
    }

    /// Whether one more large block may be closed by mappings, so that enough are left for everything else.
    pub(crate) fn allow_run(&self, bounds: &Bounds) -> bool {
        let used = self.mappings.load(Ordering::Relaxed).saturating_add(MAPPINGS_BY_RUN);
        bounds.mappings_max.is_none_or(|most| used <= most / MAPPINGS_BY_RUNS)
    }

    /// Counts mappings that a block opens.
    #[inline]
    pub(crate) fn take_mappings(&self, count: usize) {
        if count != 0 {
            self.mappings.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// Counts mappings that a block's end gives back.
    #[inline]
    pub(crate) fn give_mappings(&self, count: usize) {
        if count != 0 {
            // Slots that were opened ahead count before they hold a block: never below zero.
            let less = |used: usize| Some(used.saturating_sub(count));
            let updated = self.mappings.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
            debug_assert!(updated.is_ok());
        }
    }

    /// Bytes that guarded blocks hold, as far as threads have told.
    pub(crate) fn held(&self) -> u64 {
        self.held_with(0)
    }

    /// The same, given what threads have not told yet.
    pub(crate) fn held_with(&self, untold: u64) -> u64 {
        let told = self.held.load(Ordering::Relaxed).wrapping_sub(self.withheld.load(Ordering::Relaxed));
        let held = told.wrapping_add(untold);
        if held > i64::MAX as u64 { 0 } else { held }
    }

    /// The most blocks that were alive at once, given what threads have not told yet; of more than one thread to
    /// within [`LIVE_STEP`] each.
    pub(crate) fn live_max(&self, untold: u64) -> u64 {
        let now = self.live.load(Ordering::Relaxed).wrapping_add(untold);
        self.live_max.load(Ordering::Relaxed).max(if now > i64::MAX as u64 { 0 } else { now })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_limits_itself_leaves_room_for_that_much_and_gets_it_all_back() {
        let limits = Limits::new();
        for held_max in [HELD_MAX, 1 << 40, 2000] {
            let bounds = Bounds { held_max, mappings_max: None };
            limits.add_held(500);
            assert!(!limits.is_tight());
            for room in [1000, 400] {
                limits.leave_room(&bounds, 100, Some(room));
                assert!(limits.is_tight());
                assert_eq!(limits.held(), 500);
                let most = room.min(held_max - 600);
                assert_eq!(limits.allow(&bounds, 100, most.saturating_sub(1), || 0), Ok(()));
                assert_eq!(limits.allow(&bounds, 100, most + 1, || 0), Err(Unguarded::Memory));
            }
            limits.leave_room(&bounds, 100, None);
            assert!(!limits.is_tight() && limits.allow(&bounds, 100, held_max - 600, || 0).is_ok());
            limits.add_held(0u64.wrapping_sub(500));
        }
    }

    #[test]
    fn near_the_mapping_limit_a_sample_is_guarded_and_past_it_nothing() {
        let limits = Limits::new();
        let bounds = Bounds { held_max: u64::MAX, mappings_max: Some(800) };
        let guarded =
            |limits: &Limits| (0..2560).filter(|n| limits.allow(&bounds, 0, 0, || *n).is_ok()).count();
        assert_eq!(guarded(&limits), 2560);
        assert_eq!(bounds.mappings_roomy(), 600);
        limits.take_mappings(599);
        assert_eq!(guarded(&limits), 2560, "with fewer mappings than that every block is guarded");
        limits.take_mappings(1);
        assert_eq!(guarded(&limits), 160);
        limits.take_mappings(100);
        assert_eq!(guarded(&limits), 10);
        limits.take_mappings(100);
        assert_eq!(guarded(&limits), 0);
        limits.give_mappings(800);
        assert_eq!(guarded(&limits), 2560);
    }

    #[test]
    fn memory_past_the_limit_is_refused_and_a_briefly_negative_count_is_not_huge() {
        let limits = Limits::new();
        let bounds = Bounds { held_max: 1000, mappings_max: None };
        assert_eq!(limits.allow(&bounds, 0, 1000, || 0), Ok(()));
        assert_eq!(limits.allow(&bounds, 1, 1000, || 0), Err(Unguarded::Memory));
        limits.add_held(0u64.wrapping_sub(5));
        assert_eq!(limits.allow(&bounds, 0, 1000, || 0), Ok(()));
    }
}
