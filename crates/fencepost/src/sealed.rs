//! A value on pages of its own that is read-only but for the moments in which its owner writes.

use core::fmt;
use core::ops::Deref;
use core::ptr::NonNull;

use fencepost_guard::Purpose;
use fencepost_memory::Reservation;
use fencepost_sys::{Keys, Range};

use crate::closing::Closed;
use crate::runtime::{GUARD, here};
use crate::seals::SealError;

/// Owns a value on pages of its own, which are read-only outside [`Sealed::write`]: a write from anywhere else is a
/// `seal-violation`. Share it as `RwLock<Sealed<T>>`; it is `Send` and `Sync` as `T` is. Where the guard is off the value is
/// kept all the same and nothing is sealed.
///
/// Where the processor has protection keys (Linux on x86_64, `pku`), `write` opens the value to its thread alone, by one
/// change of a register and no system call; all `Sealed` values share the key, so that meanwhile this thread could write to
/// others as well. Elsewhere the pages are open to every thread while `write` runs. [`Sealed::opens_to_one_thread`] says
/// which it is.
///
/// With keys, a signal handler's first read of the value raises a fault, which is let through in silence; a handler that
/// holds SIGSEGV back cannot have it. What a thread is born with inside of `write` it has until its first allocation.
pub struct Sealed<T> {
    /// None while the pages are open, and where the guard is off.
    closed: Option<Closed>,
    /// Whether it is closed by a key.
    is_keyed: bool,
    /// Writes from elsewhere before it was sealed last.
    earlier: u32,
    value: NonNull<T>,
    /// The pages: they go when this does.
    _pages: Reservation,
}

// SAFETY: it owns its value and hands out references by the rules of a plain owner.
unsafe impl<T: Send> Send for Sealed<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Sealed<T> {}

impl<T> Sealed<T> {
    /// Puts a value on pages of its own and seals them.
    ///
    /// # Errors
    /// [`SealError`] says why not. That the guard is off is none.
    #[inline(never)]
    pub fn new(value: T) -> Result<Sealed<T>, SealError> {
        let anchor = here();
        let system = |error: fencepost_memory::MemoryError| SealError::System(Box::new(error));
        let page = fencepost_memory::page_size();
        let too_large = || SealError::System("the value is too large".into());
        let bytes = size_of::<T>().max(1).checked_next_multiple_of(page).ok_or_else(too_large)?;
        let mut pages =
            Reservation::builder(bytes).align(align_of::<T>().max(page)).reserve().map_err(system)?;
        pages.commit(0..bytes).map_err(system)?;
        let place = pages.as_ptr().cast::<T>();
        let place = NonNull::new(place).ok_or(SealError::Empty)?;
        // SAFETY: the pages are committed, long enough and aligned for a T, and nobody else's.
        unsafe { place.write(value) };
        let mut sealed = Sealed { closed: None, is_keyed: false, earlier: 0, value: place, _pages: pages };
        sealed.close(anchor)?;
        Ok(sealed)
    }

    fn close(&mut self, anchor: usize) -> Result<(), SealError> {
        let pages = Range { start: self.value.as_ptr().addr(), len: self.bytes() };
        // SAFETY: the pages are its own, committed, and go after `closed` does; they hold the value and nothing else.
        let closed = |purpose| unsafe { Closed::of_own_pages(purpose, pages, anchor) };
        let keyed = if GUARD.platform().has_write_key() { closed(Purpose::Keyed).ok() } else { None };
        self.is_keyed = keyed.is_some();
        self.closed = match keyed.map_or_else(|| closed(Purpose::Seal), Ok) {
            Ok(closed) => Some(closed),
            Err(SealError::NotGuarding) => None,
            Err(error) => return Err(error),
        };
        Ok(())
    }

    /// The whole pages.
    fn bytes(&self) -> usize {
        let page = fencepost_memory::page_size();
        size_of::<T>().max(1).next_multiple_of(page)
    }

    /// Lets a function change the value. It is sealed again after that, also when the function panics.
    #[inline(never)]
    pub fn write<R>(&mut self, change: impl FnOnce(&mut T) -> R) -> R {
        let way = if self.is_keyed {
            OpenedBy::Key { could_before: GUARD.platform().open_writes() }
        } else {
            let closed = self.closed.take();
            self.earlier = self.earlier.saturating_add(closed.as_ref().map_or(0, Closed::hits));
            OpenedBy::Pages { were_closed: closed.is_some(), anchor: here() }
        };
        let open = Open { sealed: self, way };
        // SAFETY: the value is alive and writable, and the exclusive borrow of its owner makes this the only reference.
        change(unsafe { open.sealed.value.as_mut() })
    }

    /// How many writes from elsewhere there were.
    pub fn violations(&self) -> u32 {
        self.earlier.saturating_add(self.closed.as_ref().map_or(0, Closed::hits))
    }

    /// Whether [`Sealed::write`] opens the value to the thread that calls it and to no other.
    pub fn opens_to_one_thread(&self) -> bool {
        self.is_keyed
    }

    /// How often in this process a thread's view of such values was set right, in silence: in signal handlers, in threads
    /// older than the guard, and in such as were born inside of `write`. 0 without protection keys.
    pub fn set_right() -> u64 {
        GUARD.platform().keys_set_right()
    }

    /// Whether it is sealed: not where the guard is off.
    pub fn is_sealed(&self) -> bool {
        self.closed.is_some()
    }
}

/// How a value was opened.
enum OpenedBy {
    Key { could_before: bool },
    Pages { were_closed: bool, anchor: usize },
}

/// Seals again when it goes.
struct Open<'a, T> {
    sealed: &'a mut Sealed<T>,
    way: OpenedBy,
}

impl<T> Drop for Open<'_, T> {
    fn drop(&mut self) {
        match self.way {
            OpenedBy::Key { could_before } => GUARD.platform().close_writes(could_before),
            OpenedBy::Pages { were_closed: true, anchor } => {
                if let Err(error) = self.sealed.close(anchor) {
                    eprintln!("fencepost: a Sealed value stays writable: {error}");
                }
            }
            OpenedBy::Pages { .. } => {}
        }
    }
}

impl<T> Deref for Sealed<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the value is alive as long as its owner, and nobody has it exclusively while this borrow lasts.
        unsafe { self.value.as_ref() }
    }
}

impl<T: fmt::Debug> fmt::Debug for Sealed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sealed").field(&**self).finish()
    }
}

impl<T> Drop for Sealed<T> {
    fn drop(&mut self) {
        self.closed = None;
        // SAFETY: the value is alive, open, and dropped once: here.
        unsafe { self.value.drop_in_place() };
    }
}
