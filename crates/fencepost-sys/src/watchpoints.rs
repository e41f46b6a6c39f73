//! Watchpoints of the processor: a part of [`Platform`](crate::Platform).
//!
//! A watchpoint sees writes to a few bytes and costs nothing until then, also to what lies beside them on the same page.
//! There are four in each thread, each for 1, 2, 4 or 8 bytes that are aligned to their number.

use crate::{Fault, Range, VmResult, Written};

/// The most watchpoints that a thread can have.
pub const WATCHPOINTS: usize = 4;

/// What watchpoints see here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchpointOffer {
    /// There are none, and why.
    Nothing(NoWatchpoints),
    /// Writes by instructions of the program.
    Instructions,
    /// And what the kernel writes in system calls.
    AndKernel,
}

impl core::fmt::Display for WatchpointOffer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            WatchpointOffer::Nothing(why) => write!(f, "none: {why}"),
            WatchpointOffer::Instructions => {
                f.write_str("four a thread; what the kernel writes in system calls is not seen")
            }
            WatchpointOffer::AndKernel => f.write_str("four a thread; the kernel's writes are seen as well"),
        }
    }
}

/// Why there are no watchpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoWatchpoints {
    /// Not on this processor or system.
    Absent,
    /// The kernel is too old to give the news of one without a risk for the program.
    TooOld,
    /// A debugger is attached, and would take the news.
    Traced,
    /// The system forbids it to this process.
    Denied,
    /// One was set, and its news did not come; or all are taken.
    Unseen,
}

impl core::fmt::Display for NoWatchpoints {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            NoWatchpoints::Absent => "not on this processor or system",
            NoWatchpoints::TooOld => "the kernel is too old (5.19 is needed)",
            NoWatchpoints::Traced => "a debugger is attached",
            NoWatchpoints::Denied => "forbidden to this process",
            NoWatchpoints::Unseen => "set, and not seen to work",
        })
    }
}

/// A write that a watchpoint saw.
#[derive(Clone, Copy, Debug)]
pub struct Hit {
    /// What [`Watchpoints::arm_watchpoints`] was given with the range.
    pub tag: u32,
    /// The first byte of the watchpoint: of the part of the range that was written to.
    pub address: usize,
    /// The thread's registers after the writing instruction, as a fault would have them.
    pub after: Fault,
    /// Whether the thread held the news back, and has come on since: the registers say nothing of the write.
    pub late: bool,
}

/// Told of a write. Runs in a signal handler of the thread that wrote, after its instruction.
pub type OnHit = fn(&Hit);

/// Watchpoints of the processor.
///
/// # Signal context
/// None of these may be called in the fault handler; and one caller at a time.
pub trait Watchpoints: Written {
    /// Puts the notice of writes in force and says what can be seen now. Finds out by use.
    fn ready_to_watch(&self, on_hit: OnHit) -> WatchpointOffer;

    /// Watches a range in every thread that there is and that these will start, and tells of each write with `tag`,
    /// which is not 0 and not in use.
    ///
    /// # Errors
    /// [`VmError::OutOfMemory`](crate::VmError::OutOfMemory) where too few watchpoints are left, else the system's;
    /// nothing is watched then.
    fn arm_watchpoints(&self, range: Range, tag: u32) -> VmResult;

    /// Ends what is watched with `tag`. A write that was seen before may still be told.
    fn disarm_watchpoints(&self, tag: u32);

    /// Whether what is watched with `tag` still is: the program may have closed what it needs.
    fn is_armed(&self, tag: u32) -> bool;
}

/// The watchpoints that a range takes: aligned parts of 1, 2, 4 or 8 bytes; `None` where these are too many.
///
/// ```
/// use fencepost_sys::{Range, watchpoints_of};
/// let parts = watchpoints_of(Range { start: 0x1002, len: 6 }).expect("two");
/// assert_eq!(parts[..2], [Range { start: 0x1002, len: 2 }, Range { start: 0x1004, len: 4 }]);
/// assert_eq!(parts[2].len, 0);
/// assert!(watchpoints_of(Range { start: 0x1001, len: 30 }).is_none());
/// ```
pub fn watchpoints_of(range: Range) -> Option<[Range; WATCHPOINTS]> {
    let mut parts = [Range::default(); WATCHPOINTS];
    let mut start = range.start;
    for part in &mut parts {
        let left = range.end().saturating_sub(start);
        let fits = |len: &usize| *len <= left && start.is_multiple_of(*len);
        let Some(len) = [8, 4, 2, 1].into_iter().find(fits) else { break };
        *part = Range { start, len };
        start = start.saturating_add(len);
    }
    (range.len > 0 && start == range.end()).then_some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_range_that_fits_is_covered_once_and_nothing_else() {
        for start in 0x1000..0x1010 {
            for len in 0..40 {
                let range = Range { start, len };
                let Some(parts) = watchpoints_of(range) else {
                    // Four aligned words are the most; 0 bytes are nothing.
                    assert!(len == 0 || len > 4, "{start:#x} {len}");
                    continue;
                };
                let mut next = start;
                for part in parts.into_iter().filter(|part| part.len > 0) {
                    assert!(part.start == next && part.start.is_multiple_of(part.len) && part.len <= 8);
                    next = part.end();
                }
                assert_eq!(next, range.end());
            }
        }
        assert!(watchpoints_of(Range { start: 0x1000, len: 32 }).is_some());
        assert!(watchpoints_of(Range { start: 0x1000, len: 33 }).is_none());
    }
}
