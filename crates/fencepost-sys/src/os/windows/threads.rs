//! Threads, time, chance and waiting.

use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use windows_sys::Win32::Foundation::{FILETIME, GetLastError, LocalFree, SetLastError};
use windows_sys::Win32::Security::Authentication::Identity::RtlGenRandom;
use windows_sys::Win32::System::LibraryLoader::{GetModuleHandleA, GetProcAddress};
use windows_sys::Win32::System::Performance::{QueryPerformanceCounter, QueryPerformanceFrequency};
use windows_sys::Win32::System::SystemInformation::GetTickCount64;
use windows_sys::Win32::System::Threading::{
    GetCurrentProcess, GetCurrentThread, GetProcessTimes, WaitOnAddress, WakeByAddressAll,
};

use super::teb::{self, Kept};
use super::word::Word;
use super::{Host, ending, text, watchpoints};
use crate::{Range, Threads};

/// The thread-local word of the runtime's.
static WORD: Word = Word::new();
/// What a thread's end is told with; 0 for nothing.
static EXIT: Word = Word::new();
/// What runs at a thread's end, as an address: the same function for all.
static ON_EXIT: AtomicUsize = AtomicUsize::new(0);
/// `GetThreadDescription`, as an address; 0 where the system has none (before Windows 10).
static DESCRIPTION: AtomicUsize = AtomicUsize::new(0);

/// The thread that loaded the program; 0 before it is known.
static FIRST: AtomicU32 = AtomicU32::new(0);

/// Ticks of the performance counter in a second; 0 before it was asked.
static FREQUENCY: AtomicU64 = AtomicU64::new(0);

/// Longest sleep in [`Threads::wait`], in milliseconds: a lost wake costs no more than this.
const WAIT_MAX_MS: u32 = 500;

/// Makes the indices and finds what not every system has, early.
pub(super) fn prepare() {
    let _kept = Kept::new();
    ending::prepare();
    let _ = (WORD.index(), EXIT.index());
    let _ = FIRST.compare_exchange(0, teb::thread_id(), Ordering::Relaxed, Ordering::Relaxed);
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

/// What a module's callback is told at the beginning and the end of a thread, and at the end of the process (`winnt.h`).
const THREAD_BEGINS: u32 = 2;
const THREAD_ENDS: u32 = 3;
const PROCESS_ENDS: u32 = 0;
/// How often a thread's end is told at most: what runs then may ask for it again.
const ENDS_MAX: usize = 4;

type Callback = unsafe extern "system" fn(*mut core::ffi::c_void, u32, *mut core::ffi::c_void);

/// The loader calls these by their order. The language's own, which runs the destructors of thread-local variables, is
/// in `.CRT$XLB`: this one comes after it.
#[used]
#[unsafe(link_section = ".CRT$XLY")]
static AT_END: Callback = at_end;

unsafe extern "system" fn at_end(_: *mut core::ffi::c_void, what: u32, _: *mut core::ffi::c_void) {
    if what == THREAD_BEGINS {
        watchpoints::on_thread_begin();
    }
    if what == PROCESS_ENDS {
        let _kept = Kept::new();
        ending::on_module_end();
    }
    let address = ON_EXIT.load(Ordering::Acquire);
    if what != THREAD_ENDS || address == 0 {
        return;
    }
    let _kept = Kept::new();
    // SAFETY: `at_thread_exit` stored a function of this type.
    let exit: extern "C" fn(usize) = unsafe { core::mem::transmute(address) };
    for _ in 0..ENDS_MAX {
        let word = EXIT.get();
        if word == 0 {
            break;
        }
        EXIT.set(0);
        exit(word);
    }
}

impl Threads for Host {
    fn thread_word(&self) -> usize {
        WORD.get()
    }

    fn set_thread_word(&self, word: usize) {
        WORD.set(word);
    }

    fn at_thread_exit(&self, exit: extern "C" fn(usize), word: usize) {
        ending::note_thread();
        ON_EXIT.store(exit as usize, Ordering::Release);
        EXIT.set(word);
    }

    fn thread_id(&self) -> u32 {
        teb::thread_id()
    }

    fn process_id(&self) -> u32 {
        teb::process_id()
    }

    fn thread_name(&self, into: &mut [u8]) -> usize {
        let address = DESCRIPTION.load(Ordering::Relaxed);
        let len = if address == 0 { 0 } else { described(address, into) };
        // The first thread has no name of its own, and is called as the language and other systems call it.
        match into.get_mut(..4) {
            Some(place) if len == 0 && teb::thread_id() == FIRST.load(Ordering::Relaxed) => {
                place.copy_from_slice(b"main");
                4
            }
            _ => len,
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
        ending::give_up_waiting();
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

/// This thread's description, by the function of this address.
fn described(address: usize, into: &mut [u8]) -> usize {
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
