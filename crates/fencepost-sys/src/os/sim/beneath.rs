//! What the simulated system takes its memory from: the host. Under Miri, which makes no system calls, it is the
//! language's allocator, so that Miri knows each reservation as an object of its own: it is zero from the start, and nothing
//! of it traps, but what is used after its release is an error.

#[cfg(not(miri))]
pub(super) use crate::Host as Beneath;

#[cfg(miri)]
pub(super) use under_miri::Beneath;

#[cfg(miri)]
mod under_miri {
    use std::alloc::{Layout, alloc_zeroed, dealloc};
    use std::collections::BTreeMap;
    use std::sync::{Mutex, PoisonError};

    use crate::{Range, VmError, VmResult};

    /// What was given out, by its first address.
    static TAKEN: Mutex<BTreeMap<usize, Layout>> = Mutex::new(BTreeMap::new());

    /// The calls of `Memory` and `Pages` that the simulated system makes of its host.
    pub(in super::super) struct Beneath;

    impl Beneath {
        pub(in super::super) fn reserve(&self, len: usize, align: usize) -> VmResult<usize> {
            let layout = Layout::from_size_align(len, align).map_err(|_| VmError::Unsupported)?;
            if layout.size() == 0 {
                return Err(VmError::Unsupported);
            }
            // SAFETY: the size is not zero.
            let start = unsafe { alloc_zeroed(layout) }.expose_provenance();
            TAKEN.lock().unwrap_or_else(PoisonError::into_inner).insert(start, layout);
            Ok(start)
        }

        pub(in super::super) fn reserve_at(&self, _range: Range) -> VmResult {
            Err(VmError::OutOfMemory)
        }

        pub(in super::super) unsafe fn commit(&self, _range: Range) -> VmResult {
            Ok(())
        }

        /// A part of what was given out stays taken until the process ends.
        pub(in super::super) unsafe fn release(&self, range: Range) -> VmResult {
            let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
            if taken.get(&range.start).is_some_and(|layout| layout.size() == range.len)
                && let Some(layout) = taken.remove(&range.start)
            {
                // SAFETY: it was allocated with this layout, and the caller has given it up.
                unsafe { dealloc(core::ptr::with_exposed_provenance_mut(range.start), layout) };
            }
            Ok(())
        }

        pub(in super::super) unsafe fn discard(&self, range: Range) -> VmResult {
            let start = core::ptr::with_exposed_provenance_mut::<u8>(range.start);
            // SAFETY: the range is the caller's, within what was given out.
            unsafe { start.write_bytes(0, range.len) };
            Ok(())
        }

        pub(in super::super) fn is_mapped(&self, _range: Range) -> bool {
            false
        }

        /// Of memory of the simulated system's own; of any other it says that it cannot be read.
        pub(in super::super) fn read_checked(&self, address: usize, into: &mut [u8]) -> usize {
            let taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
            let holds = |(start, layout): (&usize, &Layout)| {
                address.wrapping_sub(*start).saturating_add(into.len()) <= layout.size()
            };
            if !taken.range(..=address).next_back().is_some_and(holds) {
                return 0;
            }
            let from = core::ptr::with_exposed_provenance::<u8>(address);
            // SAFETY: the bytes lie within one allocation.
            unsafe { from.copy_to_nonoverlapping(into.as_mut_ptr(), into.len()) };
            into.len()
        }

        pub(in super::super) fn resident(&self, range: Range) -> VmResult<usize> {
            Ok(range.len)
        }

        pub(in super::super) unsafe fn run_on_stack(
            &self,
            _stack: Range,
            work: extern "C" fn(usize),
            argument: usize,
        ) {
            work(argument);
        }
    }
}
