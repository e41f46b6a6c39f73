//! Threads, time, chance and waiting.

use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use windows_sys::Win32::Foundation::{FILETIME, GetLastError, LocalFree, SetLastError};
use windows_sys::Win32::Security::Authentication::Identity::RtlGenRandom;
use windows_sys::Win32::System::LibraryLoader::{GetModuleHandleA, GetProcAddress};
use windows_sys::Win32::System::Performance::{QueryPerformanceCounter, QueryPerformanceFrequency};
use windows_sys::Win32::System::SystemInformation::GetTickCount64;
use windows_sys::Win32::System::Threading::{
    FLS_OUT_OF_INDEXES, FlsAlloc, FlsSetValue, GetCurrentProcess, GetCurrentThread, GetProcessTimes,
    TLS_OUT_OF_INDEXES, TlsAlloc, TlsGetValue, TlsSetValue, WaitOnAddress, WakeByAddressAll,
};

use super::teb::{self, Kept};
use super::{Host, text};
use crate::{Range, Threads};

/// The index of the thread-local word, plus one; 0 before there is one.
static WORD: AtomicU32 = AtomicU32::new(0);
/// The index whose callback runs at a thread's end, plus one; 0 before there is one.
static EXIT: AtomicU32 = AtomicU32::new(0);
/// What runs at a thread's end, as an address: the same function for all.
static ON_EXIT: AtomicUsize = AtomicUsize::new(0);
/// `GetThreadDescription`, as an address; 0 where the system has none (before Windows 10).
static DESCRIPTION: AtomicUsize = AtomicUsize::new(0);

/// Ticks of the performance counter in a second; 0 before it was asked.
static FREQUENCY: AtomicU64 = AtomicU64::new(0);

/// Longest sleep in [`Threads::wait`], in milliseconds: a lost wake costs no more than this.
const WAIT_MAX_MS: u32 = 500;

/// Makes the indices and finds what not every system has, early.
pub(super) fn prepare() {
    let _kept = Kept::new();
    let _ = (word_index(), exit_index());
    // SAFETY: both names end in a zero; the module is loaded for good.
    unsafe {
        let kernel = GetModuleHandleA(c"kernel32.dll".as_ptr().cast());
        if !kernel.is_null()
            && let Some(function) = GetProcAddress(kernel, c"GetThreadDescription".as_ptr().cast())
        {
            DESCRIPTION.store(function as usize, Ordering::Relaxed);
        }
    }
}

/// The index of the thread-local word; `None` when the system has none left.
fn word_index() -> Option<u32> {
    if let Some(index) = WORD.load(Ordering::Acquire).checked_sub(1) {
        return Some(index);
    }
    let _kept = Kept::new();
    // SAFETY: the call has no arguments.
    let index = unsafe { TlsAlloc() };
    if index == TLS_OUT_OF_INDEXES {
        return None;
    }
    match WORD.compare_exchange(0, index.wrapping_add(1), Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => Some(index),
        // Another thread was faster. Our index stays unused: it may be in use as soon as it is freed.
        Err(theirs) => theirs.checked_sub(1),
    }
}

fn exit_index() -> Option<u32> {
    if let Some(index) = EXIT.load(Ordering::Acquire).checked_sub(1) {
        return Some(index);
    }
    // SAFETY: the function has the type that is asked for, and lives as long as the program.
    let index = unsafe { FlsAlloc(Some(at_end)) };
    if index == FLS_OUT_OF_INDEXES {
        return None;
    }
    match EXIT.compare_exchange(0, index.wrapping_add(1), Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => Some(index),
        Err(theirs) => theirs.checked_sub(1),
    }
}

unsafe extern "system" fn at_end(word: *const core::ffi::c_void) {
    let address = ON_EXIT.load(Ordering::Acquire);
    if address != 0 && !word.is_null() {
        // SAFETY: `at_thread_exit` stored a function of this type.
        let exit: extern "C" fn(usize) = unsafe { core::mem::transmute(address) };
        exit(word.addr());
    }
}

impl Threads for Host {
    fn thread_word(&self) -> usize {
        match word_index() {
            Some(index) if index < teb::SLOTS => teb::slot(index),
            Some(index) => {
                let _kept = Kept::new();
                // SAFETY: the index is ours.
                unsafe { TlsGetValue(index) }.addr()
            }
            None => 0,
        }
    }

    fn set_thread_word(&self, word: usize) {
        match word_index() {
            // SAFETY: the index is ours, and below the number of slots.
            Some(index) if index < teb::SLOTS => unsafe { teb::set_slot(index, word) },
            Some(index) => {
                let _kept = Kept::new();
                // SAFETY: the index is ours. It fails only for want of memory, in a thread's first use of a late index.
                unsafe { TlsSetValue(index, word as *const _) };
            }
            None => {}
        }
    }

    /// By a callback of fiber-local storage, which the system runs before the destructors of the language's variables:
    /// what those allocate is counted as unguarded.
    fn at_thread_exit(&self, exit: extern "C" fn(usize), word: usize) {
        let _kept = Kept::new();
        ON_EXIT.store(exit as usize, Ordering::Release);
        if let Some(index) = exit_index() {
            // SAFETY: the index is ours. The system keeps the table of these values in memory of its own.
            unsafe { FlsSetValue(index, word as *const _) };
        }
    }

    fn thread_id(&self) -> u32 {
        teb::thread_id()
    }

    fn process_id(&self) -> u32 {
        teb::process_id()
    }

    fn thread_name(&self, into: &mut [u8]) -> usize {
        let address = DESCRIPTION.load(Ordering::Relaxed);
        if address == 0 {
            return 0;
        }
        let _kept = Kept::new();
        // SAFETY: the function of this name has this type.
        let describe: unsafe extern "system" fn(*mut core::ffi::c_void, *mut *mut u16) -> i32 =
            unsafe { core::mem::transmute(address) };
        let mut name = core::ptr::null_mut::<u16>();
        // SAFETY: the handle means this thread; the call writes one pointer.
        if unsafe { describe(GetCurrentThread(), &raw mut name) } < 0 || name.is_null() {
            return 0;
        }
        // SAFETY: a name was given, which ends in a zero and is ours to give back, to the heap of the system's.
        unsafe {
            let len = text::to_utf8(text::ended(name).iter().copied(), into);
            LocalFree(name.cast());
            len
        }
    }

    fn leads_its_job(&self) -> bool {
        false
    }

    fn stack_bounds(&self) -> Option<Range> {
        let (start, end) = (teb::read(teb::STACK_RESERVED), teb::read(teb::STACK_BASE));
        (start != 0 && start < end).then_some(Range { start, len: end.saturating_sub(start) })
    }

    fn now_ms(&self) -> u64 {
        // SAFETY: the call has no arguments.
        unsafe { GetTickCount64() }
    }

    fn now_ns(&self) -> u64 {
        let _kept = Kept::new();
        let mut frequency = FREQUENCY.load(Ordering::Relaxed);
        let mut now = 0i64;
        // SAFETY: both calls write one number, and do not fail on any system of today's.
        unsafe {
            if frequency == 0 {
                let mut per_second = 0i64;
                QueryPerformanceFrequency(&raw mut per_second);
                frequency = per_second.max(1) as u64;
                FREQUENCY.store(frequency, Ordering::Relaxed);
            }
            QueryPerformanceCounter(&raw mut now);
        }
        let nanoseconds = u128::from(now as u64).wrapping_mul(1_000_000_000);
        nanoseconds.checked_div(u128::from(frequency)).unwrap_or(0) as u64
    }

    fn cpu_ns(&self) -> u64 {
        let _kept = Kept::new();
        let none = FILETIME { dwLowDateTime: 0, dwHighDateTime: 0 };
        let [mut made, mut ended, mut kernel, mut user] = [none; 4];
        // SAFETY: the handle means this process; the call writes four times.
        unsafe {
            GetProcessTimes(
                GetCurrentProcess(),
                &raw mut made,
                &raw mut ended,
                &raw mut kernel,
                &raw mut user,
            )
        };
        // In units of 100 ns.
        let [kernel, user] =
            [kernel, user].map(|time| u64::from(time.dwHighDateTime) << 32 | u64::from(time.dwLowDateTime));
        kernel.wrapping_add(user).wrapping_mul(100)
    }

    fn random(&self) -> u64 {
        let _kept = Kept::new();
        let mut bytes = [0u8; 8];
        // SAFETY: the call writes 8 bytes.
        if unsafe { RtlGenRandom(bytes.as_mut_ptr().cast(), 8) } {
            return u64::from_ne_bytes(bytes);
        }
        // Not secret, but different in each process.
        self.now_ms().wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(self.process_id())
    }

    fn wait(&self, word: &AtomicU32, seen: u32) {
        // SAFETY: reads and sets a word of this thread's.
        let before = unsafe { GetLastError() };
        // SAFETY: the word is borrowed and 4 bytes long, as is what it is compared with.
        unsafe {
            WaitOnAddress(word.as_ptr().cast(), (&raw const seen).cast(), 4, WAIT_MAX_MS);
            SetLastError(before);
        }
    }

    fn wake(&self, word: &AtomicU32) {
        // SAFETY: the address is only a key.
        unsafe { WakeByAddressAll(word.as_ptr().cast()) };
    }
}
