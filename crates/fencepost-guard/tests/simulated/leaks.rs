//! `leaks=on`: what nothing reaches is reported once for each place, and nothing else is.

use fencepost_record::{ErrorKind, LeakInfo, Record};
use fencepost_sys::Range;

use crate::world::{World, at};

/// A row of words in the program's memory, which the search looks through.
fn roots(world: World, words: &[usize]) {
    let row: &'static [usize] = Box::leak(words.to_vec().into_boxed_slice());
    let range = Range { start: row.as_ptr().addr(), len: size_of_val(row) };
    world.sim().set_mappings(Some(vec![range]));
}

fn put(address: usize, word: usize) {
    // SAFETY: tests name blocks of their world that have room for a word there.
    unsafe { std::ptr::with_exposed_provenance_mut::<usize>(address).write_unaligned(word) }
}

fn leaks(world: World) -> Vec<(u64, LeakInfo)> {
    world.guard.at_exit(0);
    let leak = |record: &Record| {
        assert_eq!(record.kind, ErrorKind::Leak);
        assert!(!record.fault.is_known());
        (record.block.expect("a block").size, record.leak.expect("its counts"))
    };
    world.records().iter().map(leak).collect()
}

fn counts(blocks: u64, bytes: u64, through_blocks: u64, through_bytes: u64) -> LeakInfo {
    LeakInfo { blocks, bytes, through_blocks, through_bytes }
}

/// The end of a process that goes on after errors is an exit, which the simulated system does not survive.
fn world(options: &str) -> World {
    World::new(&format!("exitcode=0,leaks=on,{options}"))
}

#[test]
fn what_is_reached_is_silent() {
    for engine in ["engine=marker", "engine=mprotect", "engine=move", "place=left"] {
        let world = world(engine);
        let (inner, outer, large, middle, end) = (
            world.block(24, 8),
            world.block(4096, 8),
            world.block(300_000, 8),
            world.block(100, 4),
            world.block(64, 8),
        );
        put(outer + 1000, inner);
        put(large + 200_000, outer);
        roots(world, &[1, large, middle + 50, 0, end + 64]);
        assert_eq!(leaks(world), [], "{engine}");
        world.sim().assert_no_violations();
    }
}

#[test]
fn without_the_option_nothing_is_searched() {
    let world = World::new("");
    world.block(24, 8);
    assert_eq!(leaks(world), []);
}

#[test]
fn blocks_of_one_place_are_one_report() {
    let world = world("");
    roots(world, &[]);
    at(0x10_1000);
    let first: Vec<usize> = (0..5).map(|_| world.block(24, 8)).collect();
    at(0x10_2000);
    let held = world.block(100, 8);
    world.block(200_000, 8);
    put(held, world.block(48, 8));
    roots(world, &[first[2]]);
    let found = end_of(world);
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(found[0], (24, counts(4, 96, 0, 0)));
    assert_eq!(found[1], (100, counts(2, 200_100, 1, 48)));
}

#[test]
fn a_ring_is_told_by_one_of_its_blocks() {
    let world = world("stack_depth=0");
    let ring: Vec<usize> = (0..4).map(|_| world.block(32, 8)).collect();
    for (index, block) in ring.iter().enumerate() {
        put(*block, ring[(index + 1) % 4]);
    }
    let tail = world.block(80, 8);
    put(ring[3] + 8, tail);
    roots(world, &[]);
    assert_eq!(end_of(world), [(32, counts(1, 32, 4, 176))]);
}

#[test]
fn a_block_that_a_later_lost_one_reaches_is_told_with_that() {
    let world = world("stack_depth=0");
    let (inner, tail) = (world.block(24, 8), world.block(40, 8));
    put(inner, tail);
    let outer = world.block(56, 8);
    put(outer + 48, inner + 3);
    roots(world, &[]);
    assert_eq!(end_of(world), [(56, counts(1, 56, 2, 64))]);
}

#[test]
fn the_runtimes_own_tables_reach_nothing() {
    let world = world("stack_depth=0");
    world.block(24, 8);
    // All that the runtime has reserved, with the records of its blocks.
    world.sim().set_mappings(Some(world.sim().reserved()));
    assert_eq!(end_of(world), [(24, counts(1, 24, 0, 0))]);
}

#[test]
fn nothing_is_said_where_the_memory_cannot_be_seen() {
    let world = world("");
    world.block(24, 8);
    world.sim().set_mappings(None);
    assert_eq!(leaks(world), []);
    assert!(world.stderr().contains("could not be looked through as a whole"), "{}", world.stderr());
}

#[test]
fn the_first_of_many_places_are_told_and_the_rest_counted() {
    let world = world("");
    for place in 0..70u64 {
        at(0x20_0000 + place * 16);
        world.block(24, 8);
    }
    roots(world, &[]);
    // The ring of records is shorter than the list: only the count is looked at.
    crate::world::end_of(|| world.guard.at_exit(0));
    assert_eq!(world.guard.stats().map(|stats| stats.reports), Some(64));
    assert!(world.stderr().contains("6 more blocks of 144 bytes"), "{}", world.stderr());
}

/// The reports of a process that ends with errors, and so by an exit of its own.
fn end_of(world: World) -> Vec<(u64, LeakInfo)> {
    crate::world::end_of(|| world.guard.at_exit(0));
    let leak = |record: &Record| (record.block.expect("a block").size, record.leak.expect("its counts"));
    world.records().iter().map(leak).collect()
}

#[test]
fn the_heap_itself_is_no_root() {
    let world = world("stack_depth=0");
    let (one, other) = (world.block(24, 8), world.block(40, 8));
    put(one, other);
    put(other, one);
    let heap = one & !((2 << 20) - 1);
    world.sim().set_mappings(Some(vec![Range { start: heap, len: 2 << 20 }]));
    assert_eq!(end_of(world), [(24, counts(1, 24, 1, 40))]);
}
