//! Every call to the system fails once, and from some call on all fail: the program is served all the same.

use std::panic::{AssertUnwindSafe, catch_unwind};

use fencepost_guard::Placed;
use fencepost_record::AccessType;
use fencepost_sys::Memory;
use fencepost_sys::sim::SimOptions;

use crate::world::{Draw, Held, World, layout, poke};

const ENGINES: [&str; 6] = [
    "engine=move",
    "engine=marker",
    "engine=mprotect",
    "engine=commit",
    "engine=marker,defer=5",
    "engine=move,defer=5",
];
/// Where the addresses of the fill pattern are kept unmapped, if nobody else has them.
const FILL_RANGE: usize = 0x1fe9_8000_0000;

/// One piece of a scenario's program; what it holds must be usable to the byte.
fn take(world: World, held: &mut Vec<Held>, size: usize, align: usize) {
    let block = world.allocate(layout(size, align)).expect("nobody asked for a failure");
    assert_eq!(block.address % align, 0);
    let guarded = world.guard.is_heap(block.address);
    if size > 0 {
        for byte in [block.address, block.address + size - 1] {
            assert!(!guarded || !world.sim().would_trap_write(byte), "{size} {align}: {byte:#x} is usable");
            poke(byte, 0x77);
        }
    }
    held.push(block);
}

/// 60 blocks of all kinds, some freed, some resized, two threads that end, a seal.
fn live(world: World) {
    let mut draw = Draw(11);
    let mut held = Vec::new();
    for step in 0..60usize {
        let size = match step % 6 {
            0..=2 => draw.below(200),
            3 => draw.below(9000),
            4 => draw.below(70_000),
            _ => draw.below(300_000),
        };
        take(world, &mut held, size, 1 << draw.below(if step % 10 == 0 { 15 } else { 7 }));
        if step % 3 == 1 {
            let gone = held.swap_remove(draw.below(held.len()));
            world.release(gone, AccessType::Free);
        }
        if step % 5 == 2 {
            let at = draw.below(held.len());
            let old = held.swap_remove(at);
            held.push(world.resize(old, 1 + draw.below(5000)).expect("a live block can be resized"));
        }
        if step % 20 == 7 {
            let mine = std::thread::spawn(move || {
                world.enter();
                crate::world::at(0x7000);
                let mut held = Vec::new();
                take(world, &mut held, 40, 8);
                take(world, &mut held, 40, 8);
                world.release(held.remove(0), AccessType::Free);
                world.sim().end_thread();
                held
            });
            held.extend(mine.join().expect("no panic in the thread"));
        }
        if step % 20 == 9 {
            seal_and_unseal(world);
        }
    }
    for block in held {
        world.release(block, AccessType::Free);
    }
}

fn seal_and_unseal(world: World) {
    let Placed::Here(block) = world.place(500, 8) else { return };
    let address = block.as_ptr().addr();
    if let Ok(ticket) = world.guard.seal_block(fencepost_guard::Purpose::Seal, address, 500, 0) {
        assert!(world.sim().would_trap_write(address), "a seal that was given holds");
        world.guard.unseal(ticket, || ());
    }
    world.free(address, 500, 8);
}

/// What must be true of the counts at the end, whatever failed.
fn check_counts(world: World, asked: &str) {
    let Some(stats) = world.guard.stats() else { return };
    let unguarded: u64 = stats.unguarded.iter().sum();
    assert_eq!(stats.guarded + unguarded, stats.total, "{asked}");
    assert_eq!(stats.live, 0, "{asked}: every block was freed");
    let kinds: Vec<_> = world.records().iter().map(|record| record.kind).collect();
    assert_eq!(kinds, [], "{asked}: a failing call is no error of the program");
    let violations = world.sim().violations();
    assert_eq!(violations, [] as [String; 0], "{asked}");
}

/// Nothing is stuck: when calls succeed again, new kinds of blocks are guarded again.
fn check_recovery(world: World, asked: &str) {
    world.sim().fail_never();
    let mut here = 0;
    for size in [3000, 70_000] {
        for _ in 0..40 {
            if let Placed::Here(block) = world.place(size, 8) {
                here += 1;
                assert!(!world.sim().would_trap_write(block.as_ptr().addr()), "{asked}");
                world.free(block.as_ptr().addr(), size, 8);
            }
        }
    }
    assert!(here >= 78, "{asked}: guarded again, but for what was given up: {here}");
}

fn run(engine: &str, fail: impl Fn(World), asked: &str) -> World {
    let world = World::unstarted(SimOptions::new(), engine, None);
    fail(world);
    let done = catch_unwind(AssertUnwindSafe(|| {
        world.guard.start("");
        live(world);
        check_counts(world, asked);
        if !world.guard.is_off() {
            check_recovery(world, asked);
        }
    }));
    assert!(done.is_ok(), "{asked}: panicked");
    world
}

fn calls_of(engine: &str) -> u64 {
    let world = run(engine, |_| {}, "nothing fails");
    let stats = world.guard.stats().expect("it is on");
    assert!(stats.guarded > 80 && stats.unguarded.iter().sum::<u64>() == 0, "{stats:?}");
    assert_eq!(stats.fallbacks, 0);
    let world = World::unstarted(SimOptions::new(), engine, None);
    world.guard.start("");
    live(world);
    world.sim().calls()
}

#[test]
fn any_one_call_may_fail() {
    for engine in ENGINES {
        let calls = calls_of(engine);
        assert!(calls > 100, "{calls}");
        let clean = reservations(run(engine, |_| {}, "nothing fails"));
        let mut refused = 0;
        for n in 1..=calls {
            let world = run(engine, |world| world.sim().fail_at(n), &format!("{engine}: call {n} fails"));
            assert!(
                !world.guard.is_off(),
                "{engine}: call {n}: a start that is refused something asks for less"
            );
            // Two are for what freed blocks held, without which it goes on.
            let there = reservations(world);
            assert!(
                there == clean || there == clean - 2,
                "{engine}: call {n}: {there}, not {clean}: what the first try took is given back"
            );
            let stats = world.guard.stats().expect("it is on");
            refused += u64::from(stats.unguarded.iter().sum::<u64>() > 0 || stats.fallbacks > 0);
            world.release_everything();
        }
        assert!(refused > 20, "{engine}: {refused} refusals were seen in the counts");
    }
}

/// How many ranges of addresses a world has, but for the one that only one system of a process can have.
fn reservations(world: World) -> usize {
    world.sim().reserved().iter().filter(|range| range.start != FILL_RANGE).count()
}

#[test]
fn a_start_that_gets_nothing_says_so_and_guards_nothing() {
    let world = World::unstarted(SimOptions::new(), "", None);
    world.sim().fail_from(1);
    world.guard.start("");
    assert!(world.guard.is_off());
    world.sim().assert_all_released();
    world.sim().assert_no_violations();
    let told = world.stderr();
    assert!(told.starts_with("fencepost: nothing is guarded: ") && told.lines().count() == 1, "{told}");
    live(world);
    assert!(world.guard.stats().is_none());
}

#[test]
fn from_some_call_on_all_may_fail() {
    for engine in ENGINES {
        let calls = calls_of(engine);
        for n in (1..=calls).step_by(3) {
            let asked = format!("{engine}: calls fail from {n}");
            let world = World::unstarted(SimOptions::new(), engine, None);
            world.sim().fail_from(n);
            world.guard.start("");
            live(world);
            check_counts(world, &asked);
            if !world.guard.is_off() {
                check_recovery(world, &asked);
            }
            world.release_everything();
        }
    }
}

#[test]
fn a_quarantine_beyond_all_addresses_is_bounded() {
    let world = World::new("quarantine=1000T");
    let address = world.block(24, 8);
    assert!(world.sim().would_trap(address + 24));
    world.sim().assert_no_violations();
    world.free(address, 24, 8);
    world.release_everything();
}

#[test]
fn without_markers_the_forced_engine_is_replaced_and_said() {
    let world = World::on(SimOptions { markers: false, ..SimOptions::new() }, "engine=marker");
    assert_eq!(world.guard.stats().map(|stats| stats.engine), Some("mprotect"));
    let told = world.stderr();
    assert!(told.contains("engine=marker does not work here") && told.lines().count() == 1, "{told}");
    let address = world.block(24, 8);
    assert!(world.sim().would_trap(address + 24));
}

#[test]
fn a_span_that_markers_could_not_close_still_traps_and_can_be_used() {
    let world = World::new("engine=marker");
    let before = world.sim().calls();
    let first = world.block(24, 8);
    let calls = world.sim().calls() - before;
    world.free(first, 24, 8);
    world.release_everything();
    let mut fallbacks = 0;
    for n in 1..=calls {
        let world = World::new("engine=marker");
        world.sim().fail_at(n);
        let mut blocks = Vec::new();
        for _ in 0..300 {
            if let Placed::Here(block) = world.place(24, 8) {
                let address = block.as_ptr().addr();
                assert!(!world.sim().would_trap_write(address), "call {n}");
                assert!(world.sim().would_trap(address + 24), "call {n}");
                blocks.push(address);
            }
        }
        assert!(blocks.len() >= 290, "call {n}: {}", blocks.len());
        for address in blocks {
            world.free(address, 24, 8);
            assert!(world.sim().would_trap(address), "call {n}");
        }
        fallbacks += world.guard.stats().map_or(0, |stats| stats.fallbacks);
        world.sim().assert_no_violations();
        world.release_everything();
    }
    assert_eq!(fallbacks, 1, "one of the calls was the marking of the span");
}
