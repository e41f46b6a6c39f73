//! Reports as `tracing` events, written as JSON: `cargo run --example tracing_json`.
//!
//! A service that must not stop at the first error goes on after each (`on_error=continue`) and hands its reports to
//! its own log from time to time. They wait in the runtime until then: the fault handler itself emits no event. The
//! exit status is 100, because something was reported.

use std::hint::black_box;

#[global_allocator]
static ALLOC: fencepost::GuardedAlloc =
    fencepost::GuardedAlloc::new().with_options("on_error=continue,summary=off");

#[inline(never)]
fn load(len: usize) -> Vec<u8> {
    vec![7; len]
}

#[inline(never)]
fn byte(bytes: &[u8], index: usize) -> u8 {
    // SAFETY: none; the index is one too many, which is what this example shows.
    unsafe { black_box(bytes.as_ptr().wrapping_add(index)).read_volatile() }
}

fn main() {
    tracing_subscriber::fmt().json().with_writer(std::io::stdout).init();
    let bytes = load(24);
    println!("the last byte is {}", byte(&bytes, 23));
    println!("the byte behind it reads as {}", byte(&bytes, 24));
    println!("{} error reported", fencepost::emit_tracing());
}
