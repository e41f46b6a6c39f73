//! Ends of a program that run no exit handlers: `_exit`, and another program in its place. The account of what was
//! guarded is written first.
//!
//! A child of `vfork` uses its parent's memory, and must not write its parent's account when it ends: it is known by its
//! process id, which is not the one that was noted.
#![allow(clippy::missing_safety_doc, reason = "each has the rules of the C function of its name")]
#![allow(missing_docs, reason = "documented by POSIX and the Linux manual pages")]

use core::ffi::c_int;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use fencepost_sys::{ErrorNumber, Next, Threads};

use super::resource_limits;
use crate::runtime::GUARD;

/// The process that this memory belongs to; 0 until it is noted.
static HOME: AtomicU32 = AtomicU32::new(0);
/// The account has been written, or must not be: a filter may end a process for a call that it does not know.
static SILENT: AtomicBool = AtomicBool::new(false);

/// Notes whose memory this is: when the program is loaded, and in each child of a fork.
pub(crate) fn note_process() {
    HOME.store(GUARD.platform().process_id(), Ordering::Relaxed);
}

/// No account is to be written any more.
pub(crate) fn fall_silent() {
    SILENT.store(true, Ordering::Relaxed);
}

fn is_home() -> bool {
    !SILENT.load(Ordering::Relaxed) && is_at_home()
}

/// Whether this memory is the process's own: not in a child of `vfork`.
pub(super) fn is_at_home() -> bool {
    HOME.load(Ordering::Relaxed) == GUARD.platform().process_id()
}

macro_rules! ends_at_once {
    ($($name:ident)*) => { $(
        #[allow(non_snake_case, reason = "the name of the function")]
        pub unsafe extern "C" fn $name(status: c_int) -> ! {
            if is_home() {
                fall_silent();
                GUARD.on_leaving();
            }
            static NEXT: Next = Next::new(super::buffers::named(concat!(stringify!($name), "\0")));
            if let Some(address) = NEXT.address() {
                // SAFETY: the C library's function of this name has this type.
                let function: extern "C" fn(c_int) -> ! = unsafe { core::mem::transmute(address) };
                function(status);
            }
            fencepost_sys::Faults::exit_now(GUARD.platform(), status)
        }
    )* };
}

ends_at_once! { _exit _Exit quick_exit }

/// Does what is to be done before an `exec`, and gives the function behind ours.
extern "C" fn before(next: &Next) -> usize {
    if is_home() {
        GUARD.on_replacing();
    }
    let missing: extern "C" fn() -> c_int = is_missing;
    next.address().unwrap_or(missing as usize)
}

extern "C" fn is_missing() -> c_int {
    ErrorNumber::NOT_THERE.set();
    -1
}

// Some of these take any number of arguments, so each is passed on as it came: the registers that hold arguments are
// kept around the call of `before`, and the stack is left alone.
macro_rules! replaces {
    ($($name:ident)*) => { $(
        #[unsafe(naked)]
        pub unsafe extern "C" fn $name() {
            static NEXT: Next = Next::new(super::buffers::named(concat!(stringify!($name), "\0")));
            #[cfg(target_arch = "x86_64")]
            core::arch::naked_asm!(
                "push rdi", "push rsi", "push rdx", "push rcx", "push r8", "push r9", "push rax",
                "lea rdi, [rip + {next}]",
                "call {before}",
                "mov r11, rax",
                "pop rax", "pop r9", "pop r8", "pop rcx", "pop rdx", "pop rsi", "pop rdi",
                "jmp r11",
                next = sym NEXT,
                before = sym before,
            );
            #[cfg(target_arch = "aarch64")]
            core::arch::naked_asm!(
                "stp x29, x30, [sp, #-80]!",
                "stp x0, x1, [sp, #16]", "stp x2, x3, [sp, #32]", "stp x4, x5, [sp, #48]", "stp x6, x7, [sp, #64]",
                "adrp x0, {next}", "add x0, x0, :lo12:{next}",
                "bl {before}",
                "mov x16, x0",
                "ldp x0, x1, [sp, #16]", "ldp x2, x3, [sp, #32]", "ldp x4, x5, [sp, #48]", "ldp x6, x7, [sp, #64]",
                "ldp x29, x30, [sp], #80",
                "br x16",
                next = sym NEXT,
                before = sym before,
            );
        }
    )* };
}

replaces! { execl execlp execle }

// The others come back here when there is no such program: then the limits on memory are what they were.
macro_rules! replaces_or_fails {
    ($($name:ident($($arg:ident),*))*) => { $(
        pub unsafe extern "C" fn $name($($arg: usize),*) -> c_int {
            static NEXT: Next = Next::new(super::buffers::named(concat!(stringify!($name), "\0")));
            let address = before(&NEXT);
            let raised = resource_limits::lower();
            // SAFETY: the C library's function of this name takes as many numbers and addresses, and the caller keeps its
            // rules; without one it is a function that looks at none.
            let done = unsafe {
                let function: unsafe extern "C" fn($($arg: usize),*) -> c_int = core::mem::transmute(address);
                function($($arg),*)
            };
            resource_limits::raise_again(raised);
            done
        }
    )* };
}

replaces_or_fails! {
    execve(path, words, environment)
    execv(path, words)
    execvp(file, words)
    execvpe(file, words, environment)
    fexecve(file, words, environment)
    execveat(folder, path, words, environment, flags)
}
