//! Which pages are written to, by instructions and by the kernel: a part of [`Watchpoints`](crate::Watchpoints).

use crate::{Range, VmResult};

/// Pages that are being noted as they are written to. To be given back to [`Written::end_noting`].
#[derive(Debug)]
#[must_use = "the pages are noted until this is given back"]
#[allow(dead_code, reason = "not every system notes pages")]
pub struct Noting {
    pub(crate) range: Range,
    /// What the backend knows it by.
    pub(crate) number: i32,
}

impl Noting {
    /// The pages.
    pub fn range(&self) -> Range {
        self.range
    }
}

/// Which pages are written to, without a trap and without a word of who does it.
pub trait Written {
    /// Begins to note which pages of a range are written to, by anybody: instructions of any thread, and the kernel in
    /// system calls. Nothing is slower for it but the first write to a page.
    ///
    /// # Errors
    /// [`VmError::Unsupported`](crate::VmError::Unsupported) where the system cannot, or not for this memory; else its own.
    ///
    /// # Safety
    /// The caller must own `range`, and it must stay mapped until [`Written::end_noting`].
    unsafe fn note_written(&self, range: Range) -> VmResult<Noting>;

    /// Calls `each` with the runs of pages that were written to so far, in order.
    ///
    /// # Errors
    /// The system's: then what was called with is not all.
    fn each_written(&self, noting: &Noting, each: &mut dyn FnMut(Range)) -> VmResult;

    /// Ends it.
    fn end_noting(&self, noting: Noting);
}
