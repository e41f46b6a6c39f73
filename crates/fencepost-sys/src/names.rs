//! What a code address is called: the part of the contract that names functions without the program's heap.

/// Where a code address lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodePlace<'a> {
    /// Path of the module's file.
    pub module: &'a [u8],
    /// The function's name as the linker knows it; empty where the module does not tell.
    pub function: &'a [u8],
    /// Bytes from the start of the function, or where that is not known, from the start of the module.
    pub offset: u64,
}

/// Names of code.
///
/// # Signal context
/// May run in the fault handler: no lock is waited for. Reads files.
pub trait Names {
    /// Calls `with` with the place of a code address; false where there is none, or where another thread is reading that
    /// module's names just now.
    fn place_of_code(&self, address: usize, with: &mut dyn FnMut(&CodePlace<'_>)) -> bool;
}
