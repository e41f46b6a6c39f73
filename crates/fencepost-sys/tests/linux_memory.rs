//! The host's memory, threads and output keep the promises of the contract, on whatever kernel this runs; and on
//! one that lacks what newer ones have, by `FENCEPOST_DENY`.
#![cfg(target_os = "linux")]
#![allow(clippy::disallowed_types, clippy::disallowed_macros, clippy::disallowed_methods)]

use std::io::{Read, Seek};
use std::os::fd::FromRawFd;
use std::process::Command;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use fencepost_sys::{Host, Memory, Output, Platform, Protection, Range, Threads, VmError};

fn host() -> Host {
    static PROBED: Once = Once::new();
    PROBED.call_once(|| Host.probe());
    Host
}

fn page() -> usize {
    Host.page_size()
}

/// Whether these tests run under an emulator of programs, as whoever starts them says.
fn emulated() -> bool {
    std::env::var("FENCEPOST_TEST_RUNNER").is_ok_and(|runner| !runner.is_empty())
}

fn denied(what: &str) -> bool {
    std::env::var("FENCEPOST_DENY").is_ok_and(|list| list.split(',').any(|word| word == what))
}

fn range(start: usize, pages: usize) -> Range {
    Range { start, len: pages * page() }
}

/// Whether the kernel finds a byte readable.
fn readable(address: usize) -> bool {
    Host.read_checked(address, &mut [0]) == 1
}

fn write(address: usize, value: u8) {
    // SAFETY: the tests write where they have committed.
    unsafe { (address as *mut u8).write_volatile(value) }
}

fn read(address: usize) -> u8 {
    // SAFETY: as above.
    unsafe { (address as *const u8).read_volatile() }
}

/// The kernel's mappings that touch a range.
fn mappings_in(range: Range) -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let bounds = |line: &str| {
        let (start, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
        (usize::from_str_radix(start, 16).unwrap(), usize::from_str_radix(end, 16).unwrap())
    };
    maps.lines().map(bounds).filter(|(start, end)| *start < range.end() && range.start < *end).count()
}

#[test]
fn reserved_memory_traps_until_it_is_committed() {
    let host = host();
    let align = 1 << 21;
    let base = host.reserve(64 * page(), align).unwrap();
    assert_eq!(base % align, 0);
    assert!(!readable(base) && host.is_mapped(range(base, 64)));
    // SAFETY: the range is ours.
    unsafe {
        host.commit(range(base, 4)).unwrap();
        host.commit(range(base + 4 * page(), 4)).unwrap();
        assert_eq!(mappings_in(range(base, 8)), 1, "neighbours in the same state share a mapping");
        assert_eq!(read(base + 5), 0);
        write(base, 7);
        assert!(!readable(base + 8 * page()));
        host.protect(range(base, 1), Protection::Read).unwrap();
        assert_eq!(read(base), 7);
        host.protect(range(base, 1), Protection::None).unwrap();
        assert!(!readable(base));
        host.protect(range(base, 1), Protection::ReadWrite).unwrap();
        assert_eq!(read(base), 7, "protection keeps the content");
        host.discard(range(base, 1)).unwrap();
        assert_eq!(read(base), 0);
        write(base, 9);
        host.decommit(range(base, 8)).unwrap();
        assert!(!readable(base));
        assert_eq!(mappings_in(range(base, 64)), 1, "as after reserve");
        host.commit(range(base, 1)).unwrap();
        assert_eq!(read(base), 0);
        host.release(range(base, 64)).unwrap();
    }
    assert!(!host.is_mapped(range(base, 1)));
}

#[test]
fn addresses_are_taken_only_when_all_are_free() {
    let host = host();
    let base = host.reserve(8 * page(), page()).unwrap();
    // SAFETY: the ranges are ours.
    unsafe {
        assert_eq!(host.reserve_at(range(base + 4 * page(), 8)), Err(VmError::OutOfMemory));
        assert!(host.is_mapped(range(base, 8)), "what was there is untouched");
        host.release(range(base, 8)).unwrap();
        // Another thread of the test may take the addresses first; then the answer is as above.
        if host.reserve_at(range(base, 4)).is_ok() {
            assert!(!readable(base) && host.is_mapped(range(base, 4)));
            host.release(range(base, 4)).unwrap();
        }
    }
    assert_eq!(host.reserve(usize::MAX - page() + 1, page()), Err(VmError::OutOfMemory));
    assert_eq!(host.reserve(page(), 3 * page()), Err(VmError::Unsupported));
    assert!(!host.is_mapped(Range { start: 0, len: page() }));
    let local = 1u8;
    assert!(host.is_mapped(Range { start: (&raw const local).addr(), len: 1 }));
}

#[test]
fn guards_trap_without_a_mapping() {
    let host = host();
    let base = host.reserve(256 * page(), page()).unwrap();
    // SAFETY: the range is ours.
    unsafe {
        host.commit(range(base, 256)).unwrap();
        if !host.offers().guard_markers {
            assert!(denied("markers") || host.guard_install(range(base, 1)).is_err());
            assert_eq!(host.guard_install(range(base, 1)), Err(VmError::Unsupported));
            assert_eq!(host.guard_remove_each(&[range(base, 1)]), Err(VmError::Unsupported));
        } else {
            assert!(!denied("markers"));
            for at in 0..256 {
                write(base + at * page(), 1);
            }
            for at in (1..256).step_by(2) {
                host.guard_install(range(base + at * page(), 1)).unwrap();
            }
            assert_eq!(mappings_in(range(base, 256)), 1);
            for at in 0..256 {
                assert_eq!(readable(base + at * page()), at % 2 == 0);
            }
            host.guard_remove(range(base + page(), 1)).unwrap();
            assert_eq!(
                (read(base + page()), read(base + 2 * page())),
                (0, 1),
                "zero, and its neighbour is not"
            );
            // More than one batch, not in order, one range with nothing to remove.
            let mut ranges: Vec<Range> =
                (3..256).step_by(2).rev().map(|at| range(base + at * page(), 1)).collect();
            ranges.push(range(base, 1));
            let before = host.calls();
            host.guard_remove_each(&ranges).unwrap();
            let calls = host.calls() - before;
            if host.offers().vectored {
                // Two calls for each of two batches; what other tests call meanwhile is counted too.
                assert!((4..ranges.len() as u64).contains(&calls), "{calls} calls");
            } else {
                assert!(calls >= 2 * ranges.len() as u64);
            }
            assert!((0..256).all(|at| readable(base + at * page())));
            assert_eq!((read(base), read(base + 255 * page())), (1, 0));
        }
        host.release(range(base, 256)).unwrap();
    }
}

#[test]
fn populated_pages_are_there_before_the_first_write() {
    let host = host();
    let base = host.reserve(8 * page(), page()).unwrap();
    let resident = || {
        let mut pages = [0u8; 8];
        // SAFETY: mincore writes one byte for each of the eight pages.
        assert_eq!(unsafe { libc::mincore(base as *mut _, 8 * page(), pages.as_mut_ptr()) }, 0);
        pages.iter().filter(|page| **page & 1 != 0).count()
    };
    // SAFETY: the range is ours.
    unsafe {
        host.commit(range(base, 8)).unwrap();
        host.no_huge_pages(range(base, 8)).unwrap_or_else(|error| assert_eq!(error, VmError::Unsupported));
        assert_eq!(resident(), 0);
        host.populate(range(base, 4)).unwrap();
        assert!(resident() == 4 || emulated(), "an emulator says done, and does nothing");
        if host.offers().guard_markers {
            host.guard_install(range(base, 8)).unwrap();
            host.guard_remove_each(&[range(base, 1), range(base + 3 * page(), 2)]).unwrap();
            assert_eq!(resident(), 3, "what was opened is populated, what is still guarded is not");
        }
        host.release(range(base, 8)).unwrap();
    }
}

#[test]
fn reads_stop_at_the_first_page_that_cannot_be_read() {
    let host = host();
    let base = host.reserve(64 * page(), page()).unwrap();
    // SAFETY: the range is ours.
    unsafe { host.commit(range(base, 40)).unwrap() };
    for at in 0..40 * page() {
        write(base + at, (at % 251) as u8);
    }
    let mut into = vec![0xff; 64 * page()];
    assert_eq!(host.read_checked(base + 3, &mut into), 40 * page() - 3);
    assert!((0..40 * page() - 3).all(|at| into[at] == ((at + 3) % 251) as u8));
    assert_eq!(host.read_checked(base + 40 * page(), &mut into), 0);
    assert_eq!(host.read_checked(0, &mut into), 0);
    assert_eq!(host.read_checked(0xdead_0000_0000_0000, &mut into), 0);
    assert_eq!(host.read_checked(usize::MAX - 3, &mut into), 0);
    assert_eq!(host.read_checked(base, &mut []), 0);
    // SAFETY: the range is ours.
    unsafe { host.release(range(base, 64)).unwrap() };
}

#[test]
fn offers_are_what_the_kernel_says() {
    let offers = host().offers();
    if denied("proc") {
        assert_eq!((offers.mappings_max, offers.mappings_now), (None, 0));
        assert!(host().available().is_some(), "the kernel is asked directly");
        return;
    }
    let max: usize = std::fs::read_to_string("/proc/sys/vm/max_map_count").unwrap().trim().parse().unwrap();
    assert_eq!(offers.mappings_max, Some(max));
    let lines = std::fs::read_to_string("/proc/self/maps").unwrap().lines().count();
    assert!(offers.mappings_now.abs_diff(lines) < 20, "{} mappings, {lines} lines", offers.mappings_now);
    assert!(!(offers.vectored && (denied("vectored") || denied("markers"))));
    assert!(host().available().is_some_and(|bytes| bytes > 1 << 20));
}

#[test]
fn a_limit_on_address_space_limits_what_is_available() {
    let host = host();
    if denied("proc") {
        return;
    }
    if emulated() {
        println!("skipped: the emulator lives under the limit as well, and takes more than it leaves");
        return;
    }
    // SAFETY: the child calls only what a fork of a threaded process may.
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        let limit = libc::rlimit { rlim_cur: 1 << 40, rlim_max: 1 << 40 };
        // SAFETY: the structure is ours.
        let set = unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) };
        // What is there without it may be the memory of a small machine.
        let before = host.available().unwrap_or(0) as usize;
        let leaves = (before / 2).next_multiple_of(page());
        let got = host.reserve((1 << 40) - leaves, page());
        let after = host.available().unwrap_or(usize::MAX as u64) as usize;
        let fine = set == 0 && got.is_ok() && after < leaves && after < before;
        // SAFETY: ends the child without running anything of the parent's.
        unsafe { libc::_exit(i32::from(!fine)) };
    }
    let mut status = 0;
    // SAFETY: the place is ours.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0);
}

#[test]
fn memory_calls_leave_errno_alone() {
    let host = host();
    let base = host.reserve(page(), page()).unwrap();
    // SAFETY: errno is this thread's; the range is ours.
    unsafe {
        *libc::__errno_location() = 4711;
        assert!(host.guard_install(Range { start: 0, len: page() }).is_err());
        assert!(host.commit(Range { start: 8, len: page() }).is_err());
        assert_eq!(host.read_checked(base, &mut [0]), 0);
        assert!(host.reserve_at(range(base, 1)).is_err());
        assert!(host.write(-1, b"x").is_err());
        assert!(!host.lock(-1));
        host.random();
        host.now_ms();
        assert_eq!(*libc::__errno_location(), 4711);
        host.release(range(base, 1)).unwrap();
    }
}

static ENDED: AtomicUsize = AtomicUsize::new(0);

extern "C" fn count_end(word: usize) {
    if word > 1 {
        Host.at_thread_exit(count_end, word - 1);
    }
    ENDED.fetch_add(1, Ordering::SeqCst);
}

#[test]
fn threads_have_words_names_stacks_and_ends() {
    let host = host();
    host.set_thread_word(11);
    let main_id = host.thread_id();
    std::thread::Builder::new()
        .name("a-name".into())
        .spawn(move || {
            assert_eq!(host.thread_word(), 0);
            host.set_thread_word(12);
            assert_eq!(host.thread_word(), 12);
            assert_ne!(host.thread_id(), main_id);
            let mut name = [0; 32];
            let len = host.thread_name(&mut name);
            assert_eq!(&name[..len], b"a-name");
            let local = 0u8;
            let stack = host.stack_bounds().unwrap();
            assert!(stack.contains((&raw const local).addr()));
            assert!((1 << 20..64 << 20).contains(&stack.len), "{stack:x?}");
            host.at_thread_exit(count_end, 3);
        })
        .unwrap()
        .join()
        .unwrap();
    assert_eq!(ENDED.load(Ordering::SeqCst), 3, "an exit that asks to be run again is");
    assert_eq!(host.thread_word(), 11);
    assert_eq!(host.process_id(), std::process::id());
    assert_ne!(host.random(), host.random());
}

#[test]
fn a_waiter_is_woken() {
    let host = host();
    let word = AtomicU32::new(0);
    host.wait(&word, 1);
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            while word.load(Ordering::Acquire) == 0 {
                host.wait(&word, 0);
            }
        });
        word.store(1, Ordering::Release);
        host.wake(&word);
        waiter.join().unwrap();
    });
    let (before, start) = (host.now_ms(), std::time::Instant::now());
    host.wait(&word, 1);
    assert!(start.elapsed().as_secs() < 5, "a wait that nobody ends does end");
    assert!(host.now_ms() >= before);
}

#[test]
fn files_are_appended_locked_and_cut() {
    let host = host();
    let path = std::env::temp_dir().join(format!("fencepost-output-{}", std::process::id()));
    let name = path.to_str().unwrap().as_bytes();
    let (first, second) = (host.open_append(name).unwrap(), host.open_append(name).unwrap());
    assert!(first > 2);
    host.write(first, b"one ").unwrap();
    host.write(second, b"two").unwrap();
    assert_eq!((host.file_len(first), host.is_terminal(first)), (Some(7), false));
    assert!(host.lock(first));
    assert!(!host.lock(second), "the other holds it");
    host.unlock(first);
    assert!(host.lock(second));
    host.truncate(first, 3).unwrap();
    // SAFETY: the descriptors are ours and used by nobody else.
    let (mut file, _other) =
        unsafe { (std::fs::File::from_raw_fd(first), std::fs::File::from_raw_fd(second)) };
    assert_eq!(std::fs::read(&path).unwrap(), b"one");
    assert!(file.rewind().is_ok() && file.read(&mut [0]).is_err(), "for writing only");
    assert!(host.open_append(b"/nowhere/at/all").is_err());
    assert!(host.open_append(&[b'x'; 5000]).is_err());
    assert!(host.open_append(b"with\0zero").is_err());
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_closed_pipe_is_an_error_and_no_death() {
    let host = host();
    // Not a pipe: a child that another test forks meanwhile keeps its other end open.
    let (out, back) = std::os::unix::net::UnixStream::pair().unwrap();
    out.shutdown(std::net::Shutdown::Both).unwrap();
    use std::os::fd::AsRawFd;
    // A Rust program ignores the signal, a C program does not.
    // SAFETY: the default effect needs no function.
    let before = unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    assert_eq!(host.write(back.as_raw_fd(), b"x"), Err(VmError::Other(libc::EPIPE)));
    // SAFETY: puts back what was there.
    unsafe { libc::signal(libc::SIGPIPE, before) };
    assert_eq!(host.file_len(back.as_raw_fd()), None);
}

#[test]
fn this_program_is_among_the_modules() {
    let host = host();
    let mut path = [0; 4096];
    let len = host.executable(&mut path);
    let exe = std::str::from_utf8(&path[..len]).unwrap().to_owned();
    assert_eq!(
        std::fs::canonicalize(&exe).unwrap(),
        std::fs::canonicalize(std::env::current_exe().unwrap()).unwrap()
    );
    // A copy that is only read, as for its symbols, is no module.
    let copy = std::fs::File::open(std::env::current_exe().unwrap()).unwrap();
    let len = copy.metadata().unwrap().len() as usize;
    // SAFETY: a new private mapping for reading.
    let copy = unsafe {
        use std::os::fd::AsRawFd;
        libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ, libc::MAP_PRIVATE, copy.as_raw_fd(), 0)
    };
    assert_ne!(copy, libc::MAP_FAILED);
    let mut modules = Vec::new();
    host.each_module(&mut |module| modules.push(*module));
    // SAFETY: the mapping is ours.
    unsafe { libc::munmap(copy, len) };
    if denied("proc") {
        return;
    }
    let here = this_program_is_among_the_modules as fn() as usize as u64;
    let data = (&raw const ENDED).addr() as u64;
    let holds = |address: u64| modules.iter().filter(move |m| (m.start..m.end).contains(&address));
    assert_eq!(holds(here).count(), 1);
    let own = holds(here).next().unwrap();
    assert!(own.path.is_cut() || own.path.as_str() == exe);
    assert!((own.start..own.end).contains(&data), "zeroed data belongs to its module");
    assert_eq!(own.bias, own.start, "position-independent");
    // The file's own numbering: what the symbol table would say. The kernel's table confirms it.
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    assert!(maps.lines().any(|line| line.starts_with(&format!("{:x}-", own.start)) && line.ends_with(&exe)));
    let libc = holds(libc::malloc as *const () as u64).next().unwrap();
    if !cfg!(target_feature = "crt-static") {
        assert!(libc.path.as_str().contains("libc"), "{}", libc.path.as_str());
        assert!(libc.build_id_len == 20 || libc.build_id_len == 16 || libc.build_id_len == 8);
    }
    assert!(modules.iter().any(|module| module.path.as_str() == "[vdso]") || emulated());
    assert_eq!(modules.iter().filter(|module| module.path.as_str() == own.path.as_str()).count(), 1);
    for pair in modules.windows(2) {
        assert!(pair[0].end <= pair[1].start, "{:?} overlaps {:?}", pair[0].path, pair[1].path);
    }
    let mut args = [0; 4096];
    let len = host.arguments(&mut args);
    assert!(args[..len].ends_with(&[0]) && len > 1);
}

/// Everything above again, as on systems that lack what this one may have.
#[test]
fn the_promises_hold_without_what_newer_kernels_offer() {
    if std::env::var_os("FENCEPOST_DENY").is_some() {
        return;
    }
    for denied in ["markers", "vectored", "process_vm_readv", "proc", "markers,process_vm_readv,proc"] {
        let own = std::env::current_exe().unwrap();
        let runner = std::env::var("FENCEPOST_TEST_RUNNER").unwrap_or_default();
        let mut words = runner.split_whitespace().map(std::ffi::OsStr::new).chain([own.as_os_str()]);
        let mut command = Command::new(words.next().unwrap());
        let run = command.args(words).env("FENCEPOST_DENY", denied).output().unwrap();
        assert!(run.status.success(), "without {denied}: {}", String::from_utf8_lossy(&run.stdout));
    }
}
