//! Memory made read-only, to catch the thread that writes when it must not.
//!
//! A range within one guarded heap block is sealed by the runtime: its pages belong to that block alone. For other
//! memory (statics, mappings) whole pages only, by the `region` crate; what was allowed before is kept here and
//! restored when the seal ends. The fault handler never looks at this registry: the runtime keeps what it needs.

use core::cell::Cell;
use core::fmt;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use std::sync::LazyLock;

use fencepost_guard::{SealFailure, SealTicket};
use fencepost_sys::{Memory, Range};
use parking_lot::{Mutex, MutexGuard};
use region::Protection;

use crate::runtime::{GUARD, here};

/// Memory that stays read-only until this is dropped. A write to it is reported as a `seal-violation`.
#[must_use = "the memory is writable again as soon as this is dropped"]
#[derive(Debug)]
pub struct Seal<'a> {
    ticket: Option<SealTicket>,
    range: Range,
    memory: PhantomData<&'a ()>,
}

/// Why memory could not be sealed.
#[derive(Debug)]
#[non_exhaustive]
pub enum SealError {
    /// The guard is off: no `GuardedAlloc` in the program, or `mode=off`.
    NotGuarding,
    /// The range is empty.
    Empty,
    /// The range starts in the guarded heap but does not lie within one live block.
    NotOneBlock,
    /// The memory is the calling thread's stack, which cannot be written to while it is sealed.
    OnStack,
    /// Memory that is not a guarded block can be sealed by whole pages only.
    NotWholePages {
        /// Bytes in a page.
        page_bytes: usize,
    },
    /// Part of the range is sealed already.
    AlreadySealed,
    /// Part of the range is not mapped readable and writable.
    NotWritable,
    /// Too many seals are held at once.
    TooMany,
    /// The system refused.
    System(Box<dyn std::error::Error + Send + Sync>),
}

impl fmt::Display for SealError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SealError::NotGuarding => {
                f.write_str("the guard is off: the program needs a GuardedAlloc as its global allocator, and not mode=off")
            }
            SealError::Empty => f.write_str("the range is empty: for a Vec, seal `&v[..]`, not `&v`"),
            SealError::NotOneBlock => f.write_str("the range does not lie within one live heap block"),
            SealError::OnStack => f.write_str("the memory is on this thread's stack: move it to the heap first"),
            SealError::NotWholePages { page_bytes } => {
                write!(f, "memory outside the guarded heap is sealed by whole pages of {page_bytes} bytes only")
            }
            SealError::AlreadySealed => f.write_str("part of the range is sealed already"),
            SealError::NotWritable => f.write_str("part of the range is not mapped readable and writable"),
            SealError::TooMany => f.write_str("too many seals are held at once"),
            SealError::System(error) => write!(f, "the system refused: {error}"),
        }
    }
}

impl std::error::Error for SealError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            SealError::System(error) => Some(error.as_ref()),
            _ => None,
        }
    }
}

impl From<SealFailure> for SealError {
    fn from(failure: SealFailure) -> Self {
        match failure {
            SealFailure::NotGuarding => SealError::NotGuarding,
            SealFailure::Empty => SealError::Empty,
            SealFailure::NotOneBlock => SealError::NotOneBlock,
            SealFailure::TooMany => SealError::TooMany,
            SealFailure::System(error) => SealError::System(error.to_string().into()),
        }
    }
}

/// What a sealed range outside the heap allowed before.
struct Before {
    range: Range,
    parts: Vec<(Range, Protection)>,
}

/// The cold side of the seals outside the heap.
static FOREIGN: LazyLock<Mutex<Vec<Before>>> = LazyLock::new(|| Mutex::new(Vec::new()));

thread_local! {
    /// The registry's guard while this thread forks. Never dropped by itself: the two functions below come in pairs.
    static FORKING: Cell<Option<ManuallyDrop<MutexGuard<'static, Vec<Before>>>>> = const { Cell::new(None) };
}

/// Before a fork: no other thread holds the registry while the child is made.
pub(crate) fn before_fork() {
    FORKING.set(Some(ManuallyDrop::new(FOREIGN.lock())));
}

/// After a fork, on both sides.
pub(crate) fn after_fork() {
    drop(FORKING.take().map(ManuallyDrop::into_inner));
}

/// Makes the memory of a value read-only until the [`Seal`] drops: for a `Vec` pass `&v[..]`, for a `Box` `&*b`.
///
/// The whole pages that the value touches become read-only. For a guarded heap block these hold nothing but the
/// block. System calls that write to sealed memory fail with an error and no report.
///
/// # Errors
/// [`SealError`] says why not; nothing is changed then.
#[inline(never)]
pub fn seal<T: ?Sized>(value: &T) -> Result<Seal<'_>, SealError> {
    seal_range(core::ptr::from_ref(value).cast::<u8>().addr(), size_of_val(value), here())
}

/// The same for any memory: part of a guarded heap block, or whole pages of a static or a mapping.
///
/// # Errors
/// [`SealError`] says why not; nothing is changed then.
///
/// # Safety
/// The memory must stay mapped until the seal drops, and whoever holds a reference through which the program means
/// to write to it must expect the write to end the program. Other data on the same pages becomes read-only as well.
#[inline(never)]
pub unsafe fn seal_raw(pointer: *const u8, len: usize) -> Result<Seal<'static>, SealError> {
    seal_range(pointer.addr(), len, here())
}

fn seal_range<'a>(start: usize, len: usize, anchor: usize) -> Result<Seal<'a>, SealError> {
    if len == 0 {
        return Err(SealError::Empty);
    }
    let ticket = if GUARD.is_heap(start) {
        GUARD.seal_block(start, len, anchor)?
    } else {
        seal_foreign(Range { start, len }, anchor)?
    };
    let range = ticket.range();
    Ok(Seal { ticket: Some(ticket), range, memory: PhantomData })
}

fn seal_foreign(range: Range, anchor: usize) -> Result<SealTicket, SealError> {
    if GUARD.own_stack().is_some_and(|stack| stack.contains(range.start)) {
        return Err(SealError::OnStack);
    }
    let page_bytes = GUARD.platform().page_size();
    if !range.start.is_multiple_of(page_bytes) || !range.len.is_multiple_of(page_bytes) {
        return Err(SealError::NotWholePages { page_bytes });
    }
    let mut foreign = FOREIGN.lock();
    if foreign.iter().any(|before| before.range.start < range.end() && range.start < before.range.end()) {
        return Err(SealError::AlreadySealed);
    }
    let parts = protections(range)?;
    // The runtime knows of the seal before a write can meet it.
    let ticket = GUARD.note_seal(range, anchor)?;
    // SAFETY: the range is mapped and writable by the query above; that its owner expects it to become read-only is
    // what `seal_raw` asks of its caller, and `seal` of the shared reference.
    if let Err(error) = unsafe { region::protect(range.start as *const u8, range.len, Protection::READ) } {
        GUARD.unseal(ticket, || ());
        return Err(SealError::System(error.into()));
    }
    foreign.push(Before { range, parts });
    Ok(ticket)
}

/// The mappings of a range and what they allow; all must be readable and writable.
fn protections(range: Range) -> Result<Vec<(Range, Protection)>, SealError> {
    let regions =
        region::query_range(range.start as *const u8, range.len).map_err(|_| SealError::NotWritable)?;
    let mut parts = Vec::new();
    let mut covered = range.start;
    for mapped in regions {
        let mapped = mapped.map_err(|_| SealError::NotWritable)?;
        let whole = mapped.as_range();
        let start = whole.start.max(range.start);
        let end = whole.end.min(range.end());
        if start != covered || !mapped.protection().contains(Protection::READ_WRITE) {
            return Err(SealError::NotWritable);
        }
        parts.push((Range { start, len: end.saturating_sub(start) }, mapped.protection()));
        covered = end;
    }
    if covered == range.end() { Ok(parts) } else { Err(SealError::NotWritable) }
}

impl Seal<'_> {
    /// The addresses that are read-only: the whole pages that the sealed memory touches.
    pub fn extent(&self) -> core::ops::Range<usize> {
        self.range.start..self.range.end()
    }

    /// What of system calls the seal covers: nothing. A system call that writes here fails with an error instead.
    pub fn system_calls(&self) -> &'static str {
        "system calls: not covered"
    }
}

impl Drop for Seal<'_> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket.take() else { return };
        let mut foreign = FOREIGN.lock();
        let known = foreign.iter().position(|before| before.range == self.range);
        let parts = known.map(|index| foreign.swap_remove(index).parts).unwrap_or_default();
        drop(foreign);
        GUARD.unseal(ticket, || restore(&parts));
    }
}

/// Gives memory back what it allowed before it was sealed.
fn restore(parts: &[(Range, Protection)]) {
    for &(range, protection) in parts {
        // SAFETY: the memory is still mapped by the word of whoever sealed it, and gets back what it allowed.
        let restored = unsafe { region::protect(range.start as *const u8, range.len, protection) };
        if let Err(error) = restored {
            eprintln!("fencepost: sealed memory at {:#x} could not be opened again: {error}", range.start);
        }
    }
}
