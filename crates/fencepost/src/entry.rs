//! What the allocator type asks of the runtime where a block does not pass at once.
//!
//! The type is generic over the inner allocator, so its code is made in the program's own crate and with that crate's
//! optimisation; and so is every generic function of the runtime that it names, down to the last. In a dev build that would
//! be the whole way of a block, whatever `[profile.dev.package."*"]` says. So these functions are neither generic nor inlined
//! there: what lies behind them is compiled with this crate. A build for release has them inlined.

use core::alloc::Layout;
use core::ptr::NonNull;

use fencepost_guard::{Content, Door, Family, Freed, Placed, Resize};
use fencepost_record::AccessType;

use crate::runtime::{GUARD, begin};

/// As [`fencepost_guard::Guard::allocate_at_once`].
///
/// # Safety
/// Size and alignment must be those of a layout.
#[cfg_attr(not(debug_assertions), inline(always))]
pub(crate) unsafe fn allocate_at_once(
    size: usize,
    align: usize,
    zeroed: bool,
    anchor: usize,
) -> Option<NonNull<u8>> {
    // SAFETY: the caller's promise.
    let layout = unsafe { Layout::from_size_align_unchecked(size, align) };
    GUARD.allocate_at_once(layout, zeroed, Family::Rust, anchor)
}

/// What is not allocated at once: a block, or who is to serve it. Starts the runtime with these options if it has not begun.
///
/// # Safety
/// Size and alignment must be those of a layout.
#[cfg_attr(not(debug_assertions), inline(always))]
pub(crate) unsafe fn allocate(
    size: usize,
    align: usize,
    zeroed: bool,
    anchor: usize,
    options: &'static str,
) -> Placed {
    // SAFETY: the caller's promise.
    let layout = unsafe { Layout::from_size_align_unchecked(size, align) };
    if !GUARD.has_begun() {
        begin(options);
    }
    GUARD.allocate_or_not(layout, zeroed, anchor)
}

/// As [`fencepost_guard::Guard::passes`].
#[cfg_attr(not(debug_assertions), inline(always))]
pub(crate) fn passes(size: usize, door: Door, anchor: usize) -> bool {
    GUARD.passes(size, door, || anchor)
}

/// As [`fencepost_guard::Guard::free_at_once`]; nothing is done for a null pointer, too.
///
/// # Safety
/// Size and alignment must be those of a layout.
#[cfg_attr(not(debug_assertions), inline(always))]
pub(crate) unsafe fn free_at_once(block: *mut u8, size: usize, align: usize, anchor: usize) -> bool {
    let Some(present) = NonNull::new(block) else { return true };
    // SAFETY: the caller's promise.
    let layout = unsafe { Layout::from_size_align_unchecked(size, align) };
    GUARD.free_at_once(present, &layout.into(), anchor)
}

/// What is not freed at once; whether the inner allocator is to do it.
///
/// # Safety
/// Size and alignment must be those of a layout.
#[cfg_attr(not(debug_assertions), inline(always))]
pub(crate) unsafe fn free(block: *mut u8, size: usize, align: usize, how: AccessType, anchor: usize) -> bool {
    let Some(present) = NonNull::new(block) else { return false };
    // SAFETY: the caller's promise.
    let layout = unsafe { Layout::from_size_align_unchecked(size, align) };
    GUARD.free_given(present, layout.into(), how, anchor) == Freed::Inner
}

/// As [`fencepost_guard::Guard::check_resize`].
#[cfg_attr(not(debug_assertions), inline(always))]
pub(crate) fn check_resize(block: NonNull<u8>, layout: Layout, anchor: usize) -> Resize {
    GUARD.check_resize(block, layout, anchor)
}

/// As [`fencepost_guard::Guard::move_content`].
#[cfg_attr(not(debug_assertions), inline(always))]
pub(crate) fn move_content(from: NonNull<u8>, to: NonNull<u8>, sizes: [usize; 2], anchor: usize) -> Content {
    GUARD.move_content(from, to, sizes, anchor)
}
