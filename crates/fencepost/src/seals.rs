//! Memory made read-only, to catch the thread that writes when it must not.

use core::fmt;
use core::marker::PhantomData;

use fencepost_guard::{Purpose, SealFailure};

use crate::closing::Closed;
use crate::runtime::here;

/// What seals, watches and tripwires say of system calls.
pub(crate) fn system_calls() -> &'static str {
    #[cfg(fencepost_libc)]
    if crate::exported::looks_at_calls() {
        return "system calls: covered where they go through functions of the C library";
    }
    "system calls: not covered"
}

/// Memory that stays read-only until this is dropped. A write to it is reported as a `seal-violation`.
#[must_use = "the memory is writable again as soon as this is dropped"]
#[derive(Debug)]
pub struct Seal<'a> {
    closed: Closed,
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
        /// Bytes of something else on the first page, before the range.
        before: usize,
        /// Bytes of something else on the last page, behind the range.
        after: usize,
        /// The file that they belong to, where that is known: the program's or a library's.
        file: String,
    },
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
            SealError::NotWholePages { page_bytes, before, after, file } => {
                let of = if file.is_empty() { "" } else { " of " };
                write!(
                    f,
                    "memory outside the guarded heap is closed by whole pages of {page_bytes} bytes, and {before} bytes \
                     before it and {after} behind{of}{file} share its first and last: align it to a page"
                )
            }
            SealError::NotWritable => f.write_str("part of the range is not mapped readable and writable"),
            SealError::TooMany => f.write_str(
                "32,768 seals, watches and tripwires are held, which is the most at once: end some, or close larger ranges",
            ),
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

/// Makes the memory of a value read-only until the [`Seal`] drops: for a `Vec` pass `&v[..]`, for a `Box` `&*b`.
///
/// The whole pages that the value touches become read-only. For a guarded heap block these hold nothing but the
/// block. A write to the value is a `seal-violation`; a write to something else on these pages, such as the counts of an
/// [`Arc`](std::sync::Arc) before the value that it holds, is let through, one instruction at a time.
/// Reads cost nothing. Seals nest and overlap: memory is writable again when the last one is dropped.
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
    let closed = Closed::new(Purpose::Seal, start, len, anchor)?;
    Ok(Seal { closed, memory: PhantomData })
}

impl Seal<'_> {
    /// The addresses that are read-only: the whole pages that the sealed memory touches. A write beside the sealed bytes
    /// is let through, one instruction at a time.
    pub fn extent(&self) -> core::ops::Range<usize> {
        let pages = self.closed.pages();
        pages.start..pages.end()
    }

    /// The addresses that a write is reported for.
    pub fn sealed(&self) -> core::ops::Range<usize> {
        let exact = self.closed.exact();
        exact.start..exact.end()
    }

    /// How many writes there were to the sealed bytes.
    pub fn violations(&self) -> u32 {
        self.closed.hits()
    }

    /// Whether system calls that write here are seen: where [`export_libc!`](crate::export_libc) or the preload stands between
    /// the program and the C library. They are reported and have their effect. Elsewhere they fail with an error instead.
    pub fn system_calls(&self) -> &'static str {
        system_calls()
    }
}
