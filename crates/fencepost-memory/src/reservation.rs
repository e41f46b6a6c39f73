//! A range of addresses, and the memory that is put behind parts of it.
//!
//! Invariants: the list of parts says what the system was told, and is changed only after the system has said yes; a
//! slice is given only of memory that the list holds to be committed and readable (or writable), and every call that
//! changes that takes `&mut self`, so that no slice is alive by then. The guards at both ends are never committed.

mod builder;
mod spans;

use core::marker::PhantomData;
use core::ops::Range as Offsets;
use std::ffi::CString;

pub use builder::{Builder, HugePages};
use spans::{Part, Spans};

use crate::regions::Entry;
use crate::{Action, Host, MemoryError, System};
use fencepost_sys::{Protection, Range, VmError, Wish};

/// What a part of a reservation allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nothing: every access traps, the content stays.
    None,
    /// Reading.
    Read,
    /// Reading and writing.
    ReadWrite,
}

/// A range of addresses of one's own. Dropping it gives everything back.
///
/// Offsets are in bytes from the first usable one. All ranges begin and end at multiples of [`Reservation::unit`].
#[derive(Debug)]
pub struct Reservation<M: System + 'static = Host> {
    memory: &'static M,
    /// All of it, guards included.
    whole: Range,
    base: usize,
    len: usize,
    unit: usize,
    /// The size of the explicit huge pages that are asked for.
    huge: Option<usize>,
    fell_back: Option<MemoryError>,
    parts: Spans,
    name: Option<CString>,
    entry: &'static Entry,
    owned: PhantomData<*mut u8>,
}

// SAFETY: a reservation owns its addresses alone; through `&self` it only reads and only asks the system.
unsafe impl<M: System + 'static> Send for Reservation<M> {}
// SAFETY: as above.
unsafe impl<M: System + 'static> Sync for Reservation<M> {}

impl Reservation {
    /// Takes at least `len` bytes of addresses, with a guard page at each end. They cost no memory.
    ///
    /// # Errors
    /// As [`Builder::reserve`].
    pub fn reserve(len: usize) -> Result<Reservation, MemoryError> {
        Reservation::builder(len).reserve()
    }

    /// The same with alignment, guards, huge pages or a name of choice.
    pub fn builder(len: usize) -> Builder<'static> {
        Builder::new(len)
    }
}

impl<M: System + 'static> Reservation<M> {
    #[expect(clippy::too_many_arguments, reason = "a constructor for one caller")]
    fn assemble(
        memory: &'static M,
        whole: Range,
        base: usize,
        len: usize,
        unit: usize,
        huge: Option<usize>,
        name: Option<CString>,
        entry: &'static Entry,
    ) -> Self {
        Reservation {
            memory,
            whole,
            base,
            len,
            unit,
            huge,
            fell_back: None,
            parts: Spans::new(),
            name,
            entry,
            owned: PhantomData,
        }
    }

    /// Gives a new reservation its name and asks for transparent huge pages; the lack of either is no error.
    fn prepared(mut self, transparent: bool, fell_back: Option<MemoryError>) -> Self {
        self.fell_back = fell_back;
        if transparent {
            self.want_transparent(self.usable());
        }
        self.put_name(self.whole);
        self
    }

    fn want_transparent(&mut self, range: Range) {
        // SAFETY: the range is ours.
        if let Err(error) = unsafe { self.memory.huge_pages(range) } {
            let limit = self.memory.why_refused(Wish::Change, range.len);
            self.fell_back = Some(MemoryError::Refused {
                action: Action::Commit,
                bytes: range.len,
                limit,
                error: Some(error),
            });
        }
    }

    fn put_name(&self, range: Range) {
        if let Some(name) = &self.name {
            // SAFETY: the range is ours. Names are for people who read the list of mappings: none is no error.
            let _ = unsafe { self.memory.set_name(range, name) };
        }
    }

    fn usable(&self) -> Range {
        Range { start: self.base, len: self.len }
    }

    /// Usable bytes of addresses: what was asked for, rounded up to the unit.
    #[expect(clippy::len_without_is_empty, reason = "a reservation is never empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The unit, in bytes, of every range: a page, or a huge page where those were asked for.
    pub fn unit(&self) -> usize {
        self.unit
    }

    /// The first usable byte. It may be read and written through where memory is committed, by those who see to it
    /// that no slice of the same bytes is in use.
    pub fn as_ptr(&self) -> *mut u8 {
        core::ptr::with_exposed_provenance_mut(self.base)
    }

    /// The usable addresses.
    pub fn addresses(&self) -> Offsets<usize> {
        self.base..self.base + self.len
    }

    /// Bytes of memory committed now.
    pub fn committed(&self) -> usize {
        self.parts.committed()
    }

    /// The committed ranges in order, with what they allow.
    pub fn committed_ranges(&self) -> impl Iterator<Item = (Offsets<usize>, Access)> + '_ {
        self.parts.iter().filter_map(|(range, part)| match part {
            Part::Memory(access, _) => Some((range, access)),
            Part::Guard => None,
        })
    }

    /// Bytes that explicit huge pages lie behind.
    pub fn huge_bytes(&self) -> usize {
        let huge = |part| matches!(part, Part::Memory(_, true));
        self.parts.iter().filter(|(_, part)| huge(*part)).map(|(range, _)| range.len()).sum()
    }

    /// Why there are not as many huge pages as were asked for, if something was refused; the last such refusal.
    pub fn fell_back(&self) -> Option<MemoryError> {
        self.fell_back
    }

    /// Bytes that are in memory now: committed memory is filled page by page when it is first touched.
    ///
    /// # Errors
    /// The system's.
    pub fn resident(&self) -> Result<usize, MemoryError> {
        let mut sum = 0;
        for (range, _) in self.parts.iter().filter(|(_, part)| part.is_memory()) {
            let range = self.at(&range);
            sum += self
                .memory
                .resident(range)
                .map_err(|error| self.refused(Action::Count, range.len, Wish::Change, error))?;
        }
        Ok(sum)
    }

    /// Puts memory behind a range: readable, writable, and zero where there was none before.
    ///
    /// # Errors
    /// [`MemoryError`]. What was committed before stays so, and [`Reservation::committed`] is true also after an
    /// error in the middle of a range with gaps.
    pub fn commit(&mut self, range: Offsets<usize>) -> Result<(), MemoryError> {
        self.check(&range)?;
        let parts = self.parts.within(range);
        if parts.iter().any(|(_, part)| *part == Some(Part::Guard)) {
            return Err(MemoryError::Guarded);
        }
        for (part, what) in parts {
            match what {
                Some(Part::Memory(Access::ReadWrite, _)) | Some(Part::Guard) => {}
                Some(Part::Memory(..)) => self.protect(part, Access::ReadWrite)?,
                None => self.fill_gap(part)?,
            }
        }
        Ok(())
    }

    /// Commits a range that is addresses only.
    fn fill_gap(&mut self, part: Offsets<usize>) -> Result<(), MemoryError> {
        let range = self.at(&part);
        let huge = match self.huge {
            None => false,
            Some(size) => {
                // SAFETY: the range is ours, nothing is in it, and it is made of whole units, which are huge pages.
                match unsafe { self.memory.commit_huge(range, size) } {
                    Ok(()) => true,
                    Err(error) => {
                        self.fell_back =
                            Some(self.refused(Action::Commit, range.len, Wish::HugePages(size), error));
                        false
                    }
                }
            }
        };
        if !huge {
            // SAFETY: the range lies within this reservation.
            unsafe { self.memory.commit(range) }
                .map_err(|error| self.refused(Action::Commit, range.len, Wish::Commit, error))?;
            if self.huge.is_some() {
                // SAFETY: as above. Advice: what it cannot have are faster pages.
                let _ = unsafe { self.memory.huge_pages(range) };
            }
        }
        self.parts.set(part, Some(Part::Memory(Access::ReadWrite, huge)));
        self.account();
        Ok(())
    }

    /// Gives the memory behind a range back. It traps, and is zero when it is committed again.
    ///
    /// # Errors
    /// [`MemoryError`]; nothing is changed then.
    pub fn decommit(&mut self, range: Offsets<usize>) -> Result<(), MemoryError> {
        self.clear(range, None)
    }

    /// Makes a range a guard: it traps, and cannot be committed before [`Reservation::decommit`].
    ///
    /// # Errors
    /// [`MemoryError`]; nothing is changed then.
    pub fn guard(&mut self, range: Offsets<usize>) -> Result<(), MemoryError> {
        self.clear(range, Some(Part::Guard))
    }

    fn clear(&mut self, part: Offsets<usize>, what: Option<Part>) -> Result<(), MemoryError> {
        self.check(&part)?;
        let range = self.at(&part);
        if self.parts.within(part.clone()).iter().any(|(_, what)| what.is_some_and(Part::is_memory)) {
            // SAFETY: the range is ours, and `&mut self` says that no slice of it is in use.
            unsafe { self.memory.decommit(range) }
                .map_err(|error| self.refused(Action::Decommit, range.len, Wish::Change, error))?;
            self.put_name(range);
        }
        self.parts.set(part, what);
        self.account();
        Ok(())
    }

    /// Drops the content of committed memory, which stays committed and is zero when next touched. Gives the memory
    /// itself back to the system.
    ///
    /// # Errors
    /// [`MemoryError`]; nothing is changed then.
    pub fn discard(&mut self, range: Offsets<usize>) -> Result<(), MemoryError> {
        self.check_memory(&range)?;
        let range = self.at(&range);
        // SAFETY: the range is ours and committed, and `&mut self` says that no slice of it is in use.
        unsafe { self.memory.discard(range) }
            .map_err(|error| self.refused(Action::Discard, range.len, Wish::Change, error))
    }

    /// Fills committed memory with zero pages now rather than at the first touch.
    ///
    /// # Errors
    /// [`MemoryError`]; some pages may be filled then.
    pub fn populate(&mut self, range: Offsets<usize>) -> Result<(), MemoryError> {
        self.check_memory(&range)?;
        let range = self.at(&range);
        // SAFETY: the range is ours and committed.
        unsafe { self.memory.populate(range) }
            .map_err(|error| self.refused(Action::Commit, range.len, Wish::Commit, error))
    }

    /// Changes what committed memory allows. Its content stays.
    ///
    /// # Errors
    /// [`MemoryError`]; nothing is changed then.
    pub fn protect(&mut self, range: Offsets<usize>, access: Access) -> Result<(), MemoryError> {
        self.check_memory(&range)?;
        let protection = match access {
            Access::None => Protection::None,
            Access::Read => Protection::Read,
            Access::ReadWrite => Protection::ReadWrite,
        };
        let bytes = self.at(&range);
        // SAFETY: the range is ours and committed, and `&mut self` says that no slice of it is in use.
        unsafe { self.memory.protect(bytes, protection) }
            .map_err(|error| self.refused(Action::Protect, bytes.len, Wish::Change, error))?;
        for (part, what) in self.parts.within(range) {
            if let Some(Part::Memory(_, huge)) = what {
                self.parts.set(part, Some(Part::Memory(access, huge)));
            }
        }
        Ok(())
    }

    /// Gives everything back, and says whether the system took it. Dropping does the same in silence.
    ///
    /// # Errors
    /// The system's. It is tried once more before this returns.
    pub fn release(mut self) -> Result<(), MemoryError> {
        let result = self.give_back();
        if result.is_ok() {
            self.whole.len = 0;
        }
        result
    }

    fn give_back(&mut self) -> Result<(), MemoryError> {
        let whole = self.whole;
        // SAFETY: the addresses are ours, and whoever gives a reservation up has no slice of it any more.
        unsafe { self.memory.release(whole) }
            .map_err(|error| self.refused(Action::Release, whole.len, Wish::Change, error))
    }

    /// Bytes of committed, readable memory; `None` where it is not. They need not begin or end at a unit.
    pub fn slice(&self, range: Offsets<usize>) -> Option<&[u8]> {
        self.is_within(&range, |access| access != Access::None).then(|| {
            // SAFETY: every byte is committed and readable, was zero when it was, and stays so while `self` is
            // borrowed; shorter than `isize::MAX` by the builder.
            unsafe { core::slice::from_raw_parts(self.as_ptr().add(range.start), range.len()) }
        })
    }

    /// The same to write to.
    pub fn slice_mut(&mut self, range: Offsets<usize>) -> Option<&mut [u8]> {
        self.is_within(&range, |access| access == Access::ReadWrite).then(|| {
            // SAFETY: as in `slice`, and writable; nobody else has the bytes while `self` is borrowed mutably.
            unsafe { core::slice::from_raw_parts_mut(self.as_ptr().add(range.start), range.len()) }
        })
    }

    fn is_within(&self, range: &Offsets<usize>, allowed: impl Fn(Access) -> bool) -> bool {
        range.start <= range.end
            && range.end <= self.len
            && self
                .parts
                .all(range.clone(), |part| matches!(part, Part::Memory(access, _) if allowed(access)))
    }

    fn at(&self, range: &Offsets<usize>) -> Range {
        Range { start: self.base + range.start, len: range.len() }
    }

    /// A range must lie within, be made of whole units, and not be empty.
    fn check(&self, range: &Offsets<usize>) -> Result<(), MemoryError> {
        if range.start >= range.end || range.end > self.len {
            return Err(MemoryError::OutOfBounds { len: self.len });
        }
        if !range.start.is_multiple_of(self.unit) || !range.end.is_multiple_of(self.unit) {
            return Err(MemoryError::Unaligned { unit: self.unit });
        }
        Ok(())
    }

    fn check_memory(&self, range: &Offsets<usize>) -> Result<(), MemoryError> {
        self.check(range)?;
        if self.parts.all(range.clone(), Part::is_memory) { Ok(()) } else { Err(MemoryError::NotCommitted) }
    }

    fn account(&self) {
        self.entry.set_committed_bytes(self.parts.committed());
    }

    pub(crate) fn entry(&self) -> &'static Entry {
        self.entry
    }

    pub(crate) fn system(&self) -> &'static M {
        self.memory
    }

    fn refused(&self, action: Action, bytes: usize, wish: Wish, error: VmError) -> MemoryError {
        MemoryError::Refused {
            action,
            bytes,
            limit: self.memory.why_refused(wish, bytes),
            error: Some(error),
        }
    }
}

impl<M: System + 'static> Drop for Reservation<M> {
    fn drop(&mut self) {
        // Nobody may find the region by an address that is somebody else's soon.
        self.entry.give_back();
        if self.whole.len != 0 && self.give_back().is_err() {
            // A system that was short of something for a moment gets a second chance; after that the addresses stay
            // taken, which harms nobody.
            let _ = self.give_back();
        }
    }
}
