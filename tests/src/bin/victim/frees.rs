//! Wrong frees, and accesses after a free.

use crate::{Touch, armed, layout, number, victim_allocates, victim_frees, victim_touches};
use std::hint::black_box;

/// `read|write SIZE OFFSET PAIRS`: touches a block after its free and after `PAIRS` other blocks came and went.
pub fn use_after_free(words: &[&str]) {
    let (touch, size, offset, pairs) =
        (Touch::from(words.first()), number(words, 1), number(words, 2), number(words, 3));
    let block = victim_allocates(size, 8);
    victim_frees(block, size, 8);
    for index in 0..pairs {
        let size = 1 + index % 200;
        let other = victim_allocates(size, 8);
        assert_ne!(other, block, "the address was handed out again after {index} frees");
        victim_frees(other, size, 8);
    }
    armed();
    victim_touches(block.wrapping_add(offset), touch);
}

/// `SIZE OFFSET PAIRS`: writes to a block after its free; then `PAIRS` other blocks come and go.
pub fn write_after_free(words: &[&str]) {
    let (size, offset, pairs) = (number(words, 0), number(words, 1), number(words, 2));
    let block = victim_allocates(size, 8);
    victim_frees(block, size, 8);
    armed();
    victim_touches(block.wrapping_add(offset), Touch::Write);
    for index in 0..pairs {
        let size = 1 + index % 200;
        victim_frees(victim_allocates(size, 8), size, 8);
    }
    if pairs == 0 {
        std::process::exit(0);
    }
}

#[inline(never)]
fn victim_resizes(block: *mut u8, new_size: usize) -> *mut u8 {
    // SAFETY: the layout is right; the block may be dead on purpose.
    black_box(unsafe { std::alloc::realloc(black_box(block), layout(24, 8), new_size) })
}

/// Touches the old place of a block that was resized.
pub fn use_after_realloc() {
    let block = victim_allocates(24, 8);
    let moved = victim_resizes(block, 48);
    armed();
    victim_touches(block.wrapping_add(3), Touch::Read);
    victim_frees(moved, 48, 8);
}

#[inline(never)]
fn victim_resizes_large(block: *mut u8, size: usize, new_size: usize) -> *mut u8 {
    // SAFETY: the layout is right.
    black_box(unsafe { std::alloc::realloc(black_box(block), layout(size, 8), new_size) })
}

/// `OLD NEW OFFSET`: touches the old place of a large block whose content has moved to the new one.
pub fn use_after_growth(words: &[&str]) {
    let (old, new, offset) = (number(words, 0), number(words, 1), number(words, 2));
    let block = victim_allocates(old, 8);
    // SAFETY: the block has that many bytes.
    unsafe { block.write_bytes(0x42, old) };
    let moved = victim_resizes_large(block, old, new);
    // SAFETY: the first bytes of the new block are those of the old one.
    assert!((0..old.min(new)).all(|at| unsafe { moved.add(at).read() } == 0x42), "the content moves");
    armed();
    victim_touches(block.wrapping_add(offset), Touch::Read);
    victim_frees(moved, new, 8);
}

#[inline(never)]
fn victim_calls(code: *mut u8) -> usize {
    // SAFETY: none: the block is dead, and was never code. This is the bug.
    let function: extern "C" fn() -> usize = unsafe { std::mem::transmute(black_box(code)) };
    black_box(function())
}

/// Calls a function pointer that points into a freed block.
pub fn execute_freed() {
    let block = victim_allocates(64, 16);
    victim_frees(block, 64, 16);
    armed();
    victim_calls(block);
}

#[inline(never)]
fn victim_frees_again(block: *mut u8) -> usize {
    // SAFETY: none: the block is dead. This is the bug.
    unsafe { std::alloc::dealloc(black_box(block), layout(24, 8)) };
    black_box(24)
}

/// Frees a block twice on one thread.
pub fn double_free() {
    let block = victim_allocates(24, 8);
    victim_frees(block, 24, 8);
    armed();
    victim_frees_again(block);
}

/// Frees a block on one thread and again on another.
pub fn double_free_threads() {
    let address = victim_allocates(24, 8).expose_provenance();
    let run = |name: &str, work: fn(*mut u8)| {
        std::thread::Builder::new()
            .name(name.into())
            .spawn(move || work(std::ptr::with_exposed_provenance_mut(address)))
            .and_then(|thread| thread.join().map_err(|_| std::io::Error::other("the thread panicked")))
            .expect("a thread that ends");
    };
    run("first", |block| {
        victim_frees(block, 24, 8);
    });
    run("second", |block| {
        armed();
        victim_frees_again(block);
    });
}

/// Resizes a block that was freed.
pub fn realloc_stale() {
    let block = victim_allocates(24, 8);
    victim_frees(block, 24, 8);
    armed();
    victim_resizes(block, 48);
}

#[inline(never)]
fn victim_mismatches(block: *mut u8, how: &str, size: usize, align: usize) -> *mut u8 {
    match how {
        // SAFETY: none: the layout is wrong. This is the bug.
        "dealloc" => unsafe { std::alloc::dealloc(black_box(block), layout(size, align)) },
        // SAFETY: none: as above.
        "realloc" => return black_box(unsafe { std::alloc::realloc(block, layout(size, align), 100) }),
        _ => {
            eprintln!("victim: dealloc or realloc?");
            std::process::exit(2);
        }
    }
    black_box(block)
}

/// `dealloc|realloc SIZE ALIGN`: gives a 24-byte block of alignment 8 back under another layout.
pub fn layout_mismatch(words: &[&str]) {
    let block = victim_allocates(24, 8);
    armed();
    victim_mismatches(block, words.first().copied().unwrap_or_default(), number(words, 1), number(words, 2));
}
