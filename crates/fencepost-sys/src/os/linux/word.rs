//! This thread's word, at a fixed distance from the thread pointer.
//!
//! A `thread_local!` in a shared library is found by a call to `__tls_get_addr`, which may allocate, and we are the
//! allocator: so the word is defined here by hand and found by the *initial exec* rules, without any call. That asks
//! the loader for 8 bytes of the room that it keeps in every thread for this purpose.
//! Source: "ELF Handling For Thread-Local Storage" (Drepper, 2013), 4.3.

use core::arch::{asm, global_asm};

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
global_asm!(
    ".pushsection .tbss.fencepost_thread_word,\"awT\",@nobits",
    ".p2align 3",
    ".globl fencepost_thread_word",
    ".hidden fencepost_thread_word",
    ".type fencepost_thread_word, @object",
    ".size fencepost_thread_word, 8",
    "fencepost_thread_word:",
    ".zero 8",
    ".popsection",
);

/// The word; 0 in a new thread.
#[inline(always)]
pub(super) fn get() -> usize {
    let word: usize;
    // SAFETY: the word lies where the linker says it does from this thread's pointer, as long as the thread lives.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        asm!(
            "mov {word}, qword ptr [rip + fencepost_thread_word@GOTTPOFF]",
            "mov {word}, qword ptr fs:[{word}]",
            word = out(reg) word,
            options(nostack, preserves_flags, readonly),
        );
        #[cfg(target_arch = "aarch64")]
        asm!(
            "adrp {word}, :gottprel:fencepost_thread_word",
            "ldr {word}, [{word}, #:gottprel_lo12:fencepost_thread_word]",
            "mrs {thread}, tpidr_el0",
            "ldr {word}, [{thread}, {word}]",
            word = out(reg) word,
            thread = out(reg) _,
            options(nostack, preserves_flags, readonly),
        );
    }
    word
}

/// Sets the word.
#[inline(always)]
pub(super) fn set(word: usize) {
    // SAFETY: as in `get`; nobody else refers to the word.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        asm!(
            "mov {place}, qword ptr [rip + fencepost_thread_word@GOTTPOFF]",
            "mov qword ptr fs:[{place}], {word}",
            place = out(reg) _,
            word = in(reg) word,
            options(nostack, preserves_flags),
        );
        #[cfg(target_arch = "aarch64")]
        asm!(
            "adrp {place}, :gottprel:fencepost_thread_word",
            "ldr {place}, [{place}, #:gottprel_lo12:fencepost_thread_word]",
            "mrs {thread}, tpidr_el0",
            "str {word}, [{thread}, {place}]",
            place = out(reg) _,
            thread = out(reg) _,
            word = in(reg) word,
            options(nostack, preserves_flags),
        );
    }
}
