//! A stack to run code on: it starts with a page, and grows as it is touched.
//!
//! On Linux the kernel fills committed memory page by page at the first touch, so the whole stack is committed at once and
//! costs what was touched of it. No fault handler grows it, and must not: a system call that is given an untouched part of
//! the stack as its buffer would fail with `EFAULT`, because faults within the kernel reach no handler. What a fault does
//! is to raise the alarm, at the guard below the end: under the debugger it is reported as a stack overflow with the
//! stack's name. (Where memory is never overcommitted, the whole stack is charged at once.) On Windows the system grows it
//! by its own one-shot guard page, as it grows the stacks of threads, and raises the alarm at the end.
//!
//! [`CallStack::run`] runs code to its end. With the feature `corosensei` a stack can be given to a coroutine of that crate,
//! which is suspended and resumed (`coroutine.rs`).

use core::any::Any;
use core::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::Options;
use crate::regions::RegionKind;
use crate::{Action, Host, MemoryError, Reservation, System};
use fencepost_sys::{Range, Wish};

/// The guard below a stack: wider than the frames that are not probed page by page (foreign code's).
pub(super) const GUARD: usize = 64 << 10;
/// The smallest stack.
pub(super) const LEAST: usize = 16 << 10;

/// A stack to run code on.
///
/// ```
/// use fencepost_memory::growing::CallStack;
///
/// fn depth(n: u64) -> u64 {
///     if n == 0 { 0 } else { 1 + std::hint::black_box(depth(n - 1)) }
/// }
/// let mut stack = CallStack::reserve(64 << 20)?;
/// let before = stack.resident()?;
/// assert_eq!(stack.run(|| depth(100_000)), 100_000);
/// assert!(stack.resident()? > before + (1 << 20), "it has grown by megabytes");
/// # Ok::<(), fencepost_memory::MemoryError>(())
/// ```
#[derive(Debug)]
pub struct CallStack<M: System + 'static = Host> {
    space: Reservation<M>,
}

impl CallStack {
    /// A stack that may grow to `bound` bytes.
    ///
    /// # Errors
    /// As [`crate::Builder::reserve`], and of committing it.
    pub fn reserve(bound: usize) -> Result<CallStack, MemoryError> {
        Options::new(bound).call_stack()
    }
}

/// A closure on its way to the other stack, and its result on the way back.
struct Errand<F, R> {
    work: ManuallyDrop<F>,
    result: Option<Result<R, Box<dyn Any + Send>>>,
}

extern "C" fn there<F: FnOnce() -> R, R>(errand: usize) {
    // SAFETY: `run` gives the address of its errand, which lives until this returns and which nobody else looks at.
    let errand = unsafe { &mut *core::ptr::with_exposed_provenance_mut::<Errand<F, R>>(errand) };
    // SAFETY: this runs once for an errand, and nobody drops the closure.
    let work = unsafe { ManuallyDrop::take(&mut errand.work) };
    // A panic must not unwind through the change of stacks: it goes on at the other side.
    errand.result = Some(catch_unwind(AssertUnwindSafe(work)));
}

impl<M: System + 'static> CallStack<M> {
    pub(super) fn with(mut options: Options<'_, M>) -> Result<Self, MemoryError> {
        options.bound = options.bound.max(LEAST);
        let builder = crate::Builder::on(options.memory, options.bound).name(options.name).guard_bytes(GUARD);
        let mut space = builder.kind(RegionKind::CallStack).reserve()?;
        space.commit(0..space.len())?;
        let range = Range { start: space.addresses().start, len: space.len() };
        // SAFETY: the range is ours. Advice, so that the first touch costs a page and not a huge one.
        let _ = unsafe { options.memory.no_huge_pages(range) };
        let stack = CallStack { space };
        stack.prepare()?;
        Ok(stack)
    }

    fn prepare(&self) -> Result<(), MemoryError> {
        let range = Range { start: self.space.addresses().start, len: self.space.len() };
        // SAFETY: the range is ours and committed, and nothing runs on it before this returns.
        unsafe { self.space.system().prepare_stack(range) }.map_err(|error| MemoryError::Refused {
            action: Action::Protect,
            bytes: range.len,
            limit: self.space.system().why_refused(Wish::Change, range.len),
            error: Some(error),
        })
    }

    /// Runs `work` on this stack, and gives its result. A panic goes on here.
    ///
    /// What asks the system for the thread's stack (a handler that tells a stack overflow by it) finds the thread's own,
    /// not this one.
    pub fn run<R>(&mut self, work: impl FnOnce() -> R) -> R {
        let mut errand = Errand { work: ManuallyDrop::new(work), result: None };
        let stack = Range { start: self.space.addresses().start, len: self.space.len() };
        let entry = call_of(&errand);
        // SAFETY: the stack is committed, large enough for a few frames by its least size and guarded below for the
        // rest, and `&mut self` says that nothing else runs on it. `there` does not unwind.
        unsafe {
            self.space.system().run_on_stack(stack, entry, (&raw mut errand).expose_provenance());
        }
        match errand.result {
            Some(Ok(result)) => result,
            Some(Err(panic)) => resume_unwind(panic),
            None => unreachable!("the errand was run"),
        }
    }

    /// Bytes that are in memory: what has been touched since it was made or trimmed, the highest use ever.
    ///
    /// # Errors
    /// The system's.
    pub fn resident(&self) -> Result<usize, MemoryError> {
        let resident = self.space.resident()?;
        // Reports show how far the stack has grown.
        self.space.entry().set_committed_bytes(resident);
        Ok(resident)
    }

    /// Gives the memory of all but the first page back. Nothing runs on it now, so that nothing is lost.
    ///
    /// # Errors
    /// The system's; nothing is changed then.
    pub fn trim(&mut self) -> Result<(), MemoryError> {
        let keep = self.space.unit();
        let len = self.space.len();
        if len > keep {
            self.space.discard(0..len - keep)?;
        }
        self.prepare()
    }

    /// The bound in bytes.
    pub fn bound(&self) -> usize {
        self.space.len()
    }

    /// The addresses that it may use; below them lies the guard.
    pub fn addresses(&self) -> core::ops::Range<usize> {
        self.space.addresses()
    }
}

/// The function for an errand of this type.
fn call_of<F: FnOnce() -> R, R>(_: &Errand<F, R>) -> extern "C" fn(usize) {
    there::<F, R>
}
