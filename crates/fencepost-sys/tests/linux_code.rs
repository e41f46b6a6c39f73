//! What the loader tells of code: whose it is, where its tables are, and for how long that holds.
#![cfg(target_os = "linux")]
#![allow(clippy::disallowed_types, clippy::disallowed_macros, clippy::disallowed_methods)]

use std::ffi::CString;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use fencepost_sys::{Code, Host, Loader};

/// While one thread finds out for the first time what stays, others are told that nothing does: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn code_at(address: usize) -> Option<Code> {
    let mut found = None;
    let told = Host.code_at(address, &mut |code| found = Some(*code));
    assert_eq!(told, found.is_some());
    found
}

#[test]
fn what_this_program_needs_stays() {
    let _alone = alone();
    // A function of this program, and one of the C library.
    for address in [code_at as *const () as usize, libc::qsort as *const () as usize] {
        let code = code_at(address).expect("it is code");
        assert!(code.lasting, "{code:?}");
        assert!(code.segment.contains(code.index.start));
        assert_eq!(Some(code.departures), Host.departures());
    }
}

#[test]
fn what_is_no_code_is_nobodys() {
    let _alone = alone();
    let local = 0u8;
    assert_eq!(code_at((&raw const local).addr()), None);
    assert_eq!(code_at(0), None);
}

#[test]
fn what_was_loaded_later_may_go() {
    let _alone = alone();
    let folder = std::env::temp_dir().join(format!("fencepost-code-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (source, library) = (folder.join("later.c"), folder.join("later.so"));
    let cc = std::env::var("FENCEPOST_TEST_CC").unwrap_or_else(|_| "cc".into());
    std::fs::write(&source, "int later(void) { return 1; }").unwrap();
    let built = Command::new(cc).args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status();
    assert!(built.expect("a C compiler, which links this test").success());
    let path = CString::new(library.to_str().unwrap()).unwrap();
    let before = Host.departures().unwrap();
    // SAFETY: the library above does nothing when it is loaded, and nothing of it is used after it is closed.
    unsafe {
        let opened = libc::dlopen(path.as_ptr(), libc::RTLD_NOW);
        assert!(!opened.is_null());
        let code = code_at(libc::dlsym(opened, c"later".as_ptr()).addr()).expect("it is code");
        assert!(!code.lasting);
        assert_eq!(code.departures, before);
        assert_eq!(libc::dlclose(opened), 0);
        assert!(Host.departures().unwrap() > code.departures);
    }
    std::fs::remove_dir_all(&folder).unwrap();
}
