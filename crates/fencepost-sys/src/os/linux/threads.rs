//! Threads, time, chance and waiting.
//!
//! Thread-local variables here are initialised by a constant and have no destructor: such variables are plain memory
//! of the thread, without the registration that would call the allocator and without a moment after which they may
//! not be used.

use core::cell::Cell;
use core::ptr::null;
use core::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};

use super::maps::Maps;
use super::probe::page_size;
use super::raw::{process_id, syscall, thread_id};
use super::{Host, limits, word};
use crate::{Range, Threads};

thread_local! {
    /// What runs when this thread ends, and its word.
    static EXIT: Cell<Option<(extern "C" fn(usize), usize)>> = const { Cell::new(None) };
}

/// The key whose destructor runs at a thread's end; -1 before there is one.
static EXIT_KEY: AtomicI64 = AtomicI64::new(-1);

/// Longest sleep in [`Threads::wait`], in nanoseconds: a lost wake costs no more than this.
const WAIT_MAX_NS: i64 = 500_000_000;

/// A main stack without a limit is taken to be this long.
const STACK_MAX: usize = 8 << 20;

impl Threads for Host {
    #[inline(always)]
    fn thread_word(&self) -> usize {
        word::get()
    }

    #[inline(always)]
    fn set_thread_word(&self, word: usize) {
        word::set(word);
    }

    /// The C library runs the destructors of keys after those of `thread_local!` and C++ variables, and again as
    /// long as one of them sets a key anew, four times at most (`PTHREAD_DESTRUCTOR_ITERATIONS`). Its first 32 keys
    /// have their values in the thread itself; a key beyond those would be paid from the heap, which is why
    /// [`Platform::probe`](crate::Platform::probe) makes it before anyone else does.
    fn at_thread_exit(&self, exit: extern "C" fn(usize), word: usize) {
        let Some(key) = exit_key() else { return };
        EXIT.set(Some((exit, word)));
        // SAFETY: the key was made by pthread_key_create and is never deleted. Any value but null makes the
        // destructor run. It fails only for want of memory for keys past the first 32 (see above).
        unsafe { libc::pthread_setspecific(key, (&raw const EXIT_KEY).cast()) };
    }

    fn thread_id(&self) -> u32 {
        thread_id() as u32
    }

    fn process_id(&self) -> u32 {
        process_id() as u32
    }

    fn thread_name(&self, into: &mut [u8]) -> usize {
        // The kernel's limit, end mark included.
        let mut name = [0u8; 16];
        // SAFETY: PR_GET_NAME writes at most 16 bytes.
        if unsafe { syscall!(libc::SYS_prctl, libc::PR_GET_NAME, name.as_mut_ptr(), 0, 0, 0) }.is_err() {
            return 0;
        }
        let len = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
        copy(name.get(..len).unwrap_or(&[]), into)
    }

    /// For the first thread: up to where its limit lets the stack grow, from `/proc/self/maps`. For others the C
    /// library is asked, which takes a few bytes from the heap for a moment: the caller must be ready for a nested
    /// allocation.
    fn leads_its_job(&self) -> bool {
        // SAFETY: getpgid touches no memory.
        let group = unsafe { syscall!(libc::SYS_getpgid, 0) };
        group.is_ok_and(|group| group == process_id() as usize)
    }

    fn stack_bounds(&self) -> Option<Range> {
        if thread_id() == process_id()
            && let Some(range) = main_stack()
        {
            return Some(range);
        }
        pthread_stack()
    }

    #[inline(always)]
    fn now_ms(&self) -> u64 {
        let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: clock_gettime writes one timespec. The clock exists since Linux 2.6.32.
        unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &raw mut now) };
        let milliseconds = (now.tv_nsec as u64) / 1_000_000;
        (now.tv_sec as u64).wrapping_mul(1000).wrapping_add(milliseconds)
    }

    fn now_ns(&self) -> u64 {
        clock_ns(libc::CLOCK_MONOTONIC)
    }

    fn cpu_ns(&self) -> u64 {
        clock_ns(libc::CLOCK_PROCESS_CPUTIME_ID)
    }

    fn random(&self) -> u64 {
        let mut bytes = [0u8; 8];
        // SAFETY: getrandom writes at most 8 bytes.
        let got =
            unsafe { syscall!(libc::SYS_getrandom, bytes.as_mut_ptr(), bytes.len(), libc::GRND_NONBLOCK) };
        if got == Ok(bytes.len()) { u64::from_ne_bytes(bytes) } else { random_at_start() }
    }

    fn wait(&self, word: &AtomicU32, seen: u32) {
        let timeout = libc::timespec { tv_sec: 0, tv_nsec: WAIT_MAX_NS };
        let operation = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
        // SAFETY: the kernel only compares the word, which is borrowed. Every outcome means: look again.
        let _ =
            unsafe { syscall!(libc::SYS_futex, word.as_ptr(), operation, seen, &raw const timeout, 0, 0) };
    }

    fn wake(&self, word: &AtomicU32) {
        let operation = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
        // SAFETY: the kernel uses the address only as a key.
        let _ = unsafe { syscall!(libc::SYS_futex, word.as_ptr(), operation, i32::MAX, 0, 0, 0) };
    }
}

fn clock_ns(clock: libc::clockid_t) -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: clock_gettime writes one timespec. Both clocks exist since Linux 2.6.12; without them nothing is written.
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

/// Makes the key for thread exits, early (see [`Threads::at_thread_exit`]).
pub(super) fn prepare() {
    let _ = exit_key();
}

fn exit_key() -> Option<libc::pthread_key_t> {
    if let Ok(key) = libc::pthread_key_t::try_from(EXIT_KEY.load(Ordering::Acquire)) {
        return Some(key);
    }
    let mut key = 0;
    // SAFETY: the function writes one key, and the destructor has the signature it asks for.
    if unsafe { libc::pthread_key_create(&raw mut key, Some(at_exit)) } != 0 {
        return None;
    }
    match EXIT_KEY.compare_exchange(-1, i64::from(key), Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => Some(key),
        Err(theirs) => {
            // SAFETY: another thread was first; nobody has seen this key.
            unsafe { libc::pthread_key_delete(key) };
            libc::pthread_key_t::try_from(theirs).ok()
        }
    }
}

unsafe extern "C" fn at_exit(_: *mut libc::c_void) {
    if let Some((exit, word)) = EXIT.take() {
        exit(word);
    }
}

/// The first thread's stack. In a child that another thread forked, the first thread runs on that one's stack: then
/// the current address does not lie in what the kernel calls the stack, and the answer is `None`.
fn main_stack() -> Option<Range> {
    let local = 0u8;
    let sp = (&raw const local).addr();
    let mut below = 0usize;
    let mut found = None;
    Maps::open()?.each(|line| {
        if line.path == b"[stack]" {
            found = Some((line.start, line.end));
            return false;
        }
        below = line.end;
        true
    });
    let (start, end) = found.filter(|(start, end)| (*start..*end).contains(&sp))?;
    let limit = limits::resource(libc::RLIMIT_STACK).map_or(STACK_MAX, |limit| limit as usize);
    let lowest = end.saturating_sub(limit).max(below).min(start);
    let lowest = lowest.next_multiple_of(page_size());
    Some(Range { start: lowest, len: end.saturating_sub(lowest) })
}

#[allow(clippy::disallowed_methods)] // the one use that says what it costs: see `stack_bounds`
fn pthread_stack() -> Option<Range> {
    // SAFETY: all-zero is a valid value of this opaque structure.
    let mut attributes: libc::pthread_attr_t = unsafe { core::mem::zeroed() };
    // SAFETY: pthread_self is this thread, which is alive; the function fills `attributes`.
    if unsafe { libc::pthread_getattr_np(libc::pthread_self(), &raw mut attributes) } != 0 {
        return None;
    }
    let mut start = null::<u8>().cast_mut().cast();
    let mut len = 0usize;
    // SAFETY: the attributes were filled above; both places are ours.
    let got = unsafe { libc::pthread_attr_getstack(&raw const attributes, &raw mut start, &raw mut len) };
    // SAFETY: the attributes were filled above and are not used after.
    unsafe { libc::pthread_attr_destroy(&raw mut attributes) };
    (got == 0 && len != 0).then_some(Range { start: start.addr(), len })
}

/// A number from the 16 random bytes that the kernel gives every process at its start, for kernels or filters
/// without `getrandom`. Hashed, since the C library's own secrets are made of the same bytes.
fn random_at_start() -> u64 {
    static DRAWN: AtomicU64 = AtomicU64::new(0);
    // SAFETY: getauxval reads a table that the kernel left on the stack at start.
    let seed = unsafe { libc::getauxval(libc::AT_RANDOM) } as usize as *const [u64; 2];
    // SAFETY: where not null, it points to 16 bytes that live as long as the process.
    let [first, second] = if seed.is_null() { [0, 0] } else { unsafe { seed.read_unaligned() } };
    let drawn = DRAWN.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
    let mixed = mix(first ^ drawn).wrapping_add(mix(second ^ u64::from(process_id() as u32)));
    mix(mixed ^ Host.now_ms())
}

/// Spreads every bit over all (the finaliser of SplitMix64; Steele, Lea and Flood 2014).
fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
