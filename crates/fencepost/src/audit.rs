//! Which pages of some memory were written while a function ran, and by whom.

use fencepost_sys::Memory;

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
    /// Notes that were overwritten before they could be read: then a page may lack writes, but not be missing if its
    /// content differs.
    pub lost: u64,
}

/// A page that was written.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AuditedPage {
    /// Its first byte.
    pub address: usize,
    /// The guarded block it belongs to.
    pub block: Option<BlockInfo>,
    /// The writes that begin in it.
    pub writes: Vec<Write>,
    /// Its content differs though no write to it was noted: another thread's in the moment in which one was let through,
    /// or the kernel's.
    pub unseen: bool,
}

/// Runs a function and tells which pages of some memory were written meanwhile, by any thread, with every write. The
/// writes have their effect; each costs a fault and a step. System calls are as with
/// [`Watch::system_calls`](crate::Watch::system_calls).
///
/// # Errors
/// [`SealError`] says why the memory cannot be watched; then the function was not called.
#[inline(never)]
pub fn audit<R>(bytes: &[u8], phase: impl FnOnce() -> R) -> Result<(R, Audit), SealError> {
    let (start, len) = (bytes.as_ptr().addr(), bytes.len());
    let before = copy_of(start, len);
    let watch = Watch::new(start, len, WatchOptions::new(), here())?;
    let result = phase();
    let writes = watch.writes();
    let lost = watch.lost();
    drop(watch);
    let after = copy_of(start, len);
    Ok((result, Audit { pages: pages(start, &before, &after, &writes), lost }))
}

/// A copy that the compiler cannot take for what a shared reference promises.
fn copy_of(start: usize, len: usize) -> Vec<u8> {
    let mut copy = vec![0; len];
    let got = GUARD.platform().read_checked(start, &mut copy);
    copy.truncate(got);
    copy
}

fn pages(start: usize, before: &[u8], after: &[u8], writes: &[Write]) -> Vec<AuditedPage> {
    let page_bytes = GUARD.platform().page_size().max(1);
    let end = start.saturating_add(before.len());
    let first = start.saturating_sub(start.checked_rem(page_bytes).unwrap_or(0));
    let mut pages = Vec::new();
    for address in (first..end).step_by(page_bytes) {
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
            let block = describe(address.max(start) as *const u8);
            pages.push(AuditedPage { address, block, unseen: here.is_empty(), writes: here });
        }
    }
    pages
}
