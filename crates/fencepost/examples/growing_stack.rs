//! A task with a stack of its own, which starts at a page and grows to megabytes as it is used.
//! `cargo run --example growing_stack`, and `cargo run --example growing_stack overflow` to see its end described.
//!
//! A thread is made with a stack of fixed size; a task of an own scheduler gets a `CallStack`: a bound that costs addresses
//! only, and memory for what it touches. The system call in the middle is given a buffer that no instruction has touched
//! yet: it works, because the memory is there for the kernel as well. Growth by a fault handler would break it.

use std::fs::File;
use std::hint::black_box;
use std::io::Read;

use fencepost::growing::{CallStack, Options};
use fencepost::memory::MemoryError;

#[global_allocator]
static ALLOC: fencepost::GuardedAlloc = fencepost::GuardedAlloc::new();

/// Descends to a depth, with some hundred bytes a call, and does something down there.
#[inline(never)]
fn descend<R>(depth: u64, bottom: &mut dyn FnMut() -> R) -> R {
    let frame = black_box([depth; 8]);
    let result = if depth == 0 { bottom() } else { descend(depth - 1, bottom) };
    // Used after the call, so that the compiler keeps the frame.
    assert_eq!(black_box(frame)[0], depth);
    result
}

/// Reads a megabyte into a buffer on this stack that was never touched.
#[inline(never)]
fn reads_far_below() -> std::io::Result<usize> {
    let mut buffer = [const { std::mem::MaybeUninit::<u8>::uninit() }; 1 << 20];
    let mut zeros = File::open("/dev/zero")?.take(1 << 20);
    // SAFETY: `read` only writes to the buffer; nothing looks at bytes that were not written.
    let buffer = unsafe { std::slice::from_raw_parts_mut(buffer.as_mut_ptr().cast::<u8>(), buffer.len()) };
    let mut len = 0;
    while len < buffer.len() {
        match zeros.read(&mut buffer[len..])? {
            0 => break,
            more => len += more,
        }
    }
    Ok(len)
}

fn main() -> Result<(), MemoryError> {
    let mut stack: CallStack = Options::new(64 << 20).name("task").call_stack()?;
    println!("{} KiB of addresses, {} KiB of memory", stack.bound() >> 10, stack.resident()? >> 10);
    for depth in [10, 1_000, 20_000] {
        let sum = stack.run(|| descend(depth, &mut || depth));
        println!("{sum} calls deep: {} KiB of memory", stack.resident()? >> 10);
    }
    assert!(stack.resident()? > 2 << 20, "it has grown");
    stack.trim()?;
    println!("trimmed: {} KiB of memory", stack.resident()? >> 10);
    let read = stack.run(reads_far_below).expect("the kernel writes to it as well");
    println!(
        "a system call wrote {read} bytes to untouched stack: {} KiB of memory",
        stack.resident()? >> 10
    );
    assert_eq!(read, 1 << 20);
    if std::env::args().any(|word| word == "overflow") {
        stack.run(|| descend(u64::MAX, &mut || ()));
    }
    Ok(())
}
