//! Engine move: pages that freed blocks leave behind past the ring, kept for the next blocks and given back.

use fencepost_record::{AccessType, Unguarded};
use fencepost_sys::Memory;
use fencepost_sys::sim::SimOptions;

use crate::world::{PAGE, SPAN, World};

const SIZE: usize = 100;
/// Slots of one page in a span.
const SLOTS: usize = 255;

fn blocks(world: World, count: usize) -> Vec<usize> {
    (0..count).map(|_| world.block(SIZE, 4)).collect()
}

fn free_all(world: World, blocks: &[usize]) {
    for block in blocks {
        world.free(*block, SIZE, 4);
        assert!(world.sim().would_trap(*block), "a freed block traps at once");
    }
}

/// Pages that are open in the spans around some blocks, up to `more` spans past them.
fn open(world: World, blocks: &[usize], more: usize) -> usize {
    let first = blocks.iter().min().expect("blocks") & !(SPAN - 1);
    let end = (blocks.iter().max().expect("blocks") & !(SPAN - 1)) + (1 + more) * SPAN;
    (first..end).step_by(PAGE).filter(|page| !world.sim().would_trap(*page)).count()
}

#[test]
fn what_many_frees_leave_serves_as_many_blocks_again() {
    let world = World::new("engine=move");
    let first = blocks(world, 2000);
    let most = open(world, &first, 20);
    let before = world.sim().calls();
    free_all(world, &first);
    let freeing = world.sim().calls() - before;
    // One move each, and a few calls for each span that died or was begun.
    assert!((2000..2000 + 100).contains(&freeing), "{freeing}");
    assert!(open(world, &first, 20) <= most);
    let before = world.sim().calls();
    let second = blocks(world, 2000);
    let building = world.sim().calls() - before;
    // But for what did not make a whole span.
    assert!(building < 2000 / 4, "{building}");
    assert_eq!(open(world, &[first.clone(), second.clone()].concat(), 20), most, "nothing was opened beside");
    free_all(world, &second);
    assert!(first.iter().all(|block| world.sim().would_trap(*block)), "what was freed first still traps");
    assert!(world.records().is_empty());
    assert_eq!(world.guard.stats().map(|stats| (stats.fallbacks, stats.live)), Some((0, 0)));
    world.sim().assert_no_violations();
}

#[test]
fn every_block_of_the_stock_has_its_patterns_and_its_guards() {
    for options in ["engine=move", "engine=move,fill=off", "engine=move,place=left"] {
        let world = World::new(options);
        for size in [SIZE, 3 * PAGE] {
            let first: Vec<_> = (0..600).map(|_| world.block(size, 4)).collect();
            first.iter().for_each(|block| _ = world.free(*block, size, 4));
            for _ in 0..600 {
                // Smaller ones, so that what the first ones held would lie in their redzones.
                let size = size - 60;
                let block = world.block(size, 4);
                world.expect_traps(block & !(PAGE - 1), size, false);
                let page = block & !(PAGE - 1);
                assert!(world.sim().would_trap(page - 1) && world.sim().would_trap(page + 3 * PAGE));
                world.free(block, size, 4);
            }
        }
        assert!(world.records().is_empty(), "{options}");
        world.sim().assert_no_violations();
        world.release_everything();
    }
}

#[test]
fn a_thread_keeps_no_more_than_it_had_put_in_place_itself() {
    let world = World::new("engine=move");
    let mine = blocks(world, 3000);
    let handed = mine.clone();
    let theirs = std::thread::spawn(move || {
        world.enter();
        let own = blocks(world, 300);
        free_all(world, &handed);
        free_all(world, &own);
        (open(world, &own, 20), open(world, &handed, 0), world.sim().end_thread()).0
    });
    let kept = theirs.join().expect("no panic in the thread");
    // What it had, a span that it has begun, and its ring.
    assert!(kept <= 300 + SLOTS + 32, "{kept}");
    world.sim().assert_no_violations();
}

#[test]
fn a_thread_that_ends_leaves_no_more_than_a_ring() {
    let world = World::new("engine=move");
    let theirs = std::thread::spawn(move || {
        world.enter();
        let own = blocks(world, 2000);
        free_all(world, &own);
        assert!(open(world, &own, 20) > 1500);
        world.sim().end_thread();
        own
    });
    let own = theirs.join().expect("no panic in the thread");
    assert!(open(world, &own, 20) <= 32);
    world.sim().assert_no_violations();
}

#[test]
fn what_was_not_needed_for_a_while_is_given_back() {
    let world = World::new("engine=move");
    let first = blocks(world, 2000);
    free_all(world, &first);
    let mut kept = open(world, &first, 30);
    assert!(kept > 1500, "{kept}");
    for second in 0..8 {
        world.sim().advance_ms(5001);
        // Two spans' worth of pairs: a thread looks when it goes on to the next span.
        (0..2 * SLOTS).for_each(|_| _ = world.free(world.block(SIZE, 4), SIZE, 4));
        let now = open(world, &first, 60);
        assert!(now <= kept, "{second}: {now} after {kept}");
        kept = now;
    }
    assert!(kept < 3 * SLOTS, "{kept}");
    world.sim().assert_no_violations();
}

#[test]
fn near_the_memory_limit_it_makes_room_for_other_blocks() {
    let world = World::on(SimOptions::new(), "engine=move,max_memory=32M");
    let first = blocks(world, 4000);
    free_all(world, &first[500..]);
    assert!(open(world, &first, 20) > 1500, "some are kept");
    for block in 0..2300 {
        assert!(world.allocate(crate::world::layout(3 * PAGE, 8)).is_some());
        assert_eq!(world.unguarded(Unguarded::Memory), 0, "block {block}");
    }
    assert!(open(world, &first, 0) < 600, "and given up");
    world.sim().assert_no_violations();
}

#[test]
fn any_call_for_it_may_fail() {
    // While it grows, while it serves, and while half of it is given back.
    for (first, waits) in [(0, 0), (0, 600), (5001, 0), (5001, 260)] {
        for n in 1..=12 {
            let world = World::new("engine=move");
            let asked = format!("call {n} after {waits} pairs and {first} ms");
            let held = blocks(world, 900);
            free_all(world, &held[..300]);
            if waits == 0 && first == 0 {
                world.sim().fail_at(n);
            }
            for block in &held[300..] {
                world.free(*block, SIZE, 4);
            }
            world.sim().advance_ms(first);
            (0..waits).for_each(|_| _ = world.free(world.block(SIZE, 4), SIZE, 4));
            world.sim().fail_at(n);
            let layout = crate::world::layout(SIZE, 4);
            let held: Vec<_> =
                (0..560).map(|_| world.allocate(layout).expect("served by somebody")).collect();
            for block in held {
                let trapped = world.guard.is_heap(block.address).then_some(block.address);
                world.release(block, AccessType::Free);
                let fallbacks = world.guard.stats().map_or(0, |stats| stats.fallbacks);
                assert!(
                    trapped.is_none_or(|block| world.sim().would_trap(block)) || fallbacks > 0,
                    "{asked}"
                );
            }
            assert_eq!(world.guard.stats().map(|stats| stats.live), Some(0), "{asked}");
            assert!(world.records().is_empty(), "{asked}: a failing call is no error of the program");
            assert_eq!(world.sim().violations(), [] as [String; 0], "{asked}");
            world.release_everything();
        }
    }
}

/// A child goes on with what its parent had in stock, and what other threads had is given back.
#[test]
fn a_forked_child_guards_with_what_it_inherits() {
    let world = World::new("engine=move");
    let first = blocks(world, 1500);
    free_all(world, &first);
    world.sim().become_child();
    world.sim().share_pages();
    world.sim().fork(|| {
        let second = blocks(world, 1500);
        assert!(second.iter().all(|block| !world.sim().would_trap(*block)));
        assert!(second.iter().all(|block| world.sim().would_trap(block + SIZE)));
        free_all(world, &second);
    });
    assert!(world.records().is_empty());
    world.sim().assert_no_violations();
}
