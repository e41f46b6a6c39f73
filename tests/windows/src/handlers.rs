//! Handlers of the program's own: vectored ones, and frames of functions.

use std::arch::{asm, naked_asm};
use std::hint::black_box;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use windows_sys::Win32::Foundation::{
    EXCEPTION_ACCESS_VIOLATION, EXCEPTION_GUARD_PAGE, EXCEPTION_INT_DIVIDE_BY_ZERO, EXCEPTION_SINGLE_STEP,
    GetLastError, INVALID_HANDLE_VALUE,
};
use windows_sys::Win32::Storage::FileSystem::{
    CREATE_ALWAYS, CreateFileA, FILE_ATTRIBUTE_NORMAL, FILE_FLAG_DELETE_ON_CLOSE, WriteFile,
};
use windows_sys::Win32::System::Diagnostics::Debug::{
    AddVectoredExceptionHandler, CONTEXT, EXCEPTION_POINTERS, EXCEPTION_RECORD,
};
use windows_sys::Win32::System::Memory::{MEM_COMMIT, MEM_RESERVE, PAGE_GUARD, PAGE_READWRITE, VirtualAlloc};

use crate::{armed, victim_overruns, victim_reads};

const GO_ON: i32 = -1;
const SEARCH: i32 = 0;

unsafe extern "system" fn leaves(pointers: *mut EXCEPTION_POINTERS) -> i32 {
    // SAFETY: the system gives a handler valid pointers.
    let code = unsafe { (*(*pointers).ExceptionRecord).ExceptionCode };
    if code == EXCEPTION_ACCESS_VIOLATION {
        println!("own handler");
        std::process::exit(42);
    }
    SEARCH
}

/// `first|last null|heap`: a handler of the program's own, in front of the guard's or behind it.
pub fn own_vectored(order: &str, what: &str) {
    // SAFETY: the handler has the type that is asked for.
    let handle = unsafe { AddVectoredExceptionHandler(u32::from(order == "first"), Some(leaves)) };
    assert!(!handle.is_null());
    armed();
    match what {
        "null" => victim_reads(std::ptr::without_provenance(0x18)),
        _ => victim_overruns(),
    };
}

/// Reads a byte in a frame that has a handler, which makes it a zero.
///
/// # Safety
/// The address may be anything: that is what the handler is for.
#[unsafe(naked)]
unsafe extern "C" fn reads_or_zero(at: *const u8) -> usize {
    naked_asm!(
        ".seh_proc {this}",
        ".seh_handler {handler}, @except",
        "sub rsp, 40",
        ".seh_stackalloc 40",
        ".seh_endprologue",
        "xor eax, eax",
        // Two bytes long.
        "mov al, [rcx]",
        "nop",
        "add rsp, 40",
        "ret",
        ".seh_endproc",
        this = sym reads_or_zero,
        handler = sym skips,
    )
}

unsafe extern "C" fn skips(
    _: *mut EXCEPTION_RECORD,
    _: *mut core::ffi::c_void,
    context: *mut CONTEXT,
    _: *mut core::ffi::c_void,
) -> i32 {
    // SAFETY: the system gives a frame's handler the context that the thread goes on with.
    unsafe { (*context).Rip += 2 };
    // `ExceptionContinueExecution`.
    0
}

/// `null|heap`: an error in a function with a handler of its own.
pub fn own_frame(what: &str) {
    let block = black_box(vec![7u8; 64]);
    armed();
    let at = match what {
        "null" => std::ptr::without_provenance(0x18),
        _ => block.as_ptr().wrapping_add(64),
    };
    // SAFETY: the function is ready for any address.
    println!("read {}", unsafe { reads_or_zero(at) });
}

static SEEN: AtomicU32 = AtomicU32::new(0);

unsafe extern "system" fn counts_guards(pointers: *mut EXCEPTION_POINTERS) -> i32 {
    // SAFETY: the system gives a handler valid pointers.
    let code = unsafe { (*(*pointers).ExceptionRecord).ExceptionCode };
    if code == EXCEPTION_GUARD_PAGE {
        SEEN.fetch_add(1, Ordering::Relaxed);
        return GO_ON;
    }
    SEARCH
}

/// A guard page of the program's own, beside tripwires, which are made of such pages.
pub fn own_guard_page() {
    // SAFETY: the handler has the type that is asked for; the page is fresh.
    let page = unsafe {
        AddVectoredExceptionHandler(0, Some(counts_guards));
        VirtualAlloc(std::ptr::null(), 4096, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE | PAGE_GUARD)
    };
    let block = vec![1u8; 100];
    let mut wire = fencepost::tripwire(&block[..50]).expect("set");
    victim_reads(page.cast());
    println!("own {} tripped {}", SEEN.load(Ordering::Relaxed), wire.is_tripped());
    victim_reads(block.as_ptr().wrapping_add(60));
    println!("own {} tripped {}", SEEN.load(Ordering::Relaxed), wire.is_tripped());
    armed();
    victim_reads(block.as_ptr().wrapping_add(3));
    println!("own {} tripped {}", SEEN.load(Ordering::Relaxed), wire.is_tripped());
    wire.rearm().expect("set again");
    victim_reads(block.as_ptr().wrapping_add(4));
    println!("own {} tripped {}", SEEN.load(Ordering::Relaxed), wire.is_tripped());
}

unsafe extern "system" fn counts_steps(pointers: *mut EXCEPTION_POINTERS) -> i32 {
    // SAFETY: the system gives a handler valid pointers.
    let (record, context) = unsafe { (&*(*pointers).ExceptionRecord, &mut *(*pointers).ContextRecord) };
    if record.ExceptionCode == EXCEPTION_SINGLE_STEP {
        SEEN.fetch_add(1, Ordering::Relaxed);
        context.EFlags &= !0x100;
        return GO_ON;
    }
    SEARCH
}

/// A program that uses the trap flag itself, between errors that are stepped over.
pub fn own_steps() {
    // SAFETY: the handler has the type that is asked for.
    unsafe { AddVectoredExceptionHandler(0, Some(counts_steps)) };
    armed();
    for _ in 0..3 {
        victim_overruns();
        // SAFETY: sets the flag for one instruction; the handler clears it.
        unsafe { asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq", "nop") };
    }
    println!("own steps {}", SEEN.load(Ordering::Relaxed));
}

unsafe extern "system" fn skips_division(pointers: *mut EXCEPTION_POINTERS) -> i32 {
    // SAFETY: the system gives a handler valid pointers.
    let (record, context) = unsafe { (&*(*pointers).ExceptionRecord, &mut *(*pointers).ContextRecord) };
    if record.ExceptionCode == EXCEPTION_INT_DIVIDE_BY_ZERO {
        // The instruction is three bytes long. A step must not be seen from here.
        SEEN.fetch_add(1 + (context.EFlags & 0x100), Ordering::Relaxed);
        context.Rip += 3;
        return GO_ON;
    }
    SEARCH
}

/// The access is let through, and then its instruction faults for another reason.
pub fn divide() {
    // SAFETY: the handler has the type that is asked for.
    unsafe { AddVectoredExceptionHandler(0, Some(skips_division)) };
    let block = black_box(vec![7u8; 64]);
    armed();
    for _ in 0..2 {
        // SAFETY: none: it divides by the zero that lies past the block.
        unsafe {
            asm!("div dword ptr [rcx + 4]", in("rcx") block.as_ptr().wrapping_add(60), inout("eax") 1 => _, inout("edx") 0 => _)
        };
    }
    println!("left {}", SEEN.load(Ordering::Relaxed));
}

static ASKED: AtomicUsize = AtomicUsize::new(0);

unsafe extern "system" fn counts_all(_: *mut EXCEPTION_POINTERS) -> i32 {
    ASKED.fetch_add(1, Ordering::Relaxed);
    SEARCH
}

/// Panics are exceptions too: they pass by every handler, and unwind as ever.
pub fn panics() {
    // SAFETY: the handler has the type that is asked for.
    unsafe { AddVectoredExceptionHandler(1, Some(counts_all)) };
    std::panic::set_hook(Box::new(|_| {}));
    let mut caught = 0;
    for _ in 0..20 {
        let kept = vec![String::from("on the heap")];
        caught += usize::from(std::panic::catch_unwind(|| std::panic::panic_any(kept.len())).is_err());
    }
    println!("caught {caught}, seen {}", ASKED.load(Ordering::Relaxed) >= 20);
}

/// Buffers on closed pages, given to the system: it says so, and nobody dies.
pub fn closed_buffers() {
    let folder = std::env::temp_dir().join(format!("fencepost-closed-{}", std::process::id()));
    let name = std::ffi::CString::new(folder.to_str().expect("UTF-8")).expect("no zero");
    let write = 0x4000_0000;
    // SAFETY: the name ends in a zero.
    let file = unsafe {
        let flags = FILE_ATTRIBUTE_NORMAL | FILE_FLAG_DELETE_ON_CLOSE;
        CreateFileA(
            name.as_ptr().cast(),
            write,
            0,
            std::ptr::null(),
            CREATE_ALWAYS,
            flags,
            std::ptr::null_mut(),
        )
    };
    assert_ne!(file, INVALID_HANDLE_VALUE);
    let freed = Box::into_raw(Box::new([1u8; 64]));
    // SAFETY: it was made by a box just now.
    drop(unsafe { Box::from_raw(freed) });
    let mut written = 0;
    // SAFETY: none: the buffer is gone. The system looks at it with care.
    let done = unsafe { WriteFile(file, freed.cast(), 64, &mut written, std::ptr::null_mut()) };
    // SAFETY: reads a word of this thread's.
    println!("done {done} written {written} error {}", unsafe { GetLastError() } != 0);
}
