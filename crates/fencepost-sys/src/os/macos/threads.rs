//! Threads, time, chance and waiting.
//!
//! The thread's words are kept under two keys of the C library's: it has room for the values of all keys in each thread,
//! so that neither reading nor writing them allocates (`src/pthread_tsd.c` of libpthread). A `thread_local!` would be paid
//! from the heap at its first use in each thread.

use core::ffi::c_void;
use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use super::Host;
use super::raw::{process_id, thread_id};
use crate::{Range, Threads};

/// The key of the thread's word, plus one; 0 before there is one.
static WORD: AtomicU64 = AtomicU64::new(0);
/// The key whose destructor runs at a thread's end, plus one; 0 before there is one.
static EXIT: AtomicU64 = AtomicU64::new(0);
/// What runs at a thread's end, as an address: the same function for all.
static ON_EXIT: AtomicUsize = AtomicUsize::new(0);

/// Longest sleep in [`Threads::wait`], in microseconds: a lost wake costs no more than this.
const WAIT_MAX_US: u32 = 500_000;

/// "Compare a word of 32 bits and wait", "all", and "answer with the error instead of setting errno" (`sys/ulock.h` of XNU).
const UL_COMPARE_AND_WAIT: u32 = 1;
const ULF_WAKE_ALL: u32 = 0x100;
const ULF_NO_ERRNO: u32 = 0x0100_0000;

unsafe extern "C" {
    fn __ulock_wait(operation: u32, address: *mut c_void, value: u64, microseconds: u32) -> i32;
    fn __ulock_wake(operation: u32, address: *mut c_void, value: u64) -> i32;
}

impl Threads for Host {
    fn thread_word(&self) -> usize {
        // SAFETY: the key was made by pthread_key_create and is never deleted.
        key(&WORD, None).map_or(0, |key| unsafe { libc::pthread_getspecific(key) }.addr())
    }

    fn set_thread_word(&self, word: usize) {
        if let Some(key) = key(&WORD, None) {
            // SAFETY: as above.
            unsafe { libc::pthread_setspecific(key, word as *const c_void) };
        }
    }

    fn at_thread_exit(&self, exit: extern "C" fn(usize), word: usize) {
        ON_EXIT.store(exit as usize, Ordering::Release);
        if let Some(key) = key(&EXIT, Some(at_exit)) {
            // SAFETY: as above. Any value but null makes the destructor run.
            unsafe { libc::pthread_setspecific(key, word as *const c_void) };
        }
    }

    fn thread_id(&self) -> u32 {
        thread_id() as u32
    }

    fn process_id(&self) -> u32 {
        process_id() as u32
    }

    fn thread_name(&self, into: &mut [u8]) -> usize {
        let mut name = [0u8; 64];
        // SAFETY: the thread is this one; at most 64 bytes are written, the end mark included.
        let got =
            unsafe { libc::pthread_getname_np(libc::pthread_self(), name.as_mut_ptr().cast(), name.len()) };
        if got != 0 {
            return 0;
        }
        let len = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
        copy(name.get(..len).unwrap_or(&[]), into)
    }

    fn leads_its_job(&self) -> bool {
        // SAFETY: getpgrp touches no memory and cannot fail.
        unsafe { libc::getpgrp() == process_id() }
    }

    fn stack_bounds(&self) -> Option<Range> {
        // SAFETY: the thread is this one, which lives.
        let (end, len) = unsafe {
            let own = libc::pthread_self();
            (libc::pthread_get_stackaddr_np(own).addr(), libc::pthread_get_stacksize_np(own))
        };
        let start = end.checked_sub(len)?;
        (len != 0).then_some(Range { start, len })
    }

    fn now_ms(&self) -> u64 {
        clock_ns(libc::CLOCK_MONOTONIC) / 1_000_000
    }

    fn now_ns(&self) -> u64 {
        clock_ns(libc::CLOCK_UPTIME_RAW)
    }

    fn cpu_ns(&self) -> u64 {
        clock_ns(libc::CLOCK_PROCESS_CPUTIME_ID)
    }

    fn random(&self) -> u64 {
        let mut bytes = [0u8; 8];
        // SAFETY: getentropy writes 8 bytes; it fails for longer requests only.
        let got = super::raw::kept(|| unsafe { libc::getentropy(bytes.as_mut_ptr().cast(), 8) } as isize);
        if got.is_ok() {
            return u64::from_ne_bytes(bytes);
        }
        // Not secret, but different in each process.
        self.now_ns().wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(self.process_id())
    }

    fn wait(&self, word: &AtomicU32, seen: u32) {
        let operation = UL_COMPARE_AND_WAIT | ULF_NO_ERRNO;
        // SAFETY: the kernel only compares the word, which is borrowed. Every outcome means: look again.
        unsafe { __ulock_wait(operation, word.as_ptr().cast(), u64::from(seen), WAIT_MAX_US) };
    }

    fn wake(&self, word: &AtomicU32) {
        let operation = UL_COMPARE_AND_WAIT | ULF_WAKE_ALL | ULF_NO_ERRNO;
        // SAFETY: the kernel uses the address only as a key.
        unsafe { __ulock_wake(operation, word.as_ptr().cast(), 0) };
    }
}

fn clock_ns(clock: libc::clockid_t) -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: clock_gettime writes one timespec. These clocks exist since macOS 10.12.
    unsafe { libc::clock_gettime(clock, &raw mut now) };
    (now.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec as u64)
}

/// Copies as much as fits, and says how much that was.
pub(super) fn copy(from: &[u8], into: &mut [u8]) -> usize {
    let len = from.len().min(into.len());
    if let (Some(from), Some(into)) = (from.get(..len), into.get_mut(..len)) {
        into.copy_from_slice(from);
    }
    len
}

/// Makes the keys, early.
pub(super) fn prepare() {
    let _ = (key(&WORD, None), key(&EXIT, Some(at_exit)));
}

type AtExit = unsafe extern "C" fn(*mut c_void);

/// A key, made at its first use; `None` when the C library has none left.
fn key(place: &AtomicU64, at_exit: Option<AtExit>) -> Option<libc::pthread_key_t> {
    if let Some(key) = place.load(Ordering::Acquire).checked_sub(1) {
        return Some(key as libc::pthread_key_t);
    }
    let mut key = 0;
    // SAFETY: the function writes one key, and the destructor has the signature it asks for.
    if unsafe { libc::pthread_key_create(&raw mut key, at_exit) } != 0 {
        return None;
    }
    match place.compare_exchange(0, (key as u64).wrapping_add(1), Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => Some(key),
        Err(theirs) => {
            // SAFETY: another thread was first; nobody has seen this key.
            unsafe { libc::pthread_key_delete(key) };
            theirs.checked_sub(1).map(|key| key as libc::pthread_key_t)
        }
    }
}

unsafe extern "C" fn at_exit(word: *mut c_void) {
    let address = ON_EXIT.load(Ordering::Acquire);
    if address != 0 {
        // SAFETY: `at_thread_exit` stored a function of this type.
        let exit: extern "C" fn(usize) = unsafe { core::mem::transmute(address) };
        exit(word.addr());
    }
}
