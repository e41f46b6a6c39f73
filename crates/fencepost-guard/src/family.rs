//! Which functions hand a block out and take it back: malloc's, C++'s two pairs, or Rust's.
//!
//! A block of one family that another takes back is an `alloc-dealloc-mismatch`, also where both end in the same
//! heap: with another allocator, or another build of a library, they would not.

use core::alloc::Layout;
use core::ptr::NonNull;

use fencepost_record::Note;
use fencepost_sys::Platform;

use crate::heap::Found;
use crate::runtime::Guard;

/// A family of allocation functions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Family {
    /// Rust's global allocator.
    #[default]
    Rust,
    /// `malloc`, `free` and what goes with them.
    C,
    /// `operator new` and `operator delete`.
    New,
    /// `operator new[]` and `operator delete[]`.
    NewArray,
    /// Not known, or not to be compared: takes back whatever it is given.
    Any,
}

impl Family {
    pub(crate) const fn of_number(number: u8) -> Family {
        match number {
            0 => Family::Rust,
            1 => Family::C,
            2 => Family::New,
            3 => Family::NewArray,
            _ => Family::Any,
        }
    }

    /// Whether this family may take back what the other handed out.
    pub(crate) fn takes(self, other: Family) -> bool {
        self == other || self == Family::Any || other == Family::Any
    }

    /// The sentence about a block of this family.
    pub(crate) const fn allocated(self) -> Option<Note> {
        match self {
            Family::Rust => Some(Note::AllocatedByRust),
            Family::C => Some(Note::AllocatedByMalloc),
            Family::New => Some(Note::AllocatedByNew),
            Family::NewArray => Some(Note::AllocatedByNewArray),
            Family::Any => None,
        }
    }

    /// The sentence about a free by this family.
    pub(crate) const fn freed(self) -> Option<Note> {
        match self {
            Family::Rust => Some(Note::FreedByRust),
            Family::C => Some(Note::FreedByFree),
            Family::New => Some(Note::FreedByDelete),
            Family::NewArray => Some(Note::FreedByDeleteArray),
            Family::Any => None,
        }
    }
}

/// What the program says about a block that it gives back. What it does not say is not compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Given {
    /// Its size in bytes.
    pub size: Option<usize>,
    /// Its alignment in bytes.
    pub align: Option<usize>,
    /// The functions that take it back.
    pub family: Family,
}

impl Given {
    /// Nothing but the family, as `free` and `operator delete` do.
    pub const fn nothing(family: Family) -> Given {
        Given { size: None, align: None, family }
    }
}

impl From<Layout> for Given {
    fn from(layout: Layout) -> Given {
        Given { size: Some(layout.size()), align: Some(layout.align()), family: Family::Rust }
    }
}

impl<P: Platform> Guard<P> {
    /// Notes which functions hand out a block that was allocated just now; without it, it is Rust's. Does nothing for
    /// a block that is not guarded.
    pub fn mark(&self, block: NonNull<u8>, family: Family) {
        let Some(setup) = self.ready() else { return };
        let address = block.as_ptr() as usize;
        let (index, number) = match self.heap.find(setup.geometry(), address) {
            Found::Small { index, place, .. } => match place.slot_of_block() {
                Some(number) => (index, number),
                None => return,
            },
            Found::Large { index } => (index, 0),
            _ => return,
        };
        if let Some(slot) = self.heap.slot(index, number) {
            slot.set_family(family);
        }
    }
}
