//! Resizing a large block: its pages move to the new place instead of being copied.
//!
//! A move costs microseconds where copying costs milliseconds, and leaves the old place empty, so that it can trap. The
//! pages fit only if the block begins at the same place within a page in both, as it does under `place=right` when the
//! size changes by whole pages.

use core::ptr::NonNull;
use core::sync::atomic::Ordering;

use fencepost_record::AccessType;
use fencepost_sys::{Moved, Platform, Range};

use crate::allocate::redzones;
use crate::free::Named;
use crate::report::Frames;
use crate::runtime::{Guard, Setup};

/// The pages of a block were moved away: [`crate::span::Span::moved`].
const MOVED: u32 = 1;
/// Some addresses of the run are somebody else's. It is not ours any more once its block has been freed.
const LOST: u32 = 2;

/// What became of a block's content when it was to move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// It is in the new block. The old one is to be freed, and not to be touched before.
    Moved,
    /// It is where it was: the caller is to copy it.
    Stays,
    /// It is where it was, and the new block cannot be used: it is to be freed, and the resize to be refused.
    Refused,
}

impl<P: Platform> Guard<P> {
    /// Moves the content of a block that is being resized to a block that was allocated for it just now. `sizes` are the
    /// old and the new size in bytes.
    #[inline]
    pub fn move_content(
        &self,
        from: NonNull<u8>,
        to: NonNull<u8>,
        sizes: [usize; 2],
        anchor: usize,
    ) -> Content {
        match self.ready() {
            Some(setup) if sizes.iter().all(|size| *size > setup.geometry().small_bytes_max()) => {
                self.move_large(setup, from, to, anchor)
            }
            _ => Content::Stays,
        }
    }

    #[cold]
    fn move_large(&self, setup: &Setup, from: NonNull<u8>, to: NonNull<u8>, anchor: usize) -> Content {
        let (from, to) = (from.as_ptr() as usize, to.as_ptr() as usize);
        let page = setup.geometry().page();
        let alike = (from ^ to) & page.wrapping_sub(1) == 0;
        let (Some(old), Some(new), true) = (self.mapped(setup, from), self.mapped(setup, to), alike) else {
            return Content::Stays;
        };
        // A free of the old block waits, and so does a check of either.
        if !old.slot.begin_check() {
            return Content::Stays;
        }
        let data = setup.geometry().pages_of(old.view.pointer, old.view.size);
        let found = self.damage(setup, &old.view, data, AccessType::Realloc);
        if let Some(case) = &found {
            self.report(setup, case, &Frames::Here(anchor));
        }
        let target = setup.geometry().pages_of(new.view.pointer, new.view.size);
        // The sides of the block travel with its pages: a damaged one is laid anew below, a seal is looked at here.
        let is_sealed = old.slot.seals.load(Ordering::Acquire) != 0;
        let content = if is_sealed { Content::Stays } else { self.move_pages(&old, data, &new, target) };
        if content == Content::Moved && setup.options.fill {
            for zone in redzones(new.view.pointer, new.view.size, target) {
                // SAFETY: the pages belong to the new block alone, and the zone to none of its bytes.
                unsafe { setup.patterns.lay_redzone(zone) };
            }
        }
        old.slot.end_check();
        content
    }

    fn move_pages(&self, old: &Named, data: Range, new: &Named, target: Range) -> Content {
        // A child made meanwhile would find a hole where the pages were.
        let held = self.heap.lock_for_fork().hold(&self.platform);
        // SAFETY: both are the pages of blocks that are alive: the old one's is given up by the caller, and the new one's
        // holds nothing yet.
        let moved = unsafe { self.platform.remap(data, target) };
        let note = |index: usize, what: u32| {
            if let Some(span) = self.heap.span(index) {
                span.moved.store(what, Ordering::Release);
            }
        };
        let content = match moved {
            Ok(Moved::Whole) => {
                note(old.index, MOVED);
                Content::Moved
            }
            Ok(Moved::FromLost) => {
                note(old.index, LOST);
                Content::Moved
            }
            Ok(Moved::ToLost) => {
                note(new.index, LOST);
                Content::Refused
            }
            Err(_) => Content::Stays,
        };
        drop(held);
        content
    }

    /// A live large block whose run is closed by mappings.
    fn mapped(&self, setup: &Setup, address: usize) -> Option<Named> {
        let named = self.named(setup, address).ok().filter(|named| named.pages == 0)?;
        let span = self.heap.span(named.index)?;
        (span.mapped.load(Ordering::Relaxed) != 0).then_some(named)
    }

    /// Whether some addresses of a run are somebody else's.
    pub(crate) fn is_lost(&self, index: usize) -> bool {
        self.heap.span(index).is_some_and(|span| span.moved.load(Ordering::Acquire) == LOST)
    }

    /// Whether the pages of a run's block were moved away.
    pub(crate) fn was_moved(&self, index: usize) -> bool {
        self.heap.span(index).is_some_and(|span| span.moved.load(Ordering::Acquire) != 0)
    }
}
