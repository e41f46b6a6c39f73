//! The steady pair: allocating and freeing a small block of engine move where nothing is remarkable.
//!
//! In a program that runs on and has no error nearly every call is one of these: a slot is ready, the block that is freed is
//! alive and whole, and a slot of this thread's is there for its page. What such a call does is what the general way does
//! (`allocate.rs`, `free.rs`), with each thing looked up once. After a system call the processor finds its caches and its
//! predictions cold, so that what counts is the number of instructions and of places they come from.
//!
//! Both look first and change nothing until they are sure. In the least doubt they answer "no", and the general way begins
//! from the start: only that one reports, opens, counts refusals and falls back.

use core::alloc::Layout;
use core::ptr::NonNull;
use core::sync::atomic::Ordering;

use fencepost_sys::{Platform, Range, prefetch};

use crate::allocate::{redzones, side_of};
use crate::engine::Engine;
use crate::family::Given;
use crate::geometry::{House, Place, SPAN_BYTES};
use crate::options::{self, Mode, OnError, Options};
use crate::runtime::{Guard, Setup};
use crate::span::{Use, Zone};
use crate::threads::{Counters, ThreadState};

/// Places of a freed block's pages that are fetched ahead, and how far they lie apart: those in between follow by themselves.
const LOOKED_AHEAD: usize = 4;
const PART: usize = 1024;

/// Whether these options ask nothing about single blocks, so that there is a steady pair.
pub(crate) fn is_steady(options: &Options, engine: Engine) -> bool {
    let unfiltered = options.only_size.is_empty()
        && options.skip_size.is_empty()
        && options.only_align.is_empty()
        && options.skip_align.is_empty()
        && !crate::filter::ask_for_thread(options)
        && !crate::filter::ask_for_stack(options);
    let unfailing = options.fail_at == 0 && options.fail_rate == 0;
    let undeferred = options.defer == 0 && options.place != options::Place::Alternate;
    engine == Engine::Move && options.mode == Mode::Strict && unfiltered && unfailing && undeferred
}

impl<P: Platform> Guard<P> {
    /// A block in the next ready slot of this thread; `None` where anything is to be asked, opened or refused.
    pub(crate) fn allocate_steadily(
        &self,
        setup: &Setup,
        state: &ThreadState,
        layout: Layout,
        zeroed: bool,
        anchor: usize,
    ) -> Option<NonNull<u8>> {
        let geometry = setup.geometry();
        let (size, align) = (layout.size(), layout.align());
        let Some(House::Small(pages)) = geometry.house(size, align) else { return None };
        let index = (state.spans.get(pages)?.load(Ordering::Relaxed) as usize).checked_sub(1)?;
        let span = self.heap.span(index)?;
        let used = span.used.load(Ordering::Relaxed);
        let next = used.wrapping_add(1);
        let until_check = state.until_check.load(Ordering::Relaxed).checked_sub(1)?;
        let held = pages.wrapping_mul(geometry.page()) as u64;
        // The last slot of a span is the general way's, which then looks for another span.
        let is_ready = used != span.ready.load(Ordering::Relaxed)
            && (next as usize) < geometry.slots_per_span(pages)
            && span.zone() == Zone::Missing;
        if !is_ready || self.is_disabled() || !self.limits.is_roomy(&setup.bounds, self.table_bytes(), held) {
            return None;
        }
        let slot = self.heap.small_slot(index, used as usize)?;
        let act = self.act_of(setup, Some(state), anchor);
        let data = self.data_of_small(setup, index, pages, used as usize);
        let block = geometry.place(data, size, align, side_of(setup, &act));
        if setup.options.fill {
            let stale = slot.stale();
            let [before, after] = redzones(block, size, data);
            // SAFETY: slot `used` of this thread's own span is ready and nobody's: its pages are open, and the block and
            // its redzones lie within them.
            unsafe {
                setup.patterns.lay_redzone(before.meet(stale));
                setup.patterns.lay_redzone(after.meet(stale));
                if !zeroed {
                    setup.patterns.lay_new(block, size);
                }
            }
        }
        if zeroed {
            // SAFETY: as above.
            unsafe { core::ptr::write_bytes(block as *mut u8, 0, size) };
        }
        state.until_check.store(until_check, Ordering::Relaxed);
        span.used.store(next, Ordering::Relaxed);
        self.count_held(state, held, 1);
        slot.birth(block, size, align, act);
        NonNull::new(block as *mut u8)
    }

    /// Frees a block of this heap if there is nothing to say about it and its page can move; false, with nothing done,
    /// where that is not so. Not for a free that interrupted the runtime.
    pub(crate) fn free_steadily(
        &self,
        setup: &Setup,
        state: &ThreadState,
        address: usize,
        given: &Given,
        anchor: usize,
    ) -> bool {
        self.free_if_steady(setup, state, address, given, anchor).is_some()
    }

    fn free_if_steady(
        &self,
        setup: &Setup,
        state: &ThreadState,
        address: usize,
        given: &Given,
        anchor: usize,
    ) -> Option<()> {
        let (heap, geometry) = (&self.heap, setup.geometry());
        let offset = address.wrapping_sub(heap.addresses().start);
        let index = offset / SPAN_BYTES;
        let span = heap.span(index)?;
        let Use::Small(pages) = span.usage() else { return None };
        let Place::Data(number) = geometry.locate(pages, offset & SPAN_BYTES.wrapping_sub(1)) else {
            return None;
        };
        let data = self.data_of_small(setup, index, pages, number);
        if setup.options.fill {
            // Of a block that was not used for long its record is as far away as its page, which is compared below: the
            // processor fetches both at once.
            (0..LOOKED_AHEAD).for_each(|part| prefetch(data.start.wrapping_add(part.wrapping_mul(PART))));
        }
        let slot = heap.small_slot(index, number)?;
        let (size, align) = slot.plain_block(address)?;
        let is_as_said = given.size.unwrap_or(size) == size
            && given.align.unwrap_or(align) == align
            && given.family.takes(slot.family());
        let is_here = span.zone() == Zone::Missing && span.forgotten.load(Ordering::Acquire) == 0;
        if !is_as_said || !is_here || !self.moving.moves() {
            return None;
        }
        let (target, into) = self.target(setup, state, pages)?;
        let ready = into.ready.load(Ordering::Relaxed);
        let next = heap.small_slot(target, ready as usize)?;
        let own = Range { start: address, len: size };
        let act = self.act_of(setup, Some(state), anchor);
        if !slot.begin_free() {
            return None;
        }
        if setup.options.fill {
            let [before, after] = redzones(address, size, data);
            // SAFETY: winning `begin_free` made the block ours to free, so its pages are open.
            if unsafe { setup.patterns.find_damage(before).or(setup.patterns.find_damage(after)) }.is_some() {
                slot.give_up_free();
                return None;
            }
        }
        if setup.options.on_error == OnError::Continue {
            // SAFETY: as above, and the bytes are the block's.
            unsafe { self.remains.keep(own) };
        }
        slot.note_free(act);
        let stale = if setup.options.fill { own } else { data };
        self.move_to(data, stale, self.data_of_small(setup, target, pages, ready as usize), into, next);
        slot.end_free();
        Counters::bump(&state.counters.freed, 1);
        self.count_held(state, 0u64.wrapping_sub(data.len as u64), u64::MAX);
        let dead = span.dead.fetch_add(1, Ordering::AcqRel).wrapping_add(1);
        if dead as usize >= geometry.slots_per_span(pages) {
            heap.bury(&self.platform, &setup.heap, index);
        }
        Some(())
    }

    /// Bytes that our tables hold, which count as held.
    pub(crate) fn table_bytes(&self) -> u64 {
        self.heap.overhead.load(Ordering::Relaxed).saturating_add(self.depot.held_bytes())
    }
}
