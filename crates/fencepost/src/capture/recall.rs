//! Stacks that this thread has met before, found again without walking.
//!
//! **Why a remembered stack is never a wrong one.** A walk by rules (`tables`) is a computation whose only inputs are
//!
//! 1. the registers it starts from (program counter, stack and frame pointer) and the anchor,
//! 2. the rules of the code addresses that it meets,
//! 3. the words of the stack that it reads, one after the other,
//!
//! and how many frames are kept, which is the same in a whole run. It reads nothing else, and each address that it reads
//! from follows from what it has read before. (Of the frame pointers, in the register and as callees saved them, only
//! those are inputs that a rule asks for: the others are never looked at.) Remembered is a walk of which every rule holds for as long as the process
//! lives; with it all of (1), and every word of (3) with the place it was read from. Now let a later walk start from
//! the same (1). Its first read is at the same place as the remembered one's. If the value there is the same, then so
//! are the return address and all else that came of it, so the next rule, so the place of the next read, and so on:
//! if *all* remembered words are found unchanged, the later walk would read just these, and end in the same frames.
//! So the comparison below is a proof, and not a guess with a hash: nothing is taken for the same that was not compared.
//!
//! The comparison reads only places that lie between the present stack pointer and the end of this thread's stack. A
//! word that happens to be changed meanwhile (a local of the program's cannot be among them) makes a miss, not a lie.
//!
//! **Finding it.** From one place in a program many stacks start with the same registers: the callers differ. So the
//! registers alone would make them push each other out. Whenever two such walks meet, the first word in which they
//! differ becomes a *fork*: from then on that word, as it is now, is mixed into the hash before it chooses a set, and
//! the next fork. Forks are found by the hash up to them, so that they make a tree for each start. That part may be as
//! wrong as it likes; the comparison decides.
//!
//! The layout is plain numbers, all valid when zeroed. The hot function is written without iterators, closures and
//! slices: it is compiled at the program's own optimisation level, and in a build without optimisation every one of
//! these is a call.

use core::sync::atomic::{Ordering, compiler_fence};

/// Words that one remembered walk can have read: some two a frame.
const WORDS: usize = 96;
const FORKS: usize = 2048;
/// Places where the fork of one hash may be.
const PROBES: usize = 4;
/// Forks that one walk passes at most.
const FORKS_PASSED: usize = 24;
const SETS: usize = 256;
const WAYS: usize = 4;

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// What a walk starts from.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) ip: usize,
    pub(super) sp: usize,
    pub(super) fp: usize,
    pub(super) anchor: usize,
}

/// What a walk read: offsets from its first stack pointer, in words, and values.
#[repr(C)]
pub(super) struct Reads {
    /// Whether the frame pointer that it started with mattered.
    pub(super) uses_fp: bool,
    used: usize,
    offsets: [u16; WORDS],
    values: [u64; WORDS],
}

impl Reads {
    pub(super) fn new() -> Self {
        Reads { uses_fp: false, used: 0, offsets: [0; WORDS], values: [0; WORDS] }
    }

    /// Notes one read. A walk with more than there is room for is too long to be remembered.
    #[inline]
    pub(super) fn add(&mut self, offset: usize, value: u64) {
        let places = (self.offsets.get_mut(self.used), self.values.get_mut(self.used));
        if let ((Some(to), Some(kept)), Ok(words)) = (places, u16::try_from(offset / 8)) {
            (*to, *kept) = (words, value);
            self.used = self.used.wrapping_add(1);
        } else {
            self.used = usize::MAX;
        }
    }

    /// The value that was read at an offset.
    fn at(&self, offset: u16) -> Option<u64> {
        let place = self.offsets.iter().take(self.used).position(|known| *known == offset)?;
        self.values.get(place).copied()
    }

    /// The offset of the first word that differs from a remembered walk's from the same start.
    fn first_difference(&self, entry: &Entry) -> Option<u16> {
        let values = self.values.iter().zip(&entry.values).take(self.used.min(entry.used));
        let place = values.into_iter().position(|(new, old)| new != old)?;
        self.offsets.get(place).copied()
    }
}

/// The word that tells apart what has one hash so far.
#[repr(C)]
#[derive(Clone, Copy)]
struct Fork {
    /// The hash up to here; 0 for none.
    hash: u64,
    word: u16,
    /// A walk that reads this word: where it is kept.
    set: u16,
    way: u16,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Entry {
    /// A stack pointer of 0 means that the place is empty. The frame pointer counts only where the walk used it.
    key: Key,
    uses_fp: bool,
    used: usize,
    /// How far the words reach from the stack pointer, in bytes.
    reach: usize,
    /// What it was found by.
    hash: u64,
    number: u32,
    offsets: [u16; WORDS],
    values: [u64; WORDS],
}

impl Entry {
    fn begins_as(&self, key: &Key) -> bool {
        let own = &self.key;
        let fp = !self.uses_fp || own.fp == key.fp;
        own.sp == key.sp && own.anchor == key.anchor && own.ip == key.ip && fp
    }
}

/// What one thread remembers.
#[repr(C)]
pub(super) struct Recall {
    forks: [Fork; FORKS],
    recent: [u8; SETS],
    sets: [[Entry; WAYS]; SETS],
}

/// What the hash of a start begins with.
#[inline(always)]
fn begin(key: &Key) -> u64 {
    mix(mix(1, key.sp as u64), key.anchor as u64)
}

#[inline(always)]
fn mix(hash: u64, word: u64) -> u64 {
    let mixed = (hash ^ word).wrapping_mul(GOLDEN);
    mixed ^ mixed >> 29
}

#[inline(always)]
fn fork_of(hash: u64) -> usize {
    (hash >> 53) as usize & 2047
}

#[inline(always)]
fn set_of(hash: u64) -> usize {
    (hash.wrapping_mul(GOLDEN) >> 56) as usize & 255
}

const _: () = assert!(
    FORKS == 2048 && SETS == 256 && WAYS == 4,
    "`fork_of`, `set_of` and what goes round the ways take that many bits"
);

/// The number of the remembered stack that a walk from `key` would give now.
///
/// # Safety
/// `recall` must be this thread's own memory, zeroed before its first use and used by these functions alone, and the
/// memory from `key.sp` to `stack_end` must be readable.
#[inline(never)]
#[expect(
    clippy::indexing_slicing,
    reason = "every index is masked or bounded, and get() is a call; see above"
)]
pub(super) unsafe fn find(recall: *mut Recall, key: &Key, stack_end: usize) -> Option<u32> {
    // SAFETY: by the caller's word.
    let recall = unsafe { &mut *recall };
    let sp = key.sp;
    let room = stack_end.wrapping_sub(sp);
    let mut hash = begin(key);
    let mut place = fork_of(hash);
    let (mut passed, mut probed) = (0, 0);
    while passed < FORKS_PASSED && probed < PROBES {
        let fork = &recall.forks[place];
        if fork.hash == 0 {
            break;
        }
        if fork.hash != hash {
            place = place.wrapping_add(1) & 2047;
            probed = probed.wrapping_add(1);
            continue;
        }
        let offset = (fork.word as usize) << 3;
        if offset >= room {
            return None;
        }
        // SAFETY: the word begins before the end of the stack, which is a multiple of 8 away.
        hash = mix(hash, unsafe { *(sp.wrapping_add(offset) as *const u64) });
        place = fork_of(hash);
        passed = passed.wrapping_add(1);
        probed = 0;
    }
    let set = set_of(hash);
    let mut way = recall.recent[set] as usize & 3;
    let mut tried = 0;
    while tried < WAYS {
        let entry = &recall.sets[set][way];
        let same = entry.key.sp == sp
            && entry.key.anchor == key.anchor
            && entry.key.ip == key.ip
            && (!entry.uses_fp || entry.key.fp == key.fp)
            && entry.reach <= room;
        // SAFETY: no word of the entry lies further than `reach`, which is within the stack.
        if same && unsafe { are_there(entry, sp) } {
            let number = entry.number;
            recall.recent[set] = way as u8;
            return Some(number);
        }
        way = way.wrapping_add(1) & 3;
        tried = tried.wrapping_add(1);
    }
    None
}

/// Whether every word of a remembered walk is where it was.
///
/// # Safety
/// The memory from `sp` as far as the entry reaches must be readable.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn are_there(entry: &Entry, sp: usize) -> bool {
    let mut left = entry.used;
    // In assembly because of builds without optimisation, where the loop below takes ten times as many instructions.
    //
    // SAFETY: an entry that is not empty has from 1 to `WORDS` words, so that all reads of it are within its arrays; the
    // reads of the stack are so by the caller's word. Nothing is written.
    unsafe {
        core::arch::asm!(
            "2:",
            "movzx {word:e}, word ptr [{offsets} + 2*{left} - 2]",
            "mov {value}, qword ptr [{sp} + 8*{word}]",
            "cmp {value}, qword ptr [{values} + 8*{left} - 8]",
            "jne 3f",
            "dec {left}",
            "jnz 2b",
            "3:",
            left = inout(reg) left,
            word = out(reg) _,
            value = out(reg) _,
            sp = in(reg) sp,
            offsets = in(reg) &raw const entry.offsets,
            values = in(reg) &raw const entry.values,
            options(nostack, readonly)
        );
    }
    left == 0
}

/// As above.
///
/// # Safety
/// As above.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
unsafe fn are_there(entry: &Entry, sp: usize) -> bool {
    let mut index = 0;
    while index < entry.used && index < WORDS {
        let place = sp.wrapping_add((entry.offsets[index] as usize) << 3);
        // SAFETY: by the caller's word.
        if unsafe { *(place as *const u64) } != entry.values[index] {
            return false;
        }
        index = index.wrapping_add(1);
    }
    true
}

/// Remembers a walk from `key` that read `reads`.
///
/// # Safety
/// `recall` as in [`find`].
#[inline(never)]
pub(super) unsafe fn remember(recall: *mut Recall, key: &Key, stack_end: usize, reads: &Reads, number: u32) {
    let last = reads.used.wrapping_sub(1);
    let Some(offsets) = reads.offsets.get(..=last) else { return };
    let reach = usize::from(offsets.iter().copied().max().unwrap_or(0)).saturating_add(1).saturating_mul(8);
    if reach > stack_end.wrapping_sub(key.sp) {
        return;
    }
    // SAFETY: by the caller's word.
    let recall = unsafe { &mut *recall };
    let (hash, made) = recall.sort(key, reads);
    let set = set_of(hash);
    let Some(ways) = recall.sets.get_mut(set) else { return };
    let recent = recall.recent.get(set).copied().unwrap_or(0);
    let empty = ways.iter().position(|entry| entry.key.sp == 0);
    // In turn, beginning with the one that was not used just now.
    let way = empty.unwrap_or(usize::from(recent.wrapping_add(1)) & 3);
    let Some(entry) = ways.get_mut(way) else { return };
    // A signal handler that leaves by a jump must not leave a place behind that is half one walk and half another.
    entry.key.sp = 0;
    compiler_fence(Ordering::SeqCst);
    entry.uses_fp = reads.uses_fp;
    entry.used = reads.used;
    entry.reach = reach;
    entry.hash = hash;
    entry.number = number;
    entry.offsets = reads.offsets;
    entry.values = reads.values;
    compiler_fence(Ordering::SeqCst);
    entry.key = *key;
    if let Some(recent) = recall.recent.get_mut(set) {
        *recent = way as u8;
    }
    if let Some(fork) = made.and_then(|made| recall.forks.get_mut(made)) {
        (fork.set, fork.way) = (set as u16, way as u16);
    }
}

impl Recall {
    /// Where the fork of a hash is, or is to be put.
    fn place_of(&self, hash: u64) -> usize {
        let first = fork_of(hash);
        let mut places = (0..PROBES).map(|probe| first.wrapping_add(probe) & 2047);
        let held = |place: &usize| self.forks.get(*place).map_or(0, |fork| fork.hash);
        let same = places.clone().find(|place| held(place) == hash);
        same.or_else(|| places.find(|place| matches!(held(place), 0 | GOLDEN))).unwrap_or(first)
    }

    /// The hash that [`find`] will make for this walk, and the fork that had to be made for it.
    fn sort(&mut self, key: &Key, reads: &Reads) -> (u64, Option<usize>) {
        let mut hash = begin(key);
        let mut made = None;
        for _ in 0..FORKS_PASSED {
            let place = self.place_of(hash);
            let Some(fork) = self.forks.get_mut(place) else { break };
            if fork.hash == hash {
                if let Some(value) = reads.at(fork.word) {
                    hash = mix(hash, value);
                    continue;
                }
                // This walk does not read that word: it parts from the others before.
                let member =
                    self.sets.get(usize::from(fork.set)).and_then(|ways| ways.get(usize::from(fork.way)));
                let parts = member
                    .filter(|entry| entry.begins_as(key))
                    .and_then(|entry| reads.first_difference(entry));
                if let Some((word, value)) = parts.and_then(|word| Some((word, reads.at(word)?))) {
                    fork.word = word;
                    hash = mix(hash, value);
                    continue;
                }
                // Not 0, which would cut off the forks that were put further on.
                fork.hash = GOLDEN;
            }
            let ways = self.sets.get(set_of(hash)).into_iter().flatten();
            let mut clashes = ways.filter(|entry| entry.begins_as(key) && entry.hash == hash);
            let Some(word) = clashes.find_map(|entry| reads.first_difference(entry)) else { break };
            let (Some(fork), Some(value)) = (self.forks.get_mut(place), reads.at(word)) else { break };
            *fork = Fork { hash, word, set: 0, way: 0 };
            made = Some(place);
            hash = mix(hash, value);
        }
        (hash, made)
    }
}

#[cfg(test)]
mod tests;
