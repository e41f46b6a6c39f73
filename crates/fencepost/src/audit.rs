//! Which pages of some memory were written while a function ran, and by whom.

use core::fmt;

use fencepost_sys::{Memory, Noting, Range, Written};

use crate::questions::{BlockInfo, describe};
use crate::runtime::{GUARD, here};
use crate::seals::SealError;
use crate::watches::{Watch, WatchOptions, Write};

/// What was written during a phase.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Audit {
    /// The pages that were written, in order.
    pub pages: Vec<AuditedPage>,
    /// How that was found out.
    pub way: AuditWay,
    /// Notes that were overwritten before they could be read: then a page may lack writes, but not be missing if its
    /// content differs.
    pub lost: u64,
}

/// How an [`Audit`] sees writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AuditWay {
    /// The kernel noted which pages were written to, also by itself in system calls. Nobody was slowed down but for the
    /// first write to a page, and who wrote is not known.
    PageTable,
    /// The memory was watched: each write is there, with its stack. System calls are as with
    /// [`Watch::system_calls`](crate::Watch::system_calls).
    Watching,
}

impl fmt::Display for AuditWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AuditWay::PageTable => "by the page table (userfaultfd and PAGEMAP_SCAN), system calls included",
            AuditWay::Watching => "by watching every write",
        })
    }
}

/// A page that was written.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AuditedPage {
    /// Its first byte.
    pub address: usize,
    /// The guarded block it belongs to.
    pub block: Option<BlockInfo>,
    /// The writes that begin in it; none if the kernel noted the page.
    pub writes: Vec<Write>,
    /// The memory was watched, and its content differs though no write to it was noted: another thread's in the moment in
    /// which one was let through, or the kernel's.
    pub unseen: bool,
}

/// Runs a function and tells which pages of some memory were written meanwhile, by any thread and by the kernel.
///
/// Where the system can (Linux 6.7, and not the small blocks of engine `move`), the kernel notes the pages, at full
/// speed. Else the memory is watched as by [`audit_writes`]. [`Audit::way`] says which. Pages count as a whole: of memory
/// outside the guarded heap the first and the last may have been written to beside the range.
///
/// # Errors
/// [`SealError`] says why the memory cannot be watched either; then the function was not called. Only if the kernel fails to
/// tell what it has noted, which is [`SealError::System`], it was.
#[inline(never)]
pub fn audit<R>(bytes: &[u8], phase: impl FnOnce() -> R) -> Result<(R, Audit), SealError> {
    let exact = Range { start: bytes.as_ptr().addr(), len: bytes.len() };
    if exact.len == 0 {
        return Err(SealError::Empty);
    }
    if GUARD.own_stack().is_some_and(|stack| stack.contains(exact.start)) {
        return Err(SealError::OnStack);
    }
    // SAFETY: the pages hold what `bytes` borrows until this returns, so they stay mapped; that they are noted changes
    // nothing for whoever uses them.
    let Ok(noting) = (unsafe { GUARD.platform().note_written(pages_of(exact)) }) else {
        return watched(exact, phase, here());
    };
    let ending = Ending(Some(noting));
    let result = phase();
    let mut pages = Vec::new();
    let mut told = Ok(());
    if let Some(noting) = &ending.0 {
        told = GUARD.platform().each_written(noting, &mut |run| {
            pages.extend(addresses(run).map(|address| noted(address, exact.start)));
        });
    }
    told.map_err(|error| SealError::System(error.to_string().into()))?;
    Ok((result, Audit { pages, way: AuditWay::PageTable, lost: 0 }))
}

/// The same with every write, its thread and stack. The writes have their effect; each costs a fault and a step, or of up
/// to 32 bytes a trap. System calls are as with [`Watch::system_calls`](crate::Watch::system_calls).
///
/// # Errors
/// [`SealError`] says why the memory cannot be watched; then the function was not called.
#[inline(never)]
pub fn audit_writes<R>(bytes: &[u8], phase: impl FnOnce() -> R) -> Result<(R, Audit), SealError> {
    watched(Range { start: bytes.as_ptr().addr(), len: bytes.len() }, phase, here())
}

/// Ends what the kernel notes, also through a panic.
struct Ending(Option<Noting>);

impl Drop for Ending {
    fn drop(&mut self) {
        if let Some(noting) = self.0.take() {
            GUARD.platform().end_noting(noting);
        }
    }
}

/// The whole pages that a range touches.
fn pages_of(exact: Range) -> Range {
    let page_bytes = GUARD.platform().page_size().max(1);
    let start = exact.start.saturating_sub(exact.start.checked_rem(page_bytes).unwrap_or(0));
    let end = exact.end().checked_next_multiple_of(page_bytes).unwrap_or(exact.end());
    Range { start, len: end.saturating_sub(start) }
}

fn addresses(pages: Range) -> impl Iterator<Item = usize> {
    (pages.start..pages.end()).step_by(GUARD.platform().page_size().max(1))
}

fn noted(address: usize, start: usize) -> AuditedPage {
    let block = describe(address.max(start) as *const u8);
    AuditedPage { address, block, writes: Vec::new(), unseen: false }
}

fn watched<R>(exact: Range, phase: impl FnOnce() -> R, anchor: usize) -> Result<(R, Audit), SealError> {
    let Range { start, len } = exact;
    let before = copy_of(start, len);
    let watch = Watch::new(start, len, WatchOptions::new(), anchor)?;
    let result = phase();
    let writes = watch.writes();
    let lost = watch.lost();
    drop(watch);
    let after = copy_of(start, len);
    let pages = compared(exact, &before, &after, &writes);
    Ok((result, Audit { pages, way: AuditWay::Watching, lost }))
}

/// A copy that the compiler cannot take for what a shared reference promises.
fn copy_of(start: usize, len: usize) -> Vec<u8> {
    let mut copy = vec![0; len];
    let got = GUARD.platform().read_checked(start, &mut copy);
    copy.truncate(got);
    copy
}

fn compared(exact: Range, before: &[u8], after: &[u8], writes: &[Write]) -> Vec<AuditedPage> {
    let page_bytes = GUARD.platform().page_size().max(1);
    let start = exact.start;
    let mut pages = Vec::new();
    for address in addresses(pages_of(exact)) {
        let next = address.saturating_add(page_bytes);
        let part = |bytes: &[u8]| {
            let from = address.saturating_sub(start).min(bytes.len());
            let to = next.saturating_sub(start).min(bytes.len());
            bytes.get(from..to).unwrap_or_default().to_vec()
        };
        let here: Vec<Write> =
            writes.iter().filter(|write| (address..next).contains(&write.address)).cloned().collect();
        let differs = part(before) != part(after);
        if differs || !here.is_empty() {
            pages.push(AuditedPage { unseen: here.is_empty(), writes: here, ..noted(address, start) });
        }
    }
    pages
}
