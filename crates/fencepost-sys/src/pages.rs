//! What a library of virtual memory asks of an operating system beyond [`Memory`]: huge pages, names of mappings,
//! what is resident, and which limit stood behind a refusal.
//!
//! Apart from [`Memory`], because the runtime needs none of it, and a system may have none of it: everything here may
//! answer "unsupported", and the callers have a way to go on. Nothing allocates and nothing panics.

use core::ffi::CStr;
use core::fmt;

use crate::{Memory, Range, VmError, VmResult};

/// What was asked for when a call was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Addresses.
    Reserve,
    /// Memory behind addresses that are reserved.
    Commit,
    /// Memory in huge pages of this many bytes.
    HugePages(usize),
    /// Another protection or a guard within memory that is there.
    Change,
}

/// The limit that a refused call ran into, as far as the system tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Limit {
    /// The process's address space (`RLIMIT_AS`), in bytes.
    AddressSpace {
        /// The limit.
        limit: u64,
        /// What is taken.
        used: u64,
    },
    /// The process's writable private memory (`RLIMIT_DATA`), in bytes.
    Data {
        /// The limit.
        limit: u64,
        /// What is taken.
        used: u64,
    },
    /// Memory that the process keeps from being paged out (`RLIMIT_MEMLOCK`), in bytes, where all that it maps is so kept.
    Locked {
        /// The limit.
        limit: u64,
        /// What is locked.
        used: u64,
    },
    /// What the system promises at most to all processes, where it never promises more than it has.
    Overcommit {
        /// The limit, in bytes.
        limit: u64,
        /// What is promised, in bytes.
        used: u64,
    },
    /// Memory and page file together, which every commit is charged to (Windows), in bytes.
    CommitCharge {
        /// The limit.
        limit: u64,
        /// What is charged.
        used: u64,
    },
    /// The number of mappings of a process.
    Mappings {
        /// The limit.
        limit: usize,
        /// How many there are.
        used: usize,
    },
    /// The stock of explicit huge pages.
    HugePages {
        /// Bytes in a page of this kind.
        page: usize,
        /// How many are left.
        free: u64,
    },
    /// The right to lock pages in memory, without which Windows gives no large pages.
    LockRight,
    /// Memory that is free in whole pieces of a large page.
    Pieces {
        /// Bytes in a page of this kind.
        page: usize,
    },
    /// The system makes no transparent huge pages.
    TransparentHugePages,
    /// What the processor can address, in bytes.
    Addresses {
        /// The limit.
        limit: u64,
    },
    /// Memory that this process may still use: free memory, or what a control group leaves.
    Memory {
        /// What is left, in bytes.
        available: u64,
    },
    /// The end of a reservation, in bytes: the bound that the program chose itself.
    Reservation {
        /// Its length.
        limit: u64,
        /// What is taken.
        used: u64,
    },
    /// The system does not say.
    Unknown,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Limit::AddressSpace { limit, used } => write!(
                f,
                "the limit on address space (RLIMIT_AS) is {limit} bytes, of which {used} are taken: \
                 raise it with `ulimit -v`, or LimitAS= of the service"
            ),
            Limit::Data { limit, used } => write!(
                f,
                "the limit on writable memory (RLIMIT_DATA) is {limit} bytes, of which {used} are taken: \
                 raise it with `ulimit -d`, or LimitDATA= of the service"
            ),
            Limit::Locked { limit, used } => write!(
                f,
                "the process locks its memory (mlockall), and the limit on that (RLIMIT_MEMLOCK) is {limit} bytes, of which \
                 {used} are taken: raise it with `ulimit -l`, or LimitMEMLOCK= of the service, or do not lock what is to come"
            ),
            Limit::Overcommit { limit, used } => write!(
                f,
                "the system promises no more memory than it has (vm.overcommit_memory=2): {limit} bytes, of \
                 which {used} are promised: raise vm.overcommit_ratio, add swap, or set vm.overcommit_memory=0"
            ),
            Limit::CommitCharge { limit, used } => write!(
                f,
                "memory and page file together are {limit} bytes, of which {used} are charged: enlarge the page file"
            ),
            Limit::Mappings { limit, used } => write!(
                f,
                "a process may have {limit} mappings (vm.max_map_count), of which {used} are taken: raise it with \
                 `sysctl vm.max_map_count`"
            ),
            Limit::HugePages { page, free } => write!(
                f,
                "of the explicit huge pages of {page} bytes {free} are free: make more with `sysctl vm.nr_hugepages`, \
                 or hugepages= at boot"
            ),
            Limit::LockRight => f.write_str(
                "large pages take the right to lock pages in memory (SeLockMemoryPrivilege): give it to the account in the \
                 local security policy, and sign on again",
            ),
            Limit::Pieces { page } => write!(
                f,
                "not enough memory is free in whole pieces of {page} bytes: ask soon after the system has started"
            ),
            Limit::TransparentHugePages => f.write_str(
                "the system makes no transparent huge pages: on Linux, write `madvise` to \
                 /sys/kernel/mm/transparent_hugepage/enabled",
            ),
            Limit::Addresses { limit } => {
                write!(f, "the processor addresses {limit} bytes: ask for less, or for several reservations")
            }
            Limit::Memory { available } => write!(
                f,
                "{available} bytes of memory are available to this process: add memory, or raise memory.max of its \
                 control group"
            ),
            Limit::Reservation { limit, used } => write!(
                f,
                "the reservation ends at {limit} bytes, of which {used} are taken: reserve more, addresses cost nothing"
            ),
            Limit::Unknown => f.write_str("the system does not say which limit was hit"),
        }
    }
}

/// Huge pages, names, residency, and reasons of refusals.
///
/// # Safety
/// Safe code is built on what an implementation says of memory. What [`Memory::reserve`] gives must be addresses that
/// nobody else has until they are released; what was committed must be memory of that length, zero and writable, until it is
/// changed by the owner's own calls; sizes must be those of the system.
///
/// # Signal context
/// All are bare system calls and may run in the fault handler, except [`Pages::run_on_stack`].
pub unsafe trait Pages: Memory {
    /// Writes the sizes, in bytes, of the explicit huge pages that the system knows, smallest first, and says how
    /// many. Knowing a size does not mean that there is a free page of it.
    fn huge_page_sizes(&self, into: &mut [usize]) -> usize;

    /// Bytes in a transparent huge page; `None` where the system never makes any.
    fn transparent_page_size(&self) -> Option<usize>;

    /// Asks for transparent huge pages. Advice: failure changes nothing but speed.
    ///
    /// # Errors
    /// The system's.
    ///
    /// # Safety
    /// The caller must own `range`.
    unsafe fn huge_pages(&self, range: Range) -> VmResult;

    /// Takes addresses as [`Memory::reserve`] does: a head, a middle and a tail of so many bytes, side by side. The middle is
    /// made of explicit huge pages of `page` bytes, on a system where these come with their addresses, all at once, or not
    /// at all. It traps until [`Pages::commit_huge`] opens parts of it. The head starts at a multiple of `align`; it, the tail, or both
    /// may be 0.
    ///
    /// # Errors
    /// [`VmError::Unsupported`](crate::VmError) where huge pages are given to parts of a reservation; else the system's. Nothing
    /// is taken then.
    fn reserve_huge(&self, parts: [usize; 3], align: usize, page: usize) -> VmResult<usize> {
        let _ = (parts, align, page);
        Err(VmError::Unsupported)
    }

    /// Makes reserved memory usable and zero, in explicit huge pages of `page` bytes.
    ///
    /// # Errors
    /// The system's; the range is reserved as before then.
    ///
    /// # Safety
    /// `range` must lie within one reservation of the caller's, and be made of whole huge pages; content is lost.
    unsafe fn commit_huge(&self, range: Range, page: usize) -> VmResult;

    /// Gives a range a name, which the system's list of mappings shows.
    ///
    /// # Errors
    /// [`VmError::Unsupported`](crate::VmError) where the system shows no names.
    ///
    /// # Safety
    /// The caller must own `range`.
    unsafe fn set_name(&self, range: Range, name: &CStr) -> VmResult;

    /// Bytes of a range that are in memory now.
    ///
    /// # Errors
    /// The system's.
    fn resident(&self, range: Range) -> VmResult<usize>;

    /// Which limit stands in the way of `len` bytes more. To be asked after a call was refused.
    fn why_refused(&self, wish: Wish, len: usize) -> Limit;

    /// Prepares committed memory to be run on as a stack that grows, and again after its content was dropped. Nothing to
    /// do where untouched memory costs nothing and handlers have stacks of their own; else all but the upper end is
    /// given back, and the system commits it page by page as its own guard page is touched.
    ///
    /// # Errors
    /// The system's.
    ///
    /// # Safety
    /// The caller must own `stack`, which is committed, and nothing may run on it; its content is lost.
    unsafe fn prepare_stack(&self, stack: Range) -> VmResult {
        let _ = stack;
        Ok(())
    }

    /// Runs `work` with `argument` on another stack, and comes back when it returns. `work` must not unwind.
    ///
    /// # Safety
    /// `stack` must be writable memory that nobody else uses, and large enough for `work`.
    unsafe fn run_on_stack(&self, stack: Range, work: extern "C" fn(usize), argument: usize);
}
