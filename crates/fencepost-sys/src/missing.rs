//! Missing pages: memory whose pages trap until they are put there, and can be moved from one address to another.
//!
//! A system that offers this (userfaultfd on Linux) makes the cheapest guard there is: a page that nobody ever puts
//! there. Any system may answer [`MissingError::Denied`] to all of it.

use crate::{Range, VmResult};

/// What the system offers of missing pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MissingOffer {
    /// Nothing: no such call, or not for this process.
    #[default]
    Nothing,
    /// Pages can be put in place, by copying.
    Copies,
    /// And moved.
    Moves,
}

/// Why pages were not put in place, or not moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissingError {
    /// The right to work on missing pages is gone: it was never opened, the program closed it, or this is a child that
    /// did not inherit it. [`Missing::open_missing`] takes it again.
    Lost,
    /// This process borrows the memory of its parent (`vfork`), and must leave it as it is.
    Borrowed,
    /// The page is shared with a process that was forked, or the kernel uses it just now.
    Shared,
    /// There is a page already.
    Taken,
    /// There is no page to move, or the range is not registered.
    Absent,
    /// Not for memory of this kind: locked, or of other permissions.
    Unfit,
    /// Somebody changes the memory at this moment; or the call was done in part, and the next one says why.
    Busy,
    /// No memory for a new page.
    NoMemory,
    /// The system forbids the call, or does not know it.
    Denied,
    /// Anything else, with the system's number.
    Other(i32),
}

impl MissingError {
    /// The reason's place in [`fencepost_record::REFUSAL_NAMES`].
    pub const fn number(self) -> usize {
        match self {
            MissingError::Lost => 0,
            MissingError::Borrowed => 1,
            MissingError::Shared => 2,
            MissingError::Taken => 3,
            MissingError::Absent => 4,
            MissingError::Unfit => 5,
            MissingError::Busy => 6,
            MissingError::NoMemory => 7,
            MissingError::Denied => 8,
            MissingError::Other(_) => 9,
        }
    }
}

/// What was done of a call, in bytes from the start, before it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partly {
    /// Bytes that were done; a whole number of pages.
    pub done: usize,
    /// Why the rest was not.
    pub why: MissingError,
}

/// Memory whose pages trap until they are put there.
///
/// # Signal context
/// All of these are bare system calls and may run in the fault handler, except [`Missing::open_missing`].
pub trait Missing {
    /// Takes the right to work on missing pages, and says what it allows. What an earlier call took is given up; every
    /// range has to be registered again. Also for a child after a fork, which inherits nothing.
    ///
    /// # Errors
    /// [`MissingError::Denied`] where the system has no such thing, [`MissingError::Borrowed`] in a borrowed memory.
    fn open_missing(&self) -> Result<MissingOffer, MissingError>;

    /// In a child after a fork: gives up what was inherited, which would act on the parent's memory.
    fn close_inherited(&self);

    /// Whether the right was taken and not lost since. No system call: what the program did to it shows only when a call
    /// fails.
    fn has_missing(&self) -> bool;

    /// Registers memory: from now on its pages that are not there trap, for instructions and for the kernel. Pages that
    /// are there stay. Memory that is not committed yet can be registered, and committed later.
    ///
    /// # Errors
    /// The system's.
    ///
    /// # Safety
    /// The caller must own `range`, and rely on no page of it that is not there yet.
    unsafe fn register_missing(&self, range: Range) -> VmResult;

    /// Ends [`Missing::register_missing`] for a part of registered memory: pages of it that are not there are zeros from
    /// now on.
    ///
    /// # Errors
    /// [`VmError::Unsupported`](crate::VmError::Unsupported) where there is no such thing or the right is lost; else the
    /// system's.
    ///
    /// # Safety
    /// The caller must own `range`, and rely on no page of it to be missing.
    unsafe fn unregister_missing(&self, range: Range) -> VmResult {
        let _ = range;
        Err(crate::VmError::Unsupported)
    }

    /// Puts pages in place with a copy of the memory at `from`.
    ///
    /// # Errors
    /// Why, and how many bytes are in place.
    ///
    /// # Safety
    /// The caller must own `range`, whose pages must be missing; `from` must be as many bytes of readable whole pages.
    unsafe fn put_missing(&self, range: Range, from: usize) -> Result<(), Partly>;

    /// Moves the pages of a range to another address: they are missing from `from` then, and keep their content.
    ///
    /// # Errors
    /// Why, and how many bytes have moved.
    ///
    /// # Safety
    /// The caller must own both ranges; the pages at `to` must be missing, and nothing may use those at `from` any more.
    unsafe fn move_pages(&self, from: Range, to: usize) -> Result<(), Partly>;

    /// Drops pages of registered memory, locked ones too, so that they are missing.
    ///
    /// # Errors
    /// The system's.
    ///
    /// # Safety
    /// The caller must own `range`; its content is lost.
    unsafe fn drop_pages(&self, range: Range) -> VmResult;

    /// Makes writes to pages of registered memory trap, or ends that. It is a note in the page table: the mapping stays
    /// as it is, whatever it allows, and a page that is not there is not concerned. What a fork makes has none of it, and
    /// it ends with the right to work on missing pages.
    ///
    /// # Errors
    /// [`VmError::Unsupported`](crate::VmError::Unsupported) where there is no such thing or the right is lost; else the
    /// system's.
    ///
    /// # Safety
    /// The caller must own `range`; nothing may rely on writing there while writes trap.
    unsafe fn trap_writes(&self, range: Range, trap: bool) -> VmResult;
}
