//! Watchpoints: the debug registers of the processor, set in every thread there is and by every thread that begins.
//!
//! The news of a write is the exception of single steps, after the writing instruction, with the register in `Dr6`. The
//! registers travel in the context of every exception that passes: so whoever has handled one of ours or has passed one on puts in what is wanted
//! now ([`refresh`]), or a thread would go on with those of before. What the kernel writes in system calls is not seen.
//!
//! A register that somebody else has set in any thread is not taken. While a debugger is attached there are none of ours.
//!
//! Source: Intel's manual, volume 3, "Debug Registers"; `NtGetNextThread` of ntdll (phnt's `ntpsapi.h`).

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, compiler_fence};

use fencepost_record::AccessType;
use windows_sys::Win32::Foundation::{CloseHandle, GetLastError, HANDLE, WAIT_OBJECT_0};
use windows_sys::Win32::System::Diagnostics::Debug::{
    CONTEXT, CONTEXT_DEBUG_REGISTERS_AMD64, EXCEPTION_RECORD, GetThreadContext, SetThreadContext,
};
use windows_sys::Win32::System::LibraryLoader::{GetModuleHandleA, GetProcAddress};
use windows_sys::Win32::System::Threading::{
    GetCurrentProcess, GetCurrentThread, GetThreadId, ResumeThread, SuspendThread, THREAD_GET_CONTEXT,
    THREAD_QUERY_LIMITED_INFORMATION, THREAD_SET_CONTEXT, THREAD_SUSPEND_RESUME, THREAD_SYNCHRONIZE,
    WaitForSingleObject,
};

use super::probe::{Feature, denied};
use super::teb::{self, Kept};
use super::watchdog::Aligned;
use super::{Host, faults};
use crate::os::processor::context;
use crate::{
    Hit, NoWatchpoints, OnHit, Range, VmError, VmResult, WATCHPOINTS, WatchpointOffer, Watchpoints,
    watchpoints_of,
};

/// One register, in all threads.
struct Register {
    /// What it is for; 0 while it is free.
    tag: AtomicU32,
    /// The first byte, also of what was watched last.
    address: AtomicUsize,
    /// Its bits of `Dr7`; 0 while it is free.
    bits: AtomicU64,
}

static REGISTERS: [Register; WATCHPOINTS] =
    [const { Register { tag: AtomicU32::new(0), address: AtomicUsize::new(0), bits: AtomicU64::new(0) } };
        WATCHPOINTS];

/// The latest addresses that were watched: by them a register is known to be ours, also one of before.
static OURS: [AtomicUsize; 16] = [const { AtomicUsize::new(0) }; 16];
static LAST_OURS: AtomicUsize = AtomicUsize::new(0);

/// Whether any was ever set.
static USED: AtomicBool = AtomicBool::new(false);
/// The runtime's function, as an address; 0 before there is one.
static ON_HIT: AtomicUsize = AtomicUsize::new(0);
/// `NtGetNextThread`, as an address; 0 where it is not.
static NEXT_THREAD: AtomicUsize = AtomicUsize::new(0);

/// What was found out: 0 for nothing yet, else one of the numbers below.
static FOUND: AtomicU32 = AtomicU32::new(0);
const INSTRUCTIONS: u32 = 1;
const UNSEEN: u32 = 2;
const DENIED: u32 = 3;
/// The tag by which it is tried, what is written to then, and how often that was told.
const TRIAL: u32 = u32::MAX;
static WORD: AtomicU64 = AtomicU64::new(0);
static SEEN: AtomicU32 = AtomicU32::new(0);

/// How often all threads are gone through because one did not stand.
const TRIES: usize = 16;
/// The most threads that are gone through.
const THREADS: usize = 4096;
/// The bit of `Dr6` for a single step.
const STEP: u64 = 1 << 14;
/// What [`NextThread`] answers at the end (`STATUS_NO_MORE_ENTRIES`).
const NO_MORE: i32 = 0x8000_001a_u32 as i32;

type NextThread = unsafe extern "system" fn(HANDLE, HANDLE, u32, u32, u32, *mut HANDLE) -> i32;

/// Finds the function, early.
pub(super) fn prepare() {
    // SAFETY: both names end in a zero; the module is loaded for good.
    unsafe {
        let ntdll = GetModuleHandleA(c"ntdll.dll".as_ptr().cast());
        if !ntdll.is_null()
            && let Some(function) = GetProcAddress(ntdll, c"NtGetNextThread".as_ptr().cast())
        {
            NEXT_THREAD.store(function as usize, Ordering::Relaxed);
        }
    }
}

impl Watchpoints for Host {
    fn ready_to_watch(&self, on_hit: OnHit) -> WatchpointOffer {
        ON_HIT.store(on_hit as usize, Ordering::Release);
        if denied(Feature::Watchpoints) {
            return WatchpointOffer::Nothing(NoWatchpoints::Denied);
        }
        if NEXT_THREAD.load(Ordering::Relaxed) == 0 {
            return WatchpointOffer::Nothing(NoWatchpoints::Absent);
        }
        if teb::is_debugged() {
            return WatchpointOffer::Nothing(NoWatchpoints::Traced);
        }
        if faults::put_in_force().is_err() {
            return WatchpointOffer::Nothing(NoWatchpoints::Unseen);
        }
        if FOUND.load(Ordering::Relaxed) == 0 {
            FOUND.store(find_out(), Ordering::Relaxed);
        }
        match FOUND.load(Ordering::Relaxed) {
            INSTRUCTIONS => WatchpointOffer::Instructions,
            DENIED => WatchpointOffer::Nothing(NoWatchpoints::Denied),
            _ => WatchpointOffer::Nothing(NoWatchpoints::Unseen),
        }
    }

    fn arm_watchpoints(&self, range: Range, tag: u32) -> VmResult {
        let parts = watchpoints_of(range).ok_or(VmError::Unsupported)?;
        let _kept = Kept::new();
        take(&parts, tag)?;
        let mut outcome = Ok(());
        for _ in 0..TRIES {
            outcome = set_everywhere();
            // A register of somebody else's stays where it is.
            if matches!(outcome, Ok(()) | Err(VmError::OutOfMemory)) {
                break;
            }
        }
        if outcome.is_err() {
            self.disarm_watchpoints(tag);
        }
        outcome
    }

    fn disarm_watchpoints(&self, tag: u32) {
        let _kept = Kept::new();
        give_back(tag);
        // In a thread that does not stand it stays: its news are recognised, and end it there.
        let cleared = set_everywhere();
        let _ = cleared;
    }

    /// In this thread, as a sample: a program may set the registers itself.
    fn is_armed(&self, tag: u32) -> bool {
        let _kept = Kept::new();
        let mut context = empty();
        // SAFETY: the handle means this thread; the call fills in the registers that are asked for.
        let known = unsafe { GetThreadContext(GetCurrentThread(), &raw mut context.0) } != 0;
        let here = debug_addresses(&context.0);
        let stands = |(register, address): (&Register, u64)| {
            register.tag.load(Ordering::Relaxed) != tag
                || (address == register.address.load(Ordering::Relaxed) as u64
                    && context.0.Dr7 & register.bits.load(Ordering::Relaxed)
                        == register.bits.load(Ordering::Relaxed))
        };
        known && REGISTERS.iter().zip(here).all(stands)
    }
}

/// Takes free registers for these parts.
fn take(parts: &[Range], tag: u32) -> VmResult {
    let wanted = parts.iter().filter(|part| part.len > 0);
    let mut free =
        REGISTERS.iter().enumerate().filter(|(_, register)| register.tag.load(Ordering::Relaxed) == 0);
    for part in wanted {
        let Some((number, register)) = free.next() else {
            give_back(tag);
            return Err(VmError::OutOfMemory);
        };
        if let Some(place) = OURS.get(LAST_OURS.fetch_add(1, Ordering::Relaxed) & 15) {
            place.store(part.start, Ordering::Relaxed);
        }
        register.tag.store(tag, Ordering::Relaxed);
        register.address.store(part.start, Ordering::Relaxed);
        register.bits.store(bits(number, part.len), Ordering::Release);
    }
    USED.store(true, Ordering::Release);
    Ok(())
}

fn give_back(tag: u32) {
    for register in REGISTERS.iter().filter(|register| register.tag.load(Ordering::Relaxed) == tag) {
        register.bits.store(0, Ordering::Release);
        register.tag.store(0, Ordering::Relaxed);
    }
}

/// The bits of `Dr7` by which a register watches writes to so many bytes, in this task.
fn bits(number: usize, len: usize) -> u64 {
    let size = match len {
        1 => 0,
        2 => 1,
        8 => 2,
        _ => 3,
    };
    (1 << number.wrapping_mul(2)) | ((1 | (size << 2)) << number.wrapping_mul(4).wrapping_add(16))
}

/// All bits of `Dr7` that are about a register.
fn mask(number: usize) -> u64 {
    (3 << number.wrapping_mul(2)) | (0xf << number.wrapping_mul(4).wrapping_add(16))
}

fn empty() -> Aligned {
    // SAFETY: all-zero is a valid value of a structure of integers.
    let mut context: Aligned = unsafe { core::mem::zeroed() };
    context.0.ContextFlags = CONTEXT_DEBUG_REGISTERS_AMD64;
    context
}

fn debug_addresses(context: &CONTEXT) -> [u64; WATCHPOINTS] {
    [context.Dr0, context.Dr1, context.Dr2, context.Dr3]
}

fn is_ours(address: u64) -> bool {
    OURS.iter().any(|place| place.load(Ordering::Relaxed) as u64 == address)
}

/// Puts what is wanted now into a thread's registers, and leaves those of others; false where one that is wanted is another's.
fn put(context: &mut CONTEXT) -> bool {
    let CONTEXT { Dr0, Dr1, Dr2, Dr3, Dr7, .. } = context;
    let mut fine = true;
    for (number, (register, place)) in REGISTERS.iter().zip([Dr0, Dr1, Dr2, Dr3]).enumerate() {
        let bits = register.bits.load(Ordering::Acquire);
        let is_set = *Dr7 & (3 << number.wrapping_mul(2)) != 0;
        if is_set && !is_ours(*place) {
            fine &= bits == 0;
        } else if bits != 0 {
            *place = register.address.load(Ordering::Relaxed) as u64;
            *Dr7 = (*Dr7 & !mask(number)) | bits;
        } else if is_set {
            *Dr7 &= !mask(number);
        }
    }
    fine
}

/// Puts what is wanted now into the context that a thread goes on with after an exception.
pub(super) fn refresh(context: &mut CONTEXT) {
    let holds = context.ContextFlags & CONTEXT_DEBUG_REGISTERS_AMD64 == CONTEXT_DEBUG_REGISTERS_AMD64;
    if holds && USED.load(Ordering::Acquire) {
        put(context);
    }
}

/// This thread has just begun.
pub(super) fn on_thread_begin() {
    if USED.load(Ordering::Acquire) {
        let _kept = Kept::new();
        // SAFETY: the handle means this thread.
        let set = unsafe { set(GetCurrentThread()) };
        // A thread that cannot be watched runs all the same.
        let _ = set;
    }
}

/// Sets what is wanted in one thread.
///
/// # Safety
/// The handle must be of a thread that stands, or this one's.
unsafe fn set(handle: HANDLE) -> VmResult {
    let mut context = empty();
    // SAFETY: the caller's promise; the calls fill in and read the registers that are asked for.
    unsafe {
        if GetThreadContext(handle, &raw mut context.0) == 0 {
            return Err(VmError::Denied);
        }
        if !put(&mut context.0) {
            return Err(VmError::OutOfMemory);
        }
        if SetThreadContext(handle, &raw const context.0) == 0 { Err(VmError::Denied) } else { Ok(()) }
    }
}

/// Sets what is wanted in every thread. One that is not in the list yet finds it when it begins.
fn set_everywhere() -> VmResult {
    let rights = THREAD_SUSPEND_RESUME
        | THREAD_GET_CONTEXT
        | THREAD_SET_CONTEXT
        | THREAD_QUERY_LIMITED_INFORMATION
        | THREAD_SYNCHRONIZE;
    // SAFETY: the function of this name has this type; `ready_to_watch` has seen that it is there.
    let next: NextThread = unsafe { core::mem::transmute(NEXT_THREAD.load(Ordering::Relaxed)) };
    let (mut before, mut outcome): (HANDLE, VmResult) = (core::ptr::null_mut(), Ok(()));
    for _ in 0..THREADS {
        let mut handle = core::ptr::null_mut();
        // SAFETY: the call writes one handle, and goes on from the one that it is given.
        let status = unsafe { next(GetCurrentProcess(), before, rights, 0, 0, &raw mut handle) };
        if !before.is_null() {
            // SAFETY: it was given to us, and is used no more.
            unsafe { CloseHandle(before) };
        }
        if status < 0 {
            return if status == NO_MORE { outcome } else { Err(VmError::Denied) };
        }
        // SAFETY: the handle was given to us just now, with these rights.
        if let Err(error) = unsafe { set_standing(handle) } {
            outcome = Err(error);
        }
        before = handle;
    }
    // SAFETY: as above.
    unsafe { CloseHandle(before) };
    Err(VmError::OutOfMemory)
}

/// Sets what is wanted in a thread, which stands meanwhile.
///
/// # Safety
/// The handle must be a thread's, with the rights that this takes.
unsafe fn set_standing(handle: HANDLE) -> VmResult {
    // SAFETY: the caller's promise. While the thread stands, only the kernel is called: whatever lock it holds is not asked for.
    unsafe {
        if GetThreadId(handle) == teb::thread_id() {
            return set(GetCurrentThread());
        }
        if SuspendThread(handle) == u32::MAX {
            let error = VmError::Other(GetLastError() as i32);
            // It has ended meanwhile.
            return if WaitForSingleObject(handle, 0) == WAIT_OBJECT_0 { Ok(()) } else { Err(error) };
        }
        let set = set(handle);
        ResumeThread(handle);
        set
    }
}

/// Tries it in this thread.
fn find_out() -> u32 {
    let _kept = Kept::new();
    let word = Range { start: (&raw const WORD).addr(), len: size_of::<u64>() };
    let parts = watchpoints_of(word).unwrap_or_default();
    if take(&parts, TRIAL).is_err() {
        return UNSEEN;
    }
    SEEN.store(0, Ordering::Relaxed);
    // SAFETY: the handle means this thread.
    let set_here = unsafe { set(GetCurrentThread()) };
    compiler_fence(Ordering::SeqCst);
    WORD.store(1, Ordering::SeqCst);
    compiler_fence(Ordering::SeqCst);
    give_back(TRIAL);
    // SAFETY: as above. If it fails its news are recognised.
    let cleared = unsafe { set(GetCurrentThread()) };
    match (set_here, cleared, SEEN.load(Ordering::SeqCst)) {
        (Ok(()), Ok(()), 1) => INSTRUCTIONS,
        (Err(VmError::Denied), ..) => DENIED,
        _ => UNSEEN,
    }
}

/// Handles the exception after one instruction; false when it is none of ours, or not ours alone.
pub(super) fn on_trap(record: &EXCEPTION_RECORD, context: &mut CONTEXT) -> bool {
    if !USED.load(Ordering::Acquire) {
        return false;
    }
    let told = context.Dr6;
    let is_hit =
        |number: &usize| told & (1 << number) != 0 && context.Dr7 & (3 << number.wrapping_mul(2)) != 0;
    let ours = REGISTERS.iter().zip(debug_addresses(context)).enumerate();
    let mut ours = ours.filter(|(number, (_, address))| is_hit(number) && is_ours(*address));
    let Some((_, (register, address))) = ours.next() else { return false };
    let tag = register.tag.load(Ordering::Relaxed);
    if register.bits.load(Ordering::Acquire) != 0
        && register.address.load(Ordering::Relaxed) as u64 == address
    {
        let _kept = Kept::new();
        tell(record, context, tag, address as usize);
    }
    context.Dr6 = 0;
    put(context);
    told & STEP == 0
}

/// Not inlined: the description is large.
#[inline(never)]
fn tell(record: &EXCEPTION_RECORD, context: &CONTEXT, tag: u32, address: usize) {
    if tag == TRIAL {
        SEEN.fetch_add(1, Ordering::SeqCst);
        return;
    }
    let on_hit = ON_HIT.load(Ordering::Acquire);
    if on_hit == 0 {
        return;
    }
    // SAFETY: `ready_to_watch` stored a function of this type.
    let on_hit: OnHit = unsafe { core::mem::transmute(on_hit) };
    let mut after = context::fault(record, context, teb::read(teb::STACK_RESERVED), false);
    (after.access, after.address) = (AccessType::Write, Some(address));
    on_hit(&Hit { tag, address, after, late: false });
}
