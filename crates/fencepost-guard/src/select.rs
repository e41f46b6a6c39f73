//! Whether a block is to be guarded: filters, the mode, failures on demand.

use core::alloc::Layout;
use core::ptr::NonNull;
use core::sync::atomic::Ordering;

use fencepost_record::Unguarded;
use fencepost_sys::Platform;

use crate::options::Mode;
use crate::runtime::{Guard, Setup};
use crate::threads::ThreadState;

impl Mode {
    /// Whether most blocks are left to the inner allocator.
    #[inline]
    pub(crate) const fn leaves_most(self) -> bool {
        matches!(self, Mode::Sample | Mode::Budget)
    }
}

impl<P: Platform> Guard<P> {
    /// Guards a block, or says why not.
    pub(crate) fn guard_or_not(
        &self,
        setup: &Setup,
        state: &ThreadState,
        layout: Layout,
        zeroed: bool,
        anchor: usize,
    ) -> Result<NonNull<u8>, Unguarded> {
        if state.expected.load(Ordering::Relaxed) != 0 && !self.is_disabled() {
            return self.try_guard(setup, state, layout, zeroed, anchor).map(|(block, _)| block);
        }
        self.is_wanted(setup, state, layout)?;
        if setup.by_stack {
            self.filter_stack(setup, anchor)?;
        }
        if setup.options.mode != Mode::Budget {
            let (block, trace) = self.try_guard(setup, state, layout, zeroed, anchor)?;
            if setup.options.mode == Mode::Sample {
                self.note_sample(setup, trace, layout.size());
            }
            return Ok(block);
        }
        let choice = self.choose(setup, state, layout.size())?;
        let (block, trace) = self.try_guard(setup, state, layout, zeroed, anchor)?;
        self.settle_choice(setup, state, choice, trace, layout.size());
        Ok(block)
    }

    fn is_wanted(&self, setup: &Setup, state: &ThreadState, layout: Layout) -> Result<(), Unguarded> {
        let options = &setup.options;
        if self.is_disabled() {
            return Err(Unguarded::Disabled);
        }
        let (size, align) = (layout.size() as u64, layout.align() as u64);
        let chosen = (options.only_size.is_empty() || options.only_size.contains(size))
            && (options.only_align.is_empty() || options.only_align.contains(align))
            && !options.skip_size.contains(size)
            && !options.skip_align.contains(align);
        if !chosen {
            return Err(Unguarded::Filter);
        }
        if setup.by_thread {
            self.filter_thread(setup, state)?;
        }
        if options.mode != Mode::Sample || options.sample_rate <= 1 {
            return Ok(());
        }
        // The caller did not ask whether it passes: a guarded block is being resized.
        if state.may_pass() != 0 {
            return Err(Unguarded::Sample);
        }
        let left = state.countdown.load(Ordering::Relaxed);
        if left == 0 {
            // The gap is uniform between 1 and twice the rate, so that no rhythm of the program is missed for good.
            let span = u64::from(options.sample_rate).saturating_mul(2).saturating_sub(1).max(1);
            let gap = state.next_random().checked_rem(span).unwrap_or(0);
            let gap = u32::try_from(gap).unwrap_or(u32::MAX);
            if setup.lets_pass {
                self.grant(state, gap);
            } else {
                state.countdown.store(gap, Ordering::Relaxed);
            }
            return Ok(());
        }
        state.countdown.store(left.wrapping_sub(1), Ordering::Relaxed);
        Err(Unguarded::Sample)
    }

    /// Whether this allocation is one that `fail_at` or `fail_rate` makes fail.
    pub(crate) fn is_to_fail(&self, setup: &Setup) -> bool {
        let options = &setup.options;
        if options.fail_at == 0 && options.fail_rate == 0 || self.apart.load(Ordering::Relaxed) != 0 {
            return false;
        }
        let number = self.countdown.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        if options.fail_at == number {
            return true;
        }
        let seed = if options.fail_seed == 0 { setup.seed } else { options.fail_seed };
        crate::pattern::mix(seed ^ number).checked_rem(u64::from(options.fail_rate)) == Some(0)
    }
}
