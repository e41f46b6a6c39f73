//! One figure, in the process that was started for it: the last line that it prints.

use std::hint::black_box;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::time::Instant;

use fencepost::{Watch, WatchOptions};

const PAGE: usize = 4096;

/// Nanoseconds of one of `count` turns, after some that are not counted.
fn nanoseconds(count: u32, mut turn: impl FnMut()) -> f64 {
    (0..count / 4).for_each(|_| turn());
    let start = Instant::now();
    (0..count).for_each(|_| turn());
    start.elapsed().as_nanos() as f64 / f64::from(count)
}

pub fn measure(what: &str) {
    let mut block = vec![0u8; 64].into_boxed_slice();
    let at = block.as_mut_ptr();
    let figure = match what {
        "seal" => nanoseconds(4000, || drop(black_box(fencepost::seal(&block[..]).expect("sealed")))),
        "protect" => {
            let page = page();
            nanoseconds(4000, || {
                protect(page, libc::PROT_READ);
                // SAFETY: the page is readable.
                black_box(unsafe { page.read_volatile() });
                protect(page, libc::PROT_READ | libc::PROT_WRITE);
            })
        }
        "watch" => nanoseconds(1000, || drop(black_box(watched(at)))),
        "noted" => with_watch(at, |at| nanoseconds(2000, || write(at))),
        "beside" => with_watch(at, |at| nanoseconds(2000, || write(at.wrapping_add(32)))),
        "violation" => {
            // SAFETY: the block outlives the seal.
            let seal = unsafe { fencepost::seal_raw(at, 64) }.expect("sealed");
            (0..100).for_each(|_| write(at));
            let figure = nanoseconds(2000, || write(at));
            drop(seal);
            figure
        }
        "fault" => by_hand(),
        "plain" => nanoseconds(100_000, || write(at)),
        other => return println!("no such measure: {other}"),
    };
    println!("{figure}");
}

/// Takes the figure if there are watchpoints where they are meant.
fn with_watch(at: *mut u8, measure: impl FnOnce(*mut u8) -> f64) -> f64 {
    let watch = watched(at);
    let figure = measure(at);
    drop(watch);
    figure
}

fn watched(at: *const u8) -> Watch<'static> {
    // SAFETY: the block outlives the watch.
    let watch = unsafe { fencepost::watch_raw(at, 8, WatchOptions::new()) }.expect("watched");
    let denied = std::env::var("FENCEPOST_DENY").is_ok_and(|denied| denied.contains("watchpoints"));
    if !denied && watch.way() != fencepost::Way::Watchpoints {
        println!("no watchpoints here");
        std::process::exit(0);
    }
    watch
}

pub fn write(at: *mut u8) {
    // SAFETY: the bytes are in a block or a page that is alive, aligned for this.
    unsafe { black_box(at).cast::<u64>().write_volatile(1) };
}

fn protect(at: *mut u8, protection: i32) {
    // SAFETY: the page is the caller's own.
    assert_eq!(unsafe { libc::mprotect(at.cast(), PAGE, protection) }, 0);
}

fn page() -> *mut u8 {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a fresh mapping touches nobody's memory.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), PAGE, protection, flags, -1, 0) };
    assert_ne!(page, libc::MAP_FAILED);
    let page = page.cast::<u8>();
    write(page);
    page
}

static CLOSED: AtomicPtr<u8> = AtomicPtr::new(std::ptr::null_mut());

extern "C" fn open(_signal: i32) {
    protect(CLOSED.load(Ordering::Relaxed), libc::PROT_READ | libc::PROT_WRITE);
}

/// What people write themselves: a handler that opens the page, and somebody who closes it again.
fn by_hand() -> f64 {
    let page = page();
    CLOSED.store(page, Ordering::Relaxed);
    let handler = open as extern "C" fn(i32);
    // SAFETY: the handler makes one system call on a page that is there.
    unsafe { libc::signal(libc::SIGSEGV, handler as libc::sighandler_t) };
    nanoseconds(4000, || {
        protect(page, libc::PROT_READ);
        write(page);
    })
}
