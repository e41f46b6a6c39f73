//! What a C library that is exported over the guard asks beside allocating and freeing.
//!
//! The kernel does not fault on a page that traps: it cuts a call short, or answers `EFAULT`. So who stands between the
//! program and its system calls asks here, before the call, whether the buffer lies within its block.

use core::ptr::NonNull;
use core::sync::atomic::Ordering;

use fencepost_record::{Access, AccessType, ErrorKind, Note};
use fencepost_sys::{Platform, Range};

use crate::diagnose::{Beside, diagnose};
use crate::geometry::align_down;
use crate::options::{MallocAlign, OnError};
use crate::report::{Case, Frames};
use crate::runtime::{Guard, Setup};
use crate::slot::SlotState;

/// The most memory that is opened for one system call that goes on after a report, in bytes.
const OPENED_MAX: usize = 16 << 20;
/// Added to a thread's depth while the inner allocator is called on its behalf.
pub(crate) const INNER_CALL: u32 = 1 << 16;

impl<P: Platform> Guard<P> {
    /// The alignment, in bytes, of a block whose caller asks for none.
    pub fn malloc_align(&self) -> usize {
        self.decided().map_or(MallocAlign::Natural, |setup| setup.options.align).bytes()
    }

    /// Whether an address is in the guarded heap, or in the reporter's memory.
    pub fn owns(&self, address: usize) -> bool {
        self.ready().is_some() && (self.heap.owns(address) || self.arena.owns(address))
    }

    /// Makes this thread known: it gets its state and an alternate stack now rather than at its first allocation.
    pub fn greet_thread(&self) {
        if let Some(setup) = self.ready() {
            // Without a state the thread asks again when it allocates.
            let state = self.thread(setup);
            let _ = state;
        }
    }

    /// Notes that a system call filter is about to come into force, after the system was told to do without what such a
    /// filter may not know: pages that were closed in that way and are not in use yet are left.
    pub fn expect_filter(&self) {
        self.filtered.store(1, Ordering::Relaxed);
        self.moving.give_way();
        self.end_steady();
    }

    /// Notes this thread's name, which has changed.
    pub fn name_thread(&self) {
        if let Some(state) = self.thread_if_known() {
            self.threads.remember(&self.platform, state);
            state.name_check.store(0, Ordering::Relaxed);
        }
    }

    /// Calls `inner` for this thread. Where the inner allocator is the C library and that is exported over this
    /// runtime, it comes back here: the block is then neither guarded nor counted a second time.
    pub fn call_inner<T>(&self, inner: impl FnOnce() -> T) -> T {
        let Some(state) = self.thread_if_known() else { return inner() };
        let depth = state.depth.load(Ordering::Relaxed);
        state.depth.store(depth.wrapping_add(INNER_CALL), Ordering::Relaxed);
        let result = inner();
        state.depth.store(depth, Ordering::Relaxed);
        result
    }

    /// The size of a live block as it was asked for, in bytes; `None` for a block of another allocator. Of a block
    /// that was freed there is none: that is a report, and 0.
    pub fn size_of_block(&self, block: NonNull<u8>, anchor: usize) -> Option<usize> {
        let setup = self.ready()?;
        let address = block.as_ptr() as usize;
        if self.arena.owns(address) {
            return Some(self.arena.layout_of(address).map_or(0, |layout| layout.size()));
        }
        if !self.heap.owns(address) {
            return None;
        }
        match self.named(setup, address) {
            Ok(named) => Some(named.size()),
            Err(case) => {
                let mut case = case.how(AccessType::Read, address);
                case.kind = match case.kind {
                    ErrorKind::DoubleFree => ErrorKind::UseAfterFree,
                    _ => ErrorKind::WildAccess,
                };
                self.report(setup, &case, &Frames::Here(anchor));
                Some(0)
            }
        }
    }

    /// Whether buffers are to be looked at with [`Guard::check_buffer`].
    #[inline]
    pub fn checks_buffers(&self) -> bool {
        self.ready().is_some_and(|setup| setup.options.syscalls)
    }

    /// Reports a buffer that the kernel is about to read or write and that reaches out of its block, or whose block
    /// was freed. Where the program goes on after a report, the memory is open after this, so that the call has the
    /// effect it would have had. `anchor` is as for [`Guard::allocate`].
    #[inline]
    pub fn check_buffer(&self, address: usize, len: usize, access: AccessType, anchor: usize) {
        if len == 0 || !(self.heap.owns(address) || self.seals.were_used()) {
            return;
        }
        if let Some(setup) = self.ready()
            && setup.options.syscalls
        {
            self.check_our_buffer(setup, address, len, access, anchor);
        }
    }

    fn check_our_buffer(&self, setup: &Setup, address: usize, len: usize, access: AccessType, anchor: usize) {
        // The reporter writes reports by system calls of its own; what it works on is not the program's doing.
        if self.reporter.owner.load(Ordering::Relaxed) == self.platform.thread_id() {
            return;
        }
        if self.before_call_on_closed(setup, Range { start: address, len }, access, anchor)
            || !self.heap.owns(address)
        {
            return;
        }
        let here = self.surroundings(setup, address).here;
        let live = here
            .filter(|slot| slot.state == SlotState::Live && slot.pointer <= address && address < slot.end());
        let bad = match live {
            Some(slot) if len <= slot.end().wrapping_sub(address) => return,
            Some(slot) => slot.end(),
            None => address,
        };
        let finding = diagnose(&self.surroundings(setup, bad), bad, access);
        let touched = Access { kind: access, address: Some(address as u64), size: u32::try_from(len).ok() };
        let mut case = Case::of_finding(&finding, touched, None);
        if let Some(slot) = live {
            case.kind = ErrorKind::HeapBufferOverflow;
            case.block = Some(Beside::of(slot, bad));
            case.neighbours = [None; 2];
        }
        self.report_buffer(setup, case, address, len, anchor);
    }

    fn report_buffer(&self, setup: &Setup, mut case: Case, address: usize, len: usize, anchor: usize) {
        case.notes.add(Note::BeforeSystemCall);
        let goes_on = self.on_error(setup) == OnError::Continue;
        if goes_on {
            case.notes.add(Note::PageOpened);
        }
        self.report(setup, &case, &Frames::Here(anchor));
        if goes_on {
            self.open_for_call(setup, address, len.min(OPENED_MAX));
        }
    }

    /// Opens every page of a buffer, so that a system call has the effect it would have had.
    fn open_for_call(&self, setup: &Setup, address: usize, len: usize) {
        let page = setup.geometry().page();
        let last = address.wrapping_add(len.wrapping_sub(1));
        let mut at = align_down(address, page);
        while at <= last && self.heap.owns(at) {
            // Where it cannot be opened the kernel cuts the call short, as it would have without a report.
            let opened = self.open_heap_page(setup, at);
            let _ = opened;
            at = at.wrapping_add(page);
        }
    }
}
