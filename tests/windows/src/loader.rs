//! Errors while somebody holds the loader's lock.

use std::sync::atomic::{AtomicBool, Ordering};

use windows_sys::Win32::Foundation::FreeLibrary;
use windows_sys::Win32::System::LibraryLoader::{GetModuleHandleA, GetProcAddress, LoadLibraryA};

use crate::{armed, victim_overruns};

type LockLoader = unsafe extern "system" fn(u32, *mut u32, *mut usize) -> i32;

/// Takes the loader's lock for good.
fn lock_loader() {
    let (mut state, mut cookie) = (0u32, 0usize);
    // SAFETY: both names end in a zero, and the function of this name has this type; it writes two numbers.
    let status = unsafe {
        let ntdll = GetModuleHandleA(c"ntdll.dll".as_ptr().cast());
        let lock = GetProcAddress(ntdll, c"LdrLockLoaderLock".as_ptr().cast()).expect("it is there");
        let lock: LockLoader = std::mem::transmute(lock);
        lock(0, &mut state, &mut cookie)
    };
    assert_eq!(status, 0);
}

/// Another thread holds the lock, and keeps it, while this one overruns.
pub fn error_beside_loader_lock() {
    let (tell, told) = std::sync::mpsc::channel();
    // Threads begin with the loader's lock: this one must have begun before.
    std::thread::spawn(move || {
        lock_loader();
        tell.send(()).expect("main listens");
        loop {
            std::thread::park();
        }
    });
    told.recv().expect("the lock is taken");
    armed();
    victim_overruns();
}

/// Libraries come and go on one thread, and another overruns.
pub fn errors_while_loading() {
    static STOP: AtomicBool = AtomicBool::new(false);
    let loader = std::thread::spawn(|| {
        let mut loaded = 0;
        while !STOP.load(Ordering::Relaxed) {
            // SAFETY: the name ends in a zero; what was loaded is given back.
            unsafe {
                let library = LoadLibraryA(c"winmm.dll".as_ptr().cast());
                assert!(!library.is_null());
                FreeLibrary(library);
            }
            loaded += 1;
        }
        loaded
    });
    armed();
    for _ in 0..50 {
        victim_overruns();
    }
    STOP.store(true, Ordering::Relaxed);
    println!("loaded {}", loader.join().expect("no panic") > 0);
}

static ASKED: AtomicBool = AtomicBool::new(false);

type Callback = unsafe extern "system" fn(*mut core::ffi::c_void, u32, *mut core::ffi::c_void);

/// What the loader calls as each thread begins, with its lock held, as it calls a library's `DllMain`.
#[used]
#[unsafe(link_section = ".CRT$XLD")]
static CALLBACK: Callback = on_thread;

unsafe extern "system" fn on_thread(_: *mut core::ffi::c_void, what: u32, _: *mut core::ffi::c_void) {
    // `DLL_THREAD_ATTACH`.
    if what == 2 && ASKED.load(Ordering::Relaxed) {
        armed();
        victim_overruns();
    }
}

/// An error under the loader's lock.
pub fn error_in_callback() {
    ASKED.store(true, Ordering::Relaxed);
    std::thread::spawn(|| {}).join().expect("no panic");
}
