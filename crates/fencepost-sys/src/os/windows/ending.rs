//! Notice of the end of the process.
//!
//! Who returns from `main` comes by the C runtime's list of exit functions, as elsewhere. But most programs end by
//! `ExitProcess` (Rust's `process::exit` is that and no more), which knows nothing of that list: it ends all other
//! threads wherever they are, and then tells the modules. What is told then must not wait for a lock that such a thread
//! held: where it would ([`give_up_waiting`]), the account is given up and the process ends as it wanted to.
//!
//! `TerminateProcess`, `abort` and fail-fast exits tell nobody.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use windows_sys::Win32::System::LibraryLoader::{GetModuleHandleA, GetProcAddress};
use windows_sys::Win32::System::Threading::{FLS_OUT_OF_INDEXES, FlsAlloc, FlsSetValue};

use super::teb::Kept;
use super::{Host, stack};
use crate::{Output, VmError, VmResult};

/// What is to be run, as an address; 0 for nothing.
static EXIT: AtomicUsize = AtomicUsize::new(0);
/// Whether it has run, or does.
static TOLD: AtomicBool = AtomicBool::new(false);
/// The index of the fiber-local word whose end is told. By it the thread that ends the process hears of it first, and under
/// Wine, which calls no program's own callback then, at all.
static INDEX: AtomicU32 = AtomicU32::new(NO_INDEX);
const NO_INDEX: u32 = FLS_OUT_OF_INDEXES;
/// `RtlDllShutdownInProgress`, as an address.
static SHUTDOWN: AtomicUsize = AtomicUsize::new(0);
/// Where [`give_up_waiting`] goes; 0 while other threads may be there.
static BACK: AtomicUsize = AtomicUsize::new(0);
/// What the function below may use of the stack before it goes on underneath itself.
const OWN_FRAMES: usize = 4096;
/// The number of the error stream.
const STDERR: i32 = 2;

/// Has `exit` run at the end of the process, once.
pub(super) fn note(exit: extern "C" fn()) -> VmResult {
    EXIT.store(exit as usize, Ordering::Release);
    // SAFETY: the function lives as long as the program. The call fails only for want of memory.
    match unsafe { libc::atexit(on_return) } {
        0 => Ok(()),
        _ => Err(VmError::OutOfMemory),
    }
}

extern "C" fn on_return() {
    tell(0);
}

extern "C" fn tell(_: usize) {
    let address = EXIT.load(Ordering::Acquire);
    if address != 0 && !TOLD.swap(true, Ordering::AcqRel) {
        // SAFETY: `note` stored a function of this type.
        let exit: extern "C" fn() = unsafe { core::mem::transmute(address) };
        exit();
    }
}

/// Finds `RtlDllShutdownInProgress`, and takes what threads are told by, early.
pub(super) fn prepare() {
    if INDEX.load(Ordering::Acquire) == NO_INDEX {
        // SAFETY: the function has the type that is asked for, and lives as long as the program.
        INDEX.store(unsafe { FlsAlloc(Some(on_thread_end)) }, Ordering::Release);
    }
    // SAFETY: both names end in a zero; the module is loaded for good.
    unsafe {
        let ntdll = GetModuleHandleA(c"ntdll.dll".as_ptr().cast());
        if !ntdll.is_null()
            && let Some(function) = GetProcAddress(ntdll, c"RtlDllShutdownInProgress".as_ptr().cast())
        {
            SHUTDOWN.store(function as usize, Ordering::Relaxed);
        }
    }
}

/// Has this thread told that the process ends, if it is the one that ends it.
pub(super) fn note_thread() {
    let index = INDEX.load(Ordering::Acquire);
    if index != NO_INDEX {
        let _kept = Kept::new();
        // SAFETY: the index is ours. The system keeps the table of these values in memory of its own.
        unsafe { FlsSetValue(index, (&raw const EXIT).cast()) };
    }
}

unsafe extern "system" fn on_thread_end(_: *const core::ffi::c_void) {
    let _kept = Kept::new();
    on_module_end();
}

/// Our module ends, or a thread. If it does because the process does, this thread is the only one left.
#[inline(never)]
pub(super) fn on_module_end() {
    let address = SHUTDOWN.load(Ordering::Relaxed);
    if address == 0 {
        return;
    }
    // SAFETY: the function of this name has this type.
    let in_progress: unsafe extern "system" fn() -> u8 = unsafe { core::mem::transmute(address) };
    // SAFETY: it has no arguments.
    if unsafe { in_progress() } == 0 {
        return;
    }
    let here = (&raw const EXIT).addr();
    let local = core::hint::black_box(here);
    let top = (&raw const local).addr().saturating_sub(OWN_FRAMES);
    // SAFETY: what lies below this frame on this thread's stack is used by nobody, and `give_up_waiting` is called by
    // what runs there only.
    let done = unsafe { stack::run_below(top, tell, 0, &BACK) };
    BACK.store(0, Ordering::Relaxed);
    if !done {
        let words = b"fencepost: a thread that was ended held a lock: there is no account of this process\n";
        // Nobody is left to hear of it.
        let _ = Host.write(STDERR, words);
    }
}

/// Called by whoever is about to wait for another thread.
pub(super) fn give_up_waiting() {
    let back = BACK.load(Ordering::Relaxed);
    if back != 0 {
        // SAFETY: only the process's last thread finds an address here, within what `on_process_end` runs.
        unsafe { stack::leave_to(back) }
    }
}
