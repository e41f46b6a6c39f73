//! Simulated mappings: those that a test names.

use std::vec::Vec;

use super::{Sim, lock};
use crate::{Mappings, Range};

impl Sim {
    /// Says which memory of the program's, but for its guarded blocks, may hold pointers; `None` when the system does not
    /// tell.
    pub fn set_mappings(&self, mappings: Option<Vec<Range>>) {
        *lock(&self.mapped) = mappings;
    }
}

impl Mappings for Sim {
    fn each_mapping(&self, each: &mut dyn FnMut(Range)) -> bool {
        let mapped = lock(&self.mapped).clone();
        mapped.map(|mapped| mapped.into_iter().for_each(each)).is_some()
    }
}
