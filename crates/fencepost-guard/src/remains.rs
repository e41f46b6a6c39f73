//! What freed blocks held, for a program that goes on after errors.
//!
//! A freed block's page is gone, and yet a program that is let to read there must find what it would have found without
//! a guard: a pointer that it follows next, a length, a text. So under `on_error=continue` each free copies the block's
//! first bytes into a ring, and the first step on a page of the block puts them there.
//!
//! Without a lock, so that a free in a signal handler and a fault in the middle of a free do no harm. Whoever frees takes
//! a stretch of words by moving `head` on, and only then writes it; who reads looks at `head` again afterwards, and
//! believes nothing that may have been written over meanwhile. The fences make a reader who sees a new word see the
//! head that was moved for it. An entry is found by a hash of the block's address, and two that share a place are told
//! apart by a check over all of it. Who finds nothing leaves zeros, as if nothing had been kept.

use fencepost_sys::atomic::{AtomicUsize, Ordering, fence};
use fencepost_sys::{Memory, Platform, Range, VmResult};

use crate::pattern::mix;
use crate::region::Region;
use crate::runtime::{Guard, Setup};
use crate::slot::{SlotState, SlotView};

/// Words in the ring: 8 MiB.
const WORDS: usize = 1 << 20;
/// Entries: blocks whose remains can be found.
const ENTRIES: usize = 1 << 13;
/// The most that is kept of a block, in bytes.
const KEPT_MAX: usize = 16 << 10;
const WORD: usize = size_of::<usize>();
/// Bytes that are put in place at once.
const PIECE: usize = 256;

/// The ring and its entries; without memory where nothing is kept.
pub(crate) struct Remains {
    words: Region,
    entries: Region,
    head: AtomicUsize,
}

/// Where the remains of a block are.
struct Entry {
    block: AtomicUsize,
    bytes: AtomicUsize,
    /// The first word's number, counted from the first word that was ever kept.
    first: AtomicUsize,
    check: AtomicUsize,
}

fn check_of(block: usize, bytes: usize, first: usize) -> usize {
    mix((block as u64).rotate_left(17) ^ (bytes as u64).rotate_left(43) ^ first as u64) as usize
}

impl Remains {
    pub(crate) const fn new() -> Self {
        Remains { words: Region::new(), entries: Region::new(), head: AtomicUsize::new(0) }
    }

    /// Takes the memory. Before the first block only.
    pub(crate) fn start<M: Memory>(&self, memory: &M) -> VmResult {
        for (region, bytes) in [
            (&self.words, WORDS.wrapping_mul(WORD)),
            (&self.entries, ENTRIES.wrapping_mul(size_of::<Entry>())),
        ] {
            region.reserve(memory, bytes)?;
            region.ensure(memory, bytes)?;
        }
        Ok(())
    }

    /// The memory that it keeps.
    pub(crate) fn regions(&self) -> [&Region; 2] {
        [&self.words, &self.entries]
    }

    pub(crate) fn release<M: Memory>(&self, memory: &M) {
        self.words.release(memory);
        self.entries.release(memory);
    }

    fn word(&self, number: usize) -> Option<&'static AtomicUsize> {
        // SAFETY: the region holds numbers only, of which zero is one.
        unsafe { self.words.get(number % WORDS) }
    }

    fn entry(&self, block: usize) -> Option<&'static Entry> {
        // SAFETY: the region holds entries only, which are numbers.
        unsafe { self.entries.get(mix(block as u64) as usize % ENTRIES) }
    }

    /// Keeps what a block holds.
    ///
    /// # Safety
    /// The block must be readable, and nobody's but the caller's to free.
    pub(crate) unsafe fn keep(&self, block: Range) {
        let Some(entry) = self.entry(block.start) else { return };
        let bytes = block.len.min(KEPT_MAX);
        let count = bytes.div_ceil(WORD);
        let first = self.head.fetch_add(count, Ordering::Relaxed);
        fence(Ordering::Release);
        for index in 0..count {
            let offset = index.wrapping_mul(WORD);
            let mut word = [0u8; WORD];
            let there = bytes.wrapping_sub(offset).min(WORD);
            let from = core::ptr::with_exposed_provenance::<u8>(block.start.wrapping_add(offset));
            // SAFETY: `there` bytes from here lie in the block, which is readable by the caller's word.
            unsafe { core::ptr::copy_nonoverlapping(from, word.as_mut_ptr(), there) };
            if let Some(place) = self.word(first.wrapping_add(index)) {
                place.store(usize::from_ne_bytes(word), Ordering::Relaxed);
            }
        }
        entry.check.store(0, Ordering::Release);
        entry.block.store(block.start, Ordering::Relaxed);
        entry.bytes.store(bytes, Ordering::Relaxed);
        entry.first.store(first, Ordering::Relaxed);
        entry.check.store(check_of(block.start, bytes, first), Ordering::Release);
    }

    /// How many bytes are kept of a block, and the first word's number.
    fn find(&self, block: usize) -> Option<(usize, usize)> {
        let entry = self.entry(block)?;
        let check = entry.check.load(Ordering::Acquire);
        let (bytes, first) = (entry.bytes.load(Ordering::Relaxed), entry.first.load(Ordering::Relaxed));
        let is_it = entry.block.load(Ordering::Relaxed) == block && check == check_of(block, bytes, first);
        is_it.then_some((bytes, first))
    }

    /// Copies what is kept of a block from `offset` on, and says how many bytes that were.
    fn read(&self, block: usize, offset: usize, into: &mut [u8]) -> usize {
        let Some((bytes, first)) = self.find(block) else { return 0 };
        let wanted = into.len().min(bytes.saturating_sub(offset));
        for (index, byte) in into.iter_mut().take(wanted).enumerate() {
            let at = offset.wrapping_add(index);
            let word =
                self.word(first.wrapping_add(at / WORD)).map_or(0, |word| word.load(Ordering::Relaxed));
            *byte = word.to_ne_bytes().get(at % WORD).copied().unwrap_or(0);
        }
        fence(Ordering::Acquire);
        let is_whole = self.head.load(Ordering::Relaxed).wrapping_sub(first) <= WORDS;
        if is_whole { wanted } else { 0 }
    }
}

impl<P: Platform> Guard<P> {
    /// Puts what a freed block held on one of its pages, which has just been opened and holds zeros. Runs in the fault
    /// handler.
    pub(crate) fn put_remains(&self, setup: &Setup, page: Range) {
        let Some(view) = self.freed_at(setup, page) else { return };
        let mut at = view.pointer.max(page.start);
        let end = view.end().min(page.end());
        let mut piece = [0u8; PIECE];
        while at < end {
            let wanted = piece.get_mut(..end.wrapping_sub(at).min(PIECE)).unwrap_or(&mut []);
            let got = self.remains.read(view.pointer, at.wrapping_sub(view.pointer), wanted);
            if got == 0 {
                return;
            }
            // SAFETY: the page was opened for the access that this thread is about to make, and nothing is in use there.
            unsafe { self.platform.fill_for_step(at, wanted.get(..got).unwrap_or(&[])) };
            at = at.wrapping_add(got);
        }
    }

    /// The freed block that a page belonged to.
    fn freed_at(&self, setup: &Setup, page: Range) -> Option<SlotView> {
        let view = self.heap.view(self.slot_of(setup, page.start)?);
        let is_freed = matches!(view.state, SlotState::Freed | SlotState::Freeing);
        (is_freed && view.pointer < page.end() && view.end() > page.start).then_some(view)
    }
}

#[cfg(test)]
mod tests {
    use std::vec;
    use std::vec::Vec;

    use fencepost_sys::sim::Sim;

    use super::*;

    fn block(bytes: &[u8]) -> Range {
        Range { start: bytes.as_ptr().expose_provenance(), len: bytes.len() }
    }

    #[test]
    fn a_block_is_found_by_its_address_until_it_is_written_over() {
        let (sim, remains) = (Sim::new(), Remains::new());
        remains.start(&sim).expect("memory");
        let bytes: Vec<u8> = (0..37).collect();
        // SAFETY: the bytes are this test's.
        unsafe { remains.keep(block(&bytes)) };
        let mut room = [0xff; 64];
        assert_eq!(remains.read(block(&bytes).start, 5, &mut room), 32);
        assert_eq!(room[..32], bytes[5..]);
        assert_eq!(remains.read(block(&bytes).start + 1, 0, &mut room), 0);
        assert_eq!(remains.read(block(&bytes).start, 37, &mut room), 0);
        // The ring comes round.
        let large = vec![7u8; KEPT_MAX + 1];
        for _ in 0..WORDS * WORD / KEPT_MAX {
            // SAFETY: as above.
            unsafe { remains.keep(block(&large)) };
        }
        assert_eq!(remains.read(block(&bytes).start, 0, &mut room), 0);
        assert_eq!(remains.read(block(&large).start, KEPT_MAX - 1, &mut room), 1);
        remains.release(&sim);
    }

    #[test]
    fn who_keeps_nothing_has_no_memory() {
        let remains = Remains::new();
        // SAFETY: the bytes are this test's.
        unsafe { remains.keep(block(&[1, 2, 3])) };
        assert_eq!(remains.read(block(&[1, 2, 3]).start, 0, &mut [0; 3]), 0);
    }

    /// Whatever threads do to the ring, a reader gets a block's own bytes or none.
    #[test]
    fn readers_never_get_anothers_bytes() {
        let (sim, remains) = (Sim::new(), Remains::new());
        remains.start(&sim).expect("memory");
        let blocks: Vec<Vec<u8>> = (1..=8u8).map(|value| vec![value; 4096]).collect();
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let (remains, blocks) = (&remains, &blocks);
                scope.spawn(move || {
                    for round in 0..2000 {
                        // SAFETY: as above.
                        unsafe { remains.keep(block(&blocks[(round * 3 + writer) % 8])) };
                    }
                });
            }
            for _ in 0..2000 {
                for own in &blocks {
                    let mut room = [0u8; 128];
                    let got = remains.read(block(own).start, 1000, &mut room);
                    assert!(room[..got].iter().all(|byte| *byte == own[0]));
                }
            }
        });
        remains.release(&sim);
    }
}
