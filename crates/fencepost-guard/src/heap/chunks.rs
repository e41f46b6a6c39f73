//! Chunks: stretches of fresh address space, each opened for one way of making pages trap and one arena.
//!
//! An *arena* is what a thread takes its small spans from. Every arena grows in chunks of its own, twice as large each
//! time, and a closed span lies between two arenas: so threads do not share a mapping, whose locks in the kernel they
//! would wait for. There are only so many arenas, so that a thousand threads do not make a thousand mappings. Where the
//! addresses after an arena's last chunk are still free, the chunk is made longer instead, and the mapping with it.
//!
//! The caller holds the heap's lock, but for those who only read.

use fencepost_record::Unguarded;
use fencepost_sys::atomic::{AtomicU32, AtomicUsize, Ordering};
use fencepost_sys::{Memory, Range};

use super::{EXTEND_SPANS, Heap, HeapSetup};
use crate::geometry::{SLOTS_STRIDE, SPAN_BYTES};
use crate::slot::{LargeSlot, Linked, Slot};
use crate::span::{Span, Zone};

/// Arenas for small slots, and one more for lazy memory.
const ARENAS: usize = 32;
/// The most spans in one chunk: 16 GiB of addresses.
const CHUNK_MAX: usize = 8192;
/// A chunk is at most this part of all addresses, so that little is left over in many arenas.
const CHUNK_SHARE: usize = 64;
/// And at most this part of the memory that the process may still use.
const SPARE_SHARE: u64 = 16;
/// Stretches of chunks of one kind that can be told apart.
const STRETCHES: usize = 512;

/// Where the next spans of one arena come from.
struct Arena {
    next: AtomicUsize,
    end: AtomicUsize,
    /// Spans in its last chunk.
    step: AtomicUsize,
}

/// Chunks of one kind that follow each other.
struct Stretch {
    start: AtomicUsize,
    end: AtomicUsize,
    zone: AtomicU32,
}

/// All chunks.
pub(crate) struct Chunks {
    arenas: [Arena; ARENAS + 1],
    stretches: [Stretch; STRETCHES],
    listed: AtomicUsize,
    /// Spans that belong to chunks or lie between them.
    claimed: AtomicUsize,
}

impl Chunks {
    pub(crate) const fn new() -> Self {
        Chunks {
            arenas: [const {
                Arena { next: AtomicUsize::new(0), end: AtomicUsize::new(0), step: AtomicUsize::new(0) }
            }; ARENAS + 1],
            stretches: [const {
                Stretch { start: AtomicUsize::new(0), end: AtomicUsize::new(0), zone: AtomicU32::new(0) }
            }; STRETCHES],
            listed: AtomicUsize::new(0),
            claimed: AtomicUsize::new(0),
        }
    }

    /// Spans that belong to chunks or lie between them.
    pub(crate) fn claimed(&self) -> usize {
        self.claimed.load(Ordering::Relaxed)
    }

    /// Spans that an arena has left.
    fn left(&self, arena: usize, spans: usize) -> Option<(&Arena, usize)> {
        let arena = self.arenas.get(arena)?;
        let index = arena.next.load(Ordering::Relaxed);
        let end = index.checked_add(spans)?;
        (end <= arena.end.load(Ordering::Relaxed)).then_some((arena, index))
    }

    /// The arena of a zone that a thread takes from.
    fn arena_of(zone: Zone, thread: u32) -> usize {
        match zone {
            Zone::Lazy => ARENAS,
            Zone::Missing => thread as usize & ARENAS.wrapping_sub(1),
        }
    }

    /// Which chunk is to come next, of at least `spans`: its first span, its length, and whether it makes the last one
    /// longer. `wish` is how long it would be where there is room.
    fn next_chunk(&self, arena: &Arena, zone: Zone, spans: usize, wish: usize, max: usize) -> Option<Chunk> {
        let claimed = self.claimed.load(Ordering::Relaxed);
        let end = arena.end.load(Ordering::Relaxed);
        let left = end.wrapping_sub(arena.next.load(Ordering::Relaxed));
        let joins = end != 0 && end == claimed;
        // Lazy chunks differ from their neighbours in kind, so that no gap is needed to keep them apart.
        let gap = usize::from(zone == Zone::Missing && !joins && claimed != 0);
        let start = claimed.wrapping_add(gap);
        let least = if joins { spans.saturating_sub(left) } else { spans };
        let room = max.saturating_sub(start);
        (least <= room).then(|| Chunk { start, spans: wish.max(least).min(room), least, joins })
    }

    /// Makes a chunk the arena's.
    fn give(&self, arena: &Arena, zone: Zone, chunk: &Chunk) {
        let end = chunk.start.wrapping_add(chunk.spans);
        if !chunk.joins {
            arena.next.store(chunk.start, Ordering::Relaxed);
        }
        arena.end.store(end, Ordering::Relaxed);
        arena.step.store(chunk.spans, Ordering::Relaxed);
        self.list(zone, end);
        self.claimed.store(end, Ordering::Relaxed);
    }

    /// Notes that the spans up to `end` are of a kind, gaps included.
    fn list(&self, zone: Zone, end: usize) {
        let count = self.listed.load(Ordering::Relaxed);
        let last = count.checked_sub(1).and_then(|last| self.stretches.get(last));
        if let Some(last) = last.filter(|last| last.zone.load(Ordering::Relaxed) == zone as u32) {
            return last.end.store(end, Ordering::Release);
        }
        if let Some(stretch) = self.stretches.get(count) {
            stretch.start.store(self.claimed.load(Ordering::Relaxed), Ordering::Relaxed);
            stretch.zone.store(zone as u32, Ordering::Relaxed);
            stretch.end.store(end, Ordering::Relaxed);
            self.listed.store(count.wrapping_add(1), Ordering::Release);
        }
    }

    /// Whether one more chunk of this kind can be noted.
    fn has_room_for(&self, zone: Zone) -> bool {
        let count = self.listed.load(Ordering::Relaxed);
        let same = |last: &Stretch| last.zone.load(Ordering::Relaxed) == zone as u32;
        count < STRETCHES || count.checked_sub(1).and_then(|last| self.stretches.get(last)).is_some_and(same)
    }

    /// Every stretch of a kind: first span, and one past the last. Takes no lock.
    pub(crate) fn stretches(&self, zone: Zone) -> impl Iterator<Item = (usize, usize)> {
        self.stretches.iter().take(self.listed.load(Ordering::Acquire)).filter_map(move |stretch| {
            let wanted = stretch.zone.load(Ordering::Relaxed) == zone as u32;
            wanted.then(|| (stretch.start.load(Ordering::Relaxed), stretch.end.load(Ordering::Acquire)))
        })
    }
}

/// A chunk that is to come.
struct Chunk {
    start: usize,
    spans: usize,
    /// How many it must have.
    least: usize,
    joins: bool,
}

impl Heap {
    /// Takes addresses that were never used, from a thread's arena of a zone. The caller holds the lock.
    pub(super) fn advance<M: Memory>(
        &self,
        memory: &M,
        setup: &HeapSetup,
        spans: usize,
        zone: Zone,
        thread: u32,
    ) -> Result<usize, Unguarded> {
        let own = Chunks::arena_of(zone, thread);
        let (arena, index) = match self.chunks.left(own, spans) {
            Some(left) => left,
            None => match self.claim(memory, setup, spans, zone, own) {
                Ok(()) => self.chunks.left(own, spans).ok_or(Unguarded::Disabled)?,
                // What other threads have left is better than nothing.
                Err(why) => (0..ARENAS)
                    .filter(|_| zone == Zone::Missing)
                    .find_map(|other| self.chunks.left(other, spans))
                    .ok_or(why)?,
            },
        };
        let end = index.wrapping_add(spans);
        let tables = self.spans.ensure(memory, end.wrapping_mul(size_of::<Span>())).and_then(|()| {
            self.larges.ensure(memory, end.wrapping_mul(size_of::<LargeSlot>()))?;
            self.linked.ensure(memory, end.wrapping_mul(SLOTS_STRIDE).wrapping_mul(size_of::<Linked>()))?;
            self.slots.ensure(memory, end.wrapping_mul(SLOTS_STRIDE).wrapping_mul(size_of::<Slot>()))
        });
        tables.map_err(|_| Unguarded::Kernel)?;
        for offset in 0..spans {
            self.span(index.wrapping_add(offset)).ok_or(Unguarded::Disabled)?.set_zone(zone);
        }
        arena.next.store(end, Ordering::Relaxed);
        // Release: whoever sees the new frontier sees the tables that describe it.
        self.frontier.fetch_max(end, Ordering::Release);
        Ok(index)
    }

    /// Opens one more chunk for an arena.
    fn claim<M: Memory>(
        &self,
        memory: &M,
        setup: &HeapSetup,
        spans: usize,
        zone: Zone,
        own: usize,
    ) -> Result<(), Unguarded> {
        let max = self.spans_max().min(self.fence.load(Ordering::Relaxed));
        let arena = self.chunks.arenas.get(own).ok_or(Unguarded::Disabled)?;
        let most = (max / CHUNK_SHARE).clamp(1, CHUNK_MAX);
        let wish = match zone {
            Zone::Lazy => EXTEND_SPANS,
            Zone::Missing => {
                arena.step.load(Ordering::Relaxed).saturating_mul(2).clamp(EXTEND_SPANS, CHUNK_MAX)
            }
        };
        // Where what is opened is charged whether it is used or not (overcommit off, `ulimit -d`), a long chunk would take from
        // the program what it needs.
        let spare = || {
            let available = memory.available().and_then(|bytes| usize::try_from(bytes / SPARE_SHARE).ok());
            available.map_or(usize::MAX, |bytes| bytes / SPAN_BYTES)
        };
        let wish = wish.min(most);
        // The system is asked only where its answer counts: it means reading files.
        let wish = if wish > EXTEND_SPANS { wish.min(spare().max(EXTEND_SPANS)) } else { wish };
        if !self.chunks.has_room_for(zone) {
            return Err(Unguarded::AddressSpace);
        }
        let chunk = self.chunks.next_chunk(arena, zone, spans, wish, max).ok_or(Unguarded::AddressSpace)?;
        let engine = setup.engine_in(zone);
        let opened = [chunk.spans, chunk.least].into_iter().find(|spans| {
            let more: Range = self.run_range(chunk.start, *spans);
            // SAFETY: `more` is a part of our reservation that no chunk has.
            unsafe { engine.extend(memory, more) }.is_ok()
        });
        let spans = opened.ok_or(Unguarded::Kernel)?;
        self.chunks.give(arena, zone, &Chunk { spans, ..chunk });
        Ok(())
    }

    /// Registers all memory whose pages are put in place, after the right to do so was taken anew. Takes the lock's
    /// place by being called under it.
    pub(crate) fn register_all<M: Memory>(&self, memory: &M) -> bool {
        self.chunks.stretches(Zone::Missing).fold(true, |fine, (start, end)| {
            let range = self.run_range(start, end.wrapping_sub(start));
            // SAFETY: these are chunks of our own reservation, whose pages are put in place one by one: the program
            // relies on none that is not there.
            fine & unsafe { memory.register_missing(range) }.is_ok()
        })
    }

    /// The zone of an address that no block may ever have had.
    pub(crate) fn zone_of(&self, address: usize) -> Zone {
        let index = address.wrapping_sub(self.addresses().start) / SPAN_BYTES;
        let missing = self.chunks.stretches(Zone::Missing).any(|(start, end)| (start..end).contains(&index));
        if missing { Zone::Missing } else { Zone::Lazy }
    }
}
