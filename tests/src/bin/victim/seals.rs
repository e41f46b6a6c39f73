//! Writes to memory that was made read-only.

use crate::{Touch, armed, victim_allocates, victim_frees, victim_touches};
use fencepost::memory::page_size;
use std::hint::black_box;

/// The largest page that the processor can have.
const PAGE: usize = if cfg!(target_arch = "aarch64") { 1 << 16 } else { 4096 };

#[cfg_attr(target_arch = "aarch64", repr(align(65536)))]
#[cfg_attr(not(target_arch = "aarch64"), repr(align(4096)))]
struct Page(std::cell::UnsafeCell<[u8; PAGE]>);

// SAFETY: the page is only ever touched through volatile accesses of one thread.
unsafe impl Sync for Page {}

static PAGE_ALIGNED: Page = Page(std::cell::UnsafeCell::new([1; PAGE]));

#[inline(never)]
pub fn victim_seals(at: *mut u8, len: usize) -> fencepost::Seal<'static> {
    // SAFETY: nothing holds a reference to these bytes; they are only read and written through raw pointers.
    let seal = unsafe { fencepost::seal_raw(black_box(at), len) };
    black_box(seal.unwrap_or_else(|error| {
        eprintln!("victim: seal_raw failed to {error}");
        std::process::exit(3);
    }))
}

/// Memory that the heap does not own: a page of a reservation that stays for good.
fn mapping() -> *mut u8 {
    let mut space = fencepost::memory::Reservation::reserve(page_size()).expect("addresses");
    space.commit(0..page_size()).expect("memory");
    let page = space.as_ptr();
    std::mem::forget(space);
    page
}

/// `block|static|mapping|free|unsealed`: seals memory, reads it, and then does what it must not (or may again).
pub fn violate(words: &[&str]) {
    let what = words.first().copied().unwrap_or_default();
    let (at, len) = match what {
        "block" | "free" | "unsealed" => (victim_allocates(100, 4), 100),
        "static" => (PAGE_ALIGNED.0.get().cast::<u8>(), PAGE),
        "mapping" => (mapping(), page_size()),
        _ => {
            eprintln!("victim: seal what?");
            std::process::exit(2);
        }
    };
    // SAFETY: the byte is in memory of ours.
    unsafe { at.wrapping_add(7).write_volatile(0x21) };
    let seal = victim_seals(at, len);
    assert_eq!(victim_touches(at.wrapping_add(7), Touch::Read), 0x21, "reading sealed memory");
    match what {
        "free" => {
            armed();
            victim_frees(at, len, 4);
        }
        "unsealed" => {
            drop(seal);
            victim_touches(at.wrapping_add(7), Touch::Write);
            victim_frees(at, len, 4);
            return;
        }
        _ => {
            armed();
            victim_touches(at.wrapping_add(7), Touch::Write);
        }
    }
    drop(seal);
}
