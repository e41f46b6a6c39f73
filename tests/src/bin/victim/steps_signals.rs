//! Errors that a program outlives while signals arrive, children are made, and handlers of its own are in force.

use crate::steps::past;
use crate::{Touch, armed, victim_touches};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// Runs one kind; false when it is none of these.
pub fn step(words: &[&str]) -> bool {
    match words.first().copied().unwrap_or_default() {
        #[cfg(target_arch = "x86_64")]
        "divide" => x86::divide(),
        "signal" => signal(),
        "libc" => in_libc(),
        "fork" => forked(),
        "handlers" => own_trap_handler(),
        _ => return false,
    }
    true
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::*;
    use std::arch::asm;

    static LEFT: AtomicU32 = AtomicU32::new(0);

    extern "C" fn on_fpe(_: i32, _: *mut libc::siginfo_t, context: *mut libc::ucontext_t) {
        LEFT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the kernel hands a handler a valid context; the instruction below is four bytes long.
        unsafe { (&mut (*context).uc_mcontext.gregs)[libc::REG_RIP as usize] += 4 };
    }

    /// The access is let through, and then the instruction faults for another reason.
    pub fn divide() {
        let (_, end) = past();
        // SAFETY: the handler has the form that SA_SIGINFO asks for.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_fpe as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO;
            assert_eq!(libc::sigaction(libc::SIGFPE, &action, std::ptr::null_mut()), 0);
        }
        armed();
        for _ in 0..2 {
            // SAFETY: none: it divides by the zero that lies past the block.
            unsafe {
                asm!("div dword ptr [rcx + 4]", "nop", in("rcx") end.wrapping_sub(4), inout("eax") 1 => _, inout("edx") 0 => _)
            };
        }
        println!("left {}", LEFT.load(Ordering::Relaxed));
    }
}

static SIGNALS: AtomicUsize = AtomicUsize::new(0);
static TOUCHED: AtomicUsize = AtomicUsize::new(0);

extern "C" fn on_signal(_: i32) {
    SIGNALS.fetch_add(1, Ordering::Relaxed);
}

/// Signals that arrive all the time, while the thread steps all the time: none is lost, and the mask stays as it was.
fn signal() {
    let (_, end) = past();
    let end = end.expose_provenance();
    // SAFETY: the handler has the form that signal asks for.
    unsafe { libc::signal(libc::SIGUSR1, on_signal as *const () as usize) };
    armed();
    // SAFETY: pthread_self names this thread, which outlives the other.
    let this = unsafe { libc::pthread_self() };
    std::thread::scope(|scope| {
        let sender = scope.spawn(move || {
            let mut sent = 0;
            while TOUCHED.load(Ordering::Relaxed) < 2000 {
                // SAFETY: the thread is alive.
                unsafe { libc::pthread_kill(this, libc::SIGUSR1) };
                sent += 1;
                let seen = SIGNALS.load(Ordering::Relaxed);
                while SIGNALS.load(Ordering::Relaxed) == seen && TOUCHED.load(Ordering::Relaxed) < 2000 {
                    std::hint::spin_loop();
                }
            }
            sent
        });
        for _ in 0..2000 {
            victim_touches(std::ptr::with_exposed_provenance_mut(end), Touch::Write);
            TOUCHED.fetch_add(1, Ordering::Relaxed);
        }
        let sent: usize = sender.join().expect("the sender ends");
        println!(
            "signals {}",
            SIGNALS.load(Ordering::Relaxed) > 0 && SIGNALS.load(Ordering::Relaxed) <= sent
        );
    });
    // SAFETY: all-zero is a valid set, which the call overwrites.
    let held_back = unsafe {
        let mut mask: libc::sigset_t = std::mem::zeroed();
        libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), &mut mask);
        libc::sigismember(&mask, libc::SIGUSR1)
    };
    println!("held back {held_back}");
}

fn in_libc() {
    let (block, end) = past();
    armed();
    // SAFETY: none: these run out of their block.
    unsafe {
        libc::memset(block.cast(), 0x41, 4096 + 3000);
        libc::memmove(block.wrapping_add(2000).cast(), block.cast(), 4096);
        println!("length {}", libc::strnlen(block.cast(), 4096 + 2000));
    }
    println!("last {:#x}", victim_touches(end.wrapping_add(2999), Touch::Read));
}

/// A child goes on stepping, and its parent too.
fn forked() {
    let (_, end) = past();
    armed();
    victim_touches(end, Touch::Write);
    // SAFETY: the child only touches memory, prints nothing, and leaves.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let seen = victim_touches(end, Touch::Read);
        victim_touches(end.wrapping_add(1), Touch::Write);
        // SAFETY: this is the child.
        unsafe { libc::_exit(i32::from(seen)) };
    }
    let mut status = 0;
    // SAFETY: the child is ours.
    unsafe { libc::waitpid(child, &mut status, 0) };
    println!("child {:#x}", libc::WEXITSTATUS(status));
    println!("parent {:#x}", victim_touches(end.wrapping_add(1), Touch::Read));
}

static TRAPS: AtomicU32 = AtomicU32::new(0);

extern "C" fn on_trap(_: i32) {
    TRAPS.fetch_add(1, Ordering::Relaxed);
}

/// A program that takes SIGTRAP for itself, before and after: it gets its own, and the guard steps all the same.
fn own_trap_handler() {
    let (_, end) = past();
    armed();
    for _ in 0..3 {
        // SAFETY: the handler has the form that signal asks for, and raise runs it.
        unsafe {
            libc::signal(libc::SIGTRAP, on_trap as *const () as usize);
            libc::raise(libc::SIGTRAP);
        }
        victim_touches(end, Touch::Write);
        // SAFETY: as above.
        unsafe { libc::raise(libc::SIGTRAP) };
    }
    println!("traps {}", TRAPS.load(Ordering::Relaxed));
}
