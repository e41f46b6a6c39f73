//! Memory that is watched, by whatever way there is: what is noted, and what it costs what lies beside it.

use crate::{Touch, armed, victim_allocates, victim_frees, victim_touches};
use fencepost::{Watch, WatchOptions};
use std::hint::black_box;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

pub fn watched(words: &[&str]) {
    match words.first().copied().unwrap_or_default() {
        "hot" => hot(),
        "own" => own(),
        "threads" => threads(),
        "kernel" => kernel(),
        "trap" => trap(),
        "forked" => forked(),
        "closed" => closed(),
        "held-back" => held_back(),
        "many" => many(),
        "freed" => freed(),
        "sealed" => sealed(),
        "wide" => wide(),
        "audit" => audit(rest_of(words)),
        "audited" => crate::sealed_heap::audited_and_freed(),
        "raced" => raced(crate::number(words, 1)),
        other => {
            eprintln!("victim: watch what? not {other}");
            std::process::exit(2);
        }
    }
}

fn rest_of<'a>(words: &[&'a str]) -> &'a str {
    words.get(1).copied().unwrap_or_default()
}

fn watches(at: *const u8, len: usize) -> Watch<'static> {
    // SAFETY: the memory outlives the watch, or is a block that is freed on purpose.
    unsafe { fencepost::watch_raw(at, len, WatchOptions::new()) }.expect("watched")
}

fn name(watch: &Watch) -> &'static str {
    if watch.way() == fencepost::Way::Watchpoints { "watchpoints" } else { "pages" }
}

#[inline(never)]
fn victim_writes(at: *mut u8, value: u64) {
    // SAFETY: the callers' memory is alive and aligned.
    unsafe { black_box(at.cast::<u64>()).write_volatile(value) };
    black_box(at);
}

fn first(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, byte| (value << 8) | u64::from(*byte))
}

fn print(watch: &Watch) {
    for write in watch.writes() {
        println!("{} -> {} by {:?}", first(&write.old), first(&write.new), write.writer.thread_name);
    }
    println!("count {} lost {}", watch.count(), watch.lost());
}

/// One field of a hot page is watched, and the others are written to all the time.
fn hot() {
    let block = victim_allocates(4096, 8);
    victim_writes(block.wrapping_add(64), 7);
    let watch = watches(block.wrapping_add(64), 8);
    println!("by {}", name(&watch));
    armed();
    let before = fencepost::__steps();
    for round in 0..1000 {
        victim_writes(block.wrapping_add(72), round);
        victim_writes(block.wrapping_add(56), round);
        if round % 500 == 0 {
            victim_writes(block.wrapping_add(64), round + 1);
        }
    }
    println!("stepped {}", fencepost::__steps() - before);
    for write in watch.writes() {
        let frame = write.writer.frames.first().copied().unwrap_or(0);
        let mut function = String::new();
        backtrace::resolve(std::ptr::with_exposed_provenance_mut(frame), |symbol| {
            function = symbol.name().map(|name| format!("{name:#}")).unwrap_or_default();
        });
        println!(
            "{} -> {} at {} in {}",
            first(&write.old),
            first(&write.new),
            write.address - block.addr(),
            function.rsplit("::").next().unwrap_or_default()
        );
    }
    println!("count {} lost {}", watch.count(), watch.lost());
    drop(watch);
    victim_writes(block.wrapping_add(64), 9);
    victim_frees(block, 4096, 8);
}

static COUNTER: AtomicU64 = AtomicU64::new(5);

/// A static that shares its page, and a variable on the stack: only watchpoints can do that.
fn own() {
    let mut local = 1u64;
    let at = (&raw mut local).cast::<u8>();
    // SAFETY: both outlive what watches them.
    let (counter, variable) = unsafe {
        (
            fencepost::watch_raw(COUNTER.as_ptr().cast(), 8, WatchOptions::new()),
            fencepost::watch_raw(at, 8, WatchOptions::new()),
        )
    };
    armed();
    COUNTER.fetch_add(1, Ordering::Relaxed);
    victim_writes(at, 4);
    for watch in [counter, variable] {
        match watch {
            Ok(watch) => print(&watch),
            Err(error) => println!("{error}"),
        }
    }
    println!("local {local}");
}

/// Threads from before the watch and from after it, and theirs.
fn threads() {
    let block = victim_allocates(8, 8);
    victim_writes(block, 1);
    let address = block.expose_provenance();
    let (ready, go) = (Barrier::new(2), Barrier::new(2));
    std::thread::scope(|scope| {
        let named = |name: &str| std::thread::Builder::new().name(name.into());
        let write = move |value| victim_writes(std::ptr::with_exposed_provenance_mut(address), value);
        let (ready, go) = (&ready, &go);
        let old = named("old").spawn_scoped(scope, move || {
            ready.wait();
            go.wait();
            write(2);
            std::thread::Builder::new().name("child".into()).spawn(move || write(3)).map(|child| child.join())
        });
        ready.wait();
        let watch = watches(block, 8);
        armed();
        go.wait();
        drop(old.expect("a thread").join());
        let new = named("new").spawn_scoped(scope, move || write(4));
        drop(new.expect("a thread").join());
        write(5);
        print(&watch);
    });
    victim_frees(block, 8, 8);
}

/// The kernel writes: a read from a pipe.
fn kernel() {
    let block = victim_allocates(64, 8);
    victim_writes(block, 1);
    let watch = watches(block, 8);
    let mut ends = [0i32; 2];
    // SAFETY: the kernel writes two numbers to an array of two; later it reads and writes buffers that are long enough.
    unsafe {
        assert_eq!(libc::pipe(ends.as_mut_ptr()), 0);
        assert_eq!(libc::write(ends[1], c"abcdefgh".as_ptr().cast(), 8), 8);
        armed();
        println!("read {}", libc::read(ends[0], block.cast(), 8));
    }
    println!("{}", watch.system_calls());
    print(&watch);
    victim_writes(block, 2);
    print(&watch);
}

static TRAPPED: AtomicUsize = AtomicUsize::new(0);

extern "C" fn on_trap(_signal: i32) {
    TRAPPED.fetch_add(1, Ordering::Relaxed);
}

static LATER: AtomicUsize = AtomicUsize::new(0);

extern "C" fn on_trap_later(_signal: i32) {
    LATER.fetch_add(1, Ordering::Relaxed);
}

/// The program has a use of its own for SIGTRAP, before and after there is a watch.
fn trap() {
    let handler = on_trap as extern "C" fn(i32);
    // SAFETY: the handler does nothing but count.
    unsafe { libc::signal(libc::SIGTRAP, handler as libc::sighandler_t) };
    let block = victim_allocates(8, 8);
    victim_writes(block, 1);
    let watch = watches(block, 8);
    armed();
    victim_writes(block, 2);
    // SAFETY: a breakpoint instruction, or the signal itself, for which there is a handler.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        std::arch::asm!("int3");
        libc::raise(libc::SIGTRAP);
    }
    victim_writes(block, 3);
    println!("trapped {}", TRAPPED.load(Ordering::Relaxed));
    print(&watch);
    // One that is set later stands in front until the next look.
    let later = on_trap_later as extern "C" fn(i32);
    // SAFETY: the handler does nothing but count.
    unsafe { libc::signal(libc::SIGTRAP, later as libc::sighandler_t) };
    for _ in 0..200 {
        black_box(Box::new(1u8));
    }
    victim_writes(block, 4);
    // SAFETY: as above.
    unsafe { libc::raise(libc::SIGTRAP) };
    println!("trapped {} and later {}", TRAPPED.load(Ordering::Relaxed), LATER.load(Ordering::Relaxed));
    print(&watch);
}

/// A child has its own watch, and the parent keeps its one.
fn forked() {
    let block = victim_allocates(8, 8);
    victim_writes(block, 1);
    let watch = watches(block, 8);
    armed();
    // SAFETY: only this thread exists, and the child does nothing that another could hold up.
    let child = unsafe { libc::fork() };
    if child == 0 {
        victim_writes(block, 2);
        println!("child by {}", name(&watch));
        print(&watch);
        drop(watch);
        std::process::exit(0);
    }
    let mut status = 0;
    // SAFETY: the child is ours, and the status is written to a variable of ours.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    victim_writes(block, 3);
    println!("parent by {}", name(&watch));
    print(&watch);
}

/// The program closes all its descriptors, as daemons do.
fn closed() {
    let block = victim_allocates(8, 8);
    victim_writes(block, 1);
    let watch = watches(block, 8);
    armed();
    // SAFETY: nothing of ours but the watch and the heap needs a descriptor above these.
    unsafe { libc::close_range(3, u32::MAX, 0) };
    let _unseen = watch.writes();
    victim_writes(block, 2);
    println!("by {}", name(&watch));
    print(&watch);
    drop(watch);
    // A number that was ours is now the program's: it must not be closed.
    let mut ends = [0i32; 2];
    // SAFETY: the kernel writes two numbers to an array of two.
    assert_eq!(unsafe { libc::pipe(ends.as_mut_ptr()) }, 0);
}

/// A thread holds every signal back while it writes.
fn held_back() {
    let block = victim_allocates(8, 8);
    victim_writes(block, 1);
    let watch = watches(block, 8);
    armed();
    // SAFETY: both sets are filled in before they are used.
    unsafe {
        let (mut all, mut before) = (std::mem::zeroed(), std::mem::zeroed());
        libc::sigfillset(&mut all);
        assert_eq!(libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before), 0);
        victim_writes(block, 2);
        victim_writes(block, 3);
        assert_eq!(libc::pthread_sigmask(libc::SIG_SETMASK, &before, std::ptr::null_mut()), 0);
    }
    victim_writes(block, 4);
    let last = watch.writes().pop().expect("a note");
    println!("last {} -> {}", first(&last.old), first(&last.new));
    println!("by {}", name(&watch));
}

/// More watches than the processor has room for, and room again when they end.
fn many() {
    let block = victim_allocates(64, 8);
    let all: Vec<_> = (0..6).map(|index| watches(block.wrapping_add(8 * index), 8)).collect();
    println!("{:?}", all.iter().map(name).collect::<Vec<_>>());
    armed();
    (0..6).for_each(|index| victim_writes(block.wrapping_add(8 * index), index as u64));
    println!("{:?}", all.iter().map(Watch::count).collect::<Vec<_>>());
    drop(all);
    let wide = watches(block, 32);
    println!("wide by {}", name(&wide));
}

/// A watched block is freed, and its addresses are somebody else's business then.
fn freed() {
    let block = victim_allocates(8, 8);
    let watch = watches(block, 8);
    victim_writes(block, 1);
    armed();
    victim_frees(block, 8, 8);
    println!("count {}", watch.count());
    let other = victim_allocates(8, 8);
    let again: Vec<_> = (0..4).map(|_| watches(other, 8)).map(|watch| name(&watch)).collect();
    println!("{again:?}");
    drop(watch);
    victim_frees(other, 8, 8);
}

/// What is watched is sealed as well: a write is both.
fn sealed() {
    let block = victim_allocates(16, 8);
    victim_writes(block, 1);
    let watch = watches(block, 8);
    // SAFETY: the block outlives the seal.
    let seal = unsafe { fencepost::seal_raw(block, 16) }.expect("sealed");
    armed();
    victim_writes(block, 2);
    println!("violations {}", seal.violations());
    drop(seal);
    victim_writes(block, 3);
    print(&watch);
    println!("read {:#x}", victim_touches(block, Touch::Read));
}

/// Four words under one watch: one instruction may write to several.
fn wide() {
    let block = victim_allocates(32, 16);
    (0..4).for_each(|index| victim_writes(block.wrapping_add(8 * index), 0));
    let watch = watches(block, 32);
    armed();
    // SAFETY: the block is as long as what is written.
    unsafe { black_box(block.wrapping_add(16).cast::<u128>()).write_volatile((3 << 64) | 2) };
    victim_writes(block, 4);
    let mut noted = [0u8; 32];
    for write in watch.writes() {
        let start = write.address - block.addr();
        noted[start..start + write.new.len()].copy_from_slice(&write.new);
    }
    println!("{:?}", noted.chunks(8).map(first).collect::<Vec<_>>());
}

/// Two threads write at once, so often, and to a neighbour as well.
fn raced(each: usize) {
    let block = victim_allocates(24, 8);
    (0..3).for_each(|index| victim_writes(block.wrapping_add(8 * index), 0));
    let address = block.expose_provenance();
    let watch = watches(block, 8);
    armed();
    std::thread::scope(|scope| {
        for thread in 1..3usize {
            scope.spawn(move || {
                for round in 0..each {
                    victim_writes(std::ptr::with_exposed_provenance_mut(address), round as u64);
                    victim_writes(std::ptr::with_exposed_provenance_mut(address + 8 * thread), round as u64);
                }
            });
        }
    });
    let noted = watch.writes().len() as u64 + watch.lost();
    println!("by {} noted {} of {}, counted {}", name(&watch), noted, 2 * each, watch.count());
}

#[repr(align(4096))]
struct Pages([AtomicU64; 4 * 512]);

static PAGES: Pages = Pages([const { AtomicU64::new(3) }; 4 * 512]);

/// `large|small|static`: in a phase this thread and another write to one page each, and the kernel to a third.
fn audit(what: &str) {
    let block = match what {
        "large" => vec![1u8; 1 << 20],
        _ => vec![1u8; 4 * 4096],
    };
    let bytes = match what {
        // SAFETY: the numbers are only written to by this function's own phase, and never while the slice is read.
        "static" => unsafe {
            std::slice::from_raw_parts(PAGES.0.as_ptr().cast::<u8>(), std::mem::size_of::<Pages>())
        },
        _ => &block[..],
    };
    let at = bytes.as_ptr().expose_provenance();
    let mut ends = [0i32; 2];
    // SAFETY: the kernel writes two numbers to an array of two, and reads as many bytes as there are.
    unsafe {
        assert_eq!(libc::pipe(ends.as_mut_ptr()), 0);
        assert_eq!(libc::write(ends[1], c"abcdefgh".as_ptr().cast(), 8), 8);
    }
    armed();
    let phase = || {
        victim_writes(std::ptr::with_exposed_provenance_mut(at + 4096 + 8), 1);
        std::thread::scope(|scope| {
            scope.spawn(|| victim_writes(std::ptr::with_exposed_provenance_mut(at + 16), 2));
        });
        // SAFETY: the page is the block's or the static's.
        unsafe { libc::read(ends[0], std::ptr::with_exposed_provenance_mut(at + 3 * 4096), 8) }
    };
    let (read, audit) = fencepost::audit(bytes, phase).expect("audited");
    println!("{}", audit.way);
    crate::races::tell_pages(&audit, at);
    println!("read {read} lost {}", audit.lost);
}
