//! The loader is not asked for unwind tables: the system unwinds by tables of its own, which need no reader of ours.

use super::Host;
use crate::{Code, CodePlace, Loader, Names};

impl Loader for Host {
    fn code_at(&self, _address: usize, _look: &mut dyn FnMut(&Code)) -> bool {
        false
    }

    fn departures(&self) -> Option<u64> {
        None
    }

    fn leave_loader_alone(&self) {}
}

impl Names for Host {
    /// Not read here: reports resolve names by debug information.
    fn place_of_code(&self, _address: usize, _with: &mut dyn FnMut(&CodePlace<'_>)) -> bool {
        false
    }
}
