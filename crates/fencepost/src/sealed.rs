//! A value on pages of its own that is read-only but for the moments in which its owner writes.

use core::fmt;
use core::ops::Deref;
use core::ptr::NonNull;

use fencepost_guard::Purpose;
use fencepost_memory::Reservation;

use crate::closing::Closed;
use crate::runtime::here;
use crate::seals::SealError;

/// Owns a value on pages of its own, which are read-only outside [`Sealed::write`]: a write from anywhere else is a
/// `seal-violation`. Share it as `RwLock<Sealed<T>>`; it is `Send` and `Sync` as `T` is. Where the guard is off the value is
/// kept all the same and nothing is sealed.
///
/// While `write` runs the pages are open to every thread.
pub struct Sealed<T> {
    /// None while the pages are open, and where the guard is off.
    closed: Option<Closed>,
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
        let mut sealed = Sealed { closed: None, value: place, _pages: pages };
        sealed.close(anchor)?;
        Ok(sealed)
    }

    fn close(&mut self, anchor: usize) -> Result<(), SealError> {
        match Closed::new(Purpose::Seal, self.value.as_ptr().addr(), self.bytes(), anchor) {
            Ok(closed) => self.closed = Some(closed),
            Err(SealError::NotGuarding) => self.closed = None,
            Err(error) => return Err(error),
        }
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
        let anchor = here();
        let was_closed = self.closed.take().is_some();
        let open = Open { sealed: self, was_closed, anchor };
        // SAFETY: the value is alive and writable, and the exclusive borrow of its owner makes this the only reference.
        change(unsafe { open.sealed.value.as_mut() })
    }

    /// How many writes from elsewhere there were since it was last sealed.
    pub fn violations(&self) -> u32 {
        self.closed.as_ref().map_or(0, Closed::hits)
    }

    /// Whether it is sealed: not where the guard is off.
    pub fn is_sealed(&self) -> bool {
        self.closed.is_some()
    }
}

/// Seals again when it goes.
struct Open<'a, T> {
    sealed: &'a mut Sealed<T>,
    was_closed: bool,
    anchor: usize,
}

impl<T> Drop for Open<'_, T> {
    fn drop(&mut self) {
        if self.was_closed
            && let Err(error) = self.sealed.close(self.anchor)
        {
            eprintln!("fencepost: a Sealed value stays writable: {error}");
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
