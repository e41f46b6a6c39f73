//! Freeing: whose block it is, whether the free is right, and how its memory becomes dead.

mod bury;

use core::alloc::Layout;
use core::ptr::NonNull;
use core::sync::atomic::{Ordering, compiler_fence};

use fencepost_record::{AccessType, Confidence, ErrorKind, Note, Notes, Where};
use fencepost_sys::{Platform, Range};

use crate::allocate::redzones;
use crate::budget::Work;
use crate::diagnose::Beside;
use crate::family::Given;
use crate::geometry::{Geometry, align_down};
use crate::heap::Found;
use crate::options::Mode;
use crate::quick::LOWEST;
use crate::report::{Case, Frames};
use crate::runtime::{Guard, Setup};
use crate::slot::{Act, Slot, SlotState, SlotView};
use crate::threads::{BUSY, ThreadState};

/// Whose block was freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freed {
    /// Ours: it is done.
    Here,
    /// The inner allocator's: it is to free it.
    Inner,
    /// Nobody's: it was reported, and nothing is to be done.
    Nobody,
}

/// A block that a free names, found and not yet checked.
pub(crate) struct Named {
    pub(crate) slot: &'static Slot,
    pub(crate) view: SlotView,
    /// Head of the run, and data pages a slot; 0 for a large block.
    pub(crate) index: usize,
    pub(crate) pages: usize,
    pub(crate) number: usize,
}

impl Named {
    /// The block's size in bytes.
    pub(crate) fn size(&self) -> usize {
        self.view.size
    }
}

impl<P: Platform> Guard<P> {
    /// Frees a block, or says who is to do it. `how` is the program's call: free or realloc. `anchor` is as for
    /// [`Guard::allocate`].
    #[inline(always)]
    pub fn free(&self, block: NonNull<u8>, given: impl Into<Given>, how: AccessType, anchor: usize) -> Freed {
        let given = given.into();
        if self.free_at_once(block, &given, anchor) {
            return Freed::Here;
        }
        self.free_given(block, given, how, anchor)
    }

    /// [`Guard::free`] after [`Guard::free_at_once`] has done nothing.
    #[inline(never)]
    pub fn free_given(&self, block: NonNull<u8>, given: Given, how: AccessType, anchor: usize) -> Freed {
        let address = block.as_ptr() as usize;
        if self.is_foreign(address) {
            return Freed::Inner;
        }
        let Some(setup) = self.ready() else { return Freed::Inner };
        let ours = self.heap.owns(address);
        if !ours && self.arena.owns(address) {
            // SAFETY: the arena gave this block out, and the caller gives it up.
            unsafe { self.arena.free(&self.platform, block) };
            return Freed::Here;
        }
        if !ours && self.may_be_inner(setup, address) {
            return Freed::Inner;
        }
        let state = self.thread(setup);
        let depth = state.map_or(0, |state| state.depth.load(Ordering::Relaxed));
        // A signal handler of the program may have interrupted us while we held a lock.
        let nested = depth != 0 || (state.is_none() && self.platform.thread_word() == BUSY);
        if let Some(state) = state {
            state.depth.store(depth.wrapping_add(1), Ordering::Relaxed);
            compiler_fence(Ordering::SeqCst);
        }
        let freed = if ours {
            let begun = (setup.options.mode == Mode::Budget).then(|| self.platform.now_ns());
            let steady = state.filter(|_| self.frees_steadily() && !nested);
            if !steady.is_some_and(|state| self.free_to_stock(setup, state, address, &given, anchor)) {
                self.free_ours(setup, state, nested, address, given, how, anchor);
            }
            if let Some(begun) = begun {
                self.budget.charge(self.platform.now_ns().saturating_sub(begun), Work::Free);
            }
            Freed::Here
        } else {
            self.report_foreign(setup, address, how, anchor);
            Freed::Nobody
        };
        if let Some(state) = state {
            compiler_fence(Ordering::SeqCst);
            state.depth.store(depth, Ordering::Relaxed);
        }
        freed
    }

    /// Checks a block that is about to be resized, and reports what is wrong with it.
    pub fn check_resize(&self, block: NonNull<u8>, given: impl Into<Given>, anchor: usize) -> Resize {
        self.check_resize_given(block, given.into(), anchor)
    }

    fn check_resize_given(&self, block: NonNull<u8>, given: Given, anchor: usize) -> Resize {
        let Some(setup) = self.ready() else { return Resize::Inner };
        let address = block.as_ptr() as usize;
        if !self.heap.owns(address) {
            if self.arena.owns(address) {
                return self.arena.layout_of(address).map_or(Resize::Refuse, Resize::Move);
            }
            if self.may_be_inner(setup, address) {
                return Resize::Inner;
            }
            self.report_foreign(setup, address, AccessType::Realloc, anchor);
            return Resize::Refuse;
        }
        let frames = Frames::Here(anchor);
        match self.named(setup, address) {
            Ok(named) => {
                self.compare_layout(setup, &named, given, AccessType::Realloc, &frames);
                // Its true layout, whatever the caller believes it to be.
                Layout::from_size_align(named.view.size, named.view.align)
                    .map_or(Resize::Refuse, Resize::Move)
            }
            Err(case) => {
                self.report(setup, &case.how(AccessType::Realloc, address), &frames);
                Resize::Refuse
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one call's facts, each of another type")]
    fn free_ours(
        &self,
        setup: &Setup,
        state: Option<&ThreadState>,
        nested: bool,
        address: usize,
        given: Given,
        how: AccessType,
        anchor: usize,
    ) {
        // Keeping a stack may take the depot's lock.
        let act =
            if nested { Act { ms: self.now(setup), ..Act::default() } } else { self.act(setup, anchor) };
        let frames = Frames::Here(anchor);
        let named = match self.named(setup, address) {
            Ok(named) => named,
            Err(case) => return self.report(setup, &case.how(how, address), &frames),
        };
        self.compare_layout(setup, &named, given, how, &frames);
        if named.slot.seals.load(Ordering::Acquire) != 0 {
            if let Some(seal) = self.seals.of_block(named.slot, named.view.range()) {
                let mut case = Case::of(ErrorKind::SealViolation, how, address);
                case.block = Some(Beside::of(named.view, address));
                case.seal = Some(seal);
                case.notes.add(Note::FreedWhileSealed);
                self.report(setup, &case, &frames);
            }
            self.end_seals_of(named.slot);
        }
        if !named.slot.begin_free() {
            // Somebody else freed it between our look at it and now.
            let mut case = Case::of(ErrorKind::DoubleFree, how, address);
            case.block = Some(Beside::of(self.heap.view(named.slot), address));
            case.notes.add(Note::FreeRace);
            return self.report(setup, &case, &frames);
        }
        self.bury_block(setup, state, nested, &named, act, how, &frames);
    }

    /// The block that an address names, or what is wrong with naming it.
    #[expect(
        clippy::result_large_err,
        reason = "an error is reported at once, and then size does not matter"
    )]
    pub(crate) fn named(&self, setup: &Setup, address: usize) -> Result<Named, Case> {
        let (index, pages, number) = match self.heap.find(setup.geometry(), address) {
            Found::Small { index, pages, place } => {
                (index, pages, place.slot_of_block().unwrap_or(usize::MAX))
            }
            Found::Large { index } => (index, 0, 0),
            Found::Forgotten => {
                let mut case = Case::of(ErrorKind::DoubleFree, AccessType::Free, address);
                case.notes.add(Note::LongFreed);
                case.confidence = Confidence::Low;
                return Err(case);
            }
            _ => return Err(self.never_allocated(setup, address)),
        };
        let Some(slot) = self.heap.slot(index, number) else {
            return Err(self.never_allocated(setup, address));
        };
        let view = self.heap.view(slot);
        let kind = match view.state {
            SlotState::Empty => return Err(self.never_allocated(setup, address)),
            _ if view.pointer != address => ErrorKind::InvalidFree,
            SlotState::Live => return Ok(Named { slot, view, index, pages, number }),
            SlotState::Freeing | SlotState::Freed => ErrorKind::DoubleFree,
        };
        let mut case = Case::of(kind, AccessType::Free, address);
        case.block = Some(Beside::of(view, address));
        if view.state == SlotState::Freeing {
            case.notes.add(Note::FreeRace);
        }
        Err(case)
    }

    fn never_allocated(&self, setup: &Setup, address: usize) -> Case {
        let around = self.surroundings(setup, address);
        let mut case = Case::of(ErrorKind::InvalidFree, AccessType::Free, address);
        case.neighbours =
            [around.below, around.above].map(|slot| slot.filter(|s| s.state != SlotState::Empty));
        case.notes.add(Note::NeverAllocated);
        case
    }

    fn compare_layout(
        &self,
        setup: &Setup,
        named: &Named,
        given: Given,
        how: AccessType,
        frames: &Frames<'_>,
    ) {
        let (size, align) = (named.view.size, named.view.align);
        let (given_size, given_align) = (given.size.unwrap_or(size), given.align.unwrap_or(align));
        let family = named.slot.family();
        let kind = if !given.family.takes(family) {
            ErrorKind::AllocDeallocMismatch
        } else if (given_size, given_align) != (size, align) {
            ErrorKind::LayoutMismatch
        } else {
            return;
        };
        let mut case = Case::of(kind, how, named.view.pointer);
        case.block = Some(Beside { slot: named.view, place: Where::Inside, distance: 0 });
        if kind == ErrorKind::AllocDeallocMismatch {
            for note in [family.allocated(), given.family.freed()].into_iter().flatten() {
                case.notes.add(note);
            }
            return self.report(setup, &case, frames);
        }
        case.given_layout = Some((given_size as u64, given_align as u64));
        if given_size != size {
            case.notes.add(Note::SizeDiffers);
        }
        if given_align != align {
            case.notes.add(Note::AlignDiffers);
        }
        self.report(setup, &case, frames);
    }

    /// The pages of a block.
    fn data_of(&self, setup: &Setup, named: &Named) -> Range {
        if named.pages == 0 {
            return setup.geometry().pages_of(named.view.pointer, named.view.size);
        }
        self.data_of_small(setup, named.index, named.pages, named.number)
    }

    /// The pages of a small slot.
    pub(crate) fn data_of_small(&self, setup: &Setup, index: usize, pages: usize, number: usize) -> Range {
        self.data_in(setup.geometry(), index, pages, number)
    }

    /// The same, for those who have the geometry.
    #[inline(always)]
    pub(crate) fn data_in(&self, geometry: &Geometry, index: usize, pages: usize, number: usize) -> Range {
        let within = geometry.slot_data(pages, number);
        Range { start: self.heap.run_range(index, 1).start.wrapping_add(within.start), len: within.len }
    }

    /// What is damaged around a block that nobody frees meanwhile.
    pub(crate) fn damage(
        &self,
        setup: &Setup,
        view: &SlotView,
        data: Range,
        how: AccessType,
    ) -> Option<Case> {
        if !setup.options.fill || data.len == 0 {
            return None;
        }
        let [before, after] = redzones(view.pointer, view.size, data);
        // SAFETY: the block is alive or ours to free, so its pages are open.
        let (before, after) =
            unsafe { (setup.patterns.find_damage(before), setup.patterns.find_damage(after)) };
        let damage = before.or(after)?;
        // Before the block, the byte nearest to it tells how far the access went; after it, the first.
        let nearest = if damage.start < view.pointer { damage.end().wrapping_sub(1) } else { damage.start };
        let mut case = Case::of(ErrorKind::RedzoneCorruption, how, nearest);
        case.block = Some(Beside::of(*view, nearest));
        case.damage = Some((damage.start as u64, damage.len as u64));
        case.notes.add(Note::FoundLater);
        Some(case)
    }

    /// Whether an address outside the guarded heap can be a block of the inner allocator.
    #[inline]
    fn may_be_inner(&self, setup: &Setup, address: usize) -> bool {
        if address < LOWEST || !is_canonical(address) {
            return false;
        }
        if setup.options.mode.leaves_most() {
            // Nearly every block is the inner allocator's, which has checks of its own.
            return true;
        }
        // Most programs never have such a block, and then no address can be one.
        self.inner_used.load(Ordering::Relaxed) != 0 && self.foreign_notes(address) == Notes::NONE
    }

    /// What speaks against an address being a heap block.
    fn foreign_notes(&self, address: usize) -> Notes {
        let stack = self.thread_if_known().map(ThreadState::stack).unwrap_or_default();
        if stack.contains(address) {
            return Notes::NONE.with(Note::StackAddress);
        }
        if !is_canonical(address) {
            return Notes::NONE.with(Note::NonCanonical);
        }
        let page = self.platform.page_size();
        if !self.platform.is_mapped(Range { start: align_down(address, page), len: page }) {
            return Notes::NONE.with(Note::NothingMapped);
        }
        Notes::NONE
    }

    fn report_foreign(&self, setup: &Setup, address: usize, how: AccessType, anchor: usize) {
        let mut case = Case::of(ErrorKind::InvalidFree, how, address);
        case.notes = self.foreign_notes(address);
        if case.notes == Notes::NONE {
            let mut in_module = false;
            self.platform.each_module(&mut |module| {
                in_module |= (module.start..module.end).contains(&(address as u64));
            });
            if in_module {
                case.notes.add(Note::GlobalAddress);
            }
        }
        let frames = Frames::Here(anchor);
        self.report(setup, &case, &frames);
    }
}

/// What a resize is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resize {
    /// Allocate anew, copy, free: the block is ours, and this is its true layout.
    Move(Layout),
    /// The inner allocator's block.
    Inner,
    /// The block cannot be resized; it was reported.
    Refuse,
}

/// Whether the processor takes an address at all: 47 bits for programs, as Linux gives them out.
pub(crate) const fn is_canonical(address: usize) -> bool {
    address >> 47 == 0
}
