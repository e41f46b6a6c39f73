//! What a library that switches between stacks must be told of one, besides its addresses.

#[cfg(windows)]
pub use crate::os::switching::{Fields, fields};

/// The methods of `corosensei::stack::Stack` that exist on some systems only, for a type whose `addresses()` are those of a
/// stack that [`Pages::prepare_stack`](crate::Pages::prepare_stack) has prepared.
///
/// On Windows the thread's own block says where its stack is, and whoever switches changes it; elsewhere there are none.
#[macro_export]
#[cfg(windows)]
macro_rules! stack_of_this_system {
    () => {
        fn teb_fields(&self) -> ::corosensei::stack::StackTebFields {
            let addresses = self.addresses();
            let range = $crate::Range { start: addresses.start, len: addresses.len() };
            let fields = $crate::switching::fields(range);
            ::corosensei::stack::StackTebFields {
                StackBase: fields.base,
                StackLimit: fields.limit,
                DeallocationStack: fields.reserved,
                GuaranteedStackBytes: fields.guaranteed,
            }
        }

        // How far the stack has grown, the system is asked each time.
        fn update_teb_fields(&mut self, _limit: usize, _guaranteed: usize) {}
    };
}

/// The methods of `corosensei::stack::Stack` that exist on some systems only: here none.
#[macro_export]
#[cfg(not(windows))]
macro_rules! stack_of_this_system {
    () => {};
}
