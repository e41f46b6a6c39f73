//! The table of spans: what each 2 MiB of the heap is used for, found from an address by arithmetic alone.
//!
//! A *run* is one or more spans used as a whole: one for small slots, as many as it needs for a large block. The
//! first span of a run is its head and speaks for the others. A run is *in use* until every block it can hold has
//! been freed; then it is *dead*, and waits in the quarantine to be *reused*. All fields are atomic because the
//! fault handler reads them at any time; only the owner of a run, or whoever holds the heap's lock, writes them.

use fencepost_sys::atomic::{AtomicU32, Ordering};

/// What a run is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// Nothing yet.
    Unused,
    /// Small slots with this many data pages.
    Small(usize),
    /// One large block.
    Large,
}

/// How far a run is from being used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// Blocks live in it or may come to.
    InUse,
    /// All its blocks are freed, and its pages are closed one by one.
    Dead,
    /// Dead, and one inaccessible mapping together with its retired neighbours.
    Retired,
    /// Its addresses were taken by somebody else while pages were moved out of it: not ours any more.
    Lost,
}

/// How the pages of a run come to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Zone {
    /// At first use, where nothing closes them.
    Lazy = 0,
    /// They are put there by us, or moved there; what is not there traps.
    Missing = 1,
}

const IN_USE: u32 = 0;
const DEAD: u32 = 1;
const RETIRED: u32 = 2;
const LOST: u32 = 3;
const LARGE: u32 = u32::MAX;

/// One span.
#[repr(C, align(64))]
pub(crate) struct Span {
    /// 0 unused, `LARGE`, or data pages per slot.
    kind: AtomicU32,
    life: AtomicU32,
    /// Spans between this one and the head of its run.
    pub(crate) back: AtomicU32,
    /// Spans in the run; on its head.
    pub(crate) run: AtomicU32,
    /// Slots handed out.
    pub(crate) used: AtomicU32,
    /// Slots opened.
    pub(crate) ready: AtomicU32,
    /// Blocks freed.
    pub(crate) dead: AtomicU32,
    /// Next in the list this run is in, as number plus 1; 0 ends it.
    pub(crate) next: AtomicU32,
    /// Whether the records of its slots have been dropped.
    pub(crate) forgotten: AtomicU32,
    /// Whether the span was closed without markers, because the kernel refused them for this memory.
    pub(crate) unmarked: AtomicU32,
    /// Whether a large block's run is closed by mappings; on its head.
    pub(crate) mapped: AtomicU32,
    /// Whether all of such a run is inaccessible by one mapping.
    pub(crate) shut: AtomicU32,
    /// The number of the [`Zone`]: for good, since it is the memory's.
    zone: AtomicU32,
    /// Whether a large block's pages were moved to another's, and the block is to be freed next.
    pub(crate) moved: AtomicU32,
    /// Whether all of a large block is counted as held; on its head.
    pub(crate) counted: AtomicU32,
}

const _: () = assert!(size_of::<Span>() == 64, "one cache line a span");

impl Span {
    #[inline(always)]
    pub(crate) fn usage(&self) -> Use {
        match self.kind.load(Ordering::Acquire) {
            0 => Use::Unused,
            LARGE => Use::Large,
            pages => Use::Small(pages as usize),
        }
    }

    pub(crate) fn set_usage(&self, usage: Use) {
        let kind = match usage {
            Use::Unused => 0,
            Use::Large => LARGE,
            Use::Small(pages) => u32::try_from(pages).unwrap_or(0),
        };
        self.kind.store(kind, Ordering::Release);
    }

    #[inline(always)]
    pub(crate) fn zone(&self) -> Zone {
        if self.zone.load(Ordering::Relaxed) == Zone::Missing as u32 { Zone::Missing } else { Zone::Lazy }
    }

    pub(crate) fn set_zone(&self, zone: Zone) {
        self.zone.store(zone as u32, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn life(&self) -> Life {
        match self.life.load(Ordering::Acquire) {
            RETIRED => Life::Retired,
            LOST => Life::Lost,
            DEAD => Life::Dead,
            _ => Life::InUse,
        }
    }

    pub(crate) fn set_life(&self, life: Life) {
        let word = match life {
            Life::InUse => IN_USE,
            Life::Dead => DEAD,
            Life::Retired => RETIRED,
            Life::Lost => LOST,
        };
        self.life.store(word, Ordering::Release);
    }

    /// Makes the span ready for a new use. The caller holds the heap's lock.
    pub(crate) fn reset(&self) {
        for field in [&self.back, &self.run, &self.used, &self.ready, &self.dead, &self.next] {
            field.store(0, Ordering::Relaxed);
        }
        for field in [&self.forgotten, &self.unmarked, &self.mapped, &self.shut, &self.moved, &self.counted] {
            field.store(0, Ordering::Relaxed);
        }
        self.set_life(Life::InUse);
    }
}
