//! Allocators that reserve the most they may ever need, commit as they grow, and never move what they hold.
//!
//! | type | what it is for |
//! |---|---|
//! | [`Arena`] | many small things that die together: marks, rewind, reset |
//! | [`AppendArena`] | things that live as long as the arena, made through `&self` by several threads: interners |
//! | [`Stack`] | things that die in the opposite order of their birth, which is checked |
//! | [`Pool`] | things of one type that come and go: slots, handles that know their generation |
//! | [`GrowVec`] | a vector whose elements never move |
//! | [`CallStack`] | a stack to run code on, which grows as it is touched |
//!
//! All have a bound in bytes (or elements), which costs addresses only. Growing past it is an error, not a crash, and
//! what runs past it by a wrong pointer meets a page that traps. Memory is committed in steps: at first a few pages,
//! then as much again as there is, up to 256 KiB ([`Options::step_max`]), and filled as it is committed; so what is in
//! memory is at most one step more than what is used. With [`Options::strict`] steps are single pages and what is given
//! back is closed: a rewound part of an arena, a freed slot of a pool, the cut-off end of a vector.
//!
//! # Threads
//! [`Pool`] and [`GrowVec`] change through `&mut self` only: they are `Send` and `Sync` as their elements are. [`Arena`]
//! allocates through `&self` without atomic read-modify-write, so it is `Send` and not `Sync`; [`AppendArena`] is both. A
//! [`Stack`] may hold values of any type, also such as must stay on their thread, so it is neither. [`CallStack`] is
//! `Send`: nothing lies on it while nothing runs on it.

mod allocator;
mod append;
mod arena;
mod call_stack;
mod coroutine;
mod pool;
mod stack;
mod vector;

use core::fmt;

pub use append::AppendArena;
pub use arena::{Arena, Mark};
pub use call_stack::CallStack;
pub use pool::{Handle, Pool};
pub use stack::{Place, Stack, StackError};
pub use vector::GrowVec;

use crate::regions::{Entry, RegionKind};
use crate::{Action, Builder, HOST, Host, HugePages, Limit, MemoryError, Reservation, System, round_up};

/// The first step, in pages.
const FIRST_STEP_PAGES: usize = 4;
/// The largest step, in bytes, unless asked for otherwise: large enough that a step's system calls vanish beside
/// filling the pages, small enough that no single step takes long.
const STEP_MAX: usize = 256 << 10;
/// From how many bytes on, and then how often at least, the system is asked what memory is left. A control group's limit
/// has no other warning: it kills.
const ASK_FIRST: usize = 16 << 20;
const ASK_EVERY: usize = 64 << 20;

/// How an allocator is to grow. One of its last calls makes the allocator.
///
/// ```
/// use fencepost_memory::growing::Options;
///
/// let frames = Options::new(256 << 20).name("frames").strict(cfg!(debug_assertions)).arena()?;
/// let greeting = frames.alloc_str("hello")?;
/// assert_eq!(greeting, "hello");
/// # Ok::<(), fencepost_memory::MemoryError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing is reserved before an allocator is made"]
pub struct Options<'a, M: System + 'static = Host> {
    memory: &'static M,
    bound: usize,
    name: &'a str,
    strict: bool,
    give_back: bool,
    step_max: usize,
    huge: HugePages,
}

impl Options<'_> {
    /// An allocator that may grow to `bound` bytes.
    pub fn new(bound: usize) -> Self {
        Options::on(&HOST, bound)
    }
}

impl<'a, M: System + 'static> Options<'a, M> {
    /// The same on another system than the one this runs on: for tests on a simulated one.
    #[doc(hidden)]
    pub fn on(memory: &'static M, bound: usize) -> Self {
        Options {
            memory,
            bound,
            name: "",
            strict: false,
            give_back: false,
            step_max: STEP_MAX,
            huge: HugePages::No,
        }
    }

    /// A name: accounts, reports and the system's list of mappings show it.
    pub fn name<'b>(self, name: &'b str) -> Options<'b, M> {
        let Options { memory, bound, strict, give_back, step_max, huge, .. } = self;
        Options { memory, bound, name, strict, give_back, step_max, huge }
    }

    /// Closes what is given back, so that using it traps, and commits single pages, so that running past the end
    /// does. For tests and debug builds: it costs a system call for every page that changes.
    pub fn strict(mut self, strict: bool) -> Self {
        self.strict = strict;
        self
    }

    /// Gives memory back to the system on `rewind`, `reset`, `truncate` and `clear`, where these free more than a step.
    /// Otherwise it stays committed for the next use, until `shrink_to_fit`.
    pub fn give_back(mut self, give_back: bool) -> Self {
        self.give_back = give_back;
        self
    }

    /// The largest step in bytes, rounded up to pages; 256 KiB unless said.
    pub fn step_max(mut self, bytes: usize) -> Self {
        self.step_max = bytes;
        self
    }

    /// Which pages are wanted. Steps are at least one of them.
    pub fn huge_pages(mut self, huge: HugePages) -> Self {
        self.huge = huge;
        self
    }

    /// An arena.
    ///
    /// # Errors
    /// As [`Builder::reserve`].
    pub fn arena(self) -> Result<Arena<M>, MemoryError> {
        self.ground(RegionKind::Arena).map(Arena::over)
    }

    /// An append-only arena.
    ///
    /// # Errors
    /// As [`Builder::reserve`].
    pub fn append_arena(self) -> Result<AppendArena<M>, MemoryError> {
        self.ground(RegionKind::AppendArena).map(AppendArena::over)
    }

    /// A stack.
    ///
    /// # Errors
    /// As [`Builder::reserve`].
    pub fn stack(self) -> Result<Stack<M>, MemoryError> {
        self.ground(RegionKind::Stack).map(Stack::over)
    }

    /// A pool whose slots take `bound` bytes.
    ///
    /// # Errors
    /// As [`Builder::reserve`].
    pub fn pool<T>(self) -> Result<Pool<T, M>, MemoryError> {
        Pool::with(self)
    }

    /// A vector whose elements take `bound` bytes.
    ///
    /// # Errors
    /// As [`Builder::reserve`].
    pub fn vec<T>(self) -> Result<GrowVec<T, M>, MemoryError> {
        self.ground(RegionKind::Vector).map(GrowVec::over)
    }

    /// A stack to run code on.
    ///
    /// # Errors
    /// As [`Builder::reserve`], and of committing it.
    pub fn call_stack(self) -> Result<CallStack<M>, MemoryError> {
        CallStack::with(self)
    }

    fn reserve(&self, kind: RegionKind) -> Result<Reservation<M>, MemoryError> {
        let builder = Builder::on(self.memory, self.bound).name(self.name).huge_pages(self.huge);
        builder.kind(kind).reserve()
    }

    fn ground(self, kind: RegionKind) -> Result<Ground<M>, MemoryError> {
        let space = self.reserve(kind)?;
        let unit = space.unit();
        let step_max = round_up(self.step_max.max(unit), unit).unwrap_or(unit);
        let entry = space.entry();
        let start = space.addresses().start;
        entry.frontier.store(start, core::sync::atomic::Ordering::Relaxed);
        entry.limit.store(start, core::sync::atomic::Ordering::Release);
        let Options { strict, give_back, .. } = self;
        Ok(Ground { space, committed: 0, strict, give_back, step_max, ask_at: ASK_FIRST })
    }
}

/// A reservation that is committed from its start up to some offset: what all the allocators stand on.
#[derive(Debug)]
pub(crate) struct Ground<M: System + 'static> {
    space: Reservation<M>,
    /// The offset up to which memory is committed.
    committed: usize,
    strict: bool,
    give_back: bool,
    step_max: usize,
    /// The offset from which on the system is asked what memory is left.
    ask_at: usize,
}

impl<M: System + 'static> Ground<M> {
    pub(crate) fn space(&self) -> &Reservation<M> {
        &self.space
    }

    pub(crate) fn entry(&self) -> &'static Entry {
        self.space.entry()
    }

    pub(crate) fn start(&self) -> usize {
        self.space.addresses().start
    }

    pub(crate) fn committed(&self) -> usize {
        self.committed
    }

    pub(crate) fn is_strict(&self) -> bool {
        self.strict
    }

    fn step(&self) -> usize {
        let unit = self.space.unit();
        if self.strict {
            return unit;
        }
        let first = FIRST_STEP_PAGES.saturating_mul(unit).min(self.step_max);
        self.committed.clamp(first, self.step_max)
    }

    /// Commits at least up to offset `end`, `used` bytes being in use, and says up to where.
    #[cold]
    #[inline(never)]
    pub(crate) fn grow(&mut self, end: Option<usize>, used: usize) -> Result<usize, MemoryError> {
        let unit = self.space.unit();
        let len = self.space.len();
        let full = || MemoryError::Refused {
            action: Action::Grow,
            bytes: end.map_or(0, |end| end.saturating_sub(used)),
            limit: Limit::Reservation { limit: len as u64, used: used as u64 },
            error: None,
        };
        let least = end.filter(|end| *end <= len).and_then(|end| round_up(end, unit)).ok_or_else(full)?;
        if least <= self.committed {
            return Ok(self.committed);
        }
        let wish = least.max(self.committed.saturating_add(self.step())).min(len);
        self.ask(wish)?;
        let from = self.committed;
        let to = match self.space.commit(from..wish) {
            Ok(()) => wish,
            Err(_) if least < wish => {
                self.space.commit(from..least)?;
                least
            }
            Err(error) => return Err(error),
        };
        if to - from <= self.step_max {
            // What cannot be filled now is filled at first touch.
            let _ = self.space.populate(from..to);
        }
        self.committed = to;
        Ok(to)
    }

    /// Asks what memory is left before much more is committed: an error now is better than being killed later. The less
    /// is left, the sooner it asks again; others use memory as well.
    fn ask(&mut self, wish: usize) -> Result<(), MemoryError> {
        if wish < self.ask_at {
            return Ok(());
        }
        let more = wish - self.committed;
        let Some(available) = self.space.system().available() else { return Ok(()) };
        if more as u64 > available {
            return Err(MemoryError::Refused {
                action: Action::Grow,
                bytes: more,
                limit: Limit::Memory { available },
                error: None,
            });
        }
        let pause = usize::try_from(available / 2).map_or(ASK_EVERY, |half| half.min(ASK_EVERY));
        self.ask_at = wish.saturating_add(pause);
        Ok(())
    }

    /// What to keep after `used` bytes are left in use: all, unless strict or told to give back.
    pub(crate) fn settle(&mut self, used: usize) {
        let unit = self.space.unit();
        let keep = round_up(used, unit).unwrap_or(self.committed);
        let spare = self.committed.saturating_sub(keep);
        if self.strict || (self.give_back && spare > self.step_max) {
            // Where the system refuses, memory stays committed: no harm but its use, and `committed` says so.
            let _ = self.shrink(used);
        }
    }

    /// Gives back all whole units past `used` bytes.
    pub(crate) fn shrink(&mut self, used: usize) -> Result<(), MemoryError> {
        let keep = round_up(used, self.space.unit()).unwrap_or(self.committed);
        if keep < self.committed {
            self.space.decommit(keep..self.committed)?;
            self.committed = keep;
            // What was given back may be somebody else's by the time it is wanted again.
            self.ask_at = self.ask_at.min(keep.saturating_add(ASK_EVERY)).max(ASK_FIRST);
        }
        Ok(())
    }

    /// Makes one slot's memory trap. True if it does.
    pub(crate) fn close(&mut self, range: core::ops::Range<usize>) -> bool {
        self.space.guard(range).is_ok()
    }

    /// Opens what [`Ground::close`] closed.
    pub(crate) fn open(&mut self, range: core::ops::Range<usize>) -> Result<(), MemoryError> {
        self.space.decommit(range.clone())?;
        self.space.commit(range)
    }

    pub(crate) fn commit_range(&mut self, range: core::ops::Range<usize>) -> Result<(), MemoryError> {
        self.space.commit(range)
    }
}

/// A value that could not be taken in, and why.
pub struct Refused<T> {
    /// The value, unharmed.
    pub value: T,
    /// Why.
    pub error: MemoryError,
}

impl<T> fmt::Debug for Refused<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refused").field("error", &self.error).finish_non_exhaustive()
    }
}

impl<T> fmt::Display for Refused<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<T> std::error::Error for Refused<T> {}

impl<T> From<Refused<T>> for MemoryError {
    fn from(refused: Refused<T>) -> MemoryError {
        refused.error
    }
}
