//! The stack depot: every distinct stack is kept once and named by a 32-bit number.
//!
//! A hash table of chains over an arena that only grows. Readers and writers take no lock: an entry is written in
//! full before the compare-and-swap that puts it at the head of its chain (Release), and never changes after, so
//! whoever reaches it by the head (Acquire) sees it whole. Two threads that add the same stack at once may both
//! keep it: one stack then has two numbers, which costs a few bytes and changes no report. Scudo's depot is the
//! model for the chains; unlike it, nothing here is ever overwritten, so a number never names another stack.

use fencepost_record::Trace;
use fencepost_sys::atomic::{AtomicU32, AtomicUsize, Ordering};
use fencepost_sys::{Memory, Range, Threads, VmResult};

use crate::lock::Lock;
use crate::region::Region;

/// Heads of chains; a power of two.
const BUCKETS: usize = 1 << 16;
/// The unit of a stack's number, in bytes.
const UNIT: usize = 8;

/// What an entry starts with; the frames follow.
#[repr(C)]
struct Entry {
    next: AtomicU32,
    hash: AtomicU32,
    len: AtomicU32,
    spare: AtomicU32,
}

/// The depot.
pub(crate) struct Depot {
    heads: Region,
    entries: Region,
    used: AtomicUsize,
    lost: AtomicUsize,
    growing: Lock,
}

impl Depot {
    pub(crate) const fn new() -> Self {
        Depot {
            heads: Region::new(),
            entries: Region::new(),
            used: AtomicUsize::new(UNIT), // number 0 means "no stack"
            lost: AtomicUsize::new(0),
            growing: Lock::new(),
        }
    }

    /// Takes `room` bytes of address space for entries; past it stacks are not kept, and counted as lost.
    pub(crate) fn start<M: Memory>(&self, memory: &M, room: usize) -> VmResult {
        self.heads.reserve(memory, BUCKETS.wrapping_mul(size_of::<AtomicU32>()))?;
        self.heads.ensure(memory, BUCKETS.wrapping_mul(size_of::<AtomicU32>()))?;
        self.entries.reserve(memory, room)
    }

    /// The memory that it keeps.
    pub(crate) fn regions(&self) -> [&Region; 2] {
        [&self.heads, &self.entries]
    }

    pub(crate) fn release<M: Memory>(&self, memory: &M) {
        self.heads.release(memory);
        self.entries.release(memory);
    }

    /// Stacks that could not be kept.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed) as u64
    }

    /// Where the stacks are kept.
    pub(crate) fn stacks(&self) -> Range {
        self.entries.range()
    }

    /// Bytes that the kept stacks take.
    #[inline]
    pub(crate) fn held_bytes(&self) -> u64 {
        self.used.load(Ordering::Relaxed) as u64
    }

    /// The lock of who grows the depot, which a fork takes.
    pub(crate) fn lock_for_fork(&self) -> &Lock {
        &self.growing
    }

    /// Keeps a stack and gives its number; 0 when it is empty or there is no room.
    pub(crate) fn keep<P: Memory + Threads>(&self, platform: &P, frames: &[u64]) -> u32 {
        if frames.is_empty() {
            return 0;
        }
        let hash = hash(frames);
        // SAFETY: the region holds a table of atomics only, valid when zeroed.
        let head = unsafe { self.heads.get::<AtomicU32>(hash as usize & BUCKETS.wrapping_sub(1)) };
        let Some(head) = head else { return 0 };
        let first = head.load(Ordering::Acquire);
        if let Some(number) = self.find(first, hash, frames) {
            return number;
        }
        match self.add(platform, head, hash, frames) {
            Some(number) => number,
            None => {
                self.lost.fetch_add(1, Ordering::Relaxed);
                0
            }
        }
    }

    /// Appends a kept stack's frames to a trace.
    pub(crate) fn load(&self, number: u32, into: &mut Trace) {
        for frame in self.frames(number).unwrap_or(&[]) {
            if !into.push(*frame) {
                return;
            }
        }
    }

    fn find(&self, mut number: u32, hash: u32, frames: &[u64]) -> Option<u32> {
        while let Some(entry) = self.entry(number) {
            if entry.hash.load(Ordering::Relaxed) == hash && self.frames(number) == Some(frames) {
                return Some(number);
            }
            number = entry.next.load(Ordering::Relaxed);
        }
        None
    }

    fn add<P: Memory + Threads>(
        &self,
        platform: &P,
        head: &AtomicU32,
        hash: u32,
        frames: &[u64],
    ) -> Option<u32> {
        let bytes = size_of::<Entry>().checked_add(frames.len().checked_mul(UNIT)?)?;
        let offset = self.used.fetch_add(bytes, Ordering::Relaxed);
        let end = offset.checked_add(bytes)?;
        let room = self.entries.range().len;
        if end > room {
            self.used.store(room, Ordering::Relaxed);
            return None;
        }
        if end > self.entries.committed() {
            let held = self.growing.hold(platform);
            let grown = self.entries.ensure(platform, end);
            drop(held);
            grown.ok()?;
        }
        let number = u32::try_from(offset / UNIT).ok()?;
        let entry = self.entry(number)?;
        entry.hash.store(hash, Ordering::Relaxed);
        entry.len.store(u32::try_from(frames.len()).ok()?, Ordering::Relaxed);
        for (index, frame) in frames.iter().enumerate() {
            self.frame_place(number, index)?.store(*frame as usize, Ordering::Relaxed);
        }
        let mut next = head.load(Ordering::Relaxed);
        loop {
            entry.next.store(next, Ordering::Relaxed);
            match head.compare_exchange_weak(next, number, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return Some(number),
                Err(now) => next = now,
            }
        }
    }

    fn entry(&self, number: u32) -> Option<&'static Entry> {
        if number == 0 {
            return None;
        }
        // An entry is two units of 8 bytes followed by frames of 8 bytes: index it by half its size.
        let index = number as usize;
        // SAFETY: the region holds words that are all atomics, valid when zeroed; the last word of the entry is
        // checked to be committed, and `Entry` is made of atomics with an alignment that the unit satisfies.
        let last = unsafe { self.entries.get::<AtomicUsize>(index.checked_add(1)?) };
        last?;
        // SAFETY: as above.
        let first = unsafe { self.entries.get::<AtomicUsize>(index) }?;
        // SAFETY: `first` and the word after it are committed memory of this region, alive as long as the process.
        Some(unsafe { &*core::ptr::from_ref(first).cast::<Entry>() })
    }

    fn frame_place(&self, number: u32, index: usize) -> Option<&'static AtomicUsize> {
        let word = (number as usize).checked_add(2)?.checked_add(index)?;
        // SAFETY: the region holds words that are all atomics, valid when zeroed.
        unsafe { self.entries.get::<AtomicUsize>(word) }
    }

    /// The frames of an entry that is in a chain.
    pub(crate) fn frames(&self, number: u32) -> Option<&'static [u64]> {
        let len = self.entry(number)?.len.load(Ordering::Relaxed) as usize;
        let first = self.frame_place(number, 0)?;
        // Committed to the last word, then.
        self.frame_place(number, len.checked_sub(1)?)?;
        // SAFETY: first and last word are committed memory of this region, alive as long as the process. The caller
        // came by the entry's number through a chain or a record, so the entry was written in full before and never
        // changes again: plain reads race with no write.
        Some(unsafe { core::slice::from_raw_parts(core::ptr::from_ref(first).cast::<u64>(), len) })
    }
}

const _: () = assert!(size_of::<Entry>() == 2 * UNIT && size_of::<usize>() == UNIT, "64-bit systems only");

fn hash(frames: &[u64]) -> u32 {
    let mut hash = 0x51_7c_c1_b7u64;
    for frame in frames {
        hash = (hash ^ frame).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }
    let hash = crate::pattern::mix(hash);
    (hash >> 32) as u32 ^ hash as u32
}
