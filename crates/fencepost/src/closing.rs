//! Closing memory on purpose: what seals, watches and tripwires have in common.
//!
//! A range within one guarded heap block is closed by the runtime: its pages belong to that block alone. Other memory
//! (statics, mappings) must allow reading and writing, as the `region` crate tells; what else it allowed is kept here and
//! put back at the end. The fault handler never looks at this registry: the runtime keeps what it needs.

use core::cell::Cell;
use core::mem::ManuallyDrop;
use std::sync::LazyLock;
use std::time::Duration;

use fencepost_guard::{Purpose, SealTicket};
use fencepost_sys::{Memory, Output, Range, is_in_this_object};
use parking_lot::{Mutex, MutexGuard};
use region::Protection;

use crate::runtime::GUARD;
use crate::seals::SealError;

/// Memory outside the heap that is closed.
struct Foreign {
    serial: u32,
    pages: Range,
    /// Parts that allowed more than reading and writing.
    more: Vec<(Range, Protection)>,
}

static FOREIGN: LazyLock<Mutex<Vec<Foreign>>> = LazyLock::new(|| Mutex::new(Vec::new()));

/// How long a fork waits for the registry.
const WAIT: Duration = Duration::from_secs(1);

thread_local! {
    /// The registry's guard while this thread forks. Never dropped by itself: the two functions below come in pairs.
    static FORKING: Cell<Option<ManuallyDrop<MutexGuard<'static, Vec<Foreign>>>>> = const { Cell::new(None) };
}

/// Before a fork: no other thread holds the registry while the child is made.
pub(crate) fn before_fork() {
    // A signal handler may have interrupted this very thread while it held it.
    FORKING.set(FOREIGN.try_lock_for(WAIT).map(ManuallyDrop::new));
}

/// After a fork, on both sides.
pub(crate) fn after_fork() {
    drop(FORKING.take().map(ManuallyDrop::into_inner));
}

/// Memory that is closed until this is dropped.
#[derive(Debug)]
pub(crate) struct Closed {
    ticket: Option<SealTicket>,
    exact: Range,
}

impl Closed {
    /// Closes `len` bytes from `start` on.
    pub(crate) fn new(
        purpose: Purpose,
        start: usize,
        len: usize,
        anchor: usize,
    ) -> Result<Closed, SealError> {
        if len == 0 {
            return Err(SealError::Empty);
        }
        let exact = Range { start, len };
        let ticket = if GUARD.is_heap(start) {
            GUARD.seal_block(purpose, start, len, anchor)?
        } else {
            close_foreign(purpose, exact, anchor)?
        };
        Ok(Closed { ticket: Some(ticket), exact })
    }

    /// Closes whole pages of ours, of which nobody needs to be asked what they allow: reading and writing.
    ///
    /// # Safety
    /// They must stay mapped until this is dropped, and nothing that the runtime itself uses may lie there.
    pub(crate) unsafe fn of_own_pages(
        purpose: Purpose,
        pages: Range,
        anchor: usize,
    ) -> Result<Closed, SealError> {
        let mut foreign = FOREIGN.lock();
        // SAFETY: the caller's promise.
        let ticket = unsafe { GUARD.seal_other(purpose, pages, anchor) }?;
        foreign.push(Foreign { serial: ticket.serial(), pages, more: Vec::new() });
        Ok(Closed { ticket: Some(ticket), exact: pages })
    }

    /// Watches by watchpoints of the processor; `None` where that cannot be.
    pub(crate) fn by_watchpoints(start: usize, len: usize, anchor: usize) -> Option<Closed> {
        let exact = Range { start, len };
        GUARD.watch_bytes(exact, anchor).map(|ticket| Closed { ticket: Some(ticket), exact })
    }

    /// Whether it is a watch by watchpoints, which closes no page.
    pub(crate) fn is_by_watchpoints(&self) -> bool {
        self.ticket.as_ref().is_some_and(|ticket| GUARD.is_watchpoint(ticket))
    }

    /// The whole pages that are closed.
    pub(crate) fn pages(&self) -> Range {
        self.ticket.as_ref().map(SealTicket::range).unwrap_or_default()
    }

    /// The bytes that are meant.
    pub(crate) fn exact(&self) -> Range {
        self.exact
    }

    /// The runtime's number for it.
    pub(crate) fn serial(&self) -> u32 {
        self.ticket.as_ref().map_or(0, SealTicket::serial)
    }

    /// Waits for a first touch, for half a second at most.
    pub(crate) fn wait_for_hit(&self) {
        if let Some(ticket) = &self.ticket {
            GUARD.wait_for_hit(ticket);
        }
    }

    /// How often the bytes were touched in the way they are closed for.
    pub(crate) fn hits(&self) -> u32 {
        self.ticket.as_ref().map_or(0, |ticket| GUARD.hits(ticket))
    }
}

impl Drop for Closed {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket.take() else { return };
        let mut foreign = FOREIGN.lock();
        let known = foreign.iter().position(|closed| closed.serial == ticket.serial());
        let more = known.map(|index| foreign.swap_remove(index).more).unwrap_or_default();
        drop(foreign);
        GUARD.unseal(ticket, || restore(&more));
    }
}

fn close_foreign(purpose: Purpose, exact: Range, anchor: usize) -> Result<SealTicket, SealError> {
    if GUARD.own_stack().is_some_and(|stack| stack.contains(exact.start)) {
        return Err(SealError::OnStack);
    }
    let page_bytes = GUARD.platform().page_size();
    let start = exact.start.checked_next_multiple_of(page_bytes).filter(|start| *start == exact.start);
    let whole = start.is_some() && exact.len.is_multiple_of(page_bytes);
    // Beside a static of the program's may lie one of ours.
    if !whole && (purpose == Purpose::Seal || is_in_this_object(exact.start)) {
        return Err(not_whole(exact, page_bytes));
    }
    let first = exact.start.saturating_sub(exact.start.checked_rem(page_bytes).unwrap_or(0));
    let end = exact.end().checked_next_multiple_of(page_bytes).ok_or(SealError::NotWritable)?;
    let pages = Range { start: first, len: end.saturating_sub(first) };
    let mut foreign = FOREIGN.lock();
    let more = protections(pages, &foreign)?;
    // SAFETY: the pages are mapped, readable and writable by the query above, and not ours: whole ones, or of no
    // object that this code is in. That they stay mapped is what the unsafe functions ask of their callers, and a
    // reference promises.
    let ticket = unsafe { GUARD.seal_other(purpose, exact, anchor) }?;
    foreign.push(Foreign { serial: ticket.serial(), pages, more });
    Ok(ticket)
}

/// The error that says what else lies on the first and the last page of a range.
fn not_whole(exact: Range, page_bytes: usize) -> SealError {
    let on_page = |address: usize| address.checked_rem(page_bytes).unwrap_or(0);
    let after = page_bytes.saturating_sub(on_page(exact.end()));
    let mut file = String::new();
    GUARD.platform().each_module(&mut |module| {
        if (module.start..module.end).contains(&(exact.start as u64)) {
            file = module.path.as_str().to_owned();
        }
    });
    SealError::NotWholePages {
        page_bytes,
        before: on_page(exact.start),
        after: if after == page_bytes { 0 } else { after },
        file,
    }
}

/// What the mappings of a range allow beyond reading and writing, which all must, or must have before they were closed.
fn protections(pages: Range, foreign: &[Foreign]) -> Result<Vec<(Range, Protection)>, SealError> {
    let regions =
        region::query_range(pages.start as *const u8, pages.len).map_err(|_| SealError::NotWritable)?;
    let mut more = Vec::new();
    let mut covered = pages.start;
    for mapped in regions {
        let mapped = mapped.map_err(|_| SealError::NotWritable)?;
        let whole = mapped.as_range();
        let (start, end) = (whole.start.max(pages.start), whole.end.min(pages.end()));
        let part = Range { start, len: end.saturating_sub(start) };
        let is_closed = foreign.iter().any(|other| other.pages.start <= start && end <= other.pages.end());
        if start != covered || !(is_closed || mapped.protection().contains(Protection::READ_WRITE)) {
            return Err(SealError::NotWritable);
        }
        if !is_closed && mapped.protection() != Protection::READ_WRITE {
            more.push((part, mapped.protection()));
        }
        covered = end;
    }
    if covered == pages.end() { Ok(more) } else { Err(SealError::NotWritable) }
}

/// Gives memory back what it allowed beyond reading and writing, where nothing else holds it closed.
fn restore(parts: &[(Range, Protection)]) {
    for &(range, protection) in parts.iter().filter(|(range, _)| !GUARD.is_closed(*range)) {
        // SAFETY: the memory is still mapped by the word of whoever closed it, and gets back what it allowed.
        if let Err(error) = unsafe { region::protect(range.start as *const u8, range.len, protection) } {
            eprintln!("fencepost: memory at {:#x} is not as it was before: {error}", range.start);
        }
    }
}
