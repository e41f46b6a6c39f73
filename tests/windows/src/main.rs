//! A Windows program that does what such programs do with exceptions, exits and the loader, one thing a subcommand, and
//! errors beside that.

mod endings;
mod handlers;
mod loader;
mod watches;

use std::hint::black_box;
use std::io::Write;

use windows_sys::Win32::Foundation::{GetLastError, SetLastError};

#[global_allocator]
static ALLOC: fencepost::GuardedAlloc = fencepost::GuardedAlloc::new();

/// Says that the error comes next.
fn armed() {
    let mut out = std::io::stdout().lock();
    out.write_all(b"armed\n").and_then(|()| out.flush()).expect("stdout takes a line");
}

#[inline(never)]
fn victim_reads(at: *const u8) -> u8 {
    // SAFETY: none: this is the error.
    black_box(unsafe { black_box(at).read_volatile() })
}

/// A block, and reads the byte past it.
#[inline(never)]
fn victim_overruns() -> u8 {
    let block = black_box(vec![7u8; 64]);
    victim_reads(block.as_ptr().wrapping_add(64))
}

/// What the program asks the system for fails or not; what the guard asks meanwhile must not show.
fn last_error() {
    const OWN: u32 = 0x2000_1234;
    // SAFETY: sets and reads a word of this thread's.
    let kept = |what: &str, work: &mut dyn FnMut()| unsafe {
        SetLastError(OWN);
        work();
        println!("{what} {}", GetLastError() == OWN);
    };
    let mut blocks: Vec<Vec<u8>> = Vec::with_capacity(64);
    kept("allocations", &mut || blocks.extend((1..40).map(|size| vec![1; size * 100])));
    kept("frees", &mut || blocks.clear());
    kept("large blocks", &mut || drop(black_box(vec![1u8; 3 << 20])));
    let mut text = String::new();
    kept("growth", &mut || (0..3000).for_each(|_| text.push('x')));
    kept("questions", &mut || {
        black_box((fencepost::stats(), fencepost::check()));
    });
    armed();
    kept("an error", &mut || {
        victim_overruns();
    });
    let sealed = vec![5u8; 4096];
    let seal = fencepost::seal(&sealed[..]).expect("sealed");
    // SAFETY: none: the block is sealed.
    kept("a violation", &mut || unsafe { sealed.as_ptr().cast_mut().write_volatile(6) });
    let mut seal = Some(seal);
    kept("the end of a seal", &mut || drop(seal.take()));
    std::thread::spawn(|| {
        // SAFETY: as above.
        unsafe { SetLastError(OWN) };
        drop(black_box(vec![1u8; 100]));
        // SAFETY: as above.
        println!("a thread's first {}", unsafe { GetLastError() } == OWN);
    })
    .join()
    .expect("no panic");
}

/// More live blocks than Wine's host maps, each with its two ends, and then large ones.
fn crowd_of_blocks() {
    let blocks: Vec<Box<u64>> = (0..40_000).map(|number| black_box(Box::new(number))).collect();
    let large = black_box(vec![7u8; 8 << 20]);
    let sum: u64 = blocks.iter().map(|block| **block).sum();
    println!("sum {sum}, last {}", large[large.len() - 1]);
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["last-error"] => last_error(),
        ["handler", order, what] => handlers::own_vectored(order, what),
        ["frame", what] => handlers::own_frame(what),
        ["own-guard"] => handlers::own_guard_page(),
        ["own-steps"] => handlers::own_steps(),
        ["divide"] => handlers::divide(),
        ["panic-in-handler"] => handlers::panics(),
        ["watch", what] => watches::watch(what),
        ["blocks"] => crowd_of_blocks(),
        ["overrun"] => {
            armed();
            victim_overruns();
        }
        ["kernel"] => handlers::closed_buffers(),
        ["end", how] => endings::end(how),
        ["loader-lock"] => loader::error_beside_loader_lock(),
        ["loading"] => loader::errors_while_loading(),
        ["callback"] => loader::error_in_callback(),
        ["named"] => {
            let thread = std::thread::Builder::new().name("arbeiter-ü".into()).spawn(|| {
                armed();
                victim_overruns()
            });
            thread.expect("a thread").join().expect("no panic");
        }
        _ => panic!("no such behaviour: {words:?}"),
    }
    println!("survived");
}
