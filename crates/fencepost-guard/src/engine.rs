//! Engines: how a page is made inaccessible. One seam, so that another way joins by adding a case here.
//!
//! All engines keep the heap in one reservation, which is opened chunk by chunk.
//!
//! - *move*: a page that nobody has put there traps; one system call moves the page of a freed block to the slot that is
//!   handed out next ([`crate::moving`]). It serves small blocks; what its memory cannot do is left to one of the others.
//! - *marker*: the opened part is one readable and writable mapping; guards are markers in the page table, which
//!   cost no mapping. A block is freed by putting markers over it. A dead span becomes an inaccessible mapping only
//!   where that is cheap ([`crate::heap`] decides), which gives its page table back.
//!   A large block has a run to itself, whose rest is closed by mappings while there are enough of them, and which
//!   becomes one inaccessible mapping when the block is freed: calls of constant cost, where markers cost by the page.
//! - *mprotect*: everything is inaccessible until a block opens its pages, which costs two mappings a live block.
//! - *commit*: the same steps where the system commits and decommits single pages of a reservation: what is not
//!   committed traps and is charged to nobody. It costs two mappings a live block where somebody counts these (Wine, by
//!   what lies beneath it); Windows counts none.

use fencepost_sys::{Memory, Protection, Range, VmError, VmResult};

/// Margins of large blocks up to this length, in bytes, are closed by markers, which costs less than a mapping then.
const MARKED_MARGIN: usize = 64 << 10;

/// How pages are made inaccessible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    /// Pages that are missing, and pages that are moved.
    Move,
    /// Markers in the page table.
    Marker,
    /// Pages without permissions.
    Mprotect,
    /// Pages that are not committed (Windows).
    Commit,
}

/// What closing a range took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closed {
    /// The engine's own way.
    AsMeant,
    /// The next engine's way, because the kernel refused ours for this memory.
    Fallback,
}

impl Engine {
    /// The name in options, summaries and reports.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Engine::Move => "move",
            Engine::Marker => "marker",
            Engine::Mprotect => "mprotect",
            Engine::Commit => "commit",
        }
    }

    /// Mappings that one live block costs.
    pub(crate) const fn mappings_per_block(self) -> usize {
        match self {
            Engine::Move | Engine::Marker => 0,
            Engine::Mprotect | Engine::Commit => crate::limits::MAPPINGS_BY_PROTECTION,
        }
    }

    /// How many small slots are opened at once. One where each opened slot costs mappings.
    pub(crate) const fn batch_max(self) -> usize {
        match self {
            Engine::Marker => 16,
            Engine::Move | Engine::Mprotect | Engine::Commit => 1,
        }
    }

    /// Prepares the whole reservation.
    ///
    /// # Safety
    /// `range` must be the heap's own, fresh reservation.
    pub(crate) unsafe fn adopt<M: Memory>(self, memory: &M, range: Range) {
        match self {
            Engine::Move | Engine::Marker => {
                // SAFETY: the caller gives its own reservation.
                let advised = unsafe { memory.no_huge_pages(range) };
                // Advice only: without it a guard still traps, and memory use may be higher.
                let _ = advised;
            }
            // The advice would set apart what is closed later, and no closed page would share a mapping with another.
            Engine::Mprotect | Engine::Commit => {}
        }
    }

    /// Opens the next part of the reservation for this engine's use.
    ///
    /// # Safety
    /// `range` must be an untouched part of the heap's own reservation.
    pub(crate) unsafe fn extend<M: Memory>(self, memory: &M, range: Range) -> VmResult {
        match self {
            Engine::Move => {
                // SAFETY: the caller gives a part of its own reservation.
                unsafe { memory.commit(range) }?;
                // SAFETY: as above; nobody has used any page of it.
                unsafe { memory.register_missing(range) }.inspect_err(|_| {
                    // SAFETY: as above. If this fails as well, nothing of the range is ever handed out.
                    let closed = unsafe { memory.decommit(range) };
                    let _ = closed;
                })
            }
            Engine::Marker => {
                // SAFETY: the caller gives a part of its own reservation.
                unsafe { memory.commit(range) }
            }
            Engine::Mprotect | Engine::Commit => Ok(()),
        }
    }

    /// Closes a fresh span, so that its slots can be opened one by one.
    ///
    /// # Safety
    /// `span` must be a span of the heap that holds no block.
    pub(crate) unsafe fn prepare_span<M: Memory>(self, memory: &M, span: Range) -> VmResult<Closed> {
        match self {
            // SAFETY: the span holds no block, so nothing is lost.
            Engine::Marker => unsafe { close_by_marker(memory, span) },
            // Nothing is there, or nothing is allowed.
            Engine::Move | Engine::Mprotect | Engine::Commit => Ok(Closed::AsMeant),
        }
    }

    /// Opens the data pages of slots; they are zero. With `whole` all of them will be used, so they may be given
    /// their memory at once.
    ///
    /// # Safety
    /// Every range must be closed pages of one prepared span that nobody uses yet.
    pub(crate) unsafe fn open<M: Memory>(self, memory: &M, ranges: &[Range], whole: bool) -> VmResult {
        match self {
            // SAFETY: the caller owns the ranges.
            Engine::Marker => unsafe { remove_markers(memory, ranges, whole) },
            // Its pages come from a pattern or from another block: see `crate::moving`.
            Engine::Move => Err(VmError::Unsupported),
            Engine::Mprotect | Engine::Commit => open_by_commit(memory, ranges),
        }
    }

    /// Opens `data` within a fresh run and leaves the rest of the run closed: by mappings of its own if they may be
    /// taken, which is one call whatever its length, else by markers. Pages come at first use.
    ///
    /// # Safety
    /// `run` must be a run of fresh spans that holds no block, and `data` whole pages within it.
    pub(crate) unsafe fn prepare_large<M: Memory>(
        self,
        memory: &M,
        run: Range,
        data: Range,
        by_mapping: bool,
    ) -> VmResult<Closed> {
        match self {
            Engine::Marker => {
                let before = Range { start: run.start, len: data.start.wrapping_sub(run.start) };
                let after = Range { start: data.end(), len: run.end().wrapping_sub(data.end()) };
                // SAFETY: both are parts of a run that holds no block.
                unsafe {
                    let first = close_margin(memory, before, by_mapping)?;
                    let second = close_margin(memory, after, by_mapping)?;
                    Ok(if first == Closed::AsMeant { second } else { first })
                }
            }
            Engine::Mprotect | Engine::Commit => {
                open_by_commit(memory, &[data])?;
                Ok(Closed::AsMeant)
            }
            // Its pages do not come at first use: large blocks are another engine's.
            Engine::Move => Err(VmError::Unsupported),
        }
    }

    /// Drops the content of a block's pages and makes them trap.
    ///
    /// # Safety
    /// `range` must be the data pages of a block that is being freed.
    pub(crate) unsafe fn close<M: Memory>(self, memory: &M, range: Range) -> VmResult<Closed> {
        if range.len == 0 {
            return Ok(Closed::AsMeant);
        }
        match self {
            // SAFETY: the block is being freed: its content may be lost.
            Engine::Marker => unsafe { close_by_marker(memory, range) },
            Engine::Move => {
                // SAFETY: as above.
                unsafe { memory.drop_pages(range) }?;
                Ok(Closed::AsMeant)
            }
            Engine::Mprotect | Engine::Commit => {
                // SAFETY: as above.
                unsafe { memory.decommit(range) }?;
                Ok(Closed::AsMeant)
            }
        }
    }

    /// Drops a large block and makes its whole run inaccessible by one mapping; where the system has none left, its
    /// pages alone, by markers. `data` is empty where they are gone already.
    ///
    /// # Safety
    /// As [`Engine::close`]; `run` must be the run of the block's own.
    pub(crate) unsafe fn close_large<M: Memory>(
        self,
        memory: &M,
        run: Range,
        data: Range,
    ) -> VmResult<Closed> {
        // SAFETY: the block is being freed, and nothing else lies in its run.
        if unsafe { memory.decommit(run) }.is_ok() {
            return Ok(Closed::AsMeant);
        }
        if data.len != 0 {
            // SAFETY: as above.
            unsafe { memory.guard_install(data) }?;
        }
        Ok(Closed::Fallback)
    }

    /// Drops the content of several blocks and makes them trap, in as few calls as the system allows. Where it fails,
    /// some may be closed: each is to be closed again by itself.
    ///
    /// # Safety
    /// Every range must hold nothing but data pages of freed blocks and guard pages.
    pub(crate) unsafe fn close_each<M: Memory>(self, memory: &M, ranges: &[Range]) -> VmResult {
        match self {
            // SAFETY: the blocks are dead: their content may be lost.
            Engine::Marker => unsafe { memory.guard_install_each(ranges) },
            Engine::Mprotect | Engine::Commit => {
                // SAFETY: as above.
                ranges.iter().try_for_each(|range| unsafe { memory.decommit(*range) })
            }
            // SAFETY: as above.
            Engine::Move => ranges.iter().try_for_each(|range| unsafe { memory.drop_pages(*range) }),
        }
    }

    /// Replaces a run of dead spans by one inaccessible mapping, which frees its page table.
    ///
    /// # Safety
    /// `run` must hold no block and no data that anybody uses.
    pub(crate) unsafe fn retire<M: Memory>(self, memory: &M, run: Range) -> VmResult {
        match self {
            // SAFETY: the run is dead.
            Engine::Marker => unsafe { memory.decommit(run) },
            // SAFETY: as above.
            Engine::Move => unsafe { memory.drop_pages(run) },
            // Every page of it is in that state already.
            Engine::Mprotect | Engine::Commit => Ok(()),
        }
    }

    /// Makes a run of dead spans fresh again.
    ///
    /// # Safety
    /// `run` must be dead, and nobody may rely on its trapping any more.
    pub(crate) unsafe fn reuse<M: Memory>(self, memory: &M, run: Range, retired: bool) -> VmResult {
        match (self, retired) {
            (Engine::Marker, true) => {
                // SAFETY: the caller owns the run.
                unsafe { memory.commit(run) }?;
                // SAFETY: as above. The same advice as for the rest of the heap, so that the mappings merge again.
                let advised = unsafe { memory.no_huge_pages(run) };
                // Without it only memory use differs.
                let _ = advised;
                Ok(())
            }
            (Engine::Marker, false) => {
                // SAFETY: the caller owns the run. Blocks in it that were closed by the fallback are inaccessible
                // by a mapping, which removing markers alone would leave as it is.
                unsafe { memory.commit(run) }?;
                // SAFETY: as above.
                unsafe { memory.guard_remove(run) }
            }
            // What a program that went on after a report was given is taken back, also where that took a mapping.
            //
            // SAFETY: the caller owns the run.
            (Engine::Move, _) => unsafe {
                memory.commit(run)?;
                memory.register_missing(run)?;
                memory.drop_pages(run)
            },
            (Engine::Mprotect | Engine::Commit, _) => Ok(()),
        }
    }

    /// Drops what steps left in the closed pages of a run that was made fresh again.
    ///
    /// # Safety
    /// As [`Engine::reuse`], after it.
    pub(crate) unsafe fn forget<M: Memory>(self, memory: &M, run: Range) -> VmResult {
        match self {
            // SAFETY: the run holds nothing that anybody uses.
            Engine::Marker => unsafe { memory.discard(run) },
            // They went when it was made fresh.
            Engine::Move => Ok(()),
            // SAFETY: as above.
            Engine::Mprotect | Engine::Commit => unsafe { memory.decommit(run) },
        }
    }

    /// Opens pages for good, so that a program that goes on after a report can use them.
    ///
    /// # Safety
    /// `pages` must be whole pages of the heap.
    pub(crate) unsafe fn give_up<M: Memory>(self, memory: &M, pages: Range) -> VmResult {
        // SAFETY: the caller names pages of the heap. Those of a retired run or closed by the fallback have no marker.
        unsafe { memory.commit(pages) }?;
        match self {
            // SAFETY: as above.
            Engine::Marker => unsafe { memory.guard_remove(pages) },
            Engine::Mprotect | Engine::Commit => Ok(()),
            Engine::Move => Err(VmError::Unsupported),
        }
    }
}

/// Closes by markers, and where the kernel refuses them for this memory (locked pages), by a mapping of its own.
///
/// # Safety
/// The content of `range` must be the caller's to lose.
unsafe fn close_by_marker<M: Memory>(memory: &M, range: Range) -> VmResult<Closed> {
    if range.len == 0 {
        return Ok(Closed::AsMeant);
    }
    // SAFETY: passed on to the caller.
    match unsafe { memory.guard_install(range) } {
        Ok(()) => Ok(Closed::AsMeant),
        Err(_) => {
            // SAFETY: passed on to the caller.
            unsafe { memory.decommit(range) }?;
            Ok(Closed::Fallback)
        }
    }
}

/// Closes what lies beside a large block in its run.
///
/// # Safety
/// `margin` must hold nothing that anybody uses.
unsafe fn close_margin<M: Memory>(memory: &M, margin: Range, by_mapping: bool) -> VmResult<Closed> {
    // SAFETY: passed on to the caller.
    if by_mapping && margin.len > MARKED_MARGIN && unsafe { memory.protect(margin, Protection::None) }.is_ok()
    {
        return Ok(Closed::AsMeant);
    }
    // SAFETY: passed on to the caller.
    unsafe { close_by_marker(memory, margin) }
}

/// # Safety
/// The caller must own the ranges.
unsafe fn remove_markers<M: Memory>(memory: &M, ranges: &[Range], whole: bool) -> VmResult {
    if whole {
        // SAFETY: passed on to the caller.
        return unsafe { memory.guard_remove_each(ranges) };
    }
    for range in ranges {
        // SAFETY: passed on to the caller.
        unsafe { memory.guard_remove(*range) }?;
    }
    Ok(())
}

/// Opens ranges that are inaccessible by their mapping rather than by markers.
pub(crate) fn open_by_commit<M: Memory>(memory: &M, ranges: &[Range]) -> VmResult {
    for range in ranges.iter().filter(|range| range.len != 0) {
        // SAFETY: the callers own the ranges, which are closed parts of the heap's reservation.
        unsafe { memory.commit(*range) }?;
    }
    Ok(())
}
