//! The ways in which a process ends.

use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};

use windows_sys::Win32::System::Diagnostics::Debug::RaiseFailFastException;
use windows_sys::Win32::System::Threading::{ExitProcess, GetCurrentProcess, TerminateProcess};

static ROUNDS: AtomicUsize = AtomicUsize::new(0);

/// Threads that allocate and free all the time: some are at work in the runtime when they are ended.
fn crowd() {
    for number in 0..4 {
        std::thread::spawn(move || {
            let mut kept: Vec<Vec<u8>> = Vec::new();
            loop {
                kept.push(black_box(vec![1; 100 + number * 3000]));
                if kept.len() > 40 {
                    kept.clear();
                }
                ROUNDS.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    while ROUNDS.load(Ordering::Relaxed) < 400 {
        std::thread::yield_now();
    }
}

/// `return|exit|exit-process|crowd|terminate|abort|fail-fast`.
pub fn end(how: &str) {
    println!("ends by {how}");
    // SAFETY: each ends the process.
    unsafe {
        match how {
            "return" => {}
            "exit" => std::process::exit(7),
            "exit-process" => ExitProcess(7),
            "crowd" => {
                crowd();
                ExitProcess(7)
            }
            "terminate" => drop(TerminateProcess(GetCurrentProcess(), 8)),
            "abort" => std::process::abort(),
            "fail-fast" => RaiseFailFastException(std::ptr::null(), std::ptr::null(), 0),
            other => panic!("no such end: {other}"),
        }
    }
}
