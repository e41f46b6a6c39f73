//! Engine *move*: pages that are missing trap, and a freed block's page moves to the slot that is handed out next.
//!
//! ```text
//!   freed            handed out            ready             missing
//! | (missing) |G| block, block, ... |G| page, page |G| ...................... |
//!        \_________________________________________/^ the page moves here
//! ```
//!
//! A guard page is one that nobody ever puts there: it costs nothing. A thread's current span of a kind has `used` slots
//! handed out and `ready` ones that have their pages; what lies between is the *ring* of ready pages. A free moves its
//! page to slot `ready`, or where the ring has enough to a span of the thread's stock ([`crate::stock`]); an allocation
//! takes slot `used`, and where ring and stock are empty has a page put there as a copy of the redzone pattern. So in a
//! steady program malloc makes no system call and free makes one, which closes the old address and opens the next.
//!
//! Invariants:
//! - only a thread itself changes `used` and `ready` of its spans, and not from a signal handler that interrupted it there;
//! - the bytes of a ready page are the redzone pattern, but for a range that the slot's record keeps (`Slot::stale`);
//! - whatever the kernel refuses, the old address traps: what does not move is dropped. What a slot needs and cannot have
//!   is served by the engine for lazy memory. Each refusal is counted by its reason.

use fencepost_record::{REFUSALS, Unguarded};
use fencepost_sys::atomic::{AtomicU32, AtomicU64, Ordering};
use fencepost_sys::{MissingError, MissingOffer, Partly, Platform, Range};

use crate::engine::Engine;
use crate::geometry::align_down;
use crate::runtime::{Guard, Setup};
use crate::slot::Slot;
use crate::span::{Span, Zone};
use crate::threads::ThreadState;

/// Pages of a kind that a thread keeps ready in its current span: few, so that those handed out next are still in the
/// processor's caches; enough for a program that frees and allocates by turns.
pub(crate) const RING_PAGES: usize = 32;
/// How often a page is put in place anew after something was in its way.
const TRIES: u32 = 4;

/// The state of the engine.
pub(crate) struct Moving {
    /// What userfaultfd gave: the number of the [`MissingOffer`].
    offer: AtomicU32,
    /// Whether it is lost for good: new spans are lazy memory.
    broken: AtomicU32,
    /// Whether the loss was said.
    said: AtomicU32,
    /// The process that has taken the right.
    process: AtomicU32,
    /// Bytes of full spans that threads have in stock.
    stocked: AtomicU64,
    /// Pages that were not put in place or not moved, by reason.
    refused: [AtomicU64; REFUSALS],
}

impl Moving {
    pub(crate) const fn new() -> Self {
        Moving {
            offer: AtomicU32::new(MissingOffer::Nothing as u32),
            broken: AtomicU32::new(0),
            said: AtomicU32::new(0),
            process: AtomicU32::new(0),
            stocked: AtomicU64::new(0),
            refused: [const { AtomicU64::new(0) }; REFUSALS],
        }
    }

    /// Remembers what userfaultfd gave at the start.
    pub(crate) fn began(&self, offer: MissingOffer, process: u32) {
        self.process.store(process, Ordering::Relaxed);
        self.offer.store(offer as u32, Ordering::Relaxed);
    }

    /// Where new spans for small slots are to lie.
    #[inline]
    pub(crate) fn zone(&self) -> Zone {
        let works = self.offer.load(Ordering::Relaxed) != MissingOffer::Nothing as u32
            && self.broken.load(Ordering::Relaxed) == 0;
        if works { Zone::Missing } else { Zone::Lazy }
    }

    /// Where small slots lie as long as nothing goes wrong.
    pub(crate) fn zone_of_choice(&self, setup: &Setup) -> Zone {
        if setup.engine() == Engine::Move { Zone::Missing } else { Zone::Lazy }
    }

    #[inline]
    pub(crate) fn moves(&self) -> bool {
        self.offer.load(Ordering::Relaxed) == MissingOffer::Moves as u32
    }

    /// From here on no page is put in place or moved: new spans are lazy memory, and a freed page is dropped. What is
    /// registered goes on trapping.
    pub(crate) fn give_way(&self) {
        if self.moves() {
            self.offer.store(MissingOffer::Copies as u32, Ordering::Relaxed);
        }
        self.broken.store(1, Ordering::Relaxed);
    }

    /// Bytes of full spans that threads have in stock.
    pub(crate) fn stocked_bytes(&self) -> u64 {
        self.stocked.load(Ordering::Relaxed)
    }

    /// Adds to them (wrapping).
    pub(crate) fn add_stocked(&self, bytes: u64) {
        self.stocked.fetch_add(bytes, Ordering::Relaxed);
    }

    fn count(&self, why: MissingError) {
        if let Some(count) = self.refused.get(why.number()) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Refusals so far, by reason.
    pub(crate) fn refusals(&self) -> [u64; REFUSALS] {
        self.refused.each_ref().map(|count| count.load(Ordering::Relaxed))
    }
}

impl<P: Platform> Guard<P> {
    /// Gives a slot that is to be handed out its pages, as a copy of the redzone pattern.
    pub(crate) fn put_slot(&self, setup: &Setup, data: Range) -> Result<(), Unguarded> {
        let mut done = 0usize;
        for _ in 0..TRIES {
            let rest = Range { start: data.start.wrapping_add(done), len: data.len.wrapping_sub(done) };
            // SAFETY: the slot is this thread's next one, which nobody uses; the template is as long as the longest slot.
            let put = unsafe { self.platform.put_missing(rest, setup.patterns.template()) };
            let Err(Partly { done: more, why }) = put else { return Ok(()) };
            done = done.wrapping_add(more);
            self.moving.count(why);
            match why {
                MissingError::Busy => {}
                // A page that a program was given after a report, or that came while nothing trapped.
                MissingError::Taken => self.drop_rest(data, done),
                MissingError::Lost if self.renew() => {}
                MissingError::Lost => break,
                MissingError::Denied => {
                    self.give_up_moving("userfaultfd is not allowed any more");
                    break;
                }
                _ => break,
            }
        }
        self.drop_rest(data, 0);
        Err(Unguarded::Kernel)
    }

    /// Makes what is left of a range missing.
    fn drop_rest(&self, data: Range, done: usize) {
        let rest = Range { start: data.start.wrapping_add(done), len: data.len.wrapping_sub(done) };
        // What cannot be dropped stays open: an access to it goes unseen, and the summary counts it.
        let dropped = self.make_missing(rest);
        let _ = dropped;
    }

    /// Makes a range missing that holds no block (any more); false, and counted, where that was refused.
    pub(crate) fn make_missing(&self, range: Range) -> bool {
        // SAFETY: the callers own the range, which holds no block (any more).
        let dropped = range.len == 0 || unsafe { self.platform.drop_pages(range) }.is_ok();
        if !dropped {
            self.heap.fallbacks.fetch_add(1, Ordering::Relaxed);
        }
        dropped
    }

    /// Closes the pages of a small block that is being freed, by moving them to this thread's next slot where that is
    /// possible. `stale` is the part of them that does not hold the redzone pattern.
    pub(crate) fn close_slot(
        &self,
        setup: &Setup,
        state: Option<&ThreadState>,
        pages: usize,
        data: Range,
        stale: Range,
    ) {
        let target = state.filter(|_| self.moving.moves()).and_then(|state| self.target(setup, state, pages));
        let Some((index, span)) = target else {
            if let Some(stock) = state.and_then(|state| state.stocks.get(pages)) {
                stock.lose(1);
            }
            return self.drop_rest(data, 0);
        };
        let number = span.ready.load(Ordering::Relaxed) as usize;
        let to = self.data_of_small(setup, index, pages, number);
        match self.heap.small_slot(index, number) {
            Some(slot) => self.move_to(data, stale, to, span, slot),
            None => self.drop_rest(data, 0),
        }
    }

    /// Moves the pages of a block that is being freed to the slot `ready` of this thread's span, which [`Guard::target`] gave.
    #[inline(always)]
    pub(crate) fn move_to(&self, data: Range, stale: Range, to: Range, span: &Span, slot: &Slot) {
        let offset = stale.start.wrapping_sub(data.start);
        // What can be done before the call is cheaper there.
        slot.set_stale(Range { start: to.start.wrapping_add(offset), len: stale.len });
        // SAFETY: the block is being freed and its pages are ours; slot `ready` of this thread's own span is missing.
        match unsafe { self.platform.move_pages(data, to.start) } {
            Ok(()) => {
                let ready = span.ready.load(Ordering::Relaxed).wrapping_add(1);
                span.ready.store(ready, Ordering::Relaxed);
            }
            Err(partly) => {
                slot.set_stale(Range::default());
                self.close_what_stayed(data, to, partly);
            }
        }
    }

    #[cold]
    fn close_what_stayed(&self, data: Range, to: Range, partly: Partly) {
        self.moving.count(partly.why);
        match partly.why {
            MissingError::Lost => {
                // Where it cannot be had again, pages that are dropped come back at the next access, as zeros.
                let renewed = self.renew();
                let _ = renewed;
            }
            // Other calls of its kind may still work.
            MissingError::Denied => {
                self.moving.offer.store(MissingOffer::Copies as u32, Ordering::Relaxed);
                self.end_steady();
            }
            MissingError::Taken => self.drop_rest(to, partly.done),
            _ => {}
        }
        self.drop_rest(Range { len: partly.done, ..to }, 0);
        self.drop_rest(data, partly.done);
    }

    /// This thread's span of a kind, if its ring has room, else one of its stock.
    pub(crate) fn target(
        &self,
        setup: &Setup,
        state: &ThreadState,
        pages: usize,
    ) -> Option<(usize, &'static Span)> {
        let word = state.spans.get(pages)?;
        let index = match (word.load(Ordering::Relaxed) as usize).checked_sub(1) {
            Some(index) => index,
            // A thread that only frees what others allocate keeps no pages.
            None if state.batches.get(pages)?.load(Ordering::Relaxed) == 0 => return None,
            None => return self.stock_target(setup, state, pages),
        };
        let span = self.heap.span(index)?;
        let ready = span.ready.load(Ordering::Relaxed);
        let kept = (ready.wrapping_sub(span.used.load(Ordering::Relaxed)) as usize).saturating_mul(pages);
        if span.zone() != Zone::Missing {
            return None;
        }
        let room = (ready as usize) < setup.geometry().slots_per_span(pages) && kept < RING_PAGES;
        if room { Some((index, span)) } else { self.stock_target(setup, state, pages) }
    }

    /// Takes the right to work on missing pages again, and registers everything anew; false where that failed.
    #[cold]
    fn renew(&self) -> bool {
        let renewed = self.heap.with_lock(&self.platform, || {
            // Another thread may have been faster.
            self.platform.has_missing() || self.take_again()
        });
        let process = self.platform.process_id();
        let is_child = self.moving.process.swap(process, Ordering::Relaxed) != process;
        if renewed {
            self.note_again();
            // A child that no handler told of inherits nothing: that is no loss.
            if !is_child && self.moving.said.swap(1, Ordering::Relaxed) == 0 {
                self.complain(format_args!(
                    "the program closed the descriptor that guards its memory: it was opened again, and what was touched meanwhile went unseen"
                ));
            }
        } else {
            self.give_up_moving("its descriptor was closed and cannot be opened again; errors in what was allocated before may go unseen");
        }
        renewed
    }

    /// The caller holds the heap's lock, or is alone.
    fn take_again(&self) -> bool {
        match self.platform.open_missing() {
            Ok(_) => self.heap.register_all(&self.platform),
            Err(_) => false,
        }
    }

    /// In a child after a fork, which inherits neither the registration nor the right to use the descriptor.
    pub(crate) fn moving_after_fork(&self) {
        if self.moving.zone() != Zone::Missing {
            return;
        }
        self.platform.close_inherited();
        self.moving.process.store(self.platform.process_id(), Ordering::Relaxed);
        if self.take_again() {
            self.note_again();
        } else {
            self.give_up_moving("a child process cannot open a descriptor of its own; errors in what it inherits may go unseen");
        }
    }

    /// From here on new spans are lazy memory. Says so once.
    #[cold]
    fn give_up_moving(&self, why: &str) {
        self.end_steady();
        if self.moving.broken.swap(1, Ordering::Relaxed) == 0 {
            self.complain(format_args!(
                "engine=move has stopped ({why}): new blocks are guarded in another way"
            ));
        }
    }

    /// The engine that closes the pages of a span.
    pub(crate) fn engine_at(&self, setup: &Setup, index: usize) -> Engine {
        setup.heap.engine_in(self.heap.span(index).map_or(Zone::Lazy, Span::zone))
    }

    /// Puts a page of zeros where a live block has none: the program dropped it (`MADV_DONTNEED`), and expects zeros. Runs
    /// in the fault handler, which looks a second time before it believes an error there.
    pub(crate) fn put_back(&self, setup: &Setup, address: usize) {
        if self.heap.zone_of(address) == Zone::Missing {
            // If the page cannot be put there, the second look reports the fault.
            let put = self.open_heap_page(setup, address);
            let _ = put;
        }
    }

    /// Puts a page of zeros at an address of the heap, or opens it whatever way it is closed, for good.
    pub(crate) fn open_heap_page(&self, setup: &Setup, address: usize) -> bool {
        let page = setup.geometry().page();
        let range = Range { start: align_down(address, page), len: page };
        if self.heap.zone_of(address) == Zone::Lazy {
            // SAFETY: the page is one of the heap's, and the program goes on with it.
            return unsafe { setup.heap.lazy.give_up(&self.platform, range) }.is_ok();
        }
        // SAFETY: as above; the page of zeros is readable.
        match unsafe { self.platform.put_missing(range, setup.patterns.zeros()) } {
            Ok(()) | Err(Partly { why: MissingError::Taken, .. }) => true,
            // Without the registration nothing traps there.
            Err(Partly { why: MissingError::Lost | MissingError::Borrowed, .. }) => true,
            Err(_) => false,
        }
    }
}
