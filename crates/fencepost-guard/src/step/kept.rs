//! Pages whose content is kept after a step, so that a program reads back what it wrote.

use fencepost_sys::atomic::{AtomicUsize, Ordering};

/// How many.
const KEPT: usize = 256;

/// Their addresses, each in one of a few places from where its number points.
pub(super) struct Kept {
    pages: [AtomicUsize; KEPT],
}

impl Kept {
    pub(super) const fn new() -> Self {
        Kept { pages: [const { AtomicUsize::new(0) }; KEPT] }
    }

    /// Whether the content of a page is kept; notes it if there is room.
    pub(super) fn keep(&self, page: usize, page_bytes: usize) -> bool {
        self.places(page, page_bytes).any(|place| {
            let known = place.load(Ordering::Relaxed);
            known == page
                || (known == 0
                    && place.compare_exchange(0, page, Ordering::Relaxed, Ordering::Relaxed).is_ok())
        })
    }

    /// Whether the content of a page is kept.
    pub(super) fn has(&self, page: usize, page_bytes: usize) -> bool {
        self.places(page, page_bytes).any(|place| place.load(Ordering::Relaxed) == page)
    }

    fn places(&self, page: usize, page_bytes: usize) -> impl Iterator<Item = &AtomicUsize> {
        let number = page.checked_div(page_bytes.max(1)).unwrap_or(0);
        let from = number.wrapping_mul(0x9e37_79b9) % KEPT;
        self.pages.iter().cycle().skip(from).take(8)
    }
}
