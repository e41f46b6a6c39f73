//! Which pages of some memory were written while a function ran, and by whom.

use core::fmt;

use fencepost_guard::SealTicket;
use fencepost_sys::{Memory, Noting, Range, VmResult, Written};

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
/// Where the system can (Linux 6.7) the kernel notes the pages, at full speed. Of a small block of engine `move` this
/// takes up to two mappings, and that nothing else holds the block closed; at most eight such audits run at once. Else the memory is watched as by [`audit_writes`]. [`Audit::way`] says which. Pages count as a whole: of memory
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
    let anchor = here();
    let Some(mut noted) = Noted::begin(exact, anchor) else { return watched(exact, phase, anchor) };
    let result = phase();
    let mut pages = Vec::new();
    let told = noted.end(&mut |run| {
        pages.extend(addresses(run).map(|address| written(address, exact.start)));
    });
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

/// How the kernel notes pages.
enum By {
    Pages(Noting),
    Block(SealTicket),
}

/// Pages that the kernel notes until this goes, also through a panic.
struct Noted(Option<By>);

impl Noted {
    /// `None` where the kernel cannot.
    fn begin(exact: Range, anchor: usize) -> Option<Noted> {
        if GUARD.is_heap(exact.start)
            && let Ok(ticket) = GUARD.audit_block(exact, anchor)
        {
            return Some(Noted(Some(By::Block(ticket))));
        }
        // SAFETY: the pages hold what the caller's slice borrows until its function returns, so they stay mapped; that
        // they are noted changes nothing for whoever uses them.
        let noting = unsafe { GUARD.platform().note_written(pages_of(exact)) }.ok()?;
        Some(Noted(Some(By::Pages(noting))))
    }

    /// Calls `each` with the runs of pages that were written to.
    fn end(&mut self, each: &mut dyn FnMut(Range)) -> VmResult {
        match self.0.take() {
            Some(By::Pages(noting)) => {
                let told = GUARD.platform().each_written(&noting, each);
                GUARD.platform().end_noting(noting);
                told
            }
            Some(By::Block(ticket)) => GUARD.end_audit(ticket, each),
            None => Ok(()),
        }
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        // After a panic nobody asks what was written.
        let _ = self.end(&mut |_| ());
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

fn written(address: usize, start: usize) -> AuditedPage {
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
            pages.push(AuditedPage { unseen: here.is_empty(), writes: here, ..written(address, start) });
        }
    }
    pages
}
