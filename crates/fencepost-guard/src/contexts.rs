//! Calling contexts under `mode=budget`: a fingerprint that costs a few nanoseconds, and a table of what each has had.
//!
//! # The fingerprint
//! Where the stack pointer stands below the start of the stack, the size that is asked for, which function of ours was
//! called, and two return addresses. The addresses are not unwound: for one place in the program the frame has one size,
//! so the distance from a frame of ours to the first return address, and from there to the second, are the same each
//! time. They are learned from the stacks that are walked for guarded blocks anyway ([`Steps`]), and checked against
//! every later one; a distance that ever differs (a frame of changing size) is given up for that place, which makes
//! the fingerprint coarser and never wrong memory: words are only read between our frame and the start of the stack.
//!
//! # The table
//! Fixed in size, in memory that comes as it is touched: entries one after the other, and places by key that hold their
//! numbers, so that few contexts touch few pages. An entry is written before the compare-and-swap that puts its number
//! into a place (Release), and never moves or goes; two threads that add the same context at once may leave one entry
//! unused. Where no entry or no place is left, contexts share the first entry. Counts are Relaxed: they steer choices,
//! and no other memory is reached through them.

use fencepost_sys::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};
use fencepost_sys::{Memory, Range, VmResult};

use crate::region::Region;

/// Contexts that are told apart, and one for the others.
const CONTEXTS: usize = 1 << 15;
/// Places by key; a power of two, and so many that few keys share one.
const PLACES: usize = 1 << 16;
/// Places looked at for one key, and how many of them are among the first [`NEAR`] ones: one page of memory, which most
/// programs do with.
const PROBES: usize = 16;
const PROBES_NEAR: usize = 4;
const NEAR: usize = 1 << 11;
/// Functions of ours that programs call, told apart by [`Door`].
const DOORS: usize = 16;
/// Places in the program whose frame size is known; a power of two.
const STEPS: usize = 1 << 10;
/// How far from a frame of ours the first return address is looked for, in words.
const FIRST_MAX: usize = 96;
/// How far the second may be from the first, in words.
const STEP_MAX: usize = 4096;
/// A distance that was found to change.
const GIVEN_UP: u32 = u32::MAX;
/// How often the first distance of a door may change before it is given up.
const CHANGES_MAX: u32 = 8;

const MIX_A: u64 = 0x9e37_79b9_7f4a_7c15;
const MIX_B: u64 = 0xd6e8_feb8_6659_fd93;

/// Which function of ours the program called: each has a frame of its own size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Door {
    /// Rust's `alloc`.
    Alloc,
    /// Rust's `alloc_zeroed`.
    Zeroed,
    /// Rust's `realloc`.
    Resize,
    /// One of C's or C++'s.
    C,
    /// One of C's that clears the memory.
    Cleared,
    /// One of C's or C++'s that aligns.
    Aligned,
    /// C's `realloc`.
    ResizeC,
    /// C++'s `operator new`.
    New,
}

impl Door {
    /// The door of a number.
    pub(crate) fn of(number: u32) -> Door {
        const ALL: [Door; 8] = [
            Door::Alloc,
            Door::Zeroed,
            Door::Resize,
            Door::C,
            Door::Cleared,
            Door::Aligned,
            Door::ResizeC,
            Door::New,
        ];
        ALL.get(number as usize).copied().unwrap_or(Door::Alloc)
    }
}

/// One context.
#[repr(C)]
pub(crate) struct Context {
    key: AtomicU64,
    /// Blocks asked for, with those that may still pass.
    pub(crate) uses: AtomicU64,
    /// The use from which on one is due.
    pub(crate) next: AtomicU64,
    /// Blocks guarded.
    pub(crate) guarded: AtomicU32,
    /// The stack of the first guarded block.
    pub(crate) trace: AtomicU32,
    /// Guarded blocks that had another stack: the fingerprint took two contexts for one.
    pub(crate) confused: AtomicU32,
    /// The size of the first block in bytes, cut at 4 GiB.
    pub(crate) size: AtomicU32,
}

/// Distances on the stack, in words.
struct Steps {
    /// From a frame of ours to the first return address: distance + 1, 0 when not known.
    first: [AtomicU32; DOORS],
    changes: [AtomicU32; DOORS],
    /// From the first to the second: the first address in the upper 48 bits, the distance in the lower 16, 0 there when
    /// it was given up.
    second: [AtomicU64; STEPS],
}

/// All contexts.
pub(crate) struct Contexts {
    entries: Region,
    places: Region,
    used: AtomicU32,
    steps: Steps,
    seen: AtomicU32,
    covered: AtomicU32,
}

/// The words of this thread's stack from an address of ours on: none where that is another stack (a signal's, a
/// coroutine's), whose end is not known.
#[derive(Clone, Copy)]
struct Words {
    here: usize,
    count: usize,
}

impl Words {
    #[inline]
    fn of(stack: Range, here: usize) -> Words {
        let here = here & !(size_of::<usize>().wrapping_sub(1));
        let left = if stack.contains(here) { stack.end().wrapping_sub(here) } else { 0 };
        Words { here, count: left.checked_div(size_of::<usize>()).unwrap_or(0) }
    }

    #[inline]
    fn get(self, index: usize) -> Option<usize> {
        if index >= self.count {
            return None;
        }
        let address = self.here.wrapping_add(index.wrapping_mul(size_of::<usize>()));
        // SAFETY: `here` is an aligned address in a running frame of this thread, and `count` words follow it on its stack:
        // all of that is mapped, and nobody else writes to it while we are called. What it means is the caller's care.
        Some(unsafe { (address as *const usize).read_volatile() })
    }
}

impl Contexts {
    pub(crate) const fn new() -> Contexts {
        Contexts {
            entries: Region::new(),
            places: Region::new(),
            // The first entry is for the contexts that find no other.
            used: AtomicU32::new(1),
            steps: Steps {
                first: [const { AtomicU32::new(0) }; DOORS],
                changes: [const { AtomicU32::new(0) }; DOORS],
                second: [const { AtomicU64::new(0) }; STEPS],
            },
            seen: AtomicU32::new(0),
            covered: AtomicU32::new(0),
        }
    }

    pub(crate) fn start<M: Memory>(&self, memory: &M) -> VmResult {
        for (region, bytes) in [
            (&self.entries, CONTEXTS.wrapping_mul(size_of::<Context>())),
            (&self.places, PLACES.wrapping_mul(size_of::<AtomicU16>())),
        ] {
            region.reserve(memory, bytes)?;
            region.ensure(memory, bytes)?;
        }
        Ok(())
    }

    /// The memory that it keeps.
    pub(crate) fn regions(&self) -> [&Region; 2] {
        [&self.entries, &self.places]
    }

    pub(crate) fn release<M: Memory>(&self, memory: &M) {
        self.entries.release(memory);
        self.places.release(memory);
    }

    /// Contexts seen, and those of which a block was ever guarded.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.seen.load(Ordering::Relaxed).into(), self.covered.load(Ordering::Relaxed).into())
    }

    /// Every context that was seen.
    pub(crate) fn all(&self) -> impl Iterator<Item = &'static Context> {
        (0..self.entries_used())
            .filter_map(|index| self.at(index))
            .filter(|context| context.uses.load(Ordering::Relaxed) != 0)
    }

    /// The context of a number.
    pub(crate) fn at(&self, index: usize) -> Option<&'static Context> {
        // SAFETY: the region holds a table of `Context` only, made of atomics and valid when zeroed.
        unsafe { self.entries.get::<Context>(index) }
    }

    fn entries_used(&self) -> usize {
        (self.used.load(Ordering::Relaxed) as usize).min(CONTEXTS)
    }

    /// The number of a key's context, which is added if it is new.
    pub(crate) fn find(&self, key: u64, size: usize) -> usize {
        let mut added = None;
        for probe in 0..PROBES {
            let places = if probe < PROBES_NEAR { NEAR } else { PLACES };
            let index = ((key >> 40) as usize).wrapping_add(probe) & places.wrapping_sub(1);
            // SAFETY: the region holds a table of `AtomicU16` only, valid when zeroed.
            let Some(place) = (unsafe { self.places.get::<AtomicU16>(index) }) else { return 0 };
            let mut number = place.load(Ordering::Acquire);
            if number == 0 {
                if added.is_none() {
                    added = self.add(key, size);
                }
                let Some(mine) = added else { return 0 };
                match place.compare_exchange(0, mine, Ordering::AcqRel, Ordering::Acquire) {
                    Ok(_) => return usize::from(mine),
                    Err(theirs) => number = theirs,
                }
            }
            let there = self.at(usize::from(number));
            if there.is_some_and(|context| context.key.load(Ordering::Relaxed) == key) {
                return usize::from(number);
            }
        }
        0
    }

    /// An entry for a key, not in any place yet; `None` when there is none left.
    fn add(&self, key: u64, size: usize) -> Option<u16> {
        if self.entries_used() >= CONTEXTS {
            return None;
        }
        let number = self.used.fetch_add(1, Ordering::Relaxed);
        let context = self.at(number as usize)?;
        context.key.store(key, Ordering::Relaxed);
        context.size.store(u32::try_from(size).unwrap_or(u32::MAX), Ordering::Relaxed);
        u16::try_from(number).ok()
    }

    /// Counts one use of a context, and says how many that makes.
    pub(crate) fn use_one(&self, context: &Context) -> u64 {
        let before = context.uses.fetch_add(1, Ordering::Relaxed);
        if before == 0 {
            self.seen.fetch_add(1, Ordering::Relaxed);
        }
        before.saturating_add(1)
    }

    /// Notes a guarded block of a context, and the number of its stack.
    pub(crate) fn cover(&self, context: &Context, trace: u32) {
        if context.guarded.fetch_add(1, Ordering::Relaxed) == 0 {
            self.covered.fetch_add(1, Ordering::Relaxed);
            context.trace.store(trace, Ordering::Relaxed);
        } else if context.trace.load(Ordering::Relaxed) != trace {
            context.confused.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The fingerprint of a call for `size` bytes, from an address in the frame of ours that `door` names; never 0.
    #[inline]
    pub(crate) fn fingerprint(&self, here: usize, stack: Range, size: usize, door: Door) -> u64 {
        let below = here.wrapping_sub(stack.end()) as u64;
        let mut key = (below ^ (size as u64).rotate_left(24) ^ ((door as u64) << 60)).wrapping_mul(MIX_A);
        let words = Words::of(stack, here);
        if let Some((at, first)) = self.first_of(words, door) {
            key = (key.rotate_left(32) ^ first as u64).wrapping_mul(MIX_B);
            if let Some(second) = self.second_of(words, at, first) {
                key = (key.rotate_left(32) ^ second as u64).wrapping_mul(MIX_A);
            }
        }
        key ^ (key >> 29) | 1
    }

    #[inline]
    fn first_of(&self, words: Words, door: Door) -> Option<(usize, usize)> {
        let known = self.steps.first.get(door as usize)?.load(Ordering::Relaxed);
        if known == GIVEN_UP {
            return None;
        }
        let at = (known as usize).checked_sub(1)?;
        Some((at, words.get(at)?))
    }

    #[inline]
    fn second_of(&self, words: Words, at: usize, first: usize) -> Option<usize> {
        let known = self.steps.second.get(step_of(first))?.load(Ordering::Relaxed);
        let distance = (known & 0xffff) as usize;
        if known >> 16 != first as u64 || distance == 0 {
            return None;
        }
        words.get(at.checked_add(distance)?)
    }

    /// Learns distances from a stack that was walked for the same call: `frames` are its return addresses, innermost first.
    /// Whether anything was learned that changes fingerprints.
    pub(crate) fn learn(&self, here: usize, stack: Range, door: Door, frames: &[u64]) -> bool {
        let words = Words::of(stack, here);
        let Some((at, depth, changed)) = self.learn_first(words, door, frames) else { return false };
        let (Some(first), Some(second)) = (frames.get(depth), frames.get(depth.saturating_add(1))) else {
            return changed;
        };
        self.learn_second(words, at, *first, *second) || changed
    }

    /// Where the first return address is, which of the frames it is, and whether that is news.
    fn learn_first(&self, words: Words, door: Door, frames: &[u64]) -> Option<(usize, usize, bool)> {
        let (first, changes) = (self.steps.first.get(door as usize)?, self.steps.changes.get(door as usize)?);
        // One or two frames may be ours or the language's way to us.
        let candidates = frames.get(..frames.len().min(3))?;
        if let Some((at, word)) = self.first_of(words, door)
            && let Some(depth) = candidates.iter().position(|frame| *frame == word as u64)
        {
            return Some((at, depth, false));
        }
        if first.load(Ordering::Relaxed) == GIVEN_UP {
            return None;
        }
        let found = candidates.iter().enumerate().find_map(|(depth, frame)| {
            let at = (0..FIRST_MAX).find(|at| words.get(*at).is_some_and(|word| word as u64 == *frame))?;
            Some((at, depth))
        });
        let often = changes.fetch_add(1, Ordering::Relaxed) > CHANGES_MAX;
        let (at, depth) = found.unwrap_or((0, 0));
        let known = if often { GIVEN_UP } else { u32::try_from(at.checked_add(1)?).ok()? };
        if found.is_some() || often {
            first.store(known, Ordering::Relaxed);
        }
        found.filter(|_| !often).map(|_| (at, depth, true))
    }

    fn learn_second(&self, words: Words, at: usize, first: u64, second: u64) -> bool {
        let Some(place) = self.steps.second.get(step_of(first as usize)) else { return false };
        let known = place.load(Ordering::Relaxed);
        if known >> 16 == first {
            let distance = (known & 0xffff) as usize;
            let word = at.checked_add(distance).and_then(|at| words.get(at));
            if distance == 0 || word.is_some_and(|word| word as u64 == second) {
                return false;
            }
            place.store(first << 16, Ordering::Relaxed);
            return true;
        }
        let found = (1..STEP_MAX).find(|distance| {
            at.checked_add(*distance).and_then(|at| words.get(at)).is_some_and(|word| word as u64 == second)
        });
        let Some(distance) = found else { return false };
        place.store(first << 16 | distance as u64, Ordering::Relaxed);
        true
    }

    /// The context of a guarded block whose fingerprint has become finer since it was looked up: it is counted there
    /// alone.
    pub(crate) fn rename(&self, old: usize, key: u64, size: usize) -> usize {
        let new = self.find(key, size);
        if let (Some(before), Some(after), true) = (self.at(old), self.at(new), new != old) {
            self.use_one(after);
            if before.guarded.load(Ordering::Relaxed) == 0 && before.uses.swap(0, Ordering::Relaxed) != 0 {
                self.seen.fetch_sub(1, Ordering::Relaxed);
            }
        }
        new
    }
}

fn step_of(first: usize) -> usize {
    ((first as u64).wrapping_mul(MIX_B) >> 48) as usize & STEPS.wrapping_sub(1)
}
