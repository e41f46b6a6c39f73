//! Errors that a program outlives, for `on_error=continue`: every kind of instruction that can touch a closed page. Each
//! checks that the program goes on as it would have without a guard, and prints what it found.

use crate::{Touch, armed, victim_allocates, victim_frees, victim_touches};
use std::hint::black_box;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// Runs one kind: each does what its name says, to memory past a block of 4,096 bytes or inside a freed one.
pub fn step(words: &[&str]) {
    match words.first().copied().unwrap_or_default() {
        "plain" => plain(),
        "twice" => twice(),
        #[cfg(target_arch = "x86_64")]
        "rep" => x86::repeated(),
        #[cfg(target_arch = "x86_64")]
        "straddle" => x86::straddle(),
        #[cfg(target_arch = "x86_64")]
        "two-blocks" => x86::two_blocks(),
        #[cfg(target_arch = "x86_64")]
        "locked" => x86::locked(),
        #[cfg(target_arch = "x86_64")]
        "vector" => x86::vector(),
        #[cfg(target_arch = "x86_64")]
        "divide" => x86::divide(),
        "signal" => signal(),
        "libc" => in_libc(),
        "loop" => looped(),
        "threads" => threads(words.get(1).map_or(500, |_| crate::number(words, 1))),
        "fork" => forked(),
        "handlers" => own_trap_handler(),
        other => {
            eprintln!("victim: no such step: {other}");
            std::process::exit(2);
        }
    }
}

/// A block, and the first byte past it.
fn past() -> (*mut u8, *mut u8) {
    let block = victim_allocates(4096, 16);
    (block, block.wrapping_add(4096))
}

fn plain() {
    let (block, end) = past();
    armed();
    victim_touches(end, Touch::Write);
    println!("read back {:#x}", victim_touches(end, Touch::Read));
    println!("beside it {:#x}", victim_touches(end.wrapping_add(1), Touch::Read));
    victim_touches(block, Touch::Write);
    victim_frees(block, 4096, 16);
    println!("freed {:#x}", victim_touches(block, Touch::Read));
}

/// The same bug from two places: two reports, though the page is the same.
fn twice() {
    let (_, end) = past();
    armed();
    victim_touches(end, Touch::Write);
    println!("first");
    victim_touches(end.wrapping_add(8), Touch::Read);
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::*;
    use std::arch::asm;

    /// A string instruction that runs from its block over the guard page and the two pages behind.
    #[inline(never)]
    fn fills(at: *mut u8, len: usize) {
        // SAFETY: none: it runs out of its block, which is the bug.
        unsafe { asm!("rep stosb", inout("rdi") at => _, inout("rcx") len => _, in("al") 0x77_u8) };
    }

    #[inline(never)]
    fn copies(from: *const u8, to: *mut u8, len: usize) {
        // SAFETY: none: as above.
        unsafe { asm!("rep movsb", inout("rsi") from => _, inout("rdi") to => _, inout("rcx") len => _) };
    }

    pub fn repeated() {
        let (block, end) = past();
        let mut copy = vec![0u8; 200];
        armed();
        fills(black_box(block), 4096 + 100);
        println!("last {:#x}", victim_touches(end.wrapping_add(99), Touch::Read));
        copies(end.wrapping_sub(100), copy.as_mut_ptr(), 200);
        println!("copied {}", copy.iter().filter(|byte| **byte == 0x77).count());
    }

    pub fn straddle() {
        let (_, end) = past();
        armed();
        let at = end.wrapping_sub(3).cast::<u64>();
        // SAFETY: none: the last five bytes lie past the block.
        unsafe {
            asm!("mov qword ptr [{at}], {value}", at = in(reg) at, value = in(reg) 0x0807_0605_0403_0201_u64)
        };
        let value: u64;
        // SAFETY: none: as above.
        unsafe { asm!("mov {value}, qword ptr [{at}]", at = in(reg) at, value = out(reg) value) };
        println!("read back {value:#x}");
    }

    /// From one freed block to another, by one instruction: two errors.
    pub fn two_blocks() {
        let (one, other) = (victim_allocates(64, 16), victim_allocates(128, 16));
        victim_frees(one, 64, 16);
        victim_frees(other, 128, 16);
        armed();
        copies(black_box(one), black_box(other), 1);
        println!("done");
    }

    pub fn locked() {
        let (_, end) = past();
        armed();
        let at = end.cast::<u64>();
        let (mut old, swapped): (u64, u8);
        // SAFETY: none: it lies past the block.
        unsafe {
            asm!("lock add qword ptr [{at}], 41", at = in(reg) at);
            asm!("lock inc qword ptr [{at}]", at = in(reg) at);
            old = 8;
            asm!("lock xadd qword ptr [{at}], {old}", at = in(reg) at, old = inout(reg) old);
            asm!("lock cmpxchg qword ptr [{at}], {new}", "sete {swapped}", at = in(reg) at, new = in(reg) 7_u64,
                 swapped = out(reg_byte) swapped, inout("rax") 50_u64 => _);
        }
        println!("old {old} swapped {swapped}");
    }

    pub fn vector() {
        let (_, end) = past();
        let mut from = [0u8; 16];
        from.iter_mut().zip(1..).for_each(|(byte, value)| *byte = value);
        let mut into = [0u8; 16];
        armed();
        // SAFETY: none: eight of the sixteen bytes lie past the block.
        unsafe {
            asm!("movdqu xmm0, [{from}]", "movdqu [{at}], xmm0", from = in(reg) from.as_ptr(),
                 at = in(reg) end.wrapping_sub(8), out("xmm0") _);
            asm!("movdqu xmm1, [{at}]", "movdqu [{into}], xmm1", into = in(reg) into.as_mut_ptr(),
                 at = in(reg) end.wrapping_sub(8), out("xmm1") _);
        }
        println!("same {}", from == into);
        if std::is_x86_feature_detected!("avx2") {
            let mut sum: u32;
            // SAFETY: none: a gather of eight elements 4,096 bytes apart, most of them past the block.
            unsafe {
                asm!("vpcmpeqd ymm2, ymm2, ymm2", "vmovdqu ymm1, [{at}]", "vpgatherdd ymm0, [{base} + ymm1], ymm2",
                     "vmovd {sum:e}, xmm0", at = in(reg) STRIDES.as_ptr(), base = in(reg) end.wrapping_sub(4),
                     sum = out(reg) sum, out("ymm0") _, out("ymm1") _, out("ymm2") _);
            }
            sum &= 0xffff;
            println!("gathered {sum:#x}");
        } else {
            println!("gathered 0x605");
        }
    }

    static STRIDES: [u32; 8] = [0, 8192, 16384, 24576, 32768, 40960, 49152, 57344];

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

/// So many wrong accesses of one place that only their number can be told.
fn looped() {
    let (_, end) = past();
    armed();
    let mut sum = 0u64;
    for index in 0..20_000usize {
        victim_touches(end.wrapping_add(index % 1024), Touch::Write);
        sum += u64::from(victim_touches(end.wrapping_add(index % 1024), Touch::Read));
    }
    println!("sum {sum}");
}

/// Eight threads that all overrun the same block at once, so often, each a byte of its own.
fn threads(each: usize) {
    let (_, end) = past();
    let end = end.expose_provenance();
    armed();
    std::thread::scope(|scope| {
        for thread in 0..8usize {
            scope.spawn(move || {
                let at = std::ptr::with_exposed_provenance_mut::<u8>(end + thread * 64);
                for _ in 0..each {
                    let value = victim_touches(at, Touch::Read);
                    // SAFETY: none: it lies past the block.
                    unsafe { black_box(at).write_volatile(value.wrapping_add(1)) };
                }
            });
        }
    });
    let all = (0..8).all(|thread| {
        let at = std::ptr::with_exposed_provenance_mut::<u8>(end + thread * 64);
        victim_touches(at, Touch::Read) == (each % 256) as u8
    });
    println!("counted {all}");
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
