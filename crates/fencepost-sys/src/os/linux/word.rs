//! This thread's words, at a fixed distance from the thread pointer: the runtime's own, and where the thread counts its
//! system calls.
//!
//! A `thread_local!` in a shared library is found by a call to `__tls_get_addr`, which may allocate, and we are the
//! allocator: so the words are defined here by hand and found by the *initial exec* rules, without any call. That asks
//! the loader for 16 bytes of the room that it keeps in every thread for this purpose.
//! Source: "ELF Handling For Thread-Local Storage" (Drepper, 2013), 4.3.

use core::arch::{asm, global_asm};

/// Defines a word, and how it is read and written.
macro_rules! word {
    ($symbol:literal, $get:ident, $set:ident) => {
        #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
        global_asm!(
            concat!(".pushsection .tbss.", $symbol, ",\"awT\",@nobits"),
            ".p2align 3",
            concat!(".globl ", $symbol),
            concat!(".hidden ", $symbol),
            concat!(".type ", $symbol, ", @object"),
            concat!(".size ", $symbol, ", 8"),
            concat!($symbol, ":"),
            ".zero 8",
            ".popsection",
        );

        /// The word; 0 in a new thread.
        #[inline(always)]
        pub(super) fn $get() -> usize {
            let word: usize;
            // SAFETY: the word lies where the linker says it does from this thread's pointer, as long as the thread lives.
            unsafe {
                #[cfg(target_arch = "x86_64")]
                asm!(
                    concat!("mov {word}, qword ptr [rip + ", $symbol, "@GOTTPOFF]"),
                    "mov {word}, qword ptr fs:[{word}]",
                    word = out(reg) word,
                    options(nostack, preserves_flags, readonly),
                );
                #[cfg(target_arch = "aarch64")]
                asm!(
                    concat!("adrp {word}, :gottprel:", $symbol),
                    concat!("ldr {word}, [{word}, #:gottprel_lo12:", $symbol, "]"),
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
        pub(super) fn $set(word: usize) {
            // SAFETY: as above; nobody else refers to the word.
            unsafe {
                #[cfg(target_arch = "x86_64")]
                asm!(
                    concat!("mov {place}, qword ptr [rip + ", $symbol, "@GOTTPOFF]"),
                    "mov qword ptr fs:[{place}], {word}",
                    place = out(reg) _,
                    word = in(reg) word,
                    options(nostack, preserves_flags),
                );
                #[cfg(target_arch = "aarch64")]
                asm!(
                    concat!("adrp {place}, :gottprel:", $symbol),
                    concat!("ldr {place}, [{place}, #:gottprel_lo12:", $symbol, "]"),
                    "mrs {thread}, tpidr_el0",
                    "str {word}, [{thread}, {place}]",
                    place = out(reg) _,
                    thread = out(reg) _,
                    word = in(reg) word,
                    options(nostack, preserves_flags),
                );
            }
        }
    };
}

word!("fencepost_thread_word", get, set);
word!("fencepost_thread_count", count, set_count);
