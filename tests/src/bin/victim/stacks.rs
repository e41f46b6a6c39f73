//! Threads that run past the end of their stack.

use crate::{armed, victim_allocates, victim_frees};
use std::hint::black_box;

#[inline(never)]
fn victim_recurses(depth: usize) -> usize {
    let frame = black_box([depth; 64]);
    // The sum after the call keeps it from becoming a loop.
    if depth == usize::MAX { 0 } else { victim_recurses(depth + 1) + frame[depth % 64] }
}

extern "C" fn on_c_thread(_: *mut libc::c_void) -> *mut libc::c_void {
    // An allocation is what makes the guard know this thread.
    let block = victim_allocates(24, 8);
    victim_frees(block, 24, 8);
    armed();
    black_box(victim_recurses(0));
    std::ptr::null_mut()
}

/// `main|thread|pthread`: overflows that stack.
pub fn overflow(words: &[&str]) {
    match words.first() {
        Some(&"main") => {
            armed();
            black_box(victim_recurses(0));
        }
        Some(&"thread") => {
            let thread = std::thread::Builder::new().name("deep".into()).spawn(|| {
                armed();
                black_box(victim_recurses(0));
            });
            thread.expect("a thread").join().expect("a thread that ends");
        }
        Some(&"pthread") => {
            let mut thread = 0;
            // SAFETY: the attribute may be null, and the function has the type that pthreads ask for.
            let made = unsafe {
                libc::pthread_create(&mut thread, std::ptr::null(), on_c_thread, std::ptr::null_mut())
            };
            assert_eq!(made, 0);
            // SAFETY: the thread was made just now and is joined once.
            assert_eq!(unsafe { libc::pthread_join(thread, std::ptr::null_mut()) }, 0);
        }
        _ => {
            eprintln!("victim: which stack?");
            std::process::exit(2);
        }
    }
}
