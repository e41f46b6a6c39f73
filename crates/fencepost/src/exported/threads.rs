//! Threads and the process's rules: new threads are greeted, names are noted, and system call filters are seen coming.
#![allow(clippy::missing_safety_doc, reason = "each has the rules of the C function of its name")]
#![allow(missing_docs, reason = "documented by POSIX and the Linux manual pages")]

use core::ffi::{c_char, c_int, c_long, c_void};

use fencepost_record::AccessType;
use fencepost_sys::{ErrorNumber, LibcHeap, program};

use super::{MALLOC, behind, signals};
use crate::runtime::{GUARD, here};

type Function = unsafe extern "C-unwind" fn(*mut c_void) -> *mut c_void;

/// What a new thread is to do.
#[derive(Clone, Copy)]
struct Start {
    function: Function,
    argument: *mut c_void,
    held_back: u64,
}

/// A thread that never allocates still needs a stack for our handler: it gets it before its first own instruction.
pub unsafe extern "C" fn pthread_create(
    thread: *mut c_void,
    attributes: *const c_void,
    function: Function,
    argument: *mut c_void,
) -> c_int {
    let start = LibcHeap.allocate(size_of::<Start>(), align_of::<Start>(), false).cast::<Start>();
    let wrapped = !start.is_null() && !MALLOC.stands_back();
    let (function, argument) = if wrapped {
        // SAFETY: the block was given out just now, with room for a Start.
        unsafe { start.write(Start { function, argument, held_back: signals::held_back() }) };
        (begin as Function, start.cast())
    } else {
        (function, argument)
    };
    // SAFETY: the caller's promise to pthread_create; `begin` runs the caller's function.
    let made = unsafe {
        behind!(c"pthread_create", "C" (
            thread => *mut c_void, attributes => *const c_void, function => Function, argument => *mut c_void
        ) -> c_int)
    }
    .unwrap_or(ErrorNumber::NOT_THERE.number());
    if (made != 0 || !wrapped) && !start.is_null() {
        // SAFETY: no thread was made that would free it.
        unsafe { LibcHeap.free(start.cast()) };
    }
    made
}

/// The first function of every thread. It may be left by unwinding: a thread may exit or be cancelled anywhere.
unsafe extern "C-unwind" fn begin(start: *mut c_void) -> *mut c_void {
    // SAFETY: `pthread_create` gives the address of a Start, for this thread alone.
    let Start { function, argument, held_back } = unsafe { start.cast::<Start>().read() };
    // SAFETY: it came from this heap and is not used any more.
    unsafe { LibcHeap.free(start.cast()) };
    program::inherit_mask(held_back);
    GUARD.greet_thread();
    // SAFETY: the program's own function and argument.
    unsafe { function(argument) }
}

pub unsafe extern "C" fn pthread_setname_np(thread: *mut c_void, name: *const c_char) -> c_int {
    // SAFETY: the caller's promise to pthread_setname_np.
    let set = unsafe {
        behind!(c"pthread_setname_np", "C" (thread => *mut c_void, name => *const c_char) -> c_int)
    };
    // Of another thread the new name is noted when that thread shows up in a report or ends.
    GUARD.name_thread();
    set.unwrap_or(ErrorNumber::NOT_THERE.number())
}

fn expect_filter() {
    program::expect_filter();
    GUARD.expect_filter();
    super::ending::fall_silent();
}

/// `PR_SET_NAME` and `PR_SET_SECCOMP` of prctl(2).
const SET_NAME: c_int = 15;
const SET_SECCOMP: c_int = 22;

pub unsafe extern "C" fn prctl(option: c_int, a: usize, b: usize, c: usize, d: usize) -> c_int {
    if option == SET_SECCOMP {
        expect_filter();
    }
    // SAFETY: the caller's promise to prctl, which takes up to four arguments after the first.
    let done = unsafe {
        behind!(c"prctl", "C" (option => c_int, a => usize, b => usize, c => usize, d => usize) -> c_int)
    };
    if option == SET_NAME {
        GUARD.name_thread();
    }
    done.unwrap_or_else(|| {
        ErrorNumber::NOT_THERE.set();
        -1
    })
}

/// The number of seccomp(2), which has no function of its own in the C library.
const SECCOMP: c_long = if cfg!(target_arch = "x86_64") { 317 } else { 277 };

/// The number of futex(2), which has none either, and which Rust's locks and condition variables call by `syscall`.
const FUTEX: c_long = if cfg!(target_arch = "x86_64") { 202 } else { 98 };

/// What the kernel does with the two words of a futex call.
///
/// A wake looks at no word: it may be for a lock that is gone already.
fn look_at_futex(word: usize, operation: usize, other: usize, anchor: usize) {
    /// `FUTEX_PRIVATE_FLAG` and `FUTEX_CLOCK_REALTIME`.
    const FLAGS: usize = 128 | 256;
    const WORD: usize = 4;
    match operation & !FLAGS {
        // WAIT, CMP_REQUEUE, WAIT_BITSET, WAIT_REQUEUE_PI
        0 | 4 | 9 | 11 => GUARD.check_buffer(word, WORD, AccessType::Read, anchor),
        // WAKE_OP
        5 => GUARD.check_buffer(other, WORD, AccessType::Write, anchor),
        // LOCK_PI, UNLOCK_PI, TRYLOCK_PI, LOCK_PI2
        6..=8 | 13 => GUARD.check_buffer(word, WORD, AccessType::Write, anchor),
        _ => {}
    }
}

#[inline(never)]
pub unsafe extern "C-unwind" fn syscall(
    number: c_long,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    e: usize,
    f: usize,
) -> c_long {
    if number == SECCOMP {
        expect_filter();
    }
    if number == FUTEX {
        look_at_futex(a, b, e, here());
    }
    // SAFETY: the caller's promise to syscall; those that the call does not have are not looked at.
    let result = unsafe {
        behind!(c"syscall", "C-unwind" (
            number => c_long, a => usize, b => usize, c => usize, d => usize, e => usize, f => usize
        ) -> c_long)
    };
    if number == FUTEX {
        GUARD.after_call();
    }
    result.unwrap_or_else(|| {
        ErrorNumber::NOT_THERE.set();
        -1
    })
}
