//! The growing allocators beside others: `cargo bench -p fencepost-memory --bench beside`, with `-- --quick` for less of
//! it. The last lines say what holds; where something does not,
//! the exit status is 1. Rows that memory decides move by some hundredths.

#[path = "../clock.rs"]
mod clock;
mod contest;
mod growth;

use std::hint::black_box;
use std::process::ExitCode;

use contest::{Entrant, contest};
use fencepost_memory::growing::{Arena, GrowVec, Pool};

const MANY: usize = 1 << 20;
const VALUE: [u64; 4] = [1, 2, 3, 4];
const SLOTS: usize = 100_000;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let quick =
        arguments.iter().any(|word| word == "--quick") || !arguments.iter().any(|word| word == "--bench");
    let rounds = if quick { 5 } else { 25 };
    println!(
        "Made, filled and dropped, where the C library keeps freed memory for the next one (not judged):"
    );
    let _ = (new_vectors(rounds), new_arenas(rounds), new_pools(rounds));
    keep_nothing();
    println!("\nThe same in fresh memory: freed memory goes back to the system, as ours does:");
    let new = [new_vectors(rounds), new_arenas(rounds), new_pools(rounds)];
    println!("\nIn memory that is there:");
    let mut claims = vec![
        ("push is at least 0.95 times as fast as the best", pushes(rounds) && new[0]),
        ("allocation is at least 0.95 times as fast as the best", arenas(rounds) && new[1]),
        ("a pool is at least 0.95 times as fast as the best", pools(rounds) && new[2]),
    ];
    claims.extend(growth::claims(if quick { 256 << 20 } else { 4 << 30 }));
    println!();
    for (claim, holds) in &claims {
        println!("{} {claim}", if *holds { "holds:  " } else { "BROKEN: " });
    }
    if claims.iter().all(|(_, holds)| *holds) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Has the C library give large blocks back to the system when they are freed. By default it learns to keep them, and
/// what comes second gets memory that is there and warm.
fn keep_nothing() {
    for which in [libc::M_MMAP_THRESHOLD, libc::M_TRIM_THRESHOLD] {
        // SAFETY: both settings take a number of bytes.
        assert_eq!(unsafe { libc::mallopt(which, 128 << 10) }, 1, "the setting is taken");
    }
}

fn new_vectors(rounds: usize) -> bool {
    let fresh: Vec<Entrant<'_>> = vec![
        (
            "GrowVec",
            Box::new(|| {
                let mut vector = GrowVec::<u64>::reserve(MANY).expect("addresses");
                (0..MANY as u64).for_each(|n| vector.push(n).expect("memory"));
                black_box(vector.as_slice());
            }),
        ),
        (
            "Vec",
            Box::new(|| {
                let mut vector = Vec::new();
                (0..MANY as u64).for_each(|n| vector.push(n));
                black_box(vector.as_slice());
            }),
        ),
        (
            "Vec, with_capacity",
            Box::new(|| {
                let mut vector = Vec::with_capacity(MANY);
                (0..MANY as u64).for_each(|n| vector.push(n));
                black_box(vector.as_slice());
            }),
        ),
        (
            "memmap2, written by index",
            Box::new(|| {
                let mut map = memmap2::MmapMut::map_anon(MANY * 8).expect("memory");
                // SAFETY: the map is zeroed, aligned to a page, and any bytes are integers.
                let (_, slots, _) = unsafe { map.align_to_mut::<u64>() };
                (0..MANY as u64).zip(slots).for_each(|(n, slot)| *slot = n);
                black_box(&map[..]);
            }),
        ),
    ];
    contest("push 1,048,576 numbers of 8 bytes", MANY as u64, rounds, fresh)
}

fn pushes(rounds: usize) -> bool {
    let mut ours = GrowVec::<u64>::reserve(MANY).expect("addresses");
    let mut std = Vec::with_capacity(MANY);
    let warm: Vec<Entrant<'_>> = vec![
        (
            "GrowVec",
            Box::new(|| {
                ours.clear();
                (0..MANY as u64).for_each(|n| ours.push(n).expect("memory"));
                black_box(ours.as_slice());
            }),
        ),
        (
            "Vec",
            Box::new(|| {
                std.clear();
                (0..MANY as u64).for_each(|n| std.push(n));
                black_box(std.as_slice());
            }),
        ),
    ];
    contest("push the same into memory that is there", MANY as u64, rounds, warm)
}

fn new_arenas(rounds: usize) -> bool {
    let fresh: Vec<Entrant<'_>> = vec![
        (
            "Arena",
            Box::new(|| {
                let arena = Arena::reserve(MANY * 40).expect("addresses");
                (0..MANY).for_each(|_| _ = black_box(arena.alloc(black_box(VALUE)).expect("memory")));
            }),
        ),
        (
            "bumpalo",
            Box::new(|| {
                let bump = bumpalo::Bump::new();
                (0..MANY).for_each(|_| _ = black_box(bump.alloc(black_box(VALUE))));
            }),
        ),
        (
            "typed-arena",
            Box::new(|| {
                let arena = typed_arena::Arena::new();
                (0..MANY).for_each(|_| _ = black_box(arena.alloc(black_box(VALUE))));
            }),
        ),
    ];
    contest("allocate 1,048,576 values of 32 bytes", MANY as u64, rounds, fresh)
}

fn arenas(rounds: usize) -> bool {
    let mut ours = Arena::reserve(MANY * 40).expect("addresses");
    let mut bump = bumpalo::Bump::new();
    let warm: Vec<Entrant<'_>> = vec![
        (
            "Arena",
            Box::new(|| {
                ours.reset();
                (0..MANY).for_each(|_| _ = black_box(ours.alloc(black_box(VALUE)).expect("memory")));
            }),
        ),
        (
            "bumpalo",
            Box::new(|| {
                bump.reset();
                (0..MANY).for_each(|_| _ = black_box(bump.alloc(black_box(VALUE))));
            }),
        ),
    ];
    let again = contest("allocate the same in an arena that was reset", MANY as u64, rounds, warm);
    strings(rounds) && again
}

fn strings(rounds: usize) -> bool {
    let text = "the quick brown fox jumps over the lazy dog";
    // Cut beforehand: where the cuts are is not what is measured.
    let texts: Vec<&str> = (0..text.len()).map(|len| &text[..len]).collect();
    let turns = MANY / texts.len();
    let mut ours = Arena::reserve(MANY * 64).expect("addresses");
    let mut bump = bumpalo::Bump::new();
    let words: Vec<Entrant<'_>> = vec![
        (
            "Arena",
            Box::new(|| {
                ours.reset();
                for _ in 0..turns {
                    texts.iter().for_each(|text| _ = black_box(ours.alloc_str(text).expect("memory")));
                }
            }),
        ),
        (
            "bumpalo",
            Box::new(|| {
                bump.reset();
                for _ in 0..turns {
                    texts.iter().for_each(|text| _ = black_box(bump.alloc_str(text)));
                }
            }),
        ),
    ];
    let count = (turns * texts.len()) as u64;
    contest("allocate 1,048,555 strings of up to 42 bytes", count, rounds, words)
}

fn new_pools(rounds: usize) -> bool {
    let fresh: Vec<Entrant<'_>> = vec![
        (
            "Pool",
            Box::new(|| {
                let mut pool = Pool::reserve(SLOTS).expect("addresses");
                let handles: Vec<_> = (0..SLOTS).map(|n| pool.insert([n; 4]).expect("memory")).collect();
                black_box(handles.iter().filter_map(|handle| pool.remove(*handle)).count());
            }),
        ),
        (
            "slab",
            Box::new(|| {
                let mut slab = slab::Slab::new();
                let keys: Vec<_> = (0..SLOTS).map(|n| slab.insert([n; 4])).collect();
                black_box(keys.iter().filter_map(|key| slab.try_remove(*key)).count());
            }),
        ),
        (
            "slab, with_capacity",
            Box::new(|| {
                let mut slab = slab::Slab::with_capacity(SLOTS);
                let keys: Vec<_> = (0..SLOTS).map(|n| slab.insert([n; 4])).collect();
                black_box(keys.iter().filter_map(|key| slab.try_remove(*key)).count());
            }),
        ),
    ];
    contest("100,000 values of 32 bytes into slots and out again", SLOTS as u64, rounds, fresh)
}

fn pools(rounds: usize) -> bool {
    let mut ours = Pool::reserve(SLOTS).expect("addresses");
    let mut slab = slab::Slab::with_capacity(SLOTS);
    let (mut handles, mut keys) = (Vec::with_capacity(SLOTS), Vec::with_capacity(SLOTS));
    let warm: Vec<Entrant<'_>> = vec![
        (
            "Pool",
            Box::new(|| {
                handles.extend((0..SLOTS).map(|n| ours.insert([n; 4]).expect("memory")));
                black_box(handles.drain(..).filter_map(|handle| ours.remove(handle)).count());
            }),
        ),
        (
            "slab",
            Box::new(|| {
                keys.extend((0..SLOTS).map(|n| slab.insert([n; 4])));
                black_box(keys.drain(..).filter_map(|key| slab.try_remove(key)).count());
            }),
        ),
    ];
    contest("the same in slots that are there", SLOTS as u64, rounds, warm)
}
