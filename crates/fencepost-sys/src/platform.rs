//! What fencepost asks of an operating system, as types. `docs/platforms.md` says the same in prose.
//!
//! Addresses are `usize`, lengths are bytes and multiples of [`Memory::page_size`]. Nothing here allocates from
//! the program's heap, and nothing panics. Every call may be made from any thread; which ones may be made from
//! the fault handler is said at each trait.

use core::sync::atomic::AtomicU32;

use fencepost_record::Module;

use crate::{
    Keys, Loader, Mappings, Missing, MissingOffer, Moved, Names, OnFault, Protection, Range, Stepping,
    Watchpoints,
};

/// Why a call to the system failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VmError {
    /// No memory, no address space, or too many mappings (`ENOMEM`).
    OutOfMemory,
    /// The system does not know the call, or not for this kind of memory (`EINVAL`, `ENOSYS`).
    Unsupported,
    /// The system forbids the call (`EPERM`, `EACCES`).
    Denied,
    /// Anything else, with the system's number.
    Other(i32),
}

impl core::fmt::Display for VmError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            VmError::OutOfMemory => f.write_str("no memory, address space or mapping left"),
            VmError::Unsupported => f.write_str("not supported by this kernel for this memory"),
            VmError::Denied => f.write_str("not permitted"),
            VmError::Other(number) => write!(f, "system error {number}"),
        }
    }
}

/// Result of a call to the system.
pub type VmResult<T = ()> = Result<T, VmError>;

/// What the system was seen to offer. Proved by use, never believed from a version or a return code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offers {
    /// Guard markers in the page table: installed, touched, and seen to trap.
    pub guard_markers: bool,
    /// Several ranges in one guard or populate call.
    pub vectored: bool,
    /// Missing pages: put in place, moved, touched, and seen to trap.
    pub missing: MissingOffer,
    /// Single pages of a reservation can be committed and decommitted, and cost no mapping.
    pub commits_pages: bool,
    /// The most mappings a process may have, where there is such a limit.
    pub mappings_max: Option<usize>,
    /// Mappings the process has now.
    pub mappings_now: usize,
}

/// Virtual memory.
///
/// The words: *reserve* takes addresses that trap; *commit* makes them usable and zero; *protect* changes what is
/// allowed; *decommit* drops the content and makes them trap again; *release* gives the addresses back. *Guards*
/// make single pages of committed memory trap without a mapping of their own, where the system can.
///
/// # Signal context
/// All of these are bare system calls and may run in the fault handler.
pub trait Memory: Missing {
    /// Bytes in a page.
    fn page_size(&self) -> usize;

    /// The unit, in bytes, in which addresses are reserved: a multiple of the page size, and the same on most systems
    /// (64 KiB on Windows).
    fn granularity(&self) -> usize {
        self.page_size()
    }

    /// What the system offers, as proved by [`Platform::probe`].
    fn offers(&self) -> Offers;

    /// Takes `len` bytes of addresses, aligned to `align`, that trap and cost no memory.
    ///
    /// # Errors
    /// [`VmError::OutOfMemory`] when no such range is free.
    fn reserve(&self, len: usize, align: usize) -> VmResult<usize>;

    /// Takes exactly the addresses of `range`, if all are free, such that they trap.
    ///
    /// # Errors
    /// [`VmError::OutOfMemory`] when any is taken.
    fn reserve_at(&self, range: Range) -> VmResult;

    /// Makes reserved memory readable, writable and zero.
    ///
    /// # Errors
    /// The system's.
    ///
    /// # Safety
    /// `range` must lie within one reservation of the caller's.
    unsafe fn commit(&self, range: Range) -> VmResult;

    /// Changes what is allowed, keeping the content.
    ///
    /// # Errors
    /// The system's.
    ///
    /// # Safety
    /// The caller must own `range`, and no reference that the change contradicts may be used after.
    unsafe fn protect(&self, range: Range, protection: Protection) -> VmResult;

    /// Drops the content and makes the range trap, as after `reserve`; neighbours in that state share a mapping.
    ///
    /// # Errors
    /// The system's; the range is unchanged then.
    ///
    /// # Safety
    /// The caller must own `range`; its content is lost.
    unsafe fn decommit(&self, range: Range) -> VmResult;

    /// Gives the addresses back.
    ///
    /// # Errors
    /// The system's.
    ///
    /// # Safety
    /// The caller must own `range`, and nothing may refer to it any more.
    unsafe fn release(&self, range: Range) -> VmResult;

    /// Drops the content of committed memory, which is zero at the next access.
    ///
    /// # Errors
    /// The system's.
    ///
    /// # Safety
    /// The caller must own `range`; its content is lost.
    unsafe fn discard(&self, range: Range) -> VmResult;

    /// Drops the content of committed memory and makes every page of it trap, without a new mapping.
    ///
    /// # Errors
    /// [`VmError::Unsupported`] where markers do not exist or the memory is locked.
    ///
    /// # Safety
    /// The caller must own `range`; its content is lost.
    unsafe fn guard_install(&self, range: Range) -> VmResult;

    /// [`Memory::guard_install`] on each range, in as few calls as the system allows. After an error some of the ranges
    /// may be guarded.
    ///
    /// # Errors
    /// As [`Memory::guard_install`].
    ///
    /// # Safety
    /// The caller must own every range; their content is lost.
    unsafe fn guard_install_each(&self, ranges: &[Range]) -> VmResult;

    /// Makes guarded pages usable and zero again.
    ///
    /// # Errors
    /// As [`Memory::guard_install`].
    ///
    /// # Safety
    /// The caller must own `range`.
    unsafe fn guard_remove(&self, range: Range) -> VmResult;

    /// [`Memory::guard_remove`] and then [`Memory::populate`] on each range, in as few calls as the system allows.
    /// Guards may be left removed on some of the ranges after an error.
    ///
    /// # Errors
    /// As [`Memory::guard_install`]. A range that could not be populated is no error: it is filled at first use.
    ///
    /// # Safety
    /// The caller must own every range.
    unsafe fn guard_remove_each(&self, ranges: &[Range]) -> VmResult;

    /// Moves the pages of `from` to the start of `to`, and makes `from` trap as after [`Memory::reserve`]. `to` is readable
    /// and writable after, and zero past what was moved; if it is shorter than `from`, the rest is dropped.
    ///
    /// # Errors
    /// The system's; nothing has changed then, but that the content of `to` may be lost.
    ///
    /// # Safety
    /// Both must be readable, writable memory of the caller's that do not overlap, each within one mapping; the content of
    /// `to` is lost, and nothing may refer to what was in `from`.
    unsafe fn remap(&self, from: Range, to: Range) -> VmResult<Moved>;

    /// Gives each page of committed memory its own zero page now instead of at the first write.
    ///
    /// # Errors
    /// The system's; memory may be partly populated.
    ///
    /// # Safety
    /// The caller must own `range`.
    unsafe fn populate(&self, range: Range) -> VmResult;

    /// Asks for ordinary pages only. Advice: failure changes nothing but memory use.
    ///
    /// # Errors
    /// The system's.
    ///
    /// # Safety
    /// The caller must own `range`.
    unsafe fn no_huge_pages(&self, range: Range) -> VmResult;

    /// Whether every page of `range` is mapped (whatever its protection). Never touches the memory.
    fn is_mapped(&self, range: Range) -> bool;

    /// Copies up to `into.len()` bytes from `address` without faulting, and says how many were readable.
    fn read_checked(&self, address: usize, into: &mut [u8]) -> usize;

    /// Bytes of memory that this process may still use: the least of free memory, control-group limits and
    /// resource limits. `None` where the system does not tell.
    fn available(&self) -> Option<u64>;

    /// System calls made through this trait so far.
    fn calls(&self) -> u64;
}

/// Threads, time, chance and waiting.
///
/// # Signal context
/// All may run in the fault handler, except [`Threads::at_thread_exit`] and [`Threads::stack_bounds`].
pub trait Threads {
    /// This thread's word for the runtime's own use; null in a new thread. Reading and writing it never allocates.
    fn thread_word(&self) -> usize;

    /// Sets this thread's word.
    fn set_thread_word(&self, word: usize);

    /// Runs `exit` with `word` when this thread ends, after the language's own per-thread destructors.
    /// May be called again from within `exit`, and then runs it again, a few times at most.
    fn at_thread_exit(&self, exit: extern "C" fn(usize), word: usize);

    /// The system's id of this thread.
    fn thread_id(&self) -> u32;

    /// This process's id.
    fn process_id(&self) -> u32;

    /// Copies this thread's name and says how long it is; 0 when it has none.
    fn thread_name(&self, into: &mut [u8]) -> usize;

    /// Whether this process leads a job of its own, as one that a person started at a terminal does.
    fn leads_its_job(&self) -> bool;

    /// The addresses of this thread's stack, if known. Not in the fault handler.
    fn stack_bounds(&self) -> Option<Range>;

    /// Milliseconds since some fixed moment; never goes back.
    fn now_ms(&self) -> u64;

    /// The same in nanoseconds, cheap enough to time a microsecond's work with.
    fn now_ns(&self) -> u64;
    /// Nanoseconds of CPU time of this process. A system call.
    fn cpu_ns(&self) -> u64;

    /// A number that nobody can guess.
    fn random(&self) -> u64;

    /// Sleeps while `word` holds `seen`; may return early.
    fn wait(&self, word: &AtomicU32, seen: u32);

    /// Wakes everyone who waits on `word`.
    fn wake(&self, word: &AtomicU32);
}

/// Files and the environment, as bare system calls.
///
/// # Signal context
/// All may run in the fault handler.
pub trait Output {
    /// Opens a file for appending, making it if it is not there.
    ///
    /// # Errors
    /// The system's.
    fn open_append(&self, path: &[u8]) -> VmResult<i32>;

    /// Closes a file that [`Output::open_append`] opened.
    fn close(&self, file: i32);

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// The system's; part may have been written.
    fn write(&self, file: i32, bytes: &[u8]) -> VmResult;

    /// The length of a regular file, in bytes; `None` for a pipe or a terminal.
    fn file_len(&self, file: i32) -> Option<u64>;

    /// Cuts a regular file down to `len` bytes.
    ///
    /// # Errors
    /// The system's.
    fn truncate(&self, file: i32, len: u64) -> VmResult;

    /// Keeps other processes that use this file under the same rule away until [`Output::unlock`]. Never waits
    /// for long: false when it could not be had.
    fn lock(&self, file: i32) -> bool;

    /// Ends [`Output::lock`].
    fn unlock(&self, file: i32);

    /// Whether a file is a terminal.
    fn is_terminal(&self, file: i32) -> bool;

    /// Calls `each` with every loaded module that is mapped now.
    fn each_module(&self, each: &mut dyn FnMut(&Module));

    /// Copies the path of the executable and says how long it is.
    fn executable(&self, into: &mut [u8]) -> usize;

    /// Copies the command line, each argument ended by a zero byte, and says how long it is.
    fn arguments(&self, into: &mut [u8]) -> usize;
}

/// Faults, signals and stacks.
pub trait Faults {
    /// Puts our handlers in force, in front of those that are there, which are asked next. Safe to call again:
    /// does nothing when ours are still in force, and steps in front again when another took our place.
    ///
    /// # Errors
    /// The system's.
    fn install(&self, on_fault: OnFault) -> VmResult;

    /// Whether our handlers are in force for every signal we take. One system call a signal.
    fn is_installed(&self) -> bool;

    /// Gives this thread an alternate stack if it has none large enough, and says where, so that
    /// [`Faults::drop_alternate_stack`] can take it back.
    fn ensure_alternate_stack(&self) -> Range;

    /// Takes back what [`Faults::ensure_alternate_stack`] gave to this thread.
    ///
    /// # Safety
    /// `stack` must be its result on this thread, and the thread must not be running on it.
    unsafe fn drop_alternate_stack(&self, stack: Range);

    /// Runs `work` with `argument` on another stack; false when [`Faults::abandon_call`] ended it.
    ///
    /// # Safety
    /// `stack` must be mapped, large enough and used by nobody else, and only one such call may run at a time.
    unsafe fn call_on_stack(&self, stack: Range, work: extern "C" fn(usize), argument: usize) -> bool;

    /// Ends the running [`Faults::call_on_stack`] from a fault handler that interrupted it: everything that its
    /// `work` was doing is given up where it stands.
    ///
    /// # Safety
    /// Such a call must be running on this thread. What its frames hold is never dropped, so `work` may hold no
    /// lock that anyone else needs.
    unsafe fn abandon_call(&self) -> !;

    /// Ends work in the handler that hangs after `milliseconds`: by a fault signal to this thread or, where there are no
    /// signals, by ending its running [`Faults::call_on_stack`] as [`Faults::abandon_call`] does. 0 takes it back.
    fn watchdog(&self, milliseconds: u64);

    /// Ends the process by SIGABRT (or its like), whatever handlers there are.
    fn die_by_abort(&self) -> !;

    /// Ends the process at once with a status, running nothing else.
    fn exit_now(&self, status: i32) -> !;

    /// Runs `prepare` before a fork, and `parent` and `child` after it, each on its side.
    ///
    /// # Errors
    /// The system's.
    fn at_fork(&self, prepare: extern "C" fn(), parent: extern "C" fn(), child: extern "C" fn()) -> VmResult;

    /// Runs `exit` when the process ends normally, after the program's own such functions.
    ///
    /// # Errors
    /// The system's.
    fn at_exit(&self, exit: extern "C" fn()) -> VmResult;

    /// Writes out what the C library still buffers. Not in the fault handler.
    fn flush_streams(&self);
}

/// An operating system, as fencepost sees it.
pub trait Platform:
    Memory
    + Mappings
    + Threads
    + Output
    + Loader
    + Names
    + Faults
    + Stepping
    + Keys
    + Watchpoints
    + Sync
    + 'static
{
    /// Finds out what the system offers by trying it. To be called once, before anything else.
    fn probe(&self);

    /// The value of an environment variable, alive as long as the process.
    fn environment(&self, name: &core::ffi::CStr) -> Option<&'static [u8]>;
}
