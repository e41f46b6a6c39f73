//! What is done about a fault, and running one instruction with pages open that are closed to others: a part of
//! [`Platform`](crate::Platform).

use core::sync::atomic::{AtomicUsize, Ordering};

#[cfg(doc)]
use crate::Memory;
use crate::{Fault, Protection, Range, VmResult};

/// What to do with a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is not ours: do what would have happened without us.
    Pass,
    /// Run the instruction again.
    Resume,
    /// Run the instruction again with the pages of [`Stepping::open_for_step`], and nothing after it: then the
    /// function given to [`Stepping::ready_to_step`] is asked. Until then no signal comes between, but for faults of
    /// the instruction itself.
    Step,
    /// Give the signal its default effect and run the instruction again: the process ends at the true place.
    Die,
}

/// The handler's entry: decides about a fault.
pub type OnFault = fn(&Fault) -> Verdict;

/// How far an instruction can be run by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Steps {
    /// Not at all: the processor cannot, or a debugger takes the news of it.
    Impossible,
    /// It can, and what is open to it is open to all threads meanwhile.
    Shared,
    /// It can, and what is open to it is open to its thread alone.
    Alone,
}

/// What follows an instruction that was run by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterStep {
    /// One more instruction, in the same way.
    Again,
    /// The program goes on as it was.
    Done,
    /// The registers are again as they were before the instruction, which so raises its fault once more.
    Back,
}

/// Asked after an instruction that was run by itself, with the address of the next.
pub type OnStep = fn(usize) -> AfterStep;

/// Where the function to ask is kept, for a handler to find.
pub(crate) struct StepHook(AtomicUsize);

impl StepHook {
    /// Nobody is asked yet.
    pub(crate) const fn new() -> Self {
        StepHook(AtomicUsize::new(0))
    }

    /// Has this function asked from now on.
    pub(crate) fn set(&self, on_step: OnStep) {
        self.0.store(on_step as usize, Ordering::Release);
    }

    /// Asks it, if there is one.
    pub(crate) fn ask(&self, next: usize) -> AfterStep {
        let address = self.0.load(Ordering::Acquire);
        if address == 0 {
            return AfterStep::Done;
        }
        // SAFETY: `set` stored a function of this type.
        let on_step: OnStep = unsafe { core::mem::transmute(address) };
        on_step(next)
    }
}

/// Running one instruction with pages open that are closed to others: see [`Verdict::Step`].
///
/// # Signal context
/// All may run in the fault handler.
pub trait Stepping {
    /// Puts the notice of steps in force and says what can be done now: the first call finds out, by use. What a
    /// debugger makes impossible may be possible again later.
    fn ready_to_step(&self, on_step: OnStep) -> Steps;

    /// Opens pages to the instruction that [`Verdict::Step`] is about to run, and says to whom else: whatever they
    /// allowed before, without a change of their content. (Guards in the page table are the caller's to remove, after
    /// this call.)
    ///
    /// # Errors
    /// The system's; nothing is changed then.
    ///
    /// # Safety
    /// The caller must own `range`, and close it again.
    unsafe fn open_for_step(&self, range: Range) -> VmResult<Steps>;

    /// Writes bytes to a page that [`Stepping::open_for_step`] has opened, also where it is open to its instruction alone.
    ///
    /// # Safety
    /// The bytes from `at` on must lie on such a page, which nobody uses.
    unsafe fn fill_for_step(&self, at: usize, bytes: &[u8]) {
        // SAFETY: the page is open, and nobody's, by the caller's word.
        unsafe {
            core::ptr::copy_nonoverlapping(
                bytes.as_ptr(),
                core::ptr::with_exposed_provenance_mut(at),
                bytes.len(),
            );
        }
    }

    /// Ends [`Stepping::open_for_step`]: the pages allow all threads what `protection` says.
    ///
    /// # Errors
    /// The system's.
    ///
    /// # Safety
    /// As [`Memory::protect`].
    unsafe fn close_after_step(&self, range: Range, protection: Protection) -> VmResult;

    /// Lets other threads run for a moment.
    fn pause(&self);
}
