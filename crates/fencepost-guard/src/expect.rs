//! Errors that a test expects: on this thread, until it says otherwise, they are noted and nothing more.
//!
//! What a thread expects is in its own state, so that tests which run side by side do not see each other's errors. While
//! it does, `on_error` is `continue` for it, nothing is written or counted, and every block of its own is guarded
//! whatever mode and filters say.

use core::sync::atomic::Ordering;

use fencepost_record::ErrorKind;
use fencepost_sys::Platform;

use crate::options::OnError;
use crate::report::Case;
use crate::runtime::{Guard, Setup};

/// What was noted while errors were expected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Noted {
    /// One bit a kind, by its number.
    kinds: u32,
    /// Blocks of the thread that were not guarded all the same.
    pub unguarded: u64,
}

impl Noted {
    /// The kinds that were noted.
    pub fn kinds(self) -> impl Iterator<Item = ErrorKind> {
        ErrorKind::ALL.into_iter().filter(move |kind| self.kinds & bit(*kind) != 0)
    }
}

/// What a thread noted before, to be put back: expectations may be nested.
#[derive(Clone, Copy, Debug)]
#[must_use = "the thread goes on expecting errors until this is given to `expect_end`"]
pub struct Expecting {
    before: u32,
    unguarded: u64,
}

/// The bit that says that errors are expected at all.
const EXPECTING: u32 = 1 << 31;

fn bit(kind: ErrorKind) -> u32 {
    1u32.wrapping_shl(kind as u32)
}

impl<P: Platform> Guard<P> {
    /// From here on this thread expects errors; `None` where nothing is guarded.
    pub fn expect_begin(&self) -> Option<Expecting> {
        let state = self.thread(self.ready()?)?;
        state.hold_allowance();
        let before = state.expected.swap(EXPECTING, Ordering::Relaxed);
        Some(Expecting { before, unguarded: self.unguarded_here() })
    }

    /// The end of [`Guard::expect_begin`], and what came between.
    pub fn expect_end(&self, expecting: Expecting) -> Noted {
        let Some(state) = self.thread_if_known() else { return Noted::default() };
        let kinds = state.expected.swap(expecting.before, Ordering::Relaxed) & !EXPECTING;
        state.give_allowance_back();
        Noted { kinds, unguarded: self.unguarded_here().saturating_sub(expecting.unguarded) }
    }

    fn unguarded_here(&self) -> u64 {
        let counted = self.thread_if_known().map(|state| &state.counters.unguarded);
        counted.into_iter().flatten().fold(0, |sum, count| sum.wrapping_add(count.load(Ordering::Relaxed)))
    }

    /// Whether this thread expects errors.
    pub(crate) fn is_expecting(&self) -> bool {
        self.thread_if_known().is_some_and(|state| state.expected.load(Ordering::Relaxed) != 0)
    }

    /// Notes an error that is expected; false where none is.
    pub(crate) fn note_expected(&self, case: &Case) -> bool {
        let Some(state) = self.thread_if_known() else { return false };
        let before = state.expected.load(Ordering::Relaxed);
        if before == 0 {
            return false;
        }
        state.expected.store(before | bit(case.kind), Ordering::Relaxed);
        true
    }

    /// How this thread goes on after an error.
    pub(crate) fn on_error(&self, setup: &Setup) -> OnError {
        if self.is_expecting() { OnError::Continue } else { setup.options.on_error }
    }
}
