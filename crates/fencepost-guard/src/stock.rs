//! What engine move keeps for later: spans whose slots have the pages of freed blocks, past the ring of the current span.
//!
//! To drop a page and to put a fresh one in place costs three times what it costs to move one. A program that frees many
//! blocks and then allocates again gets the same pages back: a free moves its page to the thread's span that is *filling*,
//! full ones are stacked, and a thread whose ring is empty goes on with the newest of them.
//!
//! What is kept is bounded three times: a thread keeps no more pages of a kind than it had put in place itself, so that one
//! which frees what others allocate keeps little; all together take a part of `max_memory` and count towards it; and half of
//! what was not needed for a while is given back. So a process never holds more than it once needed.
//!
//! Only a thread itself changes its stock. A forked child takes over the stocks of threads that it does not have, at whatever
//! point they were: so a span leaves one place before it enters another, and can be lost there, but not be in two.

use fencepost_sys::atomic::{AtomicU32, Ordering, compiler_fence};
use fencepost_sys::{Platform, Range};

use crate::engine::Engine;
use crate::geometry::SPAN_BYTES;
use crate::moving::RING_PAGES;
use crate::runtime::{Guard, Setup};
use crate::span::{Span, Zone};
use crate::threads::ThreadState;

/// The part of the memory limit that stocked pages may take.
const MEMORY_SHARE: u64 = 8;
/// The part of all addresses that stocked spans may take.
const ADDRESS_SHARE: usize = 64;
/// After this time half of the spans that were not needed meanwhile are given back.
const TRIM_MS: u32 = 5000;

/// The stock of one kind of slot. All zero is an empty one.
#[repr(C)]
pub(crate) struct Stock {
    /// The span that takes pages when the ring is full: number plus 1.
    filling: AtomicU32,
    /// The newest of the full spans, which are linked by [`Span::next`]: number plus 1.
    newest: AtomicU32,
    /// How many those are, and how few they were since the last trim.
    spans: AtomicU32,
    least: AtomicU32,
    trimmed_ms: AtomicU32,
    /// Slots whose pages this thread has put in place, less those it has dropped.
    brought: AtomicU32,
}

impl Stock {
    pub(crate) fn clear(&self) {
        for word in [&self.filling, &self.newest, &self.spans, &self.least, &self.trimmed_ms, &self.brought] {
            word.store(0, Ordering::Relaxed);
        }
    }

    /// Counts slots whose pages the thread has put in place.
    pub(crate) fn bring(&self) {
        self.brought.store(self.brought.load(Ordering::Relaxed).saturating_add(1), Ordering::Relaxed);
    }

    /// Counts slots whose pages were dropped.
    pub(crate) fn lose(&self, slots: u32) {
        self.brought.store(self.brought.load(Ordering::Relaxed).saturating_sub(slots), Ordering::Relaxed);
    }

    fn take_filling(&self) -> Option<usize> {
        let index = (self.filling.swap(0, Ordering::Relaxed) as usize).checked_sub(1);
        compiler_fence(Ordering::SeqCst);
        index
    }

    fn set_filling(&self, index: usize) {
        compiler_fence(Ordering::SeqCst);
        self.filling.store(link(index), Ordering::Relaxed);
    }
}

fn link(index: usize) -> u32 {
    u32::try_from(index.wrapping_add(1)).unwrap_or(0)
}

/// Slots of a span that have their pages and are not handed out.
fn kept(span: &Span) -> u32 {
    span.ready.load(Ordering::Relaxed).wrapping_sub(span.used.load(Ordering::Relaxed))
}

impl<P: Platform> Guard<P> {
    /// A span of this thread's with room for a freed block's pages, when those of the current one's ring are enough.
    #[cold]
    pub(crate) fn stock_target(
        &self,
        setup: &Setup,
        state: &ThreadState,
        pages: usize,
    ) -> Option<(usize, &'static Span)> {
        let slots = u32::try_from(setup.geometry().slots_per_span(pages)).ok()?;
        let stock = state.stocks.get(pages)?;
        let filling = (stock.filling.load(Ordering::Relaxed) as usize).checked_sub(1);
        if let Some(index) = filling {
            let span = self.heap.span(index)?;
            if span.ready.load(Ordering::Relaxed) < slots {
                return Some((index, span));
            }
            if !self.may_stock(setup, stock, pages, slots) {
                return None;
            }
            stock.take_filling();
            self.stack_full(setup, stock, pages, index);
            self.trim(setup, state, pages);
        }
        let thread = state.number.load(Ordering::Relaxed);
        let index =
            self.heap.take_small(&self.platform, &setup.heap, pages, self.moving.zone(), thread).ok()?;
        let span = self.heap.span(index)?;
        if span.zone() != Zone::Missing || span.ready.load(Ordering::Relaxed) >= slots {
            self.heap.orphan(&self.platform, index, pages);
            return None;
        }
        stock.set_filling(index);
        Some((index, span))
    }

    /// Whether one more full span may be kept.
    fn may_stock(&self, setup: &Setup, stock: &Stock, pages: usize, slots: u32) -> bool {
        let spans = stock.spans.load(Ordering::Relaxed).saturating_add(1);
        let all = self.moving.stocked_bytes().saturating_add(bytes_of(setup, pages));
        let addresses = self.heap.addresses().len / ADDRESS_SHARE;
        let spans_max = u64::try_from(addresses).unwrap_or(u64::MAX);
        spans.saturating_mul(slots) <= stock.brought.load(Ordering::Relaxed)
            && all <= setup.bounds.held_max / MEMORY_SHARE
            && all.saturating_mul(2) <= spans_max
    }

    fn stack_full(&self, setup: &Setup, stock: &Stock, pages: usize, index: usize) {
        let Some(span) = self.heap.span(index) else { return };
        span.next.store(stock.newest.load(Ordering::Relaxed), Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        stock.newest.store(link(index), Ordering::Relaxed);
        stock.spans.store(stock.spans.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        self.count_stocked(bytes_of(setup, pages));
    }

    fn take_full(&self, setup: &Setup, stock: &Stock, pages: usize) -> Option<usize> {
        let index = (stock.newest.load(Ordering::Relaxed) as usize).checked_sub(1)?;
        let span = self.heap.span(index)?;
        stock.newest.store(span.next.load(Ordering::Relaxed), Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        span.next.store(0, Ordering::Relaxed);
        let spans = stock.spans.load(Ordering::Relaxed).saturating_sub(1);
        stock.spans.store(spans, Ordering::Relaxed);
        stock.least.store(stock.least.load(Ordering::Relaxed).min(spans), Ordering::Relaxed);
        self.count_stocked(0u64.wrapping_sub(bytes_of(setup, pages)));
        Some(index)
    }

    fn count_stocked(&self, bytes: u64) {
        self.moving.add_stocked(bytes);
        self.heap.overhead.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Makes a span of the stock the current one, in place of one whose ring is empty or that is used up: `None` where
    /// the stock has nothing better.
    pub(crate) fn restock(
        &self,
        setup: &Setup,
        state: &ThreadState,
        pages: usize,
        current: Option<usize>,
    ) -> Option<usize> {
        let (stock, word) = (state.stocks.get(pages)?, state.spans.get(pages)?);
        if self.moving.zone() != Zone::Missing {
            if setup.engine() == Engine::Move {
                // Nothing is moved any more: what guards these pages may be gone.
                self.clear_stocks(setup, state);
            }
            return None;
        }
        let filling = (stock.filling.load(Ordering::Relaxed) as usize).checked_sub(1);
        let filled = filling.filter(|index| self.heap.span(*index).is_some_and(|span| kept(span) != 0));
        let index = match filled {
            Some(_) => stock.take_filling()?,
            None => match self.take_full(setup, stock, pages) {
                Some(index) => index,
                // It has no pages either, but it has begun.
                None if current.is_none() => stock.take_filling()?,
                None => return None,
            },
        };
        if let Some(current) = current {
            word.store(0, Ordering::Relaxed);
            compiler_fence(Ordering::SeqCst);
            if stock.filling.load(Ordering::Relaxed) == 0 {
                stock.set_filling(current);
            } else {
                self.heap.orphan(&self.platform, current, pages);
            }
        }
        compiler_fence(Ordering::SeqCst);
        word.store(link(index), Ordering::Relaxed);
        self.trim(setup, state, pages);
        Some(index)
    }

    /// Gives back half of what was not needed for a while.
    fn trim(&self, setup: &Setup, state: &ThreadState, pages: usize) {
        let Some(stock) = state.stocks.get(pages) else { return };
        if stock.spans.load(Ordering::Relaxed) == 0 {
            return;
        }
        let now = self.now(setup);
        if now.wrapping_sub(stock.trimmed_ms.load(Ordering::Relaxed)) < TRIM_MS {
            return;
        }
        // The first time there is nothing to tell what was needed.
        let idle = if stock.trimmed_ms.load(Ordering::Relaxed) == 0 {
            0
        } else {
            stock.least.load(Ordering::Relaxed)
        };
        for _ in 0..idle.div_ceil(2) {
            let Some(index) = self.take_full(setup, stock, pages) else { break };
            self.clear_out(setup, stock, pages, index);
        }
        stock.trimmed_ms.store(now.max(1), Ordering::Relaxed);
        stock.least.store(stock.spans.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Drops the pages that a span of a thread's keeps, and gives the span up.
    fn clear_out(&self, setup: &Setup, stock: &Stock, pages: usize, index: usize) {
        let Some(span) = self.heap.span(index) else { return };
        stock.lose(kept(span));
        if self.drop_kept(setup, pages, index, span) && span.used.load(Ordering::Relaxed) == 0 {
            // No block was ever in it: its addresses wait with the dead.
            return self.heap.bury(&self.platform, &setup.heap, index);
        }
        self.heap.orphan(&self.platform, index, pages);
    }

    /// Drops the pages of the slots that are ready and not handed out, in one call; they stay ready where that is refused.
    fn drop_kept(&self, setup: &Setup, pages: usize, index: usize, span: &Span) -> bool {
        let count = kept(span) as usize;
        let used = span.used.load(Ordering::Relaxed);
        let Some(last) = count.checked_sub(1).map(|more| (used as usize).wrapping_add(more)) else {
            return true;
        };
        let start = self.data_of_small(setup, index, pages, used as usize).start;
        let end = self.data_of_small(setup, index, pages, last).end();
        let dropped = self.make_missing(Range { start, len: end.wrapping_sub(start) });
        if dropped {
            span.ready.store(used, Ordering::Relaxed);
        }
        dropped
    }

    /// Gives up all that a thread has in stock; true where that was anything.
    #[cold]
    pub(crate) fn clear_stocks(&self, setup: &Setup, state: &ThreadState) -> bool {
        let mut any = false;
        for (pages, stock) in state.stocks.iter().enumerate() {
            while let Some(index) = stock.take_filling().or_else(|| self.take_full(setup, stock, pages)) {
                self.clear_out(setup, stock, pages, index);
                any = true;
            }
        }
        any
    }

    /// Hands a thread's spans over to later ones, none with more than a ring of pages.
    pub(crate) fn hand_spans_over(&self, setup: &Setup, state: &ThreadState) {
        self.clear_stocks(setup, state);
        for (pages, word) in state.spans.iter().enumerate() {
            let Some(index) = (word.swap(0, Ordering::Relaxed) as usize).checked_sub(1) else { continue };
            if let Some(span) = self.heap.span(index).filter(|span| span.zone() == Zone::Missing)
                && kept(span) as usize > RING_PAGES
            {
                let dropped = self.drop_kept(setup, pages, index, span);
                let _ = dropped;
            }
            self.heap.orphan(&self.platform, index, pages);
        }
    }
}

/// Bytes of the pages of a full span.
fn bytes_of(setup: &Setup, pages: usize) -> u64 {
    let bytes =
        setup.geometry().slots_per_span(pages).saturating_mul(pages).saturating_mul(setup.geometry().page());
    u64::try_from(bytes.min(SPAN_BYTES)).unwrap_or(0)
}
