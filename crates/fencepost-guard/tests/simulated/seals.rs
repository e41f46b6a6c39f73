//! Memory made read-only: what traps, what a write is called, and how seals end.

use fencepost_guard::{Purpose, SealFailure};
use fencepost_record::{AccessType, ErrorKind, Note, Where};
use fencepost_sys::sim::SimOptions;
use fencepost_sys::{AfterStep, Fault, Memory, Range, Steps, Verdict, VmError};

use crate::world::{PAGE, World, at, fault, layout, peek, poke, stack};

const SEALING: u64 = 0x66_0000;

#[test]
fn a_sealed_block_is_read_and_a_write_names_the_sealer() {
    for engine in ["engine=move", "engine=marker", "engine=mprotect", "engine=commit"] {
        for size in [24, 9000, 200_000] {
            let world = World::new(engine);
            at(0x11_0000);
            let address = world.block(size, 8);
            poke(address, 0x42);
            at(SEALING);
            let ticket = world.guard.seal_block(Purpose::Seal, address, size, 0).expect("sealed");
            let range = ticket.range();
            assert!(
                range.start <= address && range.end() >= address + size && range.start.is_multiple_of(PAGE)
            );
            assert!(!world.sim().would_trap(address) && world.sim().would_trap_write(address + size - 1));
            assert_eq!(peek(address), 0x42, "{engine}: the content is kept");
            at(0x50_0000);
            let write = fault(address + 5, AccessType::Write);
            assert_eq!(world.raise(&write), Verdict::Step);
            let record = world.record();
            assert_eq!(record.kind, ErrorKind::SealViolation, "{engine} {size}");
            let seal = record.seal.expect("the seal");
            assert_eq!((seal.address, seal.size), (address as u64, size as u64));
            assert_eq!(seal.pages, (range.start as u64, range.len as u64));
            assert_eq!((seal.old.as_slice()[0], seal.new), (peek(address + 5), seal.old));
            assert_eq!(seal.sealer.trace.frames()[0], SEALING);
            let block = record.block.expect("the block");
            assert_eq!((block.address, block.place, block.distance), (address as u64, Where::Inside, 5));
            assert_eq!(block.allocated.trace.frames()[0], 0x11_0000);
            assert!(world.sim().would_trap_write(address + 5), "sealed again");
            assert!(!world.sim().would_trap(address + 5));
            world.guard.unseal(ticket, || ());
            assert!(!world.sim().would_trap_write(address + size - 1));
            world.free(address, size, 8);
            assert!(world.records().is_empty());
            world.sim().assert_no_violations();
        }
    }
}

#[test]
fn a_read_of_a_sealed_block_is_no_violation() {
    let world = World::new("");
    let address = world.block(24, 8);
    let ticket = world.guard.seal_block(Purpose::Seal, address, 24, 0).expect("sealed");
    assert_eq!(world.raise(&fault(address, AccessType::Read)), Verdict::Step);
    assert!(world.records().is_empty());
    world.guard.unseal(ticket, || ());
}

#[test]
fn seals_of_one_page_end_with_the_last() {
    let world = World::new("");
    let address = world.block(9000, 8);
    let all = world.guard.seal_block(Purpose::Seal, address, 9000, 0).expect("sealed");
    let part = world.guard.seal_block(Purpose::Seal, address + 100, 10, 0).expect("sealed");
    assert!(world.guard.describe(address).expect("known").sealed);
    let page = (address + 100) & !(PAGE - 1);
    world.guard.unseal(all, || ());
    assert!(world.sim().would_trap_write(page), "another seal holds this page");
    assert!(!world.sim().would_trap_write(address + 8999));
    assert!(world.guard.describe(address).expect("known").sealed);
    world.guard.unseal(part, || ());
    assert!(!world.sim().would_trap_write(page));
    assert!(!world.guard.describe(address).expect("known").sealed);
}

#[test]
fn a_free_of_a_sealed_block_is_a_violation_and_ends_its_seals() {
    for engine in ["engine=move", "engine=marker", "engine=mprotect", "engine=commit"] {
        let world = World::new(engine);
        let address = world.block(24, 8);
        let ticket = world.guard.seal_block(Purpose::Seal, address, 24, 0).expect("sealed");
        world.free(address, 24, 8);
        let record = world.record();
        assert_eq!((record.kind, record.access.kind), (ErrorKind::SealViolation, AccessType::Free));
        assert!(record.notes.has(Note::FreedWhileSealed) && record.seal.is_some());
        assert!(world.sim().would_trap(address), "freed all the same");
        let other = world.block(24, 8);
        let kept = world.guard.seal_block(Purpose::Seal, other, 24, 0).expect("sealed");
        world.guard.unseal(ticket, || ());
        assert!(world.sim().would_trap(address), "a seal that has ended opens nothing");
        assert!(world.sim().would_trap_write(other), "and no other");
        world.guard.unseal(kept, || ());
        assert_eq!(world.raise(&fault(address, AccessType::Write)), Verdict::Step);
        assert_eq!(world.record().kind, ErrorKind::UseAfterFree);
        world.sim().assert_no_violations();
    }
}

/// Memory of the system that is none of the heap's.
pub fn other_memory(world: World) -> Range {
    let start = world.sim().reserve(2 * PAGE, PAGE).expect("addresses");
    let range = Range { start, len: 2 * PAGE };
    // SAFETY: the range was reserved just now.
    unsafe { world.sim().commit(range) }.expect("memory");
    range
}

#[test]
fn other_memory_is_sealed_and_opened_again() {
    let world = World::new("");
    world.block(24, 8);
    let other = other_memory(world);
    at(SEALING);
    // SAFETY: the range stays mapped, and the runtime does not use it.
    let ticket = unsafe { world.guard.seal_other(Purpose::Seal, other, 0) }.expect("sealed");
    assert!(world.sim().would_trap_write(other.start) && !world.sim().would_trap(other.start));
    assert_eq!(world.raise(&fault(other.start + 9, AccessType::Write)), Verdict::Step);
    let record = world.record();
    assert_eq!((record.kind, record.block.is_none()), (ErrorKind::SealViolation, true));
    assert_eq!(world.guard.hits(&ticket), 1);
    world.guard.unseal(ticket, || ());
    assert!(!world.sim().would_trap_write(other.start));
    // The seal may have ended between the fault and its handling: once more, then it is believed.
    assert_eq!(world.raise(&fault(other.start, AccessType::Write)), Verdict::Resume);
    assert!(world.records().is_empty());
    assert_eq!(world.raise(&fault(other.start, AccessType::Write)), Verdict::Die);
    let lines = world.lines();
    assert!(lines.iter().any(|line| line.contains("\"kind\":\"wild-access\"")), "no seal holds it any more");
    world.sim().assert_no_violations();
}

#[test]
fn a_violation_ends_the_process_unless_it_goes_on() {
    let world = World::new("on_error=abort");
    let address = world.block(24, 8);
    let ticket = world.guard.seal_block(Purpose::Seal, address, 8, 0).expect("sealed");
    assert_eq!(world.raise(&fault(address + 8, AccessType::Write)), Verdict::Step, "beside it: in silence");
    assert!(world.lines().is_empty());
    poke(address + 7, 1);
    let write = fault(address + 7, AccessType::Write);
    assert_eq!(world.begin(&write), Verdict::Step);
    poke(address + 7, 2);
    assert_eq!(world.sim().step_ends(write.pc + 3), Some(AfterStep::Back));
    assert!(world.sim().open_for_steps().is_empty() && world.sim().would_trap_write(address));
    assert_eq!(peek(address + 7), 1, "what it wrote is taken back");
    assert_eq!(world.begin(&write), Verdict::Die, "at the instruction itself");
    let lines = world.lines();
    let reports: Vec<_> = lines.iter().filter(|line| line.contains("\"kind\":")).collect();
    assert_eq!(reports.len(), 1, "{lines:#?}");
    for part in ["\"kind\":\"seal-violation\"", "\"old\":\"01\"", "\"new\":\"02\""] {
        assert!(reports[0].contains(part), "{part} in {}", reports[0]);
    }
    world.guard.unseal(ticket, || ());
}

#[test]
fn a_violation_ends_the_process_also_where_no_instruction_runs_by_itself() {
    let world = World::on(SimOptions { steps: Steps::Impossible, ..SimOptions::new() }, "on_error=abort");
    let address = world.block(24, 8);
    let ticket = world.guard.seal_block(Purpose::Seal, address, 8, 0).expect("sealed");
    assert_eq!(world.raise(&fault(address + 7, AccessType::Write)), Verdict::Die);
    assert!(
        world.lines()[0].contains("\"kind\":\"seal-violation\"") && world.lines()[0].contains("\"new\":null")
    );
    world.guard.unseal(ticket, || ());
}

#[test]
fn an_access_that_reaches_into_sealed_bytes_is_a_violation() {
    let world = World::new("");
    let address = world.block(64, 8);
    let ticket = world.guard.seal_block(Purpose::Seal, address + 16, 8, 0).expect("sealed");
    for (offset, size, violates) in [
        (0, 8, false),
        (9, 8, true),
        (8, 8, false),
        (12, 8, true),
        (16, 1, true),
        (23, 4, true),
        (24, 8, false),
    ] {
        let write = Fault { size: Some(size), ..fault(address + offset, AccessType::Write) };
        let before = world.guard.hits(&ticket);
        assert_eq!(world.raise(&write), Verdict::Step);
        assert_eq!(world.guard.hits(&ticket) != before, violates, "{offset} {size}");
    }
    assert_eq!(world.guard.hits(&ticket), 4);
    world.guard.unseal(ticket, || ());
}

#[test]
fn a_watch_notes_who_wrote_what() {
    let world = World::new("on_error=abort");
    let address = world.block(64, 8);
    let mut log = world.guard.start_log().expect("room");
    let ticket = world.guard.seal_block(Purpose::Watch, address, 8, 0).expect("watched");
    poke(address, 1);
    for value in 2..5 {
        stack(&[0x99_0000, 0x50_0000, 0x51_0000 + u64::from(value)]);
        let write = fault(address, AccessType::Write);
        assert_eq!(world.begin(&write), Verdict::Step);
        poke(address, value);
        assert_eq!(world.sim().step_ends(0x50_0003), Some(AfterStep::Done));
        assert!(world.sim().would_trap_write(address), "watched again");
    }
    assert_eq!(world.raise(&fault(address + 8, AccessType::Write)), Verdict::Step, "a neighbour: no note");
    let mut seen = Vec::new();
    let lost = world.guard.changes(ticket.serial(), &mut log, &mut |change| {
        let frames = change.writer.trace.frames();
        seen.push((change.old.as_slice()[0], change.new.as_slice()[0], frames[0], frames[1]));
    });
    assert_eq!(lost, 0);
    assert_eq!(
        seen,
        [(1, 2, 0x50_0000, 0x51_0002), (2, 3, 0x50_0000, 0x51_0003), (3, 4, 0x50_0000, 0x51_0004)]
    );
    for _ in 0..5000 {
        world.raise(&fault(address, AccessType::Write));
    }
    let mut more = 0;
    let lost = world.guard.changes(ticket.serial(), &mut log, &mut |_| more += 1);
    assert_eq!((more, lost), (4096, 904), "what was overwritten is counted");
    assert_eq!(world.guard.hits(&ticket), 5003);
    world.guard.unseal(ticket, || ());
    assert!(world.records().is_empty() && !world.sim().would_trap_write(address));
    world.free(address, 64, 8);
    world.sim().assert_no_violations();
}

#[test]
fn a_tripwire_tells_of_the_first_access_and_is_gone() {
    for access in [AccessType::Read, AccessType::Write] {
        let world = World::new("on_error=abort");
        let address = world.block(64, 8);
        at(SEALING);
        let ticket = world.guard.seal_block(Purpose::Tripwire, address + 8, 8, 0).expect("set");
        assert!(world.sim().would_trap(address));
        assert_eq!(world.raise(&fault(address, access)), Verdict::Step, "beside it");
        assert!(world.sim().would_trap(address) && world.records().is_empty());
        assert_eq!(world.raise(&fault(address + 8, access)), Verdict::Step);
        let record = world.record();
        assert_eq!(record.kind, ErrorKind::Tripwire);
        assert_eq!(record.seal.expect("the wire").sealer.trace.frames()[0], SEALING);
        assert_eq!(world.guard.hits(&ticket), 1);
        assert!(!world.sim().would_trap_write(address), "it is gone");
        world.guard.unseal(ticket, || ());
        world.free(address, 64, 8);
        assert!(world.records().is_empty(), "freeing it is no error");
        world.sim().assert_no_violations();
    }
}

#[test]
fn seals_watches_and_tripwires_share_a_page() {
    let world = World::new("");
    let address = world.block(64, 8);
    let close = |purpose, offset| world.guard.seal_block(purpose, address + offset, 8, 0).expect("closed");
    let (seal, watch, wire) =
        (close(Purpose::Seal, 0), close(Purpose::Watch, 8), close(Purpose::Tripwire, 16));
    assert!(world.sim().would_trap(address));
    world.raise(&fault(address + 8, AccessType::Write));
    world.raise(&fault(address, AccessType::Read));
    assert!(world.records().is_empty());
    world.raise(&fault(address, AccessType::Write));
    assert_eq!(world.record().kind, ErrorKind::SealViolation);
    world.raise(&fault(address + 16, AccessType::Read));
    assert_eq!(world.record().kind, ErrorKind::Tripwire);
    assert!(
        !world.sim().would_trap(address) && world.sim().would_trap_write(address),
        "reads are free again"
    );
    assert_eq!([&seal, &watch, &wire].map(|ticket| world.guard.hits(ticket)), [1, 1, 1]);
    world.guard.unseal(watch, || ());
    assert!(world.sim().would_trap_write(address));
    world.guard.unseal(seal, || ());
    assert!(!world.sim().would_trap_write(address));
    world.guard.unseal(wire, || ());
}

#[test]
fn what_cannot_be_sealed_says_why_and_changes_nothing() {
    let world = World::new("");
    let address = world.block(24, 8);
    let seal = |start, len| world.guard.seal_block(Purpose::Seal, start, len, 0).map(|_| ());
    assert_eq!(seal(address, 0), Err(SealFailure::Empty));
    assert_eq!(seal(address, 25), Err(SealFailure::NotOneBlock));
    assert_eq!(seal(address - 1, 2), Err(SealFailure::NotOneBlock));
    assert_eq!(seal(0x1000, 8), Err(SealFailure::NotOneBlock));
    // The first two calls that succeed make room for the table.
    for failing in [1, 2, 2] {
        world.sim().fail_at(failing);
        assert_eq!(seal(address, 24), Err(SealFailure::System(VmError::OutOfMemory)), "call {failing}");
        assert!(!world.sim().would_trap_write(address));
        assert!(!world.guard.describe(address).expect("known").sealed);
    }
    world.free(address, 24, 8);
    assert_eq!(seal(address, 24), Err(SealFailure::NotOneBlock));
    assert!(world.records().is_empty());
    assert_eq!(world.allocate(layout(1, 1)).map(|held| world.guard.is_heap(held.address)), Some(true));
}

#[test]
fn where_pages_are_registered_a_seal_makes_no_mapping() {
    let world = World::new("engine=move");
    let blocks: Vec<usize> = (0..500).map(|_| world.block(5000, 8)).collect();
    let seal = |block: usize| world.guard.seal_block(Purpose::Seal, block, 5000, 0).expect("sealed");
    // The first one makes room for the table.
    world.guard.unseal(seal(blocks[0]), || ());
    let before = world.sim().mappings();
    let mut tickets: Vec<_> = blocks.iter().map(|block| seal(*block)).collect();
    assert_eq!(world.sim().mappings(), before);
    assert!(blocks.iter().all(|block| world.sim().would_trap_write(block + 4999)));
    world.begin(&fault(blocks[7], AccessType::Write));
    assert!(!world.sim().would_trap_write(blocks[7]), "open for its instruction");
    world.guard.on_step(0);
    assert!(world.sim().would_trap_write(blocks[7]) && world.sim().mappings() == before);
    assert_eq!(world.record().kind, ErrorKind::SealViolation);
    // A tripwire closes a page by its mapping, and what is beside it stays right.
    let wire = world.guard.seal_block(Purpose::Tripwire, blocks[3], 8, 0).expect("closed");
    assert!(world.sim().would_trap(blocks[3]));
    world.guard.unseal(wire, || ());
    assert!(!world.sim().would_trap(blocks[3]) && world.sim().would_trap_write(blocks[3]));
    tickets.drain(..).for_each(|ticket| world.guard.unseal(ticket, || ()));
    assert!(blocks.iter().all(|block| !world.sim().would_trap_write(block + 4999)));
    for block in blocks {
        world.free(block, 5000, 8);
    }
    assert!(world.records().is_empty() && world.sim().mappings() == before);
    world.sim().assert_no_violations();
}

#[test]
fn thousands_are_held_at_once_and_their_places_serve_again() {
    let world = World::new("engine=move");
    let blocks: Vec<usize> = (0..3000).map(|_| world.block(64, 8)).collect();
    let seal = |block: &usize| world.guard.seal_block(Purpose::Seal, *block, 64, 0).expect("sealed");
    for known in [false, true] {
        let mut tickets: Vec<_> = blocks.iter().map(seal).collect();
        assert!(blocks.iter().all(|block| world.sim().would_trap_write(*block)));
        assert_eq!(world.raise(&fault(blocks[2999], AccessType::Write)), Verdict::Step);
        let told = world.records().first().and_then(|record| record.seal).map(|seal| seal.address);
        assert_eq!(told, (!known).then_some(blocks[2999] as u64));
        tickets.drain(..).rev().for_each(|ticket| world.guard.unseal(ticket, || ()));
        assert!(!blocks.iter().any(|block| world.sim().would_trap_write(*block)));
    }
    world.sim().assert_no_violations();
}

#[test]
fn a_seal_by_a_note_is_there_in_a_child_and_after_a_lost_descriptor() {
    let world = World::new("engine=move");
    let block = world.block(64, 8);
    let ticket = world.guard.seal_block(Purpose::Seal, block, 64, 0).expect("sealed");
    world.sim().close_descriptors();
    assert!(!world.sim().would_trap_write(block));
    // The next allocation that needs a page finds out.
    let more: Vec<usize> = (0..40).map(|_| world.block(64, 8)).collect();
    assert!(world.sim().would_trap_write(block) && !world.sim().would_trap(block));
    assert!(world.stderr().contains("closed the descriptor"));
    world.sim().become_child();
    world.sim().fork(|| {
        assert!(world.sim().would_trap_write(block), "and in a child");
        world.guard.unseal(ticket, || ());
        assert!(!world.sim().would_trap_write(block));
    });
    for block in more {
        world.free(block, 64, 8);
    }
    world.sim().assert_no_violations();
}

#[test]
fn without_notes_in_the_page_table_seals_close_the_mapping() {
    let world = World::on(SimOptions { write_protect: false, ..SimOptions::new() }, "engine=move");
    let block = world.block(64, 8);
    let seal = || world.guard.seal_block(Purpose::Seal, block, 64, 0).expect("sealed");
    world.guard.unseal(seal(), || ());
    let before = world.sim().mappings();
    let ticket = seal();
    assert!(world.sim().would_trap_write(block) && world.sim().mappings() > before);
    assert_eq!(world.raise(&fault(block, AccessType::Write)), Verdict::Step);
    assert!(world.sim().would_trap_write(block));
    world.guard.unseal(ticket, || ());
    assert!(!world.sim().would_trap_write(block) && world.sim().mappings() == before);
}
