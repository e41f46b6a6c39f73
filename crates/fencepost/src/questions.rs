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
    fn of(stack: &Stack) -> Origin {
        Origin {
            thread: stack.thread.id,
            thread_name: stack.thread.name.as_str().to_owned(),
            frames: stack.trace.frames().iter().filter_map(|frame| usize::try_from(*frame).ok()).collect(),
            age: Duration::from_millis(stack.age_ms),
        }
    }
}

/// The guarded block that owns an address, also one freed long ago, or the one within a page of it that an access
/// there would be reported against. `None` for other memory.
pub fn describe<T: ?Sized>(pointer: *const T) -> Option<BlockInfo> {
    let facts = GUARD.describe(pointer.addr())?;
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
    })
}

/// Verifies the bytes around every live guarded block now, reports each damaged one, and says how many there are.
/// Under `on_error=abort` and `exit` the first ends the process.
#[inline(never)]
pub fn check() -> usize {
    GUARD.check(here())
}

/// Everything counted so far. All zero when nothing is guarded.
pub fn stats() -> Summary {
    GUARD.stats().unwrap_or_default()
}
