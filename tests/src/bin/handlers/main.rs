//! A program with fault handlers of its own, and one that asks whose are in force.
//!
//! `handlers in-force`: for SIGSEGV and SIGBUS, the name of the function that is in force in `main`.
//! `handlers before|after|none null|heap|sent|file`: installs its own handler from a constructor (before), in `main`
//! (after) or not at all, and then faults: near null, beside a heap block, by a signal that is sent, or in a file
//! that was cut short. Its handler prints `own handler: SIGNAL` and leaves with status 42.

use std::hint::black_box;
use std::io::Write;

#[global_allocator]
static ALLOC: fencepost::GuardedAlloc = fencepost::GuardedAlloc::new();

/// Runs before `main`, as constructors of C++ libraries do; glibc hands over the arguments.
#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn(libc::c_int, *const *const libc::c_char) = constructor;

extern "C" fn constructor(count: libc::c_int, arguments: *const *const libc::c_char) {
    if count < 2 {
        return;
    }
    // SAFETY: glibc gives constructors what `main` gets: `count` strings that end in zero.
    let first = unsafe { std::ffi::CStr::from_ptr(*arguments.add(1)) };
    if first == c"before" {
        install_own();
    }
}

extern "C" fn own_handler(signal: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let line: &[u8] =
        if signal == libc::SIGSEGV { b"own handler: SIGSEGV\n" } else { b"own handler: SIGBUS\n" };
    // SAFETY: write and _exit may be called in a signal handler; the buffer is alive.
    unsafe {
        libc::write(1, line.as_ptr().cast(), line.len());
        libc::_exit(42);
    }
}

fn install_own() {
    // SAFETY: the action is zeroed and then filled; the handler has the type that SA_SIGINFO asks for.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = own_handler as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        for signal in [libc::SIGSEGV, libc::SIGBUS] {
            assert_eq!(libc::sigaction(signal, &action, std::ptr::null_mut()), 0);
        }
    }
}

/// The function that is in force for a signal, and whether it runs on the alternate stack.
fn in_force(signal: libc::c_int) -> String {
    // SAFETY: a null new action changes nothing; the old one is written to.
    let action = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        assert_eq!(libc::sigaction(signal, std::ptr::null(), &mut action), 0);
        action
    };
    let mut name = match action.sa_sigaction {
        libc::SIG_DFL => "default".to_owned(),
        libc::SIG_IGN => "ignored".to_owned(),
        _ => "?".to_owned(),
    };
    // One past the start: `resolve` takes return addresses, and looks one byte back.
    backtrace::resolve(std::ptr::without_provenance_mut(action.sa_sigaction.wrapping_add(1)), |symbol| {
        if let Some(found) = symbol.name() {
            // Without the hash of the crate.
            name = format!("{found:#}");
        }
    });
    let on_stack = action.sa_flags & libc::SA_ONSTACK != 0;
    format!("{name} on {}", if on_stack { "the alternate stack" } else { "the thread's stack" })
}

#[inline(never)]
fn victim_touches(at: *mut u8) -> u8 {
    // SAFETY: none: this is the bug.
    black_box(unsafe { black_box(at).read_volatile() })
}

/// A page of a file that has no bytes any more.
fn cut_short() -> *mut u8 {
    // SAFETY: the file is this function's own; the mapping touches no memory of anybody's.
    unsafe {
        let file = libc::memfd_create(c"short".as_ptr(), 0);
        assert!(file >= 0 && libc::ftruncate(file, 4096) == 0);
        let page = libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ, libc::MAP_SHARED, file, 0);
        assert_ne!(page, libc::MAP_FAILED);
        assert_eq!(libc::ftruncate(file, 0), 0);
        page.cast()
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if words == ["in-force"] {
        println!("SIGSEGV: {}", in_force(libc::SIGSEGV));
        println!("SIGBUS: {}", in_force(libc::SIGBUS));
        return;
    }
    let [when, what] = words[..] else { return };
    if when == "after" {
        install_own();
    }
    // Blocks of every kind of life between the handler and the fault, as a real program has.
    let block: Vec<u8> = vec![1; 4096];
    let many: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    black_box(&many);
    let mut out = std::io::stdout().lock();
    out.write_all(b"armed\n").and_then(|()| out.flush()).expect("stdout takes a line");
    drop(out);
    match what {
        "null" => drop(victim_touches(std::ptr::without_provenance_mut(0x18))),
        "heap" => drop(victim_touches(block.as_ptr().wrapping_add(block.capacity()).cast_mut())),
        "file" => drop(victim_touches(cut_short())),
        // SAFETY: a signal to this process itself.
        "sent" => assert_eq!(unsafe { libc::kill(libc::getpid(), libc::SIGSEGV) }, 0),
        _ => std::process::exit(2),
    }
    println!("survived");
}
