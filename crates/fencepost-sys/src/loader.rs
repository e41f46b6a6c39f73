//! What fencepost asks of the loader: the part of the contract that has nothing to do with memory or faults.

use crate::Range;

/// Code that the loader has mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code {
    /// Its sorted table of unwind information (`.eh_frame_hdr`).
    pub index: Range,
    /// The mapped bytes that the index lies in: what it points to is looked for there.
    pub segment: Range,
    /// Whether it stays as long as the process does.
    pub lasting: bool,
    /// What [`Loader::departures`] was meanwhile.
    pub departures: u64,
}

/// What the system's loader has mapped.
///
/// # Signal context
/// Not in the fault handler: the loader's lock is taken, which the interrupted thread may hold.
pub trait Loader {
    /// Calls `look` with the module that an address lies in, which stays mapped meanwhile. False where there is no such
    /// module, or it has no unwind information, or the loader must not be asked.
    fn code_at(&self, address: usize, look: &mut dyn FnMut(&Code)) -> bool;

    /// How many modules have gone so far: while it stays the same, what was told of any code still holds. `None` where
    /// the loader must not be asked.
    fn departures(&self) -> Option<u64>;

    /// In the child of a fork of several threads: another one may have held the loader's lock, so it is not taken again.
    fn leave_loader_alone(&self);
}
