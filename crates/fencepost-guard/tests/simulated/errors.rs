//! Errors found without a fault: frees, resizes, layouts and redzones, each reported once and as what it is.

use fencepost_guard::{Freed, Placed, Resize};
use fencepost_record::{AccessType, BlockState, Confidence, ErrorKind, Note, Record, Where};
use fencepost_sys::Range;

use crate::world::{PAGE, SPAN, World, at, end_of, layout, peek, pointer, poke};

const ALLOCATING: u64 = 0x11_0000;
const FREEING: u64 = 0x22_0000;
const WRONG: u64 = 0x33_0000;

fn first_frame(stack: &fencepost_record::Stack) -> Option<u64> {
    stack.trace.frames().first().copied()
}

/// A block of known stacks; this thread is at the wrong call after.
fn block(world: World, size: usize) -> usize {
    at(ALLOCATING);
    let address = world.block(size, 8);
    at(WRONG);
    address
}

/// The one report, which also is the one line of the file and the one first line on stderr.
fn told(world: World, kind: ErrorKind, message: &str) -> Record {
    let record = world.record();
    assert_eq!(record.kind, kind, "{}", world.stderr());
    let line = format!("fencepost: ERROR: {}: {message}\n", kind.name());
    assert!(world.stderr().contains(&line), "{line} in {}", world.stderr());
    assert_eq!(world.stderr().matches("fencepost: ERROR").count(), 1, "{}", world.stderr());
    let lines = world.lines();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains(&format!("\"kind\":\"{}\"", kind.name())), "{lines:?}");
    assert_eq!(first_frame(&record.fault), Some(WRONG), "the stack of the wrong call");
    record
}

#[test]
fn a_second_free_names_both_stacks_before_it() {
    for engine in ["engine=move", "engine=marker", "engine=mprotect", "engine=commit"] {
        let world = World::new(engine);
        let address = block(world, 24);
        at(FREEING);
        world.sim().advance_ms(250);
        world.free(address, 24, 8);
        at(WRONG);
        assert_eq!(world.free(address, 24, 8), Freed::Here);
        let message = format!("double-free of {address:#x}, a 24-byte block freed before");
        let record = told(world, ErrorKind::DoubleFree, &message);
        let known = record.block.expect("a block");
        assert_eq!((known.address, known.size, known.align), (address as u64, 24, 8));
        assert_eq!(known.state, BlockState::Freed);
        assert_eq!(first_frame(&known.allocated), Some(ALLOCATING));
        assert_eq!(known.freed.as_ref().and_then(first_frame), Some(FREEING));
        assert_eq!((known.allocated.age_ms, known.freed.map(|freed| freed.age_ms)), (250, Some(0)));
        assert_eq!(record.confidence, Confidence::High);
        assert_eq!(world.guard.stats().map(|stats| stats.live), Some(0), "freed once");
        world.sim().assert_no_violations();
    }
}

#[test]
fn a_free_inside_a_block_names_it_and_frees_nothing() {
    let world = World::new("");
    let address = block(world, 100);
    world.free(address + 16, 100, 8);
    let record = told(
        world,
        ErrorKind::InvalidFree,
        &format!("invalid-free of {:#x}, 16 bytes inside a 100-byte block", address + 16),
    );
    let known = record.block.expect("a block");
    assert_eq!((known.place, known.distance, known.state), (Where::Inside, 16, BlockState::Live));
    assert!(!world.sim().would_trap(address), "the block lives");
    world.free(address, 100, 8);
    assert!(world.records().is_empty());
}

#[test]
fn a_free_of_what_no_allocator_gave_is_nobodys() {
    #[expect(clippy::type_complexity, reason = "a table, read once")]
    let cases: [(fn(World) -> usize, Note); 3] = [
        (
            |world| {
                let local = 5u64;
                let here = (&raw const local).addr();
                world.sim().set_stack_bounds(Some(Range { start: here & !(PAGE - 1), len: 2 * PAGE }));
                here
            },
            Note::StackAddress,
        ),
        (|_| 0x10_0000, Note::NothingMapped),
        (|_| 0x1234_5678_9abc_def0, Note::NonCanonical),
    ];
    for (find, note) in cases {
        let world = World::new("");
        let address = find(world);
        let own = world.block(8, 8);
        at(WRONG);
        assert_eq!(world.free(address, 8, 8), Freed::Nobody, "{note:?}");
        let record = world.record();
        assert_eq!(record.kind, ErrorKind::InvalidFree);
        assert!(record.notes.has(note), "{note:?}: {:?}", record.notes);
        assert!(record.block.is_none());
        assert_eq!(world.lines().len(), 1);
        world.free(own, 8, 8);
    }
}

#[test]
fn blocks_of_the_inner_allocator_pass() {
    let world = World::new("only_size=24");
    let held = world.allocate(layout(64, 8)).expect("served");
    assert!(!world.guard.is_heap(held.address));
    assert_eq!(world.guard.check_resize(pointer(held.address), held.layout, 0), Resize::Inner);
    world.release(held, AccessType::Free);
    assert!(world.records().is_empty());
    // The inner allocator has checks of its own, and an address may be one of its blocks from the first on.
    assert_eq!(world.free(held.address, 64, 8), Freed::Inner);
}

#[test]
fn a_free_in_memory_that_was_never_handed_out_names_the_neighbour() {
    let world = World::new("");
    let address = block(world, 24);
    let beyond = (address & !(SPAN - 1)) + 20 * SPAN + 64;
    world.free(beyond, 24, 8);
    let record = world.record();
    assert_eq!(record.kind, ErrorKind::InvalidFree);
    assert!(record.notes.has(Note::NeverAllocated) && record.block.is_none());
    let other_slot = address + 2 * PAGE * 50;
    at(WRONG + 16);
    world.free(other_slot, 24, 8);
    let record = world.record();
    assert!(record.notes.has(Note::NeverAllocated), "a slot of a used span that holds nothing yet");
}

#[test]
fn a_wrong_layout_is_told_and_the_block_is_freed_with_its_own() {
    for (given, note, other) in
        [((32, 8), Note::SizeDiffers, Note::AlignDiffers), ((24, 16), Note::AlignDiffers, Note::SizeDiffers)]
    {
        for resize in [false, true] {
            let world = World::new("");
            let address = block(world, 24);
            if resize {
                let answer = world.guard.check_resize(pointer(address), layout(given.0, given.1), 0);
                assert_eq!(answer, Resize::Move(layout(24, 8)), "its true layout");
            } else {
                assert_eq!(world.free(address, given.0, given.1), Freed::Here);
                assert!(world.sim().would_trap(address));
            }
            let record = world.record();
            assert_eq!(record.kind, ErrorKind::LayoutMismatch);
            assert_eq!(record.given_layout, Some((given.0 as u64, given.1 as u64)));
            assert!(record.notes.has(note) && !record.notes.has(other));
            assert_eq!(record.access.kind, if resize { AccessType::Realloc } else { AccessType::Free });
            assert_eq!(first_frame(&record.block.expect("a block").allocated), Some(ALLOCATING));
        }
    }
}

#[test]
fn a_resize_of_a_dead_block_is_refused() {
    let world = World::new("");
    let address = block(world, 24);
    world.free(address, 24, 8);
    assert_eq!(world.guard.check_resize(pointer(address), layout(24, 8), 0), Resize::Refuse);
    let record = told(
        world,
        ErrorKind::DoubleFree,
        &format!("double-free of {address:#x} by realloc, a 24-byte block freed before"),
    );
    assert_eq!(record.access.kind, AccessType::Realloc);
    assert_eq!(world.guard.check_resize(pointer(0x10_0000), layout(24, 8), 0), Resize::Refuse);
    assert_eq!(world.record().kind, ErrorKind::InvalidFree);
}

#[test]
fn damage_is_found_at_the_free() {
    for (place, before) in [("place=right", true), ("place=left", false)] {
        let world = World::new(place);
        let address = block(world, 24);
        let (first, len) = if before { (address - 3, 3) } else { (address + 24, 5) };
        for byte in first..first + len {
            poke(byte, 0);
        }
        world.free(address, 24, 8);
        let record = world.record();
        assert_eq!(record.kind, ErrorKind::RedzoneCorruption, "{place}");
        assert_eq!(record.damage, Some((first as u64, len as u64)), "{place}");
        let known = record.block.expect("a block");
        let side = if before { Where::Before } else { Where::After };
        assert_eq!((known.place, known.distance), (side, 0), "{place}: the byte nearest to the block");
        assert!(record.notes.has(Note::FoundLater));
        assert!(world.sim().would_trap(address), "{place}: freed all the same");
    }
}

#[test]
fn a_check_tells_once_and_puts_the_bytes_right() {
    for engine in ["engine=move", "engine=marker", "engine=mprotect", "engine=commit"] {
        let world = World::new(engine);
        let small = block(world, 24);
        at(ALLOCATING + 16);
        let large = world.block(200_001, 8);
        let _healthy = block(world, 5000);
        assert_eq!(world.guard.check(0), 0);
        let slack = large + 200_001;
        let old = [peek(small - 1), peek(slack)];
        poke(small - 1, 0);
        poke(slack, 0);
        at(WRONG);
        assert_eq!(world.guard.check(0), 2);
        let records = world.records();
        assert!(records.iter().all(|record| record.kind == ErrorKind::RedzoneCorruption));
        let found: Vec<_> = records.iter().filter_map(|record| record.damage).collect();
        assert_eq!(found, [(small as u64 - 1, 1), (slack as u64, 1)]);
        assert!(records.iter().all(|record| record.access.kind == AccessType::None));
        assert_eq!([peek(small - 1), peek(slack)], old, "mended");
        assert_eq!(world.guard.check(0), 0);
        world.free(small, 24, 8);
        world.free(large, 200_001, 8);
        assert!(world.records().is_empty(), "and not told again at the free");
    }
}

#[test]
fn the_end_of_the_process_checks_and_sets_the_status() {
    let world = World::new("exitcode=42,summary=on");
    let address = block(world, 24);
    poke(address - 1, 0);
    let end = end_of(|| world.guard.at_exit(0));
    assert_eq!(end, "simulated exit with status 42");
    assert_eq!(world.record().kind, ErrorKind::RedzoneCorruption);
    assert!(world.stderr().contains("fencepost: summary: engine marker, mode strict: 1 of 1 block guarded"));
    let lines = world.lines();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(
        lines[1].starts_with("{\"schema\":\"fencepost-summary/1\"") && lines[1].contains("\"reports\":1")
    );
    let healthy = World::new("exitcode=42");
    healthy.block(24, 8);
    healthy.sim().exit();
    assert_eq!(healthy.lines().len(), 1, "the summary goes to the file in any case");
    assert_eq!(healthy.stderr(), "");
}

#[test]
fn the_same_error_again_is_counted_and_not_written() {
    let world = World::new("");
    let address = block(world, 24);
    world.free(address, 24, 8);
    for _ in 0..5 {
        world.free(address, 24, 8);
    }
    assert_eq!(world.records().len(), 1);
    assert_eq!(world.lines().len(), 1);
    at(WRONG + 16);
    world.free(address, 24, 8);
    assert_eq!(world.records().len(), 1, "from another place it is another error");
    let stats = world.guard.stats().expect("it is on");
    assert_eq!((stats.reports, stats.reports_lost), (2, 4));
}

#[test]
fn an_abort_comes_after_the_report() {
    let world = World::new("on_error=abort");
    let address = block(world, 24);
    world.free(address, 24, 8);
    assert_eq!(end_of(|| _ = world.free(address, 24, 8)), "simulated abort");
    let lines = world.lines();
    assert_eq!(lines.len(), 2);
    assert!(lines[0].contains("\"kind\":\"double-free\"") && lines[1].contains("fencepost-summary/1"));
    assert!(world.stderr().starts_with("fencepost: ERROR: double-free: double-free of 0x"));
    let world = World::new("on_error=exit,exitcode=7");
    let address = block(world, 24);
    world.free(address, 24, 8);
    assert_eq!(end_of(|| _ = world.free(address, 24, 8)), "simulated exit with status 7");
    assert_eq!(world.lines().len(), 2);
}

#[test]
fn describe_knows_live_and_dead_blocks_and_their_surroundings() {
    let world = World::new("");
    let address = block(world, 24);
    let facts = world.guard.describe(address + 5).expect("known");
    assert_eq!((facts.address, facts.size, facts.align), (address, 24, 8));
    assert_eq!((facts.place, facts.distance, facts.state), (Where::Inside, 5, BlockState::Live));
    assert_eq!(first_frame(&facts.allocated), Some(ALLOCATING));
    let past = world.guard.describe(address + 24).expect("known");
    assert_eq!((past.place, past.distance), (Where::After, 0));
    at(FREEING);
    world.free(address, 24, 8);
    let facts = world.guard.describe(address).expect("known");
    assert_eq!(facts.state, BlockState::Freed);
    assert_eq!(facts.freed.as_ref().and_then(first_frame), Some(FREEING));
    assert!(world.guard.describe((&raw const facts).addr()).is_none(), "not the heap's");
    assert!(matches!(world.place(1, 1), Placed::Here(_)));
}
