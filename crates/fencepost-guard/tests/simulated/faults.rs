//! Faults as the system raises them, and what the report says of each.

use fencepost_record::{AccessType, BlockState, Confidence, ErrorKind, Module, Note, Record, Stack, Where};
use fencepost_sys::{AfterStep, Fault, Range, Verdict};

use crate::world::{PAGE, SPAN, World, at, fault, layout, poke, stack};

const ALLOCATING: u64 = 0x11_0000;
const FREEING: u64 = 0x22_0000;
/// The instruction of every invented fault, and the stack that it interrupted.
const PC: u64 = 0x50_0000;
const HANDLER: [u64; 4] = [0x99_0000, 0x99_0010, PC, 0x51_0000];

fn first(stack: &Stack) -> Option<u64> {
    stack.trace.frames().first().copied()
}

/// Raises a fault as from within its handler.
fn raise(world: World, fault: &Fault) -> Verdict {
    stack(&HANDLER);
    world.raise(fault)
}

/// Raises a fault that is ours, and gives its report.
fn report(world: World, address: usize, access: AccessType) -> Record {
    stack(&HANDLER);
    assert_eq!(world.begin(&fault(address, access)), Verdict::Step, "{}", world.stderr());
    assert!(!world.sim().would_trap_write(address), "the page is open for the instruction");
    assert_eq!(world.sim().step_ends(PC as usize + 3), Some(AfterStep::Done));
    let record = world.record();
    assert_eq!(record.fault.trace.frames(), &HANDLER[2..], "the handler's own frames are left out");
    assert_eq!(record.access.address, Some(address as u64));
    assert_eq!(record.access.kind, access);
    assert_eq!(record.signal, 11);
    assert!(world.sim().would_trap(address) && world.sim().open_for_steps().is_empty(), "and closed again");
    assert!(record.notes.has(Note::SteppedAlone) && !record.notes.has(Note::PageOpened));
    record
}

fn block(world: World, size: usize) -> usize {
    at(ALLOCATING);
    world.block(size, 8)
}

#[test]
fn an_overflow_names_the_block_before_it() {
    for engine in ["engine=move", "engine=marker", "engine=mprotect", "engine=commit"] {
        for (size, past) in [(24, 0), (24, 100), (4096, 0), (5001, 7), (70_000, 0), (200_001, 7)] {
            let world = World::new(engine);
            let address = block(world, size);
            let _next = block(world, size);
            let touched = (address + size).next_multiple_of(PAGE) + past;
            let record = report(world, touched, AccessType::Write);
            assert_eq!(record.kind, ErrorKind::HeapBufferOverflow, "{engine} {size}");
            let known = record.block.expect("a block");
            assert_eq!((known.address, known.size, known.align), (address as u64, size as u64, 8));
            assert_eq!((known.place, known.distance), (Where::After, (touched - address - size) as u64));
            assert_eq!((known.state, first(&known.allocated)), (BlockState::Live, Some(ALLOCATING)));
            assert_eq!(record.confidence, Confidence::High, "{engine} {size} {past}");
            world.sim().assert_no_violations();
        }
    }
}

#[test]
fn a_function_without_unwind_tables_still_has_its_callers() {
    let cases: [(Option<usize>, &[u64], &[u64]); 4] = [
        (Some(0x51_0000), &[0x99_0000, PC], &[PC, 0x51_0000, 0x51_0010, 0x51_0020]),
        (None, &[0x99_0000, PC], &[PC]),
        (Some(0x60_0000), &[0x99_0000, PC], &[PC]),
        // A walk that has gone on by itself is left as it is.
        (Some(0x51_0000), &HANDLER, &HANDLER[2..]),
    ];
    for (caller, walked, expected) in cases {
        let world = World::new("");
        world.sim().set_modules(&[Module { start: 0x50_0000, end: 0x52_0000, ..Module::default() }]);
        let size = 256;
        // Frame records in a block, as if it were a stack: the third does not lie above the second.
        let records = block(world, size);
        for (at, words) in [(0, [64, 0x51_0010]), (64, [16, 0xaa55_0000_0051_0020]), (16, [128, 0x51_0030])] {
            let [above, address] = words;
            let words = [records as u64 + above, address];
            let bytes = words.into_iter().flat_map(u64::to_le_bytes);
            (records + at..).zip(bytes).for_each(|(at, byte)| poke(at, byte));
        }
        stack(walked);
        let address = (records + size).next_multiple_of(PAGE);
        let raised = Fault { caller, fp: records, ..fault(address, AccessType::Write) };
        assert_eq!(world.begin(&raised), Verdict::Step, "{}", world.stderr());
        assert_eq!(world.sim().step_ends(PC as usize + 3), Some(AfterStep::Done));
        assert_eq!(world.record().fault.trace.frames(), expected, "{caller:x?} {walked:x?}");
    }
}

#[test]
fn an_underflow_names_the_block_after_it() {
    for engine in ["engine=move", "engine=marker", "engine=mprotect", "engine=commit"] {
        for size in [24, 5001, 70_000] {
            let world = World::new(&format!("{engine},place=left"));
            let _before = block(world, size);
            let address = block(world, size);
            let record = report(world, address - 1, AccessType::Read);
            assert_eq!(record.kind, ErrorKind::HeapBufferUnderflow, "{engine} {size}");
            let known = record.block.expect("a block");
            assert_eq!((known.address, known.place, known.distance), (address as u64, Where::Before, 0));
            world.sim().assert_no_violations();
        }
    }
}

#[test]
fn a_use_after_free_has_both_stacks() {
    for engine in ["engine=move", "engine=marker", "engine=mprotect", "engine=commit"] {
        for (size, offset) in [(24, 0), (24, 23), (9000, 4500), (300_000, 299_999)] {
            let world = World::new(engine);
            let address = block(world, size);
            at(FREEING);
            world.free(address, size, 8);
            let record = report(world, address + offset, AccessType::Read);
            assert_eq!(record.kind, ErrorKind::UseAfterFree, "{engine} {size}");
            let known = record.block.expect("a block");
            assert_eq!(
                (known.address, known.place, known.distance),
                (address as u64, Where::Inside, offset as u64)
            );
            assert_eq!(first(&known.allocated), Some(ALLOCATING), "{engine} {size}");
            assert_eq!(known.freed.as_ref().and_then(first), Some(FREEING), "{engine} {size}");
            world.sim().assert_no_violations();
        }
    }
}

/// Every block of a span dies and the span becomes one inaccessible mapping: its records stay.
#[test]
fn a_use_after_the_whole_span_died_has_both_stacks() {
    for engine in ["engine=move", "engine=marker", "engine=mprotect", "engine=commit"] {
        let world = World::new(engine);
        at(ALLOCATING);
        let blocks: Vec<usize> = (0..300).map(|_| world.block(24, 8)).collect();
        at(FREEING);
        blocks.iter().for_each(|address| _ = world.free(*address, 24, 8));
        let record = report(world, blocks[100], AccessType::Write);
        assert_eq!(record.kind, ErrorKind::UseAfterFree);
        let known = record.block.expect("a block");
        assert_eq!(known.address, blocks[100] as u64);
        assert_eq!(
            (first(&known.allocated), known.freed.as_ref().and_then(first)),
            (Some(ALLOCATING), Some(FREEING))
        );
        world.sim().assert_no_violations();
    }
}

#[test]
fn between_two_blocks_the_nearer_one_is_named_and_doubt_is_said() {
    let world = World::new("");
    let (one, other) = (block(world, 4096), block(world, 4096));
    assert_eq!(other - one, 2 * PAGE, "neighbours with a guard page between");
    let guard = one + PAGE;
    let record = report(world, guard + PAGE / 2 - 100, AccessType::Read);
    assert_eq!(record.kind, ErrorKind::HeapBufferOverflow);
    assert_eq!(record.block.map(|block| block.address), Some(one as u64));
    assert!(record.notes.has(Note::TwoNear) && record.confidence == Confidence::Low);
    let world = World::new("");
    let (one, other) = (block(world, 4096), block(world, 4096));
    let record = report(world, one + 2 * PAGE - 8, AccessType::Read);
    assert_eq!(record.kind, ErrorKind::HeapBufferUnderflow);
    assert_eq!(record.block.map(|block| block.address), Some(other as u64));
    assert!(!record.notes.has(Note::TwoNear) && record.confidence == Confidence::High);
}

#[test]
fn far_from_every_block_it_says_so() {
    let world = World::new("place=left");
    let address = block(world, 200_000);
    let record = report(world, address + 200_000 + 30 * PAGE, AccessType::Read);
    assert_eq!((record.kind, record.confidence), (ErrorKind::HeapBufferOverflow, Confidence::Low));
    assert!(record.notes.has(Note::Far));
}

#[test]
fn memory_that_was_never_handed_out_is_no_blocks() {
    for engine in ["engine=move", "engine=marker", "engine=mprotect", "engine=commit"] {
        let world = World::new(engine);
        let address = block(world, 24);
        let beyond = (address & !(SPAN - 1)) + 5 * SPAN + 64;
        let verdict = if engine == "engine=marker" { Verdict::Resume } else { Verdict::Step };
        assert_eq!(
            raise(world, &fault(beyond, AccessType::Write)),
            verdict,
            "the marker engine's is open already"
        );
        let record = world.record();
        assert_eq!(record.kind, ErrorKind::WildAccess, "{engine}");
        assert!(record.block.is_none() && record.notes.has(Note::NeverAllocated));
        assert_eq!(record.neighbours[0].map(|near| near.address), None, "{engine}: no block is just before");
        world.sim().assert_no_violations();
    }
}

#[test]
fn a_fault_in_a_live_block_is_tried_once_more() {
    let world = World::new("");
    let address = block(world, 24);
    assert_eq!(raise(world, &fault(address, AccessType::Read)), Verdict::Resume);
    assert!(world.records().is_empty(), "another thread may have opened the page just then");
    assert_eq!(raise(world, &fault(address, AccessType::Read)), Verdict::Resume);
    let record = world.record();
    assert_eq!((record.kind, record.confidence), (ErrorKind::WildAccess, Confidence::Low));
    let world = World::new("");
    let address = block(world, 24);
    assert_eq!(raise(world, &fault(address, AccessType::Execute)), Verdict::Die);
    assert!(world.lines()[0].contains("\"type\":\"execute\""), "nobody opens a page for execution");
}

/// What is not the heap's is described, and then takes its course.
#[test]
fn faults_that_are_not_ours_are_described_when_nobody_else_will() {
    #[expect(clippy::type_complexity, reason = "a table, read once")]
    let cases: [(&str, fn(&mut Fault), ErrorKind, Option<Note>); 5] = [
        ("null", |fault| fault.address = Some(8), ErrorKind::NullDereference, None),
        (
            "stack",
            |fault| {
                fault.address = Some(0x7000_0000_0000 - 8);
                fault.sp = 0x7000_0000_0000 + 16;
            },
            ErrorKind::StackOverflow,
            None,
        ),
        ("non-canonical", |fault| fault.address = None, ErrorKind::WildAccess, Some(Note::NonCanonical)),
        (
            "fill",
            |fault| fault.address = Some(0x1fe9_ce1f_e9ce + 16),
            ErrorKind::WildAccess,
            Some(Note::FillPattern),
        ),
        ("wild", |fault| fault.address = Some(0x1234_5678), ErrorKind::WildAccess, None),
    ];
    for (name, change, kind, note) in cases {
        let world = World::unstarted(fencepost_sys::sim::SimOptions::new(), "", None);
        world.sim().set_stack_bounds(Some(Range { start: 0x7000_0000_0000, len: 8 << 20 }));
        world.guard.start("");
        block(world, 24);
        let mut fault = fault(0, AccessType::Read);
        change(&mut fault);
        fault.others = true;
        assert_eq!(raise(world, &fault), Verdict::Pass, "{name}: somebody else is asked");
        assert!(world.records().is_empty() && world.stderr().is_empty(), "{name}");
        fault.others = false;
        assert_eq!(raise(world, &fault), Verdict::Die, "{name}: and the process ends where it would have");
        let lines = world.lines();
        assert_eq!(lines.len(), 2, "{name}: the report and the summary");
        assert!(lines[0].contains(&format!("\"kind\":\"{}\"", kind.name())), "{name}: {lines:?}");
        assert!(note.is_none_or(|note| lines[0].contains(note.text())), "{name}: {lines:?}");
        assert!(!lines[0].contains(Note::PageOpened.text()), "{name}");
        assert!(lines[0].contains("500000") && !lines[0].contains("990000"), "{name}: {lines:?}");
    }
}

#[test]
fn a_decoded_address_is_said_to_be_decoded() {
    let world = World::new("");
    block(world, 24);
    let decoded = Fault { decoded: true, ..fault(0xdead_beef_0000_0000, AccessType::Write) };
    assert_eq!(raise(world, &decoded), Verdict::Die);
    let line = world.lines().remove(0);
    assert!(line.contains(Note::AddressDecoded.text()) && line.contains(Note::NonCanonical.text()), "{line}");
    assert!(line.contains("\"address\":\"0xdeadbeef00000000\""), "{line}");
}

#[test]
fn signals_that_were_sent_pass() {
    let world = World::new("");
    let address = block(world, 24);
    let sent = Fault { sent: true, ..fault(address + 24, AccessType::Read) };
    assert_eq!(raise(world, &sent), Verdict::Pass);
    assert!(world.records().is_empty());
    assert!(world.sim().would_trap(address + 24));
}

#[test]
fn a_walk_that_misses_the_fault_gives_the_instruction_alone() {
    let world = World::new("");
    let address = block(world, 24);
    stack(&[0x99_0000, 0x99_0010]);
    assert_eq!(world.raise(&fault(address + 24, AccessType::Read)), Verdict::Step);
    let record = world.record();
    assert_eq!(record.fault.trace.frames(), [PC]);
    assert!(record.notes.has(Note::StackCutShort));
}

#[test]
fn a_thread_without_a_state_is_told_about_too() {
    let world = World::new("");
    let address = block(world, 24);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            world.enter();
            assert_eq!(raise(world, &fault(address + 24, AccessType::Write)), Verdict::Step);
        });
    });
    let record = world.record();
    assert_eq!(record.kind, ErrorKind::HeapBufferOverflow);
    assert_eq!(record.fault.thread.id, 1002);
    assert_eq!(record.block.map(|block| block.allocated.thread.id), Some(1001));
    assert!(matches!(world.guard.allocate(layout(1, 1), false, 0), fencepost_guard::Placed::Here(_)));
}
