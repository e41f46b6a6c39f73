//! Writes that race, memory that is watched, and alarms.

use crate::{Touch, armed, victim_allocates, victim_touches};
use fencepost::{Sealed, WatchOptions};
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, RwLock};

pub fn race(words: &[&str]) {
    match words.first().copied().unwrap_or_default() {
        "stray" => stray(crate::number(words, 1)),
        "config" => config(),
        "arc" => arc(),
        "part" => part(),
        "sealed" => sealed(),
        "sealed-panic" => sealed_panic(),
        "watch" => watch(),
        "tripwire" => tripwire(),
        "alarm" => alarm(),
        "readers" => readers(),
        "audit" => audit(),
        other => {
            eprintln!("victim: no such race: {other}");
            std::process::exit(2);
        }
    }
}

#[inline(never)]
pub fn victim_strays(at: usize, value: u8) {
    // SAFETY: the block is alive; that it is sealed is the bug.
    unsafe { black_box(std::ptr::with_exposed_provenance_mut::<u8>(at)).write_volatile(value) };
    black_box(at);
}

/// Two threads write to a sealed block at once, so often.
fn stray(each: usize) {
    let block = victim_allocates(64, 8);
    let address = block.expose_provenance();
    // SAFETY: the block outlives the seal.
    let seal = unsafe { fencepost::seal_raw(block, 64) }.expect("sealed");
    let start = Barrier::new(2);
    armed();
    std::thread::scope(|scope| {
        for thread in 0..2usize {
            let start = &start;
            scope.spawn(move || {
                start.wait();
                for round in 0..each {
                    victim_strays(address + thread * 8, round as u8);
                }
            });
        }
    });
    println!("caught {} of {}", seal.violations(), 2 * each);
    drop(seal);
    println!(
        "last {} {}",
        victim_touches(block, Touch::Read),
        victim_touches(block.wrapping_add(8), Touch::Read)
    );
}

/// What eight threads read and one of them writes to, once in very many reads.
#[repr(C)]
struct Config {
    limits: [u64; 6],
    timeout_ms: u64,
    retries: u64,
}

#[inline(never)]
fn victim_changes_a_field(config: &Config) {
    let field = (&raw const config.timeout_ms).cast_mut();
    // SAFETY: none: it is shared, and somebody thought that one write would do no harm.
    unsafe { black_box(field).write_volatile(5_000) };
    black_box(field);
}

fn config() {
    // Not in an Arc: without protection keys a write in the moment in which a count is let through would be missed.
    let config = Box::new(Config { limits: [1; 6], timeout_ms: 1_000, retries: 3 });
    let config = &*config;
    let seal = fencepost::seal(config).expect("sealed");
    let stop = AtomicBool::new(false);
    let sum = AtomicU64::new(0);
    armed();
    std::thread::scope(|scope| {
        for number in 0..8 {
            let (stop, sum) = (&stop, &sum);
            let reads = move || {
                let mut own = 0u64;
                for round in 0..300_000u64 {
                    own = own.wrapping_add(black_box(config).limits[(round % 6) as usize] + config.retries);
                    if number == 5 && round == 200_000 {
                        victim_changes_a_field(config);
                        stop.store(true, Ordering::Relaxed);
                    }
                }
                sum.fetch_add(own, Ordering::Relaxed);
            };
            std::thread::Builder::new()
                .name(format!("reader-{number}"))
                .spawn_scoped(scope, reads)
                .expect("a thread");
        }
    });
    println!(
        "violations {} sum {} timeout {}",
        seal.violations(),
        sum.load(Ordering::Relaxed),
        config.timeout_ms
    );
}

/// The counts of an Arc lie in the block of what it holds: they are written to all the time.
fn arc() {
    let shared = Arc::new([7u64; 8]);
    let seal = fencepost::seal(&*shared).expect("sealed");
    armed();
    let clones: Vec<_> = (0..100).map(|_| shared.clone()).collect();
    println!("counted {}", Arc::strong_count(&shared));
    drop(clones);
    println!("counted {} violations {}", Arc::strong_count(&shared), seal.violations());
    drop(seal);
}

/// A part of a vector is sealed, and the rest of it is written to.
fn part() {
    let mut bytes = vec![0u8; 3 * 4096];
    let at = bytes.as_mut_ptr();
    // SAFETY: the vector outlives the seal.
    let seal = unsafe { fencepost::seal_raw(at.wrapping_add(5000), 100) }.expect("sealed");
    armed();
    for index in (0..bytes.len()).step_by(7).filter(|index| !(5000..5100).contains(index)) {
        victim_touches(at.wrapping_add(index), Touch::Write);
    }
    println!("silent {}", seal.violations() == 0);
    victim_touches(at.wrapping_add(5099), Touch::Write);
    println!("violations {}", seal.violations());
    drop(seal);
    println!("written {}", bytes.iter().filter(|byte| **byte == 0x5a).count());
}

fn sealed() {
    let value = Sealed::new([1u64, 2, 3]).expect("pages of its own");
    assert!(value.is_sealed());
    let address = value.as_ptr().expose_provenance();
    let shared = RwLock::new(value);
    shared.write().expect("a lock").write(|numbers| numbers[1] = 20);
    println!("sum {}", shared.read().expect("a lock").iter().sum::<u64>());
    armed();
    victim_strays(address, 9);
    println!("sum {}", shared.read().expect("a lock").iter().sum::<u64>());
}

/// A panic in the middle of a change seals all the same.
fn sealed_panic() {
    let mut value = Sealed::new(vec![1u8]).expect("pages of its own");
    let address = (&raw const *value).expose_provenance();
    std::panic::set_hook(Box::new(|_| ()));
    let change = std::panic::AssertUnwindSafe(|| value.write(|_| panic!("in the middle")));
    assert!(std::panic::catch_unwind(change).is_err());
    assert!(value.is_sealed());
    armed();
    // Writes back what is there: the value stays whole.
    let byte = victim_touches(std::ptr::with_exposed_provenance_mut(address), Touch::Read);
    victim_strays(address, byte);
    println!("kept {value:?}");
}

static COUNTED: AtomicUsize = AtomicUsize::new(0);

#[inline(never)]
fn victim_counts(at: &AtomicU64) {
    at.fetch_add(1, Ordering::Relaxed);
    COUNTED.fetch_add(1, Ordering::Relaxed);
}

fn watch() {
    let numbers: Box<[AtomicU64; 4]> = Box::new(std::array::from_fn(|_| AtomicU64::new(10)));
    let at = (&raw const numbers[1]).cast::<u8>();
    // SAFETY: the box outlives the watch.
    let watch = unsafe { fencepost::watch_raw(at, 8, WatchOptions::new().changes_only()) }.expect("watched");
    armed();
    std::thread::scope(|scope| {
        let work = || {
            victim_counts(&numbers[1]);
            victim_counts(&numbers[2]);
        };
        std::thread::Builder::new().name("counter".into()).spawn_scoped(scope, work).expect("a thread");
    });
    numbers[1].store(11, Ordering::Relaxed);
    numbers[1].store(42, Ordering::Relaxed);
    for write in watch.writes() {
        println!(
            "{:?} -> {:?} by {} with {} frames",
            write.old,
            write.new,
            write.writer.thread_name,
            write.writer.frames.len().min(3)
        );
    }
    println!("count {} lost {}", watch.count(), watch.lost());
    drop(watch);
    println!("values {numbers:?}");
}

fn tripwire() {
    let block = victim_allocates(256, 8);
    victim_touches(block.wrapping_add(100), Touch::Write);
    // SAFETY: the block outlives the wire.
    let mut wire = unsafe { fencepost::tripwire_raw(block.wrapping_add(64), 64) }.expect("set");
    victim_touches(block, Touch::Write);
    println!("tripped {}", wire.is_tripped());
    armed();
    println!(
        "read {:#x} tripped {}",
        victim_touches(block.wrapping_add(100), Touch::Read),
        wire.is_tripped()
    );
    victim_touches(block.wrapping_add(101), Touch::Read);
    wire.rearm().expect("set again");
    victim_touches(block.wrapping_add(70), Touch::Write);
    println!("again {}", wire.is_tripped());
}

fn alarm() {
    let block = victim_allocates(64, 8);
    // SAFETY: the block is never freed.
    let wire = unsafe { fencepost::tripwire_raw(block, 64) }.expect("set");
    let rung = Arc::new(Barrier::new(2));
    let bell = rung.clone();
    wire.on_trip(move |wire| {
        println!("alarm {}", wire.is_tripped());
        bell.wait();
    })
    .expect("a thread");
    armed();
    victim_touches(block, Touch::Read);
    rung.wait();
}

/// Nobody should write to the second page in this phase.
fn audit() {
    let page = fencepost::memory::page_size();
    let block = vec![0u8; 4 * page];
    let at = block.as_ptr().expose_provenance();
    armed();
    let phase = || {
        victim_strays(at + 2 * page + 10, 1);
        std::thread::scope(|scope| {
            scope.spawn(|| victim_strays(at + page + 5, 2));
        });
        7
    };
    let (result, audit) = fencepost::audit_writes(&block, phase).expect("watched");
    tell_pages(&audit, at);
    println!("result {result} lost {}", audit.lost);
}

/// Readers of sealed memory make no fault at all.
fn readers() {
    let numbers: Arc<[u64]> = (0..1024).collect();
    let seal = fencepost::seal(&numbers[..]).expect("sealed");
    armed();
    let sums: Vec<u64> = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| (0..2000).map(|_| black_box(&numbers[..]).iter().sum::<u64>()).sum::<u64>())
            })
            .collect();
        readers.into_iter().map(|reader| reader.join().expect("a reader")).collect()
    });
    println!("sums {}", sums.iter().all(|sum| *sum == 2000 * 1023 * 512));
    println!("violations {}", seal.violations());
}

/// The pages that an audit found, counted from an address.
pub fn tell_pages(audit: &fencepost::Audit, from: usize) {
    for page in &audit.pages {
        let size = page.block.as_ref().map(|block| block.size);
        println!(
            "page {} of block {size:?}: {} writes, unseen {}",
            (page.address - from) / fencepost::memory::page_size(),
            page.writes.len(),
            page.unseen
        );
    }
}
