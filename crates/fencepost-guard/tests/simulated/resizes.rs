//! Large blocks that are resized: their pages move, and everything else is as if they had been copied.

use fencepost_record::{AccessType, ErrorKind};
use fencepost_sys::Memory;

use crate::world::{Held, PAGE, World, layout, peek, poke};

const SIZE: usize = 100 * PAGE;

/// A block whose every page has a byte of its own.
fn block(world: World, size: usize) -> Held {
    let held = Held { address: world.block(size, 8), layout: layout(size, 8) };
    for offset in (0..size).step_by(PAGE) {
        poke(held.address + offset, (offset / PAGE) as u8 ^ 0x55);
    }
    held
}

fn verify(held: Held, upto: usize) {
    for offset in (0..upto).step_by(PAGE) {
        assert_eq!(peek(held.address + offset), (offset / PAGE) as u8 ^ 0x55, "offset {offset}");
    }
}

#[test]
fn a_large_block_grows_and_shrinks_by_moving() {
    for options in ["", "place=left", "fill=off", "engine=mprotect"] {
        let world = World::new(&format!("quarantine=4G,{options}"));
        for sizes in
            [[SIZE, 2 * SIZE], [2 * SIZE, SIZE], [SIZE, 50 * SIZE], [SIZE, SIZE + 1000], [SIZE + 24, SIZE]]
        {
            let old = block(world, sizes[0]);
            let new = world.resize(old, sizes[1]).expect("resized");
            verify(new, sizes[0].min(sizes[1]));
            assert_ne!(new.address, old.address, "{options}: a resize always moves");
            let trap = |address: usize| world.sim().would_trap(address);
            assert!((0..sizes[0]).step_by(PAGE).all(|offset| trap(old.address + offset)), "{options}");
            assert!((0..sizes[1]).step_by(PAGE).all(|offset| !trap(new.address + offset)), "{options}");
            assert!(trap((new.address + sizes[1]).next_multiple_of(PAGE)), "{options}");
            assert!(trap(new.address / PAGE * PAGE - 1), "{options}");
            assert_eq!(world.guard.check(0), 0, "{options}");
            assert!(world.records().is_empty(), "{options}: both sides of the new block are right");
            world.release(new, AccessType::Free);
            assert!(trap(new.address) && world.records().is_empty(), "{options}");
        }
        assert_eq!(world.guard.stats().map(|stats| (stats.live, stats.fallbacks)), Some((0, 0)));
        world.sim().assert_no_violations();
    }
}

#[test]
fn growing_page_by_page_makes_a_constant_number_of_calls_each() {
    let world = World::new("quarantine=16G");
    let mut held = block(world, SIZE);
    for step in 1..200 {
        let before = world.sim().calls();
        held = world.resize(held, SIZE + step * PAGE).expect("resized");
        assert!(world.sim().calls() - before <= 9, "step {step}: {}", world.sim().calls() - before);
    }
    verify(held, SIZE);
    let mappings = world.sim().mappings();
    world.release(held, AccessType::Free);
    assert!(mappings < 40, "{mappings}");
    world.sim().assert_no_violations();
}

#[test]
fn damage_is_said_once_and_does_not_travel() {
    let world = World::new("quarantine=4G");
    let old = Held { address: world.block(SIZE - 200, 64), layout: layout(SIZE - 200, 64) };
    assert!(old.address > old.address / PAGE * PAGE, "there is a redzone before it");
    poke(old.address - 3, 1);
    let new = world.resize(old, 2 * SIZE - 200).expect("resized");
    let record = world.record();
    assert_eq!((record.kind, record.access.kind), (ErrorKind::RedzoneCorruption, AccessType::Realloc));
    world.release(new, AccessType::Free);
    assert!(world.records().is_empty());
}

#[test]
fn the_old_block_is_dead_for_frees_and_resizes() {
    let world = World::new("quarantine=4G");
    let old = block(world, SIZE);
    let new = world.resize(old, 2 * SIZE).expect("resized");
    world.free(old.address, SIZE, 8);
    assert_eq!(world.record().kind, ErrorKind::DoubleFree);
    assert!(world.resize(old, 3 * SIZE).is_none());
    assert_eq!(world.record().kind, ErrorKind::DoubleFree);
    verify(new, SIZE);
}

#[test]
fn any_call_of_a_resize_may_fail() {
    let calls = {
        let world = World::new("quarantine=4G");
        let old = block(world, SIZE);
        let before = world.sim().calls();
        let _new = world.resize(old, 2 * SIZE).expect("resized");
        world.sim().calls() - before
    };
    let mut lost = 0;
    for n in 1..=calls {
        let world = World::new("quarantine=4G");
        let old = block(world, SIZE);
        world.sim().fail_at(n);
        let new = world.resize(old, 2 * SIZE).expect("somebody serves it");
        verify(new, SIZE);
        if !world.guard.is_heap(old.address) {
            // Another mapping took the addresses while they were free: they are not ours to judge or to touch.
            lost += 1;
            assert_eq!(world.guard.stats().map(|stats| stats.fallbacks), Some(1));
        } else {
            assert!(world.sim().would_trap(old.address), "call {n}");
        }
        world.release(new, AccessType::Free);
        for _ in 0..300 {
            let other = world.block(SIZE, 8);
            world.free(other, SIZE, 8);
        }
        assert_eq!(world.guard.stats().map(|stats| stats.live), Some(0), "call {n}");
        assert!(world.records().is_empty(), "call {n}");
        world.sim().assert_no_violations();
    }
    assert_eq!(lost, 1, "one of the calls takes the old addresses back");
}
