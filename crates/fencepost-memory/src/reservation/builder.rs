//! How a reservation is to be: length, alignment, guards, huge pages, name.

use std::ffi::CString;

use super::Reservation;
use crate::regions::{Entry, RegionKind};
use crate::{Action, HOST, Host, Limit, MemoryError, System, VmError, round_up};
use fencepost_sys::{Range, Wish};

/// Which pages a reservation is to be made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum HugePages {
    /// The system's ordinary pages.
    #[default]
    No,
    /// Huge pages where the system finds it can make some: the reservation is aligned for them, and the system is
    /// asked. It falls back to ordinary pages by itself, page by page. Where it never makes any, the reservation is one of
    /// ordinary pages, and [`Reservation::fell_back`] says so.
    Transparent,
    /// Huge pages of this many bytes, a power of two larger than a page, from the stock that the administrator has set
    /// aside. Where the stock cannot fill a commit, that commit falls back to transparent huge pages, and those to ordinary ones;
    /// [`Reservation::fell_back`] says so, and [`Reservation::huge_bytes`] how much was had.
    ///
    /// On Windows (large pages) there is no stock, and they come with their addresses: the whole reservation takes memory
    /// at once, which is never paged out nor given back before the end, and traps where it is not committed. It takes a right
    /// of the account's; without it, or without enough free memory in whole pieces, all pages are ordinary.
    Explicit(usize),
}

/// What to reserve: made by [`Reservation::builder`], ended by [`Builder::reserve`].
#[derive(Clone, Debug)]
#[must_use = "nothing is reserved before `reserve` is called"]
pub struct Builder<'a, M: System + 'static = Host> {
    memory: &'static M,
    len: usize,
    align: usize,
    guard: usize,
    huge: HugePages,
    name: &'a str,
    kind: RegionKind,
}

impl Builder<'_> {
    pub(super) fn new(len: usize) -> Self {
        Builder::on(&HOST, len)
    }
}

impl<'a, M: System + 'static> Builder<'a, M> {
    /// The same on another system than the one this runs on: for tests on a simulated one.
    #[doc(hidden)]
    pub fn on(memory: &'static M, len: usize) -> Self {
        let guard = memory.granularity();
        Builder { memory, len, align: 1, guard, huge: HugePages::No, name: "", kind: RegionKind::Reservation }
    }

    /// Aligns the first byte to a power of two, in bytes. At least a page, or a huge page where those are wanted.
    pub fn align(mut self, align: usize) -> Self {
        self.align = align;
        self
    }

    /// How many bytes before the first and after the last stay closed for good, rounded up to pages: one page unless
    /// said. 0 for none.
    pub fn guard_bytes(mut self, bytes: usize) -> Self {
        self.guard = bytes;
        self
    }

    /// Which pages are wanted.
    pub fn huge_pages(mut self, huge: HugePages) -> Self {
        self.huge = huge;
        self
    }

    /// A name, which [`crate::regions`], reports and, where the system can, its list of mappings show.
    pub fn name<'b>(self, name: &'b str) -> Builder<'b, M> {
        let Builder { memory, len, align, guard, huge, kind, .. } = self;
        Builder { memory, len, align, guard, huge, name, kind }
    }

    pub(crate) fn kind(mut self, kind: RegionKind) -> Self {
        self.kind = kind;
        self
    }

    /// Takes the addresses. They trap and cost no memory until they are committed.
    ///
    /// # Errors
    /// [`MemoryError::Refused`] with the limit that was hit; [`MemoryError::BadSize`]; [`MemoryError::BadName`].
    pub fn reserve(self) -> Result<Reservation<M>, MemoryError> {
        let page = self.memory.page_size();
        if matches!(self.huge, HugePages::Explicit(size) if !size.is_power_of_two() || size <= page) {
            return Err(MemoryError::BadSize);
        }
        let (unit, asked, advice) = self.unit(page);
        let name = match self.name {
            "" => None,
            name => Some(CString::new(format!("fencepost:{name}")).map_err(|_| MemoryError::BadName)?),
        };
        let sizes = (|| {
            let len = round_up(self.len, unit).filter(|len| *len != 0)?;
            let guard = round_up(self.guard, page)?;
            // The first byte comes right after the guard and is aligned: so the guard is widened to the alignment.
            let align = self.align.max(unit);
            if !self.align.is_power_of_two() {
                return None;
            }
            let head = if guard == 0 { 0 } else { round_up(guard, align)? };
            let whole = head.checked_add(len)?.checked_add(guard)?;
            (whole <= isize::MAX as usize).then_some((len, guard, head, whole, align))
        })();
        let Some((len, guard, head, whole, align)) = sizes else {
            return Err(match self.len {
                0 => MemoryError::BadSize,
                _ if !self.align.is_power_of_two() => MemoryError::BadSize,
                bytes => self.refused(bytes, Limit::Addresses { limit: 1 << 47 }, None),
            });
        };
        let start = match self.addresses([head, len, guard], whole, align) {
            Ok(start) => start,
            Err(error) => {
                let limit = self.memory.why_refused(Wish::Reserve, whole);
                return Err(self.refused(self.len, limit, Some(error)));
            }
        };
        let base = start + head;
        let whole = Range { start, len: whole };
        let entry = Entry::take(self.kind, base, len, [head, guard], self.name);
        let reservation = Reservation::assemble(self.memory, whole, base, len, unit, asked, name, entry);
        let none = self.huge == HugePages::Transparent && !advice;
        let fell_back = none.then(|| self.refused_pages(Limit::TransparentHugePages));
        Ok(reservation.prepared(advice, fell_back))
    }

    /// With huge pages where these come with their addresses; what keeps them away is told when the first are committed.
    fn addresses(&self, parts: [usize; 3], whole: usize, align: usize) -> Result<usize, VmError> {
        if let HugePages::Explicit(page) = self.huge
            && let Ok(start) = self.memory.reserve_huge(parts, align, page)
        {
            return Ok(start);
        }
        self.memory.reserve(whole, align)
    }

    fn refused(&self, bytes: usize, limit: Limit, error: Option<VmError>) -> MemoryError {
        MemoryError::Refused { action: Action::Reserve, bytes, limit, error }
    }

    fn refused_pages(&self, limit: Limit) -> MemoryError {
        MemoryError::Refused { action: Action::Commit, bytes: self.len, limit, error: None }
    }

    /// The unit of commit, the size of explicit huge pages to ask for, and whether to ask for transparent ones.
    fn unit(&self, page: usize) -> (usize, Option<usize>, bool) {
        let transparent = || self.memory.transparent_page_size().filter(|size| size.is_power_of_two());
        match self.huge {
            HugePages::No => (page, None, false),
            HugePages::Transparent => (transparent().unwrap_or(page), None, transparent().is_some()),
            HugePages::Explicit(size) => (size, Some(size), false),
        }
    }
}
