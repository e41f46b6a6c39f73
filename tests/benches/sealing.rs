//! What sealing, watching and stepping cost: `cargo bench -p fencepost-tests --bench sealing`.
//!
//! Each figure is the median of several rounds, beside what it is compared with in the same run. Readers are measured in
//! pairs, sealed and not sealed in turn, so that a busy machine slows both.

use std::hint::black_box;
use std::time::Instant;

use fencepost::WatchOptions;

#[global_allocator]
static ALLOC: fencepost::GuardedAlloc = fencepost::GuardedAlloc::new()
    .with_options("on_error=continue,exitcode=0,symbolize=off,log=/dev/null,summary=off");

const ROUNDS: usize = 9;
const READERS: usize = 8;

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Nanoseconds that one of `count` turns takes: the median of some rounds.
fn nanoseconds(count: u32, mut turn: impl FnMut()) -> f64 {
    let rounds = (0..ROUNDS).map(|_| {
        let start = Instant::now();
        (0..count).for_each(|_| turn());
        start.elapsed().as_nanos() as f64 / f64::from(count)
    });
    median(rounds.collect())
}

fn protect(at: *mut u8, protection: i32) {
    // SAFETY: the page is the caller's own.
    assert_eq!(unsafe { libc::mprotect(at.cast(), 4096, protection) }, 0);
}

fn page() -> *mut u8 {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a fresh mapping touches nobody's memory.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), 4096, protection, flags, -1, 0) };
    assert_ne!(page, libc::MAP_FAILED);
    page.cast()
}

fn write(at: *mut u8) {
    // SAFETY: the byte is in a block or a page that is alive.
    unsafe { black_box(at).write_volatile(1) };
}

/// Seconds that eight threads take to sum a table many times.
fn readers(table: &[u64]) -> f64 {
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..READERS {
            scope.spawn(|| {
                (0..4_000).fold(0u64, |sum, _| sum ^ black_box(table).iter().fold(0, |a, b| a ^ b))
            });
        }
    });
    start.elapsed().as_secs_f64()
}

fn main() {
    let mut block = vec![0u8; 64].into_boxed_slice();
    let at = block.as_mut_ptr();
    let by_hand = page();
    println!("engine {}", fencepost::stats().engine);
    let pair = nanoseconds(2_000, || {
        protect(by_hand, libc::PROT_READ);
        write_nothing(by_hand);
        protect(by_hand, libc::PROT_READ | libc::PROT_WRITE);
    });
    let seal = nanoseconds(2_000, || drop(black_box(fencepost::seal(&block[..]).expect("sealed"))));
    println!("seal and unseal               {seal:9.0} ns, mprotect there and back by hand {pair:.0} ns");
    // SAFETY: the block outlives what closes it.
    let watch = unsafe { fencepost::watch_raw(at, 8, WatchOptions::new()) }.expect("watched");
    let noted = nanoseconds(500, || write(at));
    let beside = nanoseconds(500, || write(at.wrapping_add(32)));
    drop(watch);
    let plain = nanoseconds(500, || write(at));
    println!("write that a watch notes      {noted:9.0} ns");
    println!("write beside it, in silence   {beside:9.0} ns, unwatched {plain:.0} ns");
    // SAFETY: as above.
    let seal = unsafe { fencepost::seal_raw(at, 64) }.expect("sealed");
    (0..100).for_each(|_| write(at));
    let counted = nanoseconds(500, || write(at));
    drop(seal);
    println!("violation that is counted     {counted:9.0} ns");
    let table: Vec<u64> = (0..4096).collect();
    let pairs = (0..ROUNDS).map(|_| {
        let open = readers(&table);
        let seal = fencepost::seal(&table[..]).expect("sealed");
        let sealed = readers(&table);
        drop(seal);
        sealed / open
    });
    println!(
        "{READERS} readers of sealed memory      {:8.3} times the time without a seal",
        median(pairs.collect())
    );
}

fn write_nothing(at: *mut u8) {
    // SAFETY: the page is readable.
    black_box(unsafe { at.read_volatile() });
}
