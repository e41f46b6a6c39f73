//! Simulated threads: the test's own, with words and exits of this instance; a clock that the test moves.

use core::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, ThreadId};
use std::vec::Vec;

use super::{Sim, lock};
use crate::{Range, Threads};

/// How often an exit function may ask to be run again.
const EXIT_ROUNDS: usize = 4;

/// The threads of one instance.
pub(super) struct State {
    threads: Vec<Thread>,
    now_ms: u64,
    spent_ns: u64,
    drawn: u64,
}

struct Thread {
    id: ThreadId,
    word: usize,
    exit: Option<(extern "C" fn(usize), usize)>,
    stack: Option<Range>,
}

impl State {
    pub(super) const fn new() -> State {
        State { threads: Vec::new(), now_ms: 0, spent_ns: 0, drawn: 0 }
    }
}

impl Sim {
    /// Runs what [`Threads::at_thread_exit`] left for this thread, as its end would.
    pub fn end_thread(&self) {
        for _ in 0..EXIT_ROUNDS {
            let Some((exit, word)) = self.with_thread(|thread, _| thread.exit.take()) else { return };
            exit(word);
        }
    }

    /// Moves the clock on.
    pub fn advance_ms(&self, milliseconds: u64) {
        let mut state = lock(&self.threads);
        state.now_ms = state.now_ms.saturating_add(milliseconds);
    }

    /// Lets time pass that the coarse clock does not show.
    pub fn spend_ns(&self, nanoseconds: u64) {
        let mut state = lock(&self.threads);
        state.spent_ns = state.spent_ns.saturating_add(nanoseconds);
    }

    /// Sets what [`Threads::stack_bounds`] answers on this thread.
    pub fn set_stack_bounds(&self, bounds: Option<Range>) {
        self.with_thread(|thread, _| thread.stack = bounds);
    }

    fn with_thread<R>(&self, work: impl FnOnce(&mut Thread, usize) -> R) -> R {
        let id = thread::current().id();
        let mut state = lock(&self.threads);
        let index = state.threads.iter().position(|thread| thread.id == id).unwrap_or_else(|| {
            state.threads.push(Thread { id, word: 0, exit: None, stack: None });
            state.threads.len().wrapping_sub(1)
        });
        match state.threads.get_mut(index) {
            Some(thread) => work(thread, index),
            None => unreachable!("the thread was found or added above"),
        }
    }
}

impl Threads for Sim {
    fn thread_word(&self) -> usize {
        self.with_thread(|thread, _| thread.word)
    }

    fn set_thread_word(&self, word: usize) {
        self.with_thread(|thread, _| thread.word = word);
    }

    fn at_thread_exit(&self, exit: extern "C" fn(usize), word: usize) {
        self.with_thread(|thread, _| thread.exit = Some((exit, word)));
    }

    /// 1001 for the first thread that asks anything, 1002 for the second.
    fn thread_id(&self) -> u32 {
        self.with_thread(|_, index| 1001u32.saturating_add(u32::try_from(index).unwrap_or(u32::MAX)))
    }

    fn process_id(&self) -> u32 {
        1001
    }

    fn thread_name(&self, into: &mut [u8]) -> usize {
        let thread = thread::current();
        let name = thread.name().unwrap_or("").as_bytes();
        into.iter_mut().zip(name).map(|(place, byte)| *place = *byte).count()
    }

    fn leads_its_job(&self) -> bool {
        true
    }

    fn stack_bounds(&self) -> Option<Range> {
        self.with_thread(|thread, _| thread.stack)
    }

    fn now_ms(&self) -> u64 {
        lock(&self.threads).now_ms
    }

    /// As far as the clock was moved, and what [`Sim::spend_ns`] was told.
    fn now_ns(&self) -> u64 {
        let state = lock(&self.threads);
        state.now_ms.saturating_mul(1_000_000).saturating_add(state.spent_ns)
    }

    fn cpu_ns(&self) -> u64 {
        self.now_ns()
    }

    /// The same row of numbers in every run.
    fn random(&self) -> u64 {
        let mut state = lock(&self.threads);
        state.drawn = state.drawn.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state.drawn ^ (state.drawn >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ (mixed >> 27)
    }

    fn wait(&self, word: &AtomicU32, seen: u32) {
        if word.load(Ordering::Acquire) == seen {
            thread::yield_now();
        }
    }

    fn wake(&self, _word: &AtomicU32) {}
}
