//! Pointers that never came from an allocation.

use crate::{Touch, armed, victim_allocates, victim_frees, victim_touches};
use std::hint::black_box;

static GLOBAL: [u64; 8] = [7; 8];

/// `interior|stack|global|null-page|wild`: frees what nobody allocated.
pub fn invalid_free(words: &[&str]) {
    let block = victim_allocates(64, 8);
    let local = [0u64; 8];
    let pointer: *mut u8 = match words.first() {
        Some(&"interior") => block.wrapping_add(16),
        Some(&"stack") => black_box(&raw const local).cast_mut().cast(),
        Some(&"global") => black_box(&raw const GLOBAL).cast_mut().cast(),
        Some(&"wild") => unmapped_page(),
        Some(&"non-canonical") => std::ptr::without_provenance_mut(black_box(0x0101_0101_0101_0108)),
        _ => {
            eprintln!("victim: which pointer?");
            std::process::exit(2);
        }
    };
    armed();
    victim_frees(pointer, 64, 8);
    black_box(local);
}

/// Reads through a pointer that no processor can follow.
pub fn non_canonical() {
    armed();
    victim_touches(std::ptr::without_provenance_mut(0x4141_4141_4141_4141), Touch::Read);
}

/// Reads a field of a structure at address zero.
pub fn null() {
    armed();
    victim_touches(std::ptr::without_provenance_mut(0x18), Touch::Read);
}

/// A page that was reserved and is no longer.
fn unmapped_page() -> *mut u8 {
    const LEN: usize = 1 << 20;
    let space = fencepost::memory::Reservation::reserve(LEN).expect("addresses");
    let page = space.as_ptr();
    drop(space);
    page.wrapping_add(LEN / 2)
}

/// Writes where nothing is mapped.
pub fn wild() {
    let nowhere = unmapped_page();
    armed();
    victim_touches(nowhere, Touch::Write);
}

/// Follows a pointer that was read from memory before anything was written there.
pub fn fill_pattern() {
    let block = victim_allocates(64, 8);
    // SAFETY: the eight bytes are the block's own. That they were never written is the bug; the guard filled them.
    let garbage: *mut u8 = unsafe { black_box(block).cast::<*mut u8>().read_volatile() };
    armed();
    victim_touches(garbage, Touch::Read);
}
