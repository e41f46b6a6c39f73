//! Questions a program asks about its heap.

use core::time::Duration;

use fencepost_record::{BlockState, Stack, Summary, Where};

use crate::runtime::{GUARD, here};

/// What is known about the block that an address belongs to.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BlockInfo {
    /// Its first byte.
    pub address: usize,
    /// Its size in bytes, as it was asked for.
    pub size: usize,
    /// Its alignment in bytes, as it was asked for.
    pub align: usize,
    /// Whether it is alive.
    pub state: BlockState,
    /// Where the address lies beside it.
    pub place: Where,
    /// How far, in bytes: inside, from the start; else 0 is the byte next to the block.
    pub distance: usize,
    /// Whether some of it is sealed.
    pub sealed: bool,
    /// Who allocated it.
    pub allocated: Origin,
    /// Who freed it, if it was freed.
    pub freed: Option<Origin>,
    /// The region of the program's own (an arena, a pool, a stack) that the address belongs to: then there is no block of
    /// the heap, `size` is what is used of the region, and nobody's stacks are known.
    pub region: Option<crate::memory::regions::Region>,
}

/// Who did something to a block, from where, and how long ago.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Origin {
    /// The system's id of the thread; 0 when it is no longer known.
    pub thread: u32,
    /// The thread's name; empty when it had none.
    pub thread_name: String,
    /// Return addresses, innermost first; empty when the stack was not kept.
    pub frames: Vec<usize>,
    /// How long ago.
    pub age: Duration,
}

impl Origin {
    pub(crate) fn of(stack: &Stack) -> Origin {
        Origin {
            thread: stack.thread.id,
            thread_name: stack.thread.name.as_str().to_owned(),
            frames: stack.trace.frames().iter().filter_map(|frame| usize::try_from(*frame).ok()).collect(),
            age: Duration::from_millis(stack.age_ms),
        }
    }
}

/// The guarded block that owns an address, also one freed long ago, or the one within a page of it that an access
/// there would be reported against; or the region of the program's own (an arena, a pool, a stack of
/// [`crate::growing`]) that it lies in. `None` for other memory.
pub fn describe<T: ?Sized>(pointer: *const T) -> Option<BlockInfo> {
    let Some(facts) = GUARD.describe(pointer.addr()) else { return describe_region(pointer.addr()) };
    Some(BlockInfo {
        address: facts.address,
        size: facts.size,
        align: facts.align,
        state: facts.state,
        place: facts.place,
        distance: facts.distance,
        sealed: facts.sealed,
        allocated: Origin::of(&facts.allocated),
        freed: facts.freed.as_ref().map(Origin::of),
        region: None,
    })
}

fn describe_region(address: usize) -> Option<BlockInfo> {
    let region = crate::memory::regions::find(address)?;
    let (size, state, place, distance) = crate::grown::as_block(&region, address);
    Some(BlockInfo {
        address: region.start,
        size,
        align: crate::memory::page_size(),
        state,
        place,
        distance,
        sealed: false,
        allocated: Origin::of(&Stack::default()),
        freed: None,
        region: Some(region),
    })
}

/// Verifies the bytes around every live guarded block now, reports each damaged one, and says how many there are.
/// Under `on_error=abort` and `exit` the first ends the process.
#[inline(never)]
pub fn check() -> usize {
    GUARD.check(here())
}

/// Everything counted so far. When nothing is guarded, all zero but the regions of the program's own, which
/// [`crate::memory::regions::usage`] lists by name.
pub fn stats() -> Summary {
    GUARD.stats().unwrap_or_else(|| {
        let [regions, regions_reserved, regions_committed] = crate::grown::totals();
        Summary { regions, regions_reserved, regions_committed, ..Summary::default() }
    })
}
