//! What is mapped into the process, for a search through all of its memory.

use crate::Range;

/// The process's mappings.
///
/// # Signal context
/// May run in the fault handler.
pub trait Mappings {
    /// Calls `each` with every mapping that may hold pointers of the program's and can be read without side effects:
    /// what is writable, and what was before it was protected (relocated data of modules). False when the system does
    /// not tell what there is.
    fn each_mapping(&self, each: &mut dyn FnMut(Range)) -> bool;
}
