//! Questions a program asks the runtime: whose address is this, is everything intact, what was done so far.

use core::sync::atomic::Ordering;

use fencepost_record::{AccessType, BlockState, Stack, Summary, Trace, Where};
use fencepost_sys::{Platform, Range};

use crate::diagnose::{Beside, state_of};
use crate::options::OnError;
use crate::report::Frames;
use crate::runtime::{Guard, Setup};
use crate::slot::{Slot, SlotState, SlotView};
use crate::span::Use;

/// What is known about the block that an address belongs to.
#[derive(Clone, Copy, Debug)]
pub struct BlockFacts {
    /// Its first byte.
    pub address: usize,
    /// Its size in bytes.
    pub size: usize,
    /// Its alignment in bytes.
    pub align: usize,
    /// Where the address lies beside it.
    pub place: Where,
    /// How far, in bytes, as reports count it.
    pub distance: usize,
    /// Whether it is alive.
    pub state: BlockState,
    /// Whether some of it is sealed.
    pub sealed: bool,
    /// Who allocated it.
    pub allocated: Stack,
    /// Who freed it, if it was freed.
    pub freed: Option<Stack>,
}

impl<P: Platform> Guard<P> {
    /// The guarded block that owns an address, or that an access to it would be reported against; also one that was
    /// freed, as long as its record is kept.
    pub fn describe(&self, address: usize) -> Option<BlockFacts> {
        let setup = self.ready()?;
        let around = self.surroundings(setup, address);
        let nearest = [around.here, around.below, around.above]
            .into_iter()
            .flatten()
            .filter(|slot| slot.state != SlotState::Empty)
            .map(|slot| Beside::of(slot, address))
            .min_by_key(
                |beside| if beside.place == Where::Inside { 0 } else { beside.distance.saturating_add(1) },
            )?;
        if nearest.place != Where::Inside && nearest.distance >= setup.geometry().page() {
            return None;
        }
        let slot = nearest.slot;
        let state = state_of(&slot);
        let now = self.now(setup);
        Some(BlockFacts {
            address: slot.pointer,
            size: slot.size,
            align: slot.align,
            place: nearest.place,
            distance: nearest.distance,
            state,
            sealed: slot.sealed,
            allocated: self.stack_of(&slot.allocated, now),
            freed: (state == BlockState::Freed).then(|| self.stack_of(&slot.freed, now)),
        })
    }

    /// Calls `each` with the size of every live guarded block, in bytes, and the number of the stack it was allocated from
    /// (see [`Guard::kept_trace`]; 0 if that was not kept). Blocks that come and go meanwhile may be among them or not.
    pub fn each_live(&self, each: &mut dyn FnMut(usize, u32)) {
        if self.ready().is_none() {
            return;
        }
        self.heap.each_record(|slot, _, index, _| {
            let view = self.heap.view(slot);
            if view.state == SlotState::Live && !self.was_moved(index) {
                each(view.size, view.allocated.trace);
            }
        });
    }

    /// A stack by its number; empty if there is none.
    pub fn kept_trace(&self, number: u32) -> Trace {
        let mut trace = Trace::EMPTY;
        self.depot.load(number, &mut trace);
        trace
    }

    /// Verifies the bytes around every live guarded block, and those of freed ones that wait to be closed, reports each
    /// damaged block, and says how many there are.
    /// Under `on_error=abort` or `exit` the process ends with the first.
    pub fn check(&self, anchor: usize) -> usize {
        let Some(setup) = self.ready() else { return 0 };
        let mut damaged = self.close_all_waiting(setup, anchor);
        self.heap.each_record(|slot, usage, index, number| {
            if self.check_block(setup, slot, usage, index, number, anchor) {
                damaged = damaged.wrapping_add(1);
            }
        });
        damaged
    }

    fn check_block(
        &self,
        setup: &Setup,
        slot: &Slot,
        usage: Use,
        index: usize,
        number: usize,
        anchor: usize,
    ) -> bool {
        // From here a free of this block waits until the bytes have been compared.
        if !slot.begin_check() {
            return false;
        }
        if self.was_moved(index) {
            slot.end_check();
            return false;
        }
        let view = self.heap.view(slot);
        let data: Range = match usage {
            Use::Small(pages) => self.data_of_small(setup, index, pages, number),
            _ => setup.geometry().pages_of(view.pointer, view.size),
        };
        let case = self.damage(setup, &view, data, AccessType::None);
        slot.end_check();
        let Some(case) = case else { return false };
        self.report(setup, &case, &Frames::Here(anchor));
        // Said once: the bytes are put right, so that neither the next check nor the free says it again.
        self.mend(setup, slot, &view, data);
        true
    }

    fn mend(&self, setup: &Setup, slot: &Slot, view: &SlotView, data: Range) {
        if !slot.begin_check() {
            return;
        }
        for zone in crate::allocate::redzones(view.pointer, view.size, data) {
            if slot.seals.load(Ordering::Acquire) == 0 {
                // SAFETY: the block is alive and cannot be freed meanwhile; its redzones are ours to write.
                unsafe { setup.patterns.lay_redzone(zone) };
            }
        }
        slot.end_check();
    }

    /// Everything counted so far; `None` before the start and when nothing is guarded.
    pub fn stats(&self) -> Option<Summary> {
        self.ready().map(|setup| self.summary(setup))
    }

    /// The process ends normally: verifies what is still alive, prints the summary, and sets the exit status of a
    /// run that went on after errors.
    pub fn at_exit(&self, anchor: usize) {
        let Some(setup) = self.decided() else { return };
        self.check(anchor);
        if setup.options.leaks && self.ready().is_some() {
            self.enter();
            self.report_leaks(setup, anchor);
            self.leave();
        }
        self.print_summary(setup);
        let reported = self.reporter.count.load(Ordering::Relaxed) != 0;
        if reported && setup.options.on_error == OnError::Continue {
            self.platform.flush_streams();
            self.platform.exit_now(i32::from(setup.options.exitcode));
        }
    }
}
