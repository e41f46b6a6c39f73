//! What becomes of dead memory: how long it stays dead, what it costs, and what is remembered of it.

use std::collections::BTreeSet;

use fencepost_record::{AccessType, BlockState, ErrorKind, Note, Stack};

use crate::world::{PAGE, SPAN, World, at, fault, stack};

const ENGINES: [&str; 4] = ["engine=move", "engine=marker", "engine=mprotect", "engine=commit"];
/// Blocks of one page that fill a span.
const SLOTS: usize = 255;

fn span_of(address: usize) -> usize {
    address / SPAN
}

/// Allocates and frees enough one-page blocks to use `count` spans up; the spans, in order.
fn use_up(world: World, count: usize) -> Vec<usize> {
    let mut spans = Vec::new();
    for _ in 0..count * SLOTS {
        let address = world.block(4096, 8);
        if spans.last() != Some(&span_of(address)) {
            spans.push(span_of(address));
        }
        world.free(address, 4096, 8);
    }
    assert_eq!(spans.len(), count, "a span is used to its end before the next");
    spans
}

#[test]
fn addresses_stay_dead_until_the_quarantine_is_full_and_then_the_oldest_come_first() {
    for engine in ENGINES {
        let world = World::new(&format!("{engine},quarantine=32M"));
        let dead = use_up(world, 17);
        assert_eq!(dead.iter().collect::<BTreeSet<_>>().len(), 17, "{engine}: 34 MiB without a reuse");
        assert!(dead.windows(2).all(|pair| pair[1] == pair[0] + 1), "{engine}: addresses are used in order");
        assert_eq!(world.guard.stats().map(|stats| stats.quarantined_bytes), Some(34 << 20));
        // Under engine move the last free has taken one more fresh span, for its page to move to.
        let ahead = usize::from(engine == "engine=move");
        let again = use_up(world, 8);
        assert_eq!(again[ahead..], dead[..8 - ahead], "{engine}: the oldest first");
        for span in &dead[8..] {
            world.expect_traps(span * SPAN, SPAN, true);
        }
        world.sim().assert_no_violations();
    }
}

/// The blocks of a span that is used again are as good as those of a new one.
#[test]
fn memory_used_again_traps_and_is_clean() {
    for engine in ENGINES {
        let world = World::new(&format!("{engine},quarantine=8M"));
        let mut seen = BTreeSet::new();
        let mut reused = 0;
        for _ in 0..12 * SLOTS {
            let address = world.block(24, 8);
            reused += usize::from(!seen.insert(address));
            assert!(!world.sim().would_trap_write(address) && world.sim().would_trap(address + 24));
            assert!(world.sim().would_trap((address & !(PAGE - 1)) - 1));
            world.free(address, 24, 8);
            assert!(world.sim().would_trap(address));
        }
        assert!(reused > 5 * SLOTS, "{engine}: {reused}");
        assert!(world.records().is_empty(), "{engine}");
        world.sim().assert_no_violations();
    }
}

#[test]
fn dead_spans_join_and_long_lived_blocks_do_not_multiply_mappings() {
    for (engine, every, most) in
        [("engine=marker", 1, 30), ("engine=marker", 2, 130), ("engine=mprotect", 1, 40)]
    {
        let world = World::new(&format!("{engine},quarantine=1G"));
        let before = world.sim().mappings();
        let mut kept = Vec::new();
        for span in 0..240 {
            let blocks: Vec<usize> = (0..SLOTS).map(|_| world.block(24, 8)).collect();
            for (index, address) in blocks.into_iter().enumerate() {
                if every == 2 && span % 2 == 0 && index == 100 {
                    kept.push(address);
                } else {
                    world.free(address, 24, 8);
                }
            }
        }
        let cost = world.sim().mappings() - before;
        assert!(cost <= most, "{engine}, one long-lived block in every {every}: {cost} mappings");
        for address in &kept {
            assert!(!world.sim().would_trap(*address));
            world.free(*address, 24, 8);
        }
        assert!(world.sim().mappings() <= before + most, "{engine}");
        world.sim().assert_no_violations();
        world.release_everything();
    }
}

fn first(stack: &Stack) -> Option<u64> {
    stack.trace.frames().first().copied()
}

/// 40 MiB of memory allow 2.5 MiB of records: a little over 200 spans.
#[test]
fn old_records_are_forgotten_and_never_wrong() {
    let world = World::new("max_memory=40M,quarantine=1G,on_error=continue");
    let mut dead = Vec::new();
    for number in 0..300u64 {
        for slot in 0..SLOTS as u64 {
            at(0x100_0000 + number * 0x1000 + slot % 4);
            let address = world.block(24, 8);
            world.free(address, 24, 8);
            if slot == 7 {
                dead.push((address, 0x100_0000 + number * 0x1000 + slot % 4));
            }
        }
    }
    let (mut known, mut forgotten) = (0, 0);
    for (address, code) in dead {
        stack(&[0x50_0000]);
        world.raise(&fault(address, AccessType::Read));
        for record in world.records() {
            assert_eq!(record.kind, ErrorKind::UseAfterFree);
            match record.block {
                Some(block) => {
                    known += 1;
                    assert_eq!((block.address, block.state), (address as u64, BlockState::Freed));
                    assert_eq!(first(&block.allocated), Some(code), "never a wrong stack");
                }
                None => {
                    forgotten += 1;
                    assert_eq!(known, 0, "the oldest are forgotten first");
                    assert!(record.notes.has(Note::LongFreed));
                }
            }
        }
    }
    assert!(known > 150, "the young are known: {known}");
    // One report speaks for all that are forgotten: they differ in nothing.
    assert_eq!(forgotten, 1);
    world.sim().assert_no_violations();
}

/// A second free of what is forgotten says so as well.
#[test]
fn a_second_free_long_after_says_that_the_record_is_gone() {
    let world = World::new("max_memory=16M,quarantine=1G");
    let blocks: Vec<usize> = (0..SLOTS).map(|_| world.block(24, 8)).collect();
    blocks.iter().for_each(|address| _ = world.free(*address, 24, 8));
    let old = blocks[9];
    use_up(world, 100);
    at(0x9_0000);
    world.free(old, 24, 8);
    let record = world.record();
    assert_eq!(record.kind, ErrorKind::DoubleFree);
    assert!(record.notes.has(Note::LongFreed) && record.block.is_none());
}

#[test]
fn a_large_run_is_split_when_small_blocks_need_its_front() {
    // Under engine move small blocks have memory of their own kind.
    for engine in &ENGINES[1..] {
        let world = World::new(&format!("{engine},quarantine=32M"));
        let large = world.block(30 << 20, 8);
        world.free(large, 30 << 20, 8);
        let filler = use_up(world, 1);
        let again = use_up(world, 3);
        let first_span = span_of(large);
        assert_eq!(again, [first_span, first_span + 1, first_span + 2], "{engine}: {filler:?}");
        stack(&[0x50_0000]);
        // What is left of the run is still dead, and nothing is remembered of it.
        let rest = (first_span + 10) * SPAN;
        world.expect_traps(rest, 2 * PAGE, true);
        world.raise(&fault(rest, AccessType::Read));
        let record = world.record();
        assert_eq!(record.kind, ErrorKind::UseAfterFree, "{engine}");
        assert!(record.block.is_none() && record.notes.has(Note::LongFreed), "{engine}");
        world.sim().assert_no_violations();
    }
}

/// Runs that were forgotten in part do not cost the records of young blocks.
#[test]
fn young_records_outlive_the_splitting_of_large_runs() {
    // 10 MiB of memory allow the records of 53 spans, and 65 spans stay dead.
    let world = World::new("max_memory=10M,quarantine=130M");
    use_up(world, 30);
    for round in 0..6 {
        let large = world.block(60 << 20, 8);
        world.free(large, 60 << 20, 8);
        use_up(world, 5);
        // The small runs before it are too short: the large one is split although it is younger.
        let part = world.block(10 << 20, 8);
        assert!(round > 0 || span_of(part) == span_of(large));
        world.free(part, 10 << 20, 8);
        use_up(world, 70);
    }
    at(0x77_0000);
    let young = world.block(9000, 8);
    world.free(young, 9000, 8);
    let young = world.block(70_000, 8);
    world.free(young, 70_000, 8);
    stack(&[0x50_0000]);
    world.raise(&fault(young, AccessType::Read));
    let record = world.record();
    assert_eq!(record.block.map(|block| block.address), Some(young as u64), "{:?}", record.notes);
    let held = world.guard.stats().map_or(0, |stats| stats.held_bytes);
    assert!(held < 10 << 20, "the account of held memory has not gone below zero: {held}");
    world.sim().assert_no_violations();
}
