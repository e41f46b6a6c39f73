//! Thread-local words.

use core::sync::atomic::{AtomicU32, Ordering};

use windows_sys::Win32::System::Threading::{TLS_OUT_OF_INDEXES, TlsAlloc, TlsGetValue, TlsSetValue};

use super::teb::{self, Kept};

/// A thread-local word, which is zero in a new thread.
pub(super) struct Word {
    /// Its index, plus one; 0 before there is one.
    index: AtomicU32,
}

impl Word {
    pub(super) const fn new() -> Word {
        Word { index: AtomicU32::new(0) }
    }

    /// Its index; `None` when the system has none left. The first call, which has to come early, takes one.
    pub(super) fn index(&self) -> Option<u32> {
        if let Some(index) = self.index.load(Ordering::Acquire).checked_sub(1) {
            return Some(index);
        }
        let _kept = Kept::new();
        // SAFETY: the call has no arguments.
        let index = unsafe { TlsAlloc() };
        if index == TLS_OUT_OF_INDEXES {
            return None;
        }
        match self.index.compare_exchange(0, index.wrapping_add(1), Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => Some(index),
            // Another thread was faster. Our index stays unused: it may be in use as soon as it is freed.
            Err(theirs) => theirs.checked_sub(1),
        }
    }

    /// Whether there is one that costs no call.
    pub(super) fn is_plain(&self) -> bool {
        self.index.load(Ordering::Acquire).checked_sub(1).is_some_and(|index| index < teb::SLOTS)
    }

    /// This thread's value.
    pub(super) fn get(&self) -> usize {
        match self.index() {
            Some(index) if index < teb::SLOTS => teb::slot(index),
            Some(index) => {
                let _kept = Kept::new();
                // SAFETY: the index is ours.
                unsafe { TlsGetValue(index) }.addr()
            }
            None => 0,
        }
    }

    /// Sets it.
    pub(super) fn set(&self, word: usize) {
        match self.index() {
            // SAFETY: the index is ours, and below the number of slots.
            Some(index) if index < teb::SLOTS => unsafe { teb::set_slot(index, word) },
            Some(index) => {
                let _kept = Kept::new();
                // SAFETY: the index is ours. It fails only for want of memory, in a thread's first use of a late index.
                unsafe { TlsSetValue(index, word as *const _) };
            }
            None => {}
        }
    }
}
