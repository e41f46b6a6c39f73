//! Ends a call on another stack that takes for ever.
//!
//! No signal interrupts a thread here. So while such a call is watched, a thread of ours waits beside it; when the time is
//! over it stops the other wherever that is, has it go on at the end of its call ([`stack::give_up`]), and wakes it from what
//! it may be waiting for: a lock, or the end of an input or output.
//!
//! That thread is there while a report is made and at no other time. It begins without the loader, which does not tell the
//! program's modules of it: so it neither waits for the loader's lock nor runs anything of the program's. Who cannot have it
//! goes without.
//!
//! Invariants: a watch is armed only while a call runs ([`disarm`] comes before every end of one); the thread that is
//! stopped is let go where it was unless the watch is still armed while it stands.

use core::ffi::c_void;
use core::ptr::{null, null_mut};
use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use windows_sys::Win32::Foundation::{CloseHandle, HANDLE};
use windows_sys::Win32::System::Diagnostics::Debug::{
    CONTEXT, CONTEXT_CONTROL_AMD64, GetThreadContext, SetThreadContext,
};
use windows_sys::Win32::System::IO::CancelSynchronousIo;
use windows_sys::Win32::System::LibraryLoader::{GetModuleHandleA, GetProcAddress};
use windows_sys::Win32::System::Threading::{
    GetCurrentProcess, OpenThread, ResumeThread, SuspendThread, THREAD_ALL_ACCESS, THREAD_GET_CONTEXT,
    THREAD_SET_CONTEXT, THREAD_SUSPEND_RESUME, THREAD_TERMINATE, WaitOnAddress, WakeByAddressAll,
};

use super::probe::{Feature, denied};
use super::teb::{self, Kept};
use super::{Host, stack};
use crate::Threads;

/// `NtCreateThreadEx` and `NtAlertThreadByThreadId` of ntdll, as addresses; 0 where they are not.
static CREATE: AtomicUsize = AtomicUsize::new(0);
static ALERT: AtomicUsize = AtomicUsize::new(0);
/// `THREAD_CREATE_FLAGS_SKIP_THREAD_ATTACH`: the loader tells no module of it (phnt's `ntpsapi.h`).
const SKIP_THREAD_ATTACH: u32 = 2;
/// Bytes of stack for the thread that waits.
const STACK: usize = 64 << 10;
/// The flags that the rules for calls want clear: single steps, and going downwards.
const STEP_AND_DIRECTION: u32 = 0x100 | 0x400;

/// The number of the watch that is armed; 0 for none.
static WATCH: AtomicU32 = AtomicU32::new(0);
static LAST: AtomicU32 = AtomicU32::new(0);
/// How long the last one is to wait, in milliseconds.
static DURATION: AtomicU64 = AtomicU64::new(0);

type Start = unsafe extern "system" fn(*mut c_void) -> u32;
type Create = unsafe extern "system" fn(
    *mut HANDLE,
    u32,
    *const c_void,
    HANDLE,
    Start,
    *mut c_void,
    u32,
    usize,
    usize,
    usize,
    *const c_void,
) -> i32;
type Alert = unsafe extern "system" fn(HANDLE) -> i32;

/// The system wants it on such an address, and the bindings do not say so.
#[repr(C, align(16))]
pub(super) struct Aligned(pub(super) CONTEXT);

/// Finds both functions, early.
pub(super) fn prepare() {
    // SAFETY: all names end in a zero; the module is loaded for good.
    unsafe {
        let ntdll = GetModuleHandleA(c"ntdll.dll".as_ptr().cast());
        if ntdll.is_null() {
            return;
        }
        for (place, name) in [(&CREATE, c"NtCreateThreadEx"), (&ALERT, c"NtAlertThreadByThreadId")] {
            let function = GetProcAddress(ntdll, name.as_ptr().cast());
            place.store(function.map_or(0, |function| function as usize), Ordering::Relaxed);
        }
    }
}

/// Ends the running call of this thread's after so many milliseconds, unless [`disarm`] comes first.
pub(super) fn arm(milliseconds: u64) {
    let create = CREATE.load(Ordering::Relaxed);
    if create == 0 || denied(Feature::Watchdog) {
        return;
    }
    let _kept = Kept::new();
    let number = LAST.fetch_add(1, Ordering::Relaxed).wrapping_add(1).max(1);
    DURATION.store(milliseconds, Ordering::Relaxed);
    WATCH.store(number, Ordering::Release);
    let whom = (teb::thread_id() as usize) << 32 | number as usize;
    let mut handle: HANDLE = null_mut();
    // SAFETY: the function of this name has this type; it writes one handle. What the thread runs takes the number that it is
    // given for what it is.
    let status = unsafe {
        let create: Create = core::mem::transmute(create);
        create(
            &raw mut handle,
            THREAD_ALL_ACCESS,
            null(),
            GetCurrentProcess(),
            waits,
            whom as *mut c_void,
            SKIP_THREAD_ATTACH,
            0,
            0,
            STACK,
            null(),
        )
    };
    if status < 0 {
        WATCH.store(0, Ordering::Release);
    } else {
        // SAFETY: the handle was given to us just now. The thread goes on without it.
        unsafe { CloseHandle(handle) };
    }
}

/// Takes the watch back.
pub(super) fn disarm() {
    if WATCH.swap(0, Ordering::AcqRel) != 0 {
        let _kept = Kept::new();
        // SAFETY: the address is only a key.
        unsafe { WakeByAddressAll(WATCH.as_ptr().cast()) };
    }
}

/// What the other thread does.
unsafe extern "system" fn waits(whom: *mut c_void) -> u32 {
    let (thread, number) = ((whom.addr() >> 32) as u32, whom.addr() as u32);
    let end = Host.now_ms().saturating_add(DURATION.load(Ordering::Relaxed));
    while WATCH.load(Ordering::Acquire) == number {
        let left = end.saturating_sub(Host.now_ms());
        if left == 0 {
            interrupt(thread, number);
            break;
        }
        let left = u32::try_from(left).unwrap_or(u32::MAX.wrapping_sub(1));
        // SAFETY: the word is a static, 4 bytes long, as is what it is compared with.
        unsafe { WaitOnAddress(WATCH.as_ptr().cast(), (&raw const number).cast(), 4, left) };
    }
    0
}

/// Has a thread leave its call, if that is still watched under this number.
fn interrupt(thread: u32, number: u32) {
    let rights = THREAD_SUSPEND_RESUME | THREAD_GET_CONTEXT | THREAD_SET_CONTEXT | THREAD_TERMINATE;
    // SAFETY: all-zero is a valid value of a structure of integers.
    let mut context: Aligned = unsafe { core::mem::zeroed() };
    context.0.ContextFlags = CONTEXT_CONTROL_AMD64;
    // SAFETY: the calls read and write what they are given. A thread that is watched is there: so the number is still its own, or
    // nothing is done to the one that has it now but that it stands for a moment. While it stands, only the kernel is called:
    // whatever lock it holds is not asked for.
    unsafe {
        let handle = OpenThread(rights, 0, thread);
        if handle.is_null() {
            return;
        }
        if SuspendThread(handle) != u32::MAX {
            // It stands for certain when its context is given.
            let stands = GetThreadContext(handle, &raw mut context.0) != 0;
            if stands && WATCH.compare_exchange(number, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                // In the middle of a call to the system it keeps no registers but these.
                (context.0.Rip, context.0.Rsp) = stack::give_up();
                context.0.EFlags &= !STEP_AND_DIRECTION;
                SetThreadContext(handle, &raw const context.0);
                wake(handle, thread);
            }
            ResumeThread(handle);
        }
        CloseHandle(handle);
    }
}

/// Ends what a thread waits for, if it waits. It stands, so nothing that it does later is ended.
///
/// # Safety
/// The handle must be the thread's, with the right to end its work.
unsafe fn wake(handle: HANDLE, thread: u32) {
    // SAFETY: the caller's promise.
    unsafe { CancelSynchronousIo(handle) };
    let alert = ALERT.load(Ordering::Relaxed);
    if alert != 0 {
        // SAFETY: the function of this name has this type, and takes a number in place of a handle. Whoever waits on an address
        // must be ready to be woken for nothing.
        unsafe {
            let alert: Alert = core::mem::transmute(alert);
            alert(thread as usize as HANDLE);
        }
    }
}
