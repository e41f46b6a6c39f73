//! Memory that is watched by the debug registers of the processor.

use std::hint::black_box;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use fencepost::{Watch, WatchOptions, Way};

use crate::{armed, handlers, victim_overruns};

fn watches(at: &AtomicU64, words: usize) -> Watch<'static> {
    // SAFETY: the callers' memory outlives its watches, and is written to by atomic operations only.
    unsafe { fencepost::watch_raw(at.as_ptr().cast(), 8 * words, WatchOptions::new()) }.expect("watched")
}

fn way(watch: &Watch) -> &'static str {
    if watch.way() == Way::Watchpoints { "watchpoints" } else { "pages" }
}

#[inline(never)]
fn writes(at: &AtomicU64, value: u64) {
    black_box(at).store(value, Ordering::Relaxed);
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

fn words(count: usize) -> &'static [AtomicU64] {
    Vec::leak((0..count).map(|_| AtomicU64::new(1)).collect())
}

/// `hot|threads|many|raced|traps|churn`.
pub fn watch(what: &str) {
    match what {
        "hot" => hot(),
        "threads" => threads(),
        "many" => many(),
        "raced" => raced(),
        "traps" => traps(),
        "churn" => churn(),
        other => panic!("no such watch: {other}"),
    }
}

/// One word of a hot page is watched, and its neighbours are written to all the time.
fn hot() {
    let block = words(512);
    let watch = watches(&block[8], 1);
    println!("by {}", way(&watch));
    armed();
    let before = fencepost::__steps();
    for round in 0..1000 {
        writes(&block[7], round);
        writes(&block[9], round);
    }
    writes(&block[8], 5);
    println!("stepped {}", fencepost::__steps() - before);
    print(&watch);
    drop(watch);
    writes(&block[8], 6);
}

/// Threads from before the watch and from after it, and theirs.
fn threads() {
    let word = &words(1)[0];
    let (ready, go) = (Barrier::new(2), Barrier::new(2));
    let named = |name: &str| std::thread::Builder::new().name(name.into());
    std::thread::scope(|scope| {
        let (ready, go) = (&ready, &go);
        let old = named("old").spawn_scoped(scope, move || {
            ready.wait();
            go.wait();
            writes(word, 2);
            named("child").spawn(move || writes(word, 3)).map(|child| child.join())
        });
        ready.wait();
        let watch = watches(word, 1);
        armed();
        go.wait();
        drop(old.expect("a thread").join());
        let new = named("new").spawn_scoped(scope, move || writes(word, 4));
        drop(new.expect("a thread").join());
        writes(word, 5);
        print(&watch);
    });
}

/// More watches than the processor has room for, and room again when they end.
fn many() {
    let block = words(8);
    let all: Vec<_> = (0..6).map(|index| watches(&block[index], 1)).collect();
    println!("{:?}", all.iter().map(way).collect::<Vec<_>>());
    armed();
    (0..6).for_each(|index| writes(&block[index], index as u64));
    println!("{:?}", all.iter().map(Watch::count).collect::<Vec<_>>());
    drop(all);
    let wide = watches(&block[0], 4);
    println!("wide by {}", way(&wide));
}

/// Two threads write at once, and to a neighbour as well.
fn raced() {
    let block = words(3);
    let watch = watches(&block[0], 1);
    armed();
    std::thread::scope(|scope| {
        for thread in 1..3 {
            scope.spawn(move || {
                for round in 0..200 {
                    writes(&block[0], round);
                    writes(&block[thread], round);
                }
            });
        }
    });
    let noted = watch.writes().len() as u64 + watch.lost();
    println!("by {} noted {noted} counted {}", way(&watch), watch.count());
}

/// Beside single steps of the program's own, and errors that are stepped over.
fn traps() {
    let word = &words(1)[0];
    let watch = watches(word, 1);
    handlers::own_steps();
    writes(word, 2);
    victim_overruns();
    writes(word, 3);
    print(&watch);
}

/// Watches come and go, each on another word, while another thread handles faults all the time: every write is told, and
/// nobody dies of a register of before.
fn churn() {
    static STOP: AtomicBool = AtomicBool::new(false);
    let block = words(20);
    armed();
    let busy = std::thread::spawn(|| {
        while !STOP.load(Ordering::Relaxed) {
            victim_overruns();
        }
    });
    for word in block {
        let watch = watches(word, 1);
        writes(word, 2);
        // A step of the other thread's may notice the change before this thread has told of it.
        assert!(watch.count() >= 1 && way(&watch) == "watchpoints");
        drop(watch);
        writes(word, 3);
    }
    STOP.store(true, Ordering::Relaxed);
    println!("churned {}", busy.join().is_ok());
}
