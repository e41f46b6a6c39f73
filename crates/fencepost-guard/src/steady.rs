//! The steady pair: allocating and freeing a small block of engine move where nothing is remarkable.
//!
//! In a program that runs on and has no error nearly every call is one of these: a slot is ready, the block that is freed is
//! alive and whole, and a slot of this thread's is there for its page. What such a call does is what the general way does
//! (`allocate.rs`, `free.rs`), with each thing looked up once.
//!
//! After a system call the processor finds its caches and its predictions cold. So what counts is the number of
//! instructions and of lines of memory that they come from and go to: what both ask of the setup lies in one place
//! ([`Lane`]), and what they ask of a thread at the start of its state. And it has forgotten where functions return to: so
//! all of a pair is inlined into the program's own call, the system call too, and as little as possible comes after that.
//!
//! Both look first and change nothing until they are sure. In the least doubt they answer "no", and the general way begins
//! from the start: only that one reports, opens, counts refusals and falls back. Where it will have to for good, because
//! pages are no longer moved or no further blocks are guarded, [`Guard::end_steady`] keeps everybody off this one.

use core::alloc::Layout;
use core::ptr::NonNull;

use fencepost_record::FRAMES_MAX;
use fencepost_sys::atomic::{Ordering, compiler_fence};
use fencepost_sys::{Platform, Range, prefetch};

use crate::allocate::redzones;
use crate::engine::Engine;
use crate::family::{Family, Given};
use crate::geometry::{Geometry, House, Place, SPAN_BYTES, Side, align_down};
use crate::moving::RING_PAGES;
use crate::options::{self, Mode, OnError, Options};
use crate::pattern::Patterns;
use crate::runtime::{Guard, Setup};
use crate::slot::Act;
use crate::span::{Life, Span, Use, Zone};
use crate::threads::{Counters, ThreadState};

/// Places of a freed block's pages that are fetched ahead: those in between follow by themselves.
const LOOKED_AHEAD: [usize; 4] = [0, 1024, 2048, 3072];

/// What can be steady, as bits: a free and an allocation without a word to anybody, and the same once it is decided that the
/// block is guarded and somebody has looked at the time.
const FREES_AT_ONCE: u32 = 1;
const ALLOCATES_AT_ONCE: u32 = 2;
const FREES: u32 = 4;
const ALLOCATES: u32 = 8;

/// What can be steady under these options.
pub(crate) fn ways(options: &Options, engine: Engine) -> u32 {
    if engine != Engine::Move || options.defer != 0 {
        return 0;
    }
    // There the side is chosen for each block.
    let allocates = if options.place == options::Place::Alternate { 0 } else { ALLOCATES };
    let unfiltered = options.only_size.is_empty()
        && options.skip_size.is_empty()
        && options.only_align.is_empty()
        && options.skip_align.is_empty()
        && !crate::filter::ask_for_thread(options)
        && !crate::filter::ask_for_stack(options);
    let unfailing = options.fail_at == 0 && options.fail_rate == 0;
    match options.mode {
        Mode::Strict if unfiltered && unfailing && allocates != 0 => {
            FREES_AT_ONCE | ALLOCATES_AT_ONCE | FREES | ALLOCATES
        }
        // A budget is charged for each.
        Mode::Budget => FREES | allocates,
        _ => FREES_AT_ONCE | FREES | allocates,
    }
}

/// What the steady pair asks of the setup, side by side.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Lane {
    geometry: Geometry,
    patterns: Patterns,
    started_ms: u64,
    held_max: u64,
    /// With fewer mappings than this nothing is near their limit.
    mappings_roomy: usize,
    /// Frames of a stack; 0 where none are kept.
    depth: usize,
    side: Side,
    fill: bool,
    /// Whether what freed blocks held is kept.
    keeps: bool,
}

impl Lane {
    /// Of a runtime without steady pairs.
    pub(crate) const NONE: Lane = Lane {
        geometry: Geometry::new(4096),
        patterns: Patterns::NONE,
        started_ms: 0,
        held_max: 0,
        mappings_roomy: 0,
        depth: 0,
        side: Side::Right,
        fill: false,
        keeps: false,
    };

    pub(crate) fn of(setup: &Setup) -> Lane {
        Lane {
            geometry: *setup.geometry(),
            patterns: setup.patterns,
            started_ms: setup.started_ms,
            held_max: setup.bounds.held_max,
            mappings_roomy: setup.bounds.mappings_roomy(),
            depth: usize::from(setup.options.stack_depth).min(FRAMES_MAX),
            side: if setup.options.place == options::Place::Left { Side::Left } else { Side::Right },
            fill: setup.options.fill,
            keeps: setup.options.on_error == OnError::Continue,
        }
    }
}

impl<P: Platform> Guard<P> {
    /// From here calls can be steady ones. The setup is stored.
    pub(crate) fn begin_steady(&self, ways: u32) {
        self.quick.steady.store(ways, Ordering::Release);
    }

    /// From here none is.
    pub(crate) fn end_steady(&self) {
        self.quick.steady.store(0, Ordering::Relaxed);
    }

    /// Whether frees can be steady, when somebody has looked at the time where that has to be.
    pub(crate) fn frees_steadily(&self) -> bool {
        self.quick.steady.load(Ordering::Relaxed) & FREES != 0
    }

    /// The setup, if calls can be steady in a way.
    #[inline(always)]
    fn steady_setup(&self, way: u32) -> Option<&Setup> {
        // SAFETY: `begin_steady` comes after the setup was stored.
        (self.quick.steady.load(Ordering::Acquire) & way != 0).then(|| unsafe { self.stored_setup() })
    }

    /// This thread's state, if the runtime does nothing else on this thread.
    #[inline(always)]
    fn idle_thread(&self) -> Option<&'static ThreadState> {
        ThreadState::of_word(self.platform.thread_word())
            .filter(|state| state.depth.load(Ordering::Relaxed) == 0)
    }

    /// A guarded block, if nothing is remarkable about the call; `None`, with nothing done, where [`Guard::allocate`] is to
    /// be asked. `family` is of the functions that hand it out.
    #[inline(always)]
    pub fn allocate_at_once(
        &self,
        layout: Layout,
        zeroed: bool,
        family: Family,
        anchor: usize,
    ) -> Option<NonNull<u8>> {
        let setup = self.steady_setup(ALLOCATES_AT_ONCE)?;
        let state = self.idle_thread()?;
        if state.reporting.load(Ordering::Relaxed) != 0 {
            return None;
        }
        state.depth.store(1, Ordering::Relaxed);
        // A signal handler of the program that interrupts us must see the depth.
        compiler_fence(Ordering::SeqCst);
        let placed = self.allocate_steadily(&setup.lane, state, layout, zeroed, family, anchor);
        if placed.is_some() {
            Counters::bump(&state.counters.guarded, 1);
        }
        compiler_fence(Ordering::SeqCst);
        state.depth.store(0, Ordering::Relaxed);
        placed.map(|(block, _)| block)
    }

    /// The same for a block that is to be guarded, where that was asked about: with the number of its stack.
    #[inline(never)]
    pub(crate) fn allocate_if_steady(
        &self,
        setup: &Setup,
        state: &ThreadState,
        layout: Layout,
        zeroed: bool,
        anchor: usize,
    ) -> Option<(NonNull<u8>, u32)> {
        let ways = self.quick.steady.load(Ordering::Relaxed);
        // What allocates at once has tried already.
        if ways & ALLOCATES == 0 || ways & ALLOCATES_AT_ONCE != 0 {
            return None;
        }
        self.allocate_steadily(&setup.lane, state, layout, zeroed, Family::Rust, anchor)
    }

    /// A block in the next ready slot of this thread; `None` where anything is to be asked, opened or refused.
    #[inline(always)]
    fn allocate_steadily(
        &self,
        lane: &Lane,
        state: &ThreadState,
        layout: Layout,
        zeroed: bool,
        family: Family,
        anchor: usize,
    ) -> Option<(NonNull<u8>, u32)> {
        let geometry = &lane.geometry;
        let (size, align) = (layout.size(), layout.align());
        let Some(House::Small(pages)) = geometry.house(size, align) else { return None };
        let index = (state.spans.get(pages)?.load(Ordering::Relaxed) as usize).checked_sub(1)?;
        let span = self.heap.known_span(index)?;
        let used = span.used.load(Ordering::Relaxed);
        let next = used.wrapping_add(1);
        let until_check = state.until_check.load(Ordering::Relaxed).checked_sub(1)?;
        let held = pages.wrapping_mul(geometry.page()) as u64;
        // The last slot of a span is the general way's, which then looks for another span.
        let is_ready = used != span.ready.load(Ordering::Relaxed)
            && (next as usize) < geometry.slots_per_span(pages)
            && span.zone() == Zone::Missing;
        let sum = self.limits.held_and(self.table_bytes(), held);
        if !is_ready || sum > lane.held_max || self.limits.mappings() >= lane.mappings_roomy {
            return None;
        }
        // SAFETY: the span is known, and has more than `used` slots.
        let slot = unsafe { self.heap.known_slot(index, used as usize) };
        let act = self.act_steadily(lane, state, anchor);
        let data = self.data_in(geometry, index, pages, used as usize);
        let block = geometry.place(data, size, align, lane.side);
        if lane.fill {
            let stale = slot.stale(align_down(data.start, SPAN_BYTES));
            let [before, after] = redzones(block, size, data);
            // SAFETY: slot `used` of this thread's own span is ready and nobody's: its pages are open, and the block and
            // its redzones lie within them.
            unsafe {
                lane.patterns.lay_redzone(before.meet(stale));
                lane.patterns.lay_redzone(after.meet(stale));
                if !zeroed {
                    lane.patterns.lay_new(block, size);
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
        if family != Family::Rust {
            slot.set_family(family);
        }
        NonNull::new(block as *mut u8).map(|block| (block, act.trace))
    }

    /// Frees a block of this heap if nothing is remarkable about it and the page has a place to go to at hand; false, with
    /// nothing done, where [`Guard::free`] is to be asked.
    #[inline(always)]
    pub fn free_at_once(&self, block: NonNull<u8>, given: &Given, anchor: usize) -> bool {
        let Some(setup) = self.steady_setup(FREES_AT_ONCE) else { return false };
        let Some(state) = self.idle_thread() else { return false };
        state.depth.store(1, Ordering::Relaxed);
        // As above.
        compiler_fence(Ordering::SeqCst);
        let freed = self.free_if_steady::<false>(setup, state, block.as_ptr() as usize, given, anchor);
        compiler_fence(Ordering::SeqCst);
        state.depth.store(0, Ordering::Relaxed);
        freed.is_some()
    }

    /// The same where the page may also go to this thread's stock. Not for a free that interrupted the runtime.
    #[inline(never)]
    pub(crate) fn free_to_stock(
        &self,
        setup: &Setup,
        state: &ThreadState,
        address: usize,
        given: &Given,
        anchor: usize,
    ) -> bool {
        self.free_if_steady::<true>(setup, state, address, given, anchor).is_some()
    }

    /// This thread's span of a kind, if its ring has room.
    #[inline(always)]
    fn ring(&self, geometry: &Geometry, state: &ThreadState, pages: usize) -> Option<(usize, &'static Span)> {
        let index = (state.spans.get(pages)?.load(Ordering::Relaxed) as usize).checked_sub(1)?;
        let span = self.heap.known_span(index)?;
        let ready = span.ready.load(Ordering::Relaxed);
        let kept = (ready.wrapping_sub(span.used.load(Ordering::Relaxed)) as usize).wrapping_mul(pages);
        let has_room = (ready as usize) < geometry.slots_per_span(pages)
            && kept < RING_PAGES
            && span.zone() == Zone::Missing;
        has_room.then_some((index, span))
    }

    #[inline(always)]
    fn free_if_steady<const TO_STOCK: bool>(
        &self,
        setup: &Setup,
        state: &ThreadState,
        address: usize,
        given: &Given,
        anchor: usize,
    ) -> Option<()> {
        let (heap, lane, geometry) = (&self.heap, &setup.lane, &setup.lane.geometry);
        let offset = address.wrapping_sub(heap.addresses().start);
        let index = offset / SPAN_BYTES;
        let span = heap.known_span(index)?;
        let Use::Small(pages) = span.usage() else { return None };
        let Place::Data(number) = geometry.locate(pages, offset & SPAN_BYTES.wrapping_sub(1)) else {
            return None;
        };
        let data = self.data_in(geometry, index, pages, number);
        if lane.fill {
            // Of a block that was not used for long its record is as far away as its page, which is compared below: the
            // processor fetches both at once.
            let [first, second, third, fourth] = LOOKED_AHEAD;
            prefetch(data.start.wrapping_add(first));
            prefetch(data.start.wrapping_add(second));
            prefetch(data.start.wrapping_add(third));
            prefetch(data.start.wrapping_add(fourth));
        }
        // SAFETY: the span is known, and has more than `number` slots.
        let slot = unsafe { heap.known_slot(index, number) };
        let (size, align) = slot.plain_block(address)?;
        let is_as_said = given.size.unwrap_or(size) == size
            && given.align.unwrap_or(align) == align
            && given.family.takes(slot.family());
        let is_here = span.zone() == Zone::Missing
            && span.life() == Life::InUse
            && span.forgotten.load(Ordering::Acquire) == 0;
        if !is_as_said || !is_here {
            return None;
        }
        let (target, into) =
            if TO_STOCK { self.target(setup, state, pages)? } else { self.ring(geometry, state, pages)? };
        let ready = into.ready.load(Ordering::Relaxed);
        // SAFETY: the target is a known span with more than `ready` slots.
        let next = unsafe { heap.known_slot(target, ready as usize) };
        let own = Range { start: address, len: size };
        let act = self.act_steadily(lane, state, anchor);
        if !slot.begin_free() {
            return None;
        }
        if lane.fill {
            let [before, after] = redzones(address, size, data);
            // SAFETY: winning `begin_free` made the block ours to free, so its pages are open.
            if unsafe { lane.patterns.find_damage(before).or(lane.patterns.find_damage(after)) }.is_some() {
                slot.give_up_free();
                return None;
            }
        }
        if lane.keeps {
            // SAFETY: as above, and the bytes are the block's.
            unsafe { self.remains.keep(own) };
        }
        slot.note_free(act);
        Counters::bump(&state.counters.freed, 1);
        self.count_held(state, 0u64.wrapping_sub(data.len as u64), u64::MAX);
        let stale = if lane.fill { own } else { data };
        self.move_to(data, stale, self.data_in(geometry, target, pages, ready as usize), into, next);
        slot.end_free();
        let dead = span.dead.fetch_add(1, Ordering::AcqRel).wrapping_add(1);
        if dead as usize >= geometry.slots_per_span(pages) {
            heap.bury(&self.platform, &setup.heap, index);
        }
        Some(())
    }

    /// Who does what now.
    #[inline(always)]
    fn act_steadily(&self, lane: &Lane, state: &ThreadState, anchor: usize) -> Act {
        let trace = if lane.depth == 0 { 0 } else { self.trace(Some(state), anchor, lane.depth) };
        Act { trace, thread: state.number.load(Ordering::Relaxed), ms: self.now_since(lane.started_ms) }
    }

    /// Bytes that our tables hold, which count as held.
    #[inline(always)]
    pub(crate) fn table_bytes(&self) -> u64 {
        self.heap.overhead.load(Ordering::Relaxed).wrapping_add(self.depot.held_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_asks_about_single_blocks_is_not_done_at_once() {
        let ways =
            |text: &str, engine| ways(&options::parse(text.as_bytes(), Options::DEFAULT).options, engine);
        let (asked, all) = (FREES | ALLOCATES, FREES_AT_ONCE | ALLOCATES_AT_ONCE | FREES | ALLOCATES);
        assert_eq!(ways("", Engine::Move), all);
        assert_eq!(ways("", Engine::Marker), 0);
        assert_eq!(ways("defer=8", Engine::Move), 0);
        for text in ["skip_size=16", "only_align=64", "only_thread=main", "fail_at=3", "mode=sample"] {
            assert_eq!(ways(text, Engine::Move), FREES_AT_ONCE | asked, "{text}");
        }
        assert_eq!(ways("mode=budget", Engine::Move), asked);
        assert_eq!(ways("place=alternate", Engine::Move), FREES_AT_ONCE | FREES);
        assert_eq!(ways("mode=budget,place=alternate", Engine::Move), FREES);
        assert_eq!(ways("place=left", Engine::Move), all);
    }
}
