//! What the facade lends the runtime, and what the runtime tells it.

use fencepost_record::{Record, RegionInfo};
use fencepost_sys::{OnFault, OnHit, OnStep, Range};

#[cfg(doc)]
use crate::Guard;
use crate::report::Copying;

/// What the facade lends the runtime: how to walk a stack, and entries that lead back to the one static runtime.
#[derive(Clone, Copy)]
pub struct Hooks {
    /// Writes the return addresses of this thread's stack, innermost first, and says how many. Frames below the
    /// address `anchor` on the stack are left out; 0 leaves out none. Must not take a lock that an allocation of
    /// the program can hold.
    pub capture: fn(anchor: usize, into: &mut [u64]) -> usize,
    /// Gives the number under which `keep` keeps this thread's stack, or the number that it gave for the same stack
    /// before. Called in allocations and frees only, under the same rule.
    pub trace: fn(&Tracing, keep: Keep<'_>) -> u32,
    /// Bytes of memory that `trace` wants to have for each thread.
    pub trace_memory: usize,
    /// The call of a copying function that is on the stack, of which these are the frames from the interrupted instruction
    /// on and this the stack pointer. Called on the reporter's stack: must take no lock and read memory with care.
    pub copy: fn(sp: usize, frames: &[u64]) -> Option<Copying>,
    /// Gives the name of a function as a programmer writes it, from the linker's. Must not allocate.
    pub demangle: Demangle,
    /// The region of the program's own that an address belongs to. Called in the fault handler: must take no lock.
    pub region: fn(address: usize) -> Option<RegionInfo>,
    /// How many such regions there are, and how many bytes they have reserved and committed.
    pub regions: fn() -> [u64; 3],
    /// Calls [`Guard::on_fault`].
    pub on_fault: OnFault,
    /// Calls [`Guard::on_step`].
    pub on_step: OnStep,
    /// Calls [`Guard::on_hit`].
    pub on_hit: OnHit,
    /// Calls [`Guard::thread_exit`].
    pub thread_exit: extern "C" fn(usize),
    /// Calls [`Guard::fork_prepare`].
    pub fork_prepare: extern "C" fn(),
    /// Calls [`Guard::fork_parent`].
    pub fork_parent: extern "C" fn(),
    /// Calls [`Guard::fork_child`].
    pub fork_child: extern "C" fn(),
    /// Calls [`Guard::at_exit`].
    pub at_exit: extern "C" fn(),
    /// Resolves names and renders a report; `None` where names are resolved elsewhere. Runs on a stack of its own,
    /// with its allocations served from a private arena, and may fault or hang without harm.
    pub render: Option<fn(&Record, RenderStyle, &mut Rendered<'_>)>,
}

/// Gives the second argument the name that the first, the linker's, stands for.
pub type Demangle = fn(&[u8], &mut dyn FnMut(&[u8]));

/// Keeps a stack, and gives the number that stands for it; 0 when it cannot be kept.
pub type Keep<'a> = &'a dyn Fn(&[u64]) -> u32;

/// What [`Hooks::trace`] is told of the thread that calls it.
#[derive(Clone, Copy, Debug)]
pub struct Tracing {
    /// Frames below this address on the stack are left out.
    pub anchor: usize,
    /// The most frames to keep.
    pub depth: usize,
    /// The thread's stack; empty when it is not known.
    pub stack: Range,
    /// Memory of this thread's alone, for the hook's own use, zeroed before the first call: either of the size that
    /// [`Hooks::trace_memory`] asked for, or empty. A thread that ended may have used it before.
    pub memory: Range,
}

/// How a report is to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RenderStyle {
    /// Whether the text may be coloured.
    pub color: bool,
    /// Whether the JSON form is wanted.
    pub json: bool,
}

/// Where a renderer puts what it makes.
pub struct Rendered<'a> {
    /// Takes everything of the text form that follows the first line.
    pub text: &'a mut dyn FnMut(&str),
    /// Takes the JSON form, one line with its end.
    pub json: &'a mut dyn FnMut(&str),
}
