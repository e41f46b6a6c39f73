//! `defer=N`: what waits is dead, is closed together, and shows what was written to it.

use fencepost_record::{AccessType, ErrorKind};
use fencepost_sys::Memory;
use fencepost_sys::sim::SimOptions;

use crate::world::{World, at, poke};

fn pairs(world: World, count: usize) -> Vec<usize> {
    let blocks: Vec<usize> = (0..count).map(|_| world.block(24, 8)).collect();
    for block in &blocks {
        world.free(*block, 24, 8);
    }
    blocks
}

#[test]
fn up_to_n_blocks_wait_and_are_then_closed_together() {
    for engine in ["engine=marker", "engine=mprotect", "engine=commit"] {
        let world = World::new(&format!("{engine},defer=100"));
        let blocks = pairs(world, 100);
        let open = || blocks.iter().filter(|block| !world.sim().would_trap(**block)).count();
        assert_eq!(open(), 100, "{engine}: all wait");
        assert_eq!(world.guard.stats().map(|stats| stats.live), Some(0), "{engine}: none is alive");
        let before = world.sim().calls();
        let last = world.block(24, 8);
        world.free(last, 24, 8);
        assert_eq!(open(), 0, "{engine}: one more than may wait");
        assert!(world.sim().would_trap(last));
        let calls = world.sim().calls() - before;
        assert!(calls <= 3, "{engine}: neighbours are one range: {calls}");
        assert!(world.records().is_empty(), "{engine}");
        world.sim().assert_no_violations();
    }
}

#[test]
fn without_the_option_nothing_waits() {
    let world = World::new("");
    assert!(pairs(world, 10).iter().all(|block| world.sim().would_trap(*block)));
}

#[test]
fn large_blocks_do_not_wait() {
    let world = World::new("defer=100");
    for size in [20_000, 60_000, 300_000] {
        let block = world.block(size, 8);
        world.free(block, size, 8);
        assert!(world.sim().would_trap(block), "{size}");
    }
}

#[test]
fn a_write_to_a_waiting_block_is_found_with_both_stacks() {
    for engine in ["engine=marker", "engine=mprotect", "engine=commit"] {
        let world = World::new(&format!("{engine},defer=100"));
        at(0x10_1000);
        let block = world.block(100, 4);
        at(0x10_2000);
        world.free(block, 100, 4);
        poke(block + 40, 1);
        poke(block + 43, 1);
        at(0x10_3000);
        assert_eq!(world.guard.check(0), 1, "{engine}");
        let record = world.record();
        assert_eq!(record.kind, ErrorKind::WriteAfterFree, "{engine}");
        assert_eq!(record.access.kind, AccessType::None);
        assert_eq!(record.damage, Some((block as u64 + 40, 4)));
        let named = record.block.expect("the block is known");
        assert_eq!((named.address, named.size, named.distance), (block as u64, 100, 40));
        let first = |stack: Option<&[u64]>| stack.and_then(|frames| frames.first().copied());
        assert_eq!(first(Some(named.allocated.trace.frames())), Some(0x10_1000));
        assert_eq!(first(named.freed.as_ref().map(|stack| stack.trace.frames())), Some(0x10_2000));
        assert!(world.sim().would_trap(block), "{engine}: the check closes it");
        assert_eq!(world.guard.check(0), 0, "{engine}: said once");
        assert!(world.records().is_empty());
    }
}

#[test]
fn a_second_free_of_a_waiting_block_is_reported_at_once() {
    let world = World::new("defer=100");
    let block = world.block(24, 8);
    world.free(block, 24, 8);
    world.free(block, 24, 8);
    assert_eq!(world.record().kind, ErrorKind::DoubleFree);
}

#[test]
fn the_end_of_a_thread_closes_and_compares_what_it_left() {
    let world = World::new("defer=100");
    let block = std::thread::spawn(move || {
        world.enter();
        let block = world.block(24, 8);
        world.free(block, 24, 8);
        poke(block, 1);
        assert!(world.records().is_empty());
        world.sim().end_thread();
        block
    })
    .join()
    .expect("no panic");
    assert!(world.sim().would_trap(block));
    assert_eq!(world.record().kind, ErrorKind::WriteAfterFree);
}

#[test]
fn a_check_closes_what_other_threads_left_waiting() {
    let world = World::new("defer=100");
    let block = std::thread::spawn(move || {
        world.enter();
        pairs(world, 5)[3]
    })
    .join()
    .expect("no panic");
    assert!(!world.sim().would_trap(block));
    poke(block + 3, 9);
    assert_eq!(world.guard.check(0), 1);
    assert!(world.sim().would_trap(block));
    assert_eq!(world.record().kind, ErrorKind::WriteAfterFree);
}

#[test]
fn a_fork_finds_nothing_waiting() {
    let world = World::new("defer=100");
    let blocks = pairs(world, 5);
    world.guard.fork_prepare();
    world.guard.fork_parent();
    assert!(blocks.iter().all(|block| world.sim().would_trap(*block)));
}

#[test]
fn in_a_child_the_other_threads_blocks_are_closed_and_not_reported() {
    let world = World::new("defer=100");
    let (tell, told) = std::sync::mpsc::channel();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let other = std::thread::spawn(move || {
        world.enter();
        tell.send(pairs(world, 5)).expect("the test listens");
        stopped.recv().expect_err("until the test is over");
    });
    let blocks = told.recv().expect("the blocks");
    poke(blocks[0], 1);
    world.block(8, 8);
    world.guard.fork_prepare();
    world.guard.fork_child();
    assert!(blocks.iter().all(|block| world.sim().would_trap(*block)));
    assert!(world.records().is_empty(), "the parent says it");
    drop(stop);
    other.join().expect("no panic");
}

#[test]
fn what_waits_counts_and_gives_way_at_the_memory_limit() {
    let world = World::on(SimOptions::new(), "max_memory=8M,defer=60000");
    for round in 0..20_000 {
        let block = world.block(24, 8);
        world.free(block, 24, 8);
        let held = world.guard.stats().map_or(0, |stats| stats.held_bytes);
        assert!(held < 10 << 20, "{round}: {held}");
    }
    world.sim().assert_no_violations();
}

#[test]
fn ranges_in_random_order_and_of_all_kinds_are_all_closed() {
    for system in [SimOptions::new(), SimOptions { vectored: false, ..SimOptions::new() }] {
        let world = World::on(system, "defer=300");
        let mut draw = crate::world::Draw(5);
        let (mut live, mut dead) = (Vec::new(), Vec::new());
        for _ in 0..6000 {
            let size = draw.below(15_000);
            live.push((world.block(size, 8), size));
            if live.len() > 200 {
                let (block, size) = live.swap_remove(draw.below(live.len()));
                world.free(block, size, 8);
                dead.push(block);
            }
        }
        world.guard.check(0);
        assert!(dead.iter().all(|block| world.sim().would_trap(*block)));
        for (block, size) in live {
            assert!(size == 0 || !world.sim().would_trap_write(block));
        }
        assert!(world.records().is_empty());
        world.sim().assert_no_violations();
    }
}
