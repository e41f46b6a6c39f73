//! What `malloc` and its relatives mean, over the guarded heap.
//!
//! [`Malloc`] answers every call of C's and C++'s allocation functions as the C library would: sizes that cannot be,
//! alignments that are none, blocks of no bytes, `realloc` to nothing. It exports no symbol: a library or an executable
//! that wants to stand in the C library's place does that (`fencepost::export_libc!`).
//!
//! Invariants:
//! - a block is known by its address: whatever was decided when it was born, freeing finds its heap;
//! - nothing allocates, nothing panics, and no call of the C library's is made but those of the inner heap.
//!
//! Sources: POSIX.1-2024 malloc(), posix_memalign(), aligned_alloc(); C23 7.24.3; the glibc manual, 3.2.3.
#![no_std]
#![deny(
    clippy::panic,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod inner;

use core::alloc::Layout;
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{AtomicU32, Ordering};

use fencepost_guard::{Content, Door, Family, Freed, Given, Guard, Placed, Resize};
use fencepost_record::AccessType;
use fencepost_sys::Platform;

pub use inner::Inner;

/// Why there is no block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// There is no memory, or no address space could hold so much.
    NoMemory,
    /// The alignment is none.
    Invalid,
}

/// A block, or why there is none.
pub type Result<T = NonNull<u8>> = core::result::Result<T, Failure>;

/// Guards new blocks.
const SERVES: u32 = 0;
/// Hands new blocks out by the inner heap; those that it guarded before stay guarded.
const STANDS_BACK: u32 = 1;
/// The same, and nobody else guards the program: what is handed out is counted.
const DECLINES: u32 = 2;

/// C's and C++'s allocation functions over a runtime, with an inner heap for what is not guarded.
///
/// Each call takes an `anchor`, an address in the stack frame of the outermost function of ours: that frame and
/// younger ones are left out of stacks.
pub struct Malloc<P: Platform, I: Inner> {
    guard: &'static Guard<P>,
    inner: I,
    stance: AtomicU32,
    /// Not 0 when the program has some of C++'s functions of its own, so that families cannot be compared.
    mixed: AtomicU32,
}

impl<P: Platform, I: Inner> Malloc<P, I> {
    /// The functions over a runtime, which starts with the first call.
    pub const fn new(guard: &'static Guard<P>, inner: I) -> Self {
        Malloc { guard, inner, stance: AtomicU32::new(SERVES), mixed: AtomicU32::new(0) }
    }

    /// Guards no further block: somebody else serves this program.
    pub fn stand_back(&self) {
        self.stance.store(STANDS_BACK, Ordering::Release);
        self.guard.stand_aside();
    }

    /// Guards no further block, because of `why`, and owns up to it: an allocator that guards nothing serves the program.
    pub fn decline(&self, why: &str) {
        self.stance.store(DECLINES, Ordering::Release);
        self.guard.decline(why);
    }

    /// Whether new blocks are left to the inner heap.
    #[inline]
    pub fn stands_back(&self) -> bool {
        self.stance.load(Ordering::Acquire) != SERVES
    }

    /// Counts a block that is left to others, where nobody else guards the program.
    pub fn count_left(&self) {
        if self.stance.load(Ordering::Relaxed) == DECLINES {
            self.guard.count_stood_back();
        }
    }

    /// No longer compares which function took a block back with which handed it out.
    pub fn mix_families(&self) {
        self.mixed.store(1, Ordering::Relaxed);
    }

    fn family(&self, family: Family) -> Family {
        if self.mixed.load(Ordering::Relaxed) != 0 { Family::Any } else { family }
    }

    /// Asks the loader for what it has to be asked for, before a program's own search can be under way.
    pub fn prepare(&self) {
        self.inner.prepare();
    }

    /// Starts the runtime, if it has not begun and is to.
    pub fn start(&self) {
        if !self.guard.has_begun() && !self.stands_back() {
            self.guard.start("");
        }
    }

    /// A block of `size` bytes, aligned to `align` (a power of two) at least.
    ///
    /// # Errors
    /// [`Failure::NoMemory`].
    pub fn allocate(&self, size: usize, align: usize, zeroed: bool, family: Family, anchor: usize) -> Result {
        let Ok(layout) = Layout::from_size_align(size, align) else { return Err(Failure::NoMemory) };
        let door = match family {
            Family::C if zeroed => Door::Cleared,
            Family::C if align > self.guard.malloc_align() => Door::Aligned,
            Family::C => Door::C,
            _ => Door::New,
        };
        if self.guard.passes(size, door, || anchor) {
            let block = self.inner.allocate(layout.size(), layout.align(), zeroed);
            return NonNull::new(block).ok_or(Failure::NoMemory);
        }
        if self.stands_back() {
            self.count_left();
            return self.inner_block(layout, zeroed);
        }
        self.guard.note_exported();
        if let Some(block) = self.guard.allocate_at_once(layout, zeroed, self.family(family), anchor) {
            return Ok(block);
        }
        self.start();
        match self.guard.allocate_or_not(layout, zeroed, anchor) {
            Placed::Here(block) => {
                self.guard.mark(block, self.family(family));
                Ok(block)
            }
            Placed::Fail => Err(Failure::NoMemory),
            Placed::Inner => self.inner_block(layout, zeroed),
        }
    }

    fn inner_block(&self, layout: Layout, zeroed: bool) -> Result {
        let block = self.inner.allocate(layout.size(), layout.align(), zeroed);
        self.guard.inner_block();
        NonNull::new(block).ok_or(Failure::NoMemory)
    }

    /// `malloc`, and `operator new` by its family.
    ///
    /// # Errors
    /// [`Failure::NoMemory`].
    #[inline]
    pub fn malloc(&self, size: usize, family: Family, anchor: usize) -> Result {
        self.allocate(size, self.guard.malloc_align(), false, family, anchor)
    }

    /// `calloc`.
    ///
    /// # Errors
    /// [`Failure::NoMemory`], also when the product does not fit.
    pub fn calloc(&self, count: usize, size: usize, anchor: usize) -> Result {
        let bytes = count.checked_mul(size).ok_or(Failure::NoMemory)?;
        self.allocate(bytes, self.guard.malloc_align(), true, Family::C, anchor)
    }

    /// A block aligned as asked, at least as `malloc` would: `posix_memalign`, `aligned_alloc` and the aligned forms
    /// of `operator new`.
    ///
    /// # Errors
    /// [`Failure::Invalid`] when the alignment is no power of two, else [`Failure::NoMemory`].
    pub fn aligned(&self, align: usize, size: usize, family: Family, anchor: usize) -> Result {
        if !align.is_power_of_two() {
            return Err(Failure::Invalid);
        }
        self.allocate(size, align.max(self.guard.malloc_align()), false, family, anchor)
    }

    /// `memalign`, which takes the next power of two for what is none.
    ///
    /// # Errors
    /// [`Failure::NoMemory`], and [`Failure::Invalid`] when there is no such power.
    pub fn memalign(&self, align: usize, size: usize, anchor: usize) -> Result {
        let align = align.max(1).checked_next_power_of_two().ok_or(Failure::Invalid)?;
        self.aligned(align, size, Family::C, anchor)
    }

    /// `posix_memalign`, whose alignment must also hold a pointer.
    ///
    /// # Errors
    /// As [`Malloc::aligned`].
    pub fn posix_memalign(&self, align: usize, size: usize, anchor: usize) -> Result {
        if !align.is_multiple_of(size_of::<usize>()) {
            return Err(Failure::Invalid);
        }
        self.aligned(align, size, Family::C, anchor)
    }

    /// `valloc`; and `pvalloc`, which gives whole pages.
    ///
    /// # Errors
    /// [`Failure::NoMemory`].
    pub fn pages(&self, size: usize, whole: bool, anchor: usize) -> Result {
        let page = self.guard.platform().page_size();
        let size = match whole {
            false => size,
            true => size.max(1).checked_next_multiple_of(page).ok_or(Failure::NoMemory)?,
        };
        self.allocate(size, page, false, Family::C, anchor)
    }

    /// `realloc`. To no bytes, it frees and gives null, as the C library does.
    ///
    /// # Errors
    /// [`Failure::NoMemory`]; the block is as it was.
    ///
    /// # Safety
    /// `block` must be null or a block that this, or the inner heap, handed out. What is wrong about one that is
    /// guarded is reported.
    pub unsafe fn realloc(&self, block: *mut u8, size: usize, anchor: usize) -> Result<*mut u8> {
        let Some(old) = NonNull::new(block) else {
            return self.malloc(size, Family::C, anchor).map(NonNull::as_ptr);
        };
        if size != 0
            && self.guard.is_foreign(block.addr())
            && self.guard.passes(size, Door::ResizeC, || anchor)
        {
            // SAFETY: the runtime says that the block is the inner heap's; the rest is the caller's word.
            return unsafe { self.resize_inner(block, size) };
        }
        let given = Given::nothing(self.family(Family::C));
        if size == 0 {
            // SAFETY: passed on to the caller.
            unsafe { self.release(block, given, AccessType::Realloc, anchor) };
            return Ok(null_mut());
        }
        let held = match self.guard.check_resize(old, given, anchor) {
            Resize::Refuse => return Err(Failure::NoMemory),
            Resize::Move(layout) => layout.size(),
            // Where the runtime leaves most blocks unguarded, this one was asked about above, and it is its turn.
            Resize::Inner if self.guard.is_foreign(block.addr()) => {
                // SAFETY: the runtime says that the block is the inner heap's; the rest is the caller's word.
                return unsafe { self.resize_into_guard(block, size, anchor) };
            }
            // SAFETY: as above.
            Resize::Inner => return unsafe { self.resize_inner(block, size) },
        };
        let target = self.malloc(size, Family::C, anchor)?;
        let moved = target.as_ptr();
        let any = Given::nothing(Family::Any);
        match self.guard.move_content(old, target, [held, size], anchor) {
            Content::Moved => {}
            // SAFETY: both blocks are alive and hold at least as many bytes as are copied; the new one was handed out
            // just now, so they do not overlap.
            Content::Stays => unsafe { core::ptr::copy_nonoverlapping(block, moved, held.min(size)) },
            Content::Refused => {
                // SAFETY: the new block was handed out just now, and nobody has it.
                unsafe { self.release(moved, any, AccessType::Free, anchor) };
                return Err(Failure::NoMemory);
            }
        }
        // SAFETY: the old block is alive, and the caller gives it up.
        unsafe { self.release(block, any, AccessType::Realloc, anchor) };
        Ok(moved)
    }

    /// Makes a guarded block of one of the inner heap's, if the runtime will have it.
    ///
    /// # Safety
    /// As [`Inner::resize`].
    unsafe fn resize_into_guard(&self, block: *mut u8, size: usize, anchor: usize) -> Result<*mut u8> {
        let align = self.guard.malloc_align();
        let layout = Layout::from_size_align(size, align).map_err(|_| Failure::NoMemory)?;
        // SAFETY: the block is one of the inner heap's and alive, by the caller's word.
        let Some(room) = (unsafe { self.inner.room(block) }) else {
            // SAFETY: as above.
            return unsafe { self.resize_inner(block, size) };
        };
        match self.guard.allocate(layout, false, anchor) {
            Placed::Fail => Err(Failure::NoMemory),
            // SAFETY: passed on to the caller.
            Placed::Inner => unsafe { self.resize_inner(block, size) },
            Placed::Here(moved) => {
                self.guard.mark(moved, self.family(Family::C));
                // SAFETY: the old block is alive, by the caller's word, and has room for as much as is copied, as has the
                // new one, which was handed out just now: they do not overlap.
                unsafe {
                    core::ptr::copy_nonoverlapping(block, moved.as_ptr(), room.min(size));
                    self.inner.free(block);
                }
                Ok(moved.as_ptr())
            }
        }
    }

    /// # Safety
    /// As [`Inner::resize`].
    unsafe fn resize_inner(&self, block: *mut u8, size: usize) -> Result<*mut u8> {
        if size > isize::MAX as usize {
            return Err(Failure::NoMemory);
        }
        // SAFETY: passed on to the caller.
        let moved = unsafe { self.inner.resize(block, size) };
        NonNull::new(moved).map(NonNull::as_ptr).ok_or(Failure::NoMemory)
    }

    /// `reallocarray`.
    ///
    /// # Errors
    /// As [`Malloc::realloc`], and when the product does not fit.
    ///
    /// # Safety
    /// As [`Malloc::realloc`].
    pub unsafe fn reallocarray(
        &self,
        block: *mut u8,
        count: usize,
        size: usize,
        anchor: usize,
    ) -> Result<*mut u8> {
        let bytes = count.checked_mul(size).ok_or(Failure::NoMemory)?;
        // SAFETY: passed on to the caller.
        unsafe { self.realloc(block, bytes, anchor) }
    }

    /// `free`, `operator delete` and their sized forms. Null is no block.
    ///
    /// # Safety
    /// As [`Malloc::realloc`].
    #[inline]
    pub unsafe fn free(&self, block: *mut u8, mut given: Given, anchor: usize) {
        given.family = self.family(given.family);
        if let Some(present) = NonNull::new(block)
            && !self.guard.is_foreign(block.addr())
            && self.guard.free_at_once(present, &given, anchor)
        {
            return;
        }
        // SAFETY: passed on to the caller.
        unsafe { self.release(block, given, AccessType::Free, anchor) };
    }

    /// What is not freed at once.
    ///
    /// # Safety
    /// As [`Malloc::realloc`].
    #[inline(never)]
    unsafe fn release(&self, block: *mut u8, given: Given, how: AccessType, anchor: usize) {
        if self.guard.is_foreign(block.addr()) {
            // SAFETY: as below.
            return unsafe { self.inner.free(block) };
        }
        let Some(present) = NonNull::new(block) else { return };
        if self.guard.free_given(present, given, how, anchor) == Freed::Inner {
            // SAFETY: the runtime says that the inner heap handed this block out; the rest is the caller's word.
            unsafe { self.inner.free(block) };
        }
    }

    /// `malloc_usable_size`: exactly what was asked for, because programs write up to it.
    ///
    /// # Safety
    /// As [`Malloc::realloc`].
    pub unsafe fn usable_size(&self, block: *mut u8, anchor: usize) -> usize {
        let Some(present) = NonNull::new(block) else { return 0 };
        match self.guard.size_of_block(present, anchor) {
            Some(size) => size,
            // SAFETY: the block is not the runtime's; the rest is the caller's word.
            None => unsafe {
                self.inner.room(block).or_else(|| {
                    self.inner.prepare();
                    self.inner.room(block)
                })
            }
            .unwrap_or(0),
        }
    }

    /// Whether a block is the runtime's, rather than the inner heap's.
    pub fn owns(&self, block: *mut u8) -> bool {
        self.guard.owns(block as usize)
    }
}
