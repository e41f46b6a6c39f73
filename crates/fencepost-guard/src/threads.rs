//! What each thread keeps for itself, so that the fast path shares no written cache line with other threads.
//!
//! A thread finds its [`ThreadState`] through the platform's thread word: 0 in a new thread, [`BUSY`] while its state is
//! being made or after it was given back, else the state's address. States live in a table that is never given back and
//! are used again by later threads, so that many short threads cost no more memory than the most that ran at once. Names
//! outlive their threads in a ring of their own, for the reports.

mod counters;
mod names;

use fencepost_sys::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use fencepost_sys::{Memory, Range, Threads, VmResult};

use crate::front::FRONT_BYTES;
use crate::geometry::SMALL_PAGES;
use crate::lock::Lock;
use crate::region::Region;
use crate::seal::Opened;
use crate::stock::Stock;

pub(crate) use counters::Counters;
use names::NAMES_BYTES;

/// The thread word of a thread whose state is being made or given back. What the C library allocates meanwhile, to answer
/// the runtime, is not the program's and is not counted.
pub(crate) const BUSY: usize = 1;
/// The thread word of a thread that has given its state back.
pub(crate) const GONE: usize = 2;
/// The most threads that have a state at once; what further ones allocate is not guarded.
const STATES_MAX: usize = 1 << 16;
/// Threads that have a front; what further ones allocate under `mode=budget` is looked at each time.
const FRONTS_MAX: usize = 1 << 12;

/// What a thread keeps for itself. All fields are atomic because others read them in reports and after a fork. Those that the
/// steady pair asks for come first, in two lines of memory.
#[repr(C, align(128))]
pub(crate) struct ThreadState {
    /// The thread's number in reports, from 1.
    pub(crate) number: AtomicU32,
    /// Not 0 while the runtime works on this thread: what it allocates itself is not guarded.
    pub(crate) depth: AtomicU32,
    /// How many allocations may pass to the inner allocator without a question (`quick.rs`).
    pub(crate) allowance: AtomicU32,
    /// Not 0 while this thread resolves names for a report: what it allocates comes from the private arena.
    pub(crate) reporting: AtomicU32,
    /// Allocations until the handlers are looked at again.
    pub(crate) until_check: AtomicU32,
    /// The span that each kind of small slot is taken from: number plus 1.
    pub(crate) spans: [AtomicU32; SMALL_PAGES + 1],
    /// Held bytes not yet added to the common count, wrapping.
    pub(crate) held_delta: AtomicU64,
    /// Live blocks not yet added to the common count, wrapping, and the most that they were.
    pub(crate) live_delta: AtomicU64,
    pub(crate) live_peak: AtomicU64,
    pub(crate) counters: Counters,
    /// Whether a thread owns this state.
    pub(crate) owned: AtomicU32,
    /// When it began, in milliseconds since the runtime started.
    began_ms: AtomicU32,
    /// What `allowance` was before names were resolved on this thread.
    pub(crate) held_allowance: AtomicU32,
    /// Under `mode=budget`, the address of this thread's front (`front.rs`); else 0.
    pub(crate) front: AtomicUsize,
    /// The allocation that is being decided about: its context's key, an address in our frame, the function called.
    pub(crate) call_key: AtomicU64,
    pub(crate) call_here: AtomicUsize,
    pub(crate) call_door: AtomicU32,
    /// Under `mode=budget`: blocks a look stands for, looks until some pass, looks until that is measured, when it was.
    pub(crate) stride: AtomicU32,
    pub(crate) burst: AtomicU32,
    pub(crate) looks: AtomicU32,
    pub(crate) paced_ns: [AtomicU64; 2],
    /// The closed pages that a system call of this thread's has open.
    pub(crate) opened: Opened,
    /// Not 0 while this thread expects errors: which kinds it has seen.
    pub(crate) expected: AtomicU32,
    /// Filters by name: allocations until it is asked for again, how often it was, whether blocks are left out.
    pub(crate) name_check: AtomicU32,
    pub(crate) names_asked: AtomicU32,
    pub(crate) is_filtered: AtomicU32,
    /// How many slots the last batch of each kind opened.
    pub(crate) batches: [AtomicU32; SMALL_PAGES + 1],
    /// What it keeps of each kind past its current span.
    pub(crate) stocks: [Stock; SMALL_PAGES + 1],
    /// Under `mode=sample`, allocations until the next one that is guarded, where each has to be looked at.
    pub(crate) countdown: AtomicU32,
    /// The address of the last fault that another thread may have caused by opening the page just then.
    pub(crate) last_doubt: AtomicUsize,
    /// State of this thread's random choices.
    pub(crate) random: AtomicU64,
    /// The freed blocks of this thread that wait to be closed, newest first, and how many there may be.
    pub(crate) waiting: AtomicU32,
    pub(crate) waiting_count: AtomicU32,
    stack_start: AtomicUsize,
    stack_len: AtomicUsize,
    alternate_start: AtomicUsize,
    alternate_len: AtomicUsize,
    /// Where its memory for tracing stacks lies; 0 when there is none to be had.
    trace_memory: AtomicUsize,
    /// Next free state: number plus 1.
    next: AtomicU32,
}

const _: () = assert!(
    core::mem::offset_of!(ThreadState, counters) == 112,
    "what the steady pair asks for is in two lines"
);

impl ThreadState {
    /// The state that a thread word names.
    #[inline(always)]
    pub(crate) fn of_word(word: usize) -> Option<&'static ThreadState> {
        if word <= GONE {
            return None;
        }
        // SAFETY: a word above `BUSY` is only ever set from `ThreadTable::take`, which gives the address of a state in the
        // table; the table is never given back, and `ThreadState` is made of atomics.
        Some(unsafe { &*(word as *const ThreadState) })
    }

    /// The thread's stack; empty when it is not known.
    #[inline(always)]
    pub(crate) fn stack(&self) -> Range {
        Range { start: self.stack_start.load(Ordering::Relaxed), len: self.stack_len.load(Ordering::Relaxed) }
    }

    pub(crate) fn set_stack(&self, range: Range) {
        self.stack_start.store(range.start, Ordering::Relaxed);
        self.stack_len.store(range.len, Ordering::Relaxed);
    }

    /// The alternate stack that we gave this thread; empty when it has its own.
    pub(crate) fn alternate_stack(&self) -> Range {
        Range {
            start: self.alternate_start.load(Ordering::Relaxed),
            len: self.alternate_len.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn set_alternate_stack(&self, range: Range) {
        self.alternate_start.store(range.start, Ordering::Relaxed);
        self.alternate_len.store(range.len, Ordering::Relaxed);
    }

    /// The next number of this thread's random sequence (SplitMix64).
    pub(crate) fn next_random(&self) -> u64 {
        let state = self.random.load(Ordering::Relaxed).wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.random.store(state, Ordering::Relaxed);
        crate::pattern::mix(state)
    }
}

/// [`ThreadState::trace_memory`] of a thread that has not asked for any.
const UNASKED: usize = 1;

/// All threads.
pub(crate) struct ThreadTable {
    pub(crate) states: Region,
    pub(crate) names: Region,
    /// The fronts of the first [`FRONTS_MAX`] states, where `mode=budget` needs them.
    pub(crate) fronts: Region,
    pub(crate) trace_memories: Region,
    lock: Lock,
    used: AtomicUsize,
    free: AtomicU32,
    numbers: AtomicU64,
    /// Counts of threads that have no state, and of those that have ended.
    pub(crate) shared: Counters,
    /// What had been counted before the fork that this process came from.
    pub(crate) inherited: Counters,
}

impl ThreadTable {
    pub(crate) const fn new() -> Self {
        ThreadTable {
            states: Region::new(),
            names: Region::new(),
            fronts: Region::new(),
            trace_memories: Region::new(),
            lock: Lock::new(),
            used: AtomicUsize::new(0),
            free: AtomicU32::new(0),
            numbers: AtomicU64::new(0),
            shared: Counters::new(),
            inherited: Counters::new(),
        }
    }

    /// Takes `trace_room` bytes of addresses for what threads remember of their stacks; those beyond that remember nothing.
    pub(crate) fn start<M: Memory>(&self, memory: &M, with_fronts: bool, trace_room: usize) -> VmResult {
        if with_fronts {
            self.fronts.reserve(memory, FRONTS_MAX.wrapping_mul(FRONT_BYTES))?;
        }
        self.states.reserve(memory, STATES_MAX.wrapping_mul(size_of::<ThreadState>()))?;
        self.names.reserve(memory, NAMES_BYTES)?;
        self.names.ensure(memory, NAMES_BYTES)?;
        if trace_room == 0 { Ok(()) } else { self.trace_memories.reserve(memory, trace_room) }
    }

    pub(crate) fn release<M: Memory>(&self, memory: &M) {
        self.states.release(memory);
        self.names.release(memory);
        self.fronts.release(memory);
        self.trace_memories.release(memory);
    }

    /// A state for this thread, which begins now; `None` when there are too many.
    pub(crate) fn take<P: Memory + Threads>(
        &self,
        platform: &P,
        seed: u64,
        now_ms: u32,
    ) -> Option<&'static ThreadState> {
        let held = self.lock.hold(platform);
        let state = match (self.free.load(Ordering::Relaxed) as usize).checked_sub(1) {
            Some(index) => {
                let state = self.at(index)?;
                self.free.store(state.next.load(Ordering::Relaxed), Ordering::Relaxed);
                state
            }
            None => {
                let index = self.used.load(Ordering::Relaxed);
                let end = index.checked_add(1).filter(|end| *end <= STATES_MAX)?;
                self.states.ensure(platform, end.wrapping_mul(size_of::<ThreadState>())).ok()?;
                self.used.store(end, Ordering::Release);
                let state = self.at(index)?;
                let room = end.wrapping_mul(FRONT_BYTES);
                if room <= self.fronts.range().len && self.fronts.ensure(platform, room).is_ok() {
                    let front = self.fronts.range().start.wrapping_add(index.wrapping_mul(FRONT_BYTES));
                    state.front.store(front, Ordering::Relaxed);
                }
                state.trace_memory.store(UNASKED, Ordering::Relaxed);
                state
            }
        };
        drop(held);
        let number = self.next_number();
        state.number.store(number, Ordering::Relaxed);
        state.began_ms.store(now_ms, Ordering::Relaxed);
        state.random.store(crate::pattern::mix(seed ^ u64::from(number)), Ordering::Relaxed);
        for batch in &state.batches {
            batch.store(0, Ordering::Relaxed);
        }
        state.stocks.iter().for_each(Stock::clear);
        for word in [
            &state.expected,
            &state.countdown,
            &state.until_check,
            &state.reporting,
            &state.depth,
            &state.allowance,
            &state.stride,
            &state.name_check,
            &state.names_asked,
        ] {
            word.store(0, Ordering::Relaxed);
        }
        state.opened.clear();
        state.owned.store(1, Ordering::Release);
        self.remember(platform, state);
        Some(state)
    }

    /// Takes a state back from a thread that ends. Its spans must have been handed over before.
    pub(crate) fn give_back<P: Threads>(&self, platform: &P, state: &ThreadState) {
        self.remember(platform, state);
        let _held = self.lock.hold(platform);
        self.give_back_locked(state);
    }

    fn give_back_locked(&self, state: &ThreadState) {
        state.owned.store(0, Ordering::Release);
        state.settle();
        self.absorb(&state.counters);
        let index = self.index_of(state);
        state.next.store(self.free.load(Ordering::Relaxed), Ordering::Relaxed);
        self.free.store(u32::try_from(index.wrapping_add(1)).unwrap_or(0), Ordering::Relaxed);
    }

    /// Moves an ended thread's counts to the common ones. Under the lock, so that a reader counts nothing twice.
    fn absorb(&self, counters: &Counters) {
        let pairs = [(&counters.guarded, &self.shared.guarded), (&counters.freed, &self.shared.freed)];
        for (from, to) in pairs.into_iter().chain(counters.unguarded.iter().zip(&self.shared.unguarded)) {
            to.fetch_add(from.swap(0, Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    fn at(&self, index: usize) -> Option<&'static ThreadState> {
        // SAFETY: the region holds a table of `ThreadState` only, made of atomics and valid when zeroed.
        unsafe { self.states.get::<ThreadState>(index) }
    }

    /// Every state that a thread owns now.
    pub(crate) fn owned(&self) -> impl Iterator<Item = &'static ThreadState> {
        (0..self.used.load(Ordering::Acquire))
            .filter_map(|index| self.at(index))
            .filter(|state| state.owned.load(Ordering::Acquire) != 0)
    }

    /// The sum of one counter over all threads, past and present.
    pub(crate) fn sum(&self, count: impl Fn(&Counters) -> u64) -> u64 {
        self.owned().fold(count(&self.shared), |sum, state| sum.wrapping_add(count(&state.counters)))
    }

    /// The table's lock, for both sides of a fork.
    pub(crate) fn lock_for_fork(&self) -> &Lock {
        &self.lock
    }

    /// In a forked child: the other threads do not exist here. Calls `each` with every state they leave behind, and says
    /// whether there was any.
    pub(crate) fn bury_others(&self, own: usize, each: impl Fn(&ThreadState)) -> bool {
        let mut any = false;
        for state in self.owned().filter(|state| core::ptr::from_ref(*state) as usize != own) {
            each(state);
            self.give_back_locked(state);
            any = true;
        }
        any
    }

    /// The memory that a thread has for tracing its stacks; empty when there is none for it.
    pub(crate) fn trace_memory<M: Memory>(&self, memory: &M, state: &ThreadState, bytes: usize) -> Range {
        match state.trace_memory.load(Ordering::Relaxed) {
            UNASKED => {
                let start = self.take_trace_memory(memory, state, bytes).unwrap_or(0);
                state.trace_memory.store(start, Ordering::Relaxed);
                Range { start, len: if start == 0 { 0 } else { bytes } }
            }
            0 => Range::default(),
            start => Range { start, len: bytes },
        }
    }

    /// It stays with the state, as the state does: threads that come and go use the same again.
    #[cold]
    fn take_trace_memory<M: Memory>(&self, memory: &M, state: &ThreadState, bytes: usize) -> Option<usize> {
        let room = self.trace_memories.range();
        let pages = crate::geometry::align_up(bytes, memory.page_size())?;
        let start = self.index_of(state).checked_mul(pages)?;
        let range = Range { start: room.start.checked_add(start)?, len: pages };
        if bytes == 0 || range.end() > room.end() {
            return None;
        }
        // SAFETY: the range is this state's part of our own reservation, and was not committed before.
        unsafe { memory.commit(range) }.ok()?;
        Some(range.start)
    }

    fn index_of(&self, state: &ThreadState) -> usize {
        let offset = (core::ptr::from_ref(state) as usize).wrapping_sub(self.states.range().start);
        offset.checked_div(size_of::<ThreadState>()).unwrap_or(0)
    }
}
