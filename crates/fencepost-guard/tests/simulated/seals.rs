//! Memory made read-only: what traps, what a write is called, and how seals end.

use fencepost_guard::SealFailure;
use fencepost_record::{AccessType, ErrorKind, Note, Where};
use fencepost_sys::{Range, Verdict, VmError};

use crate::world::{PAGE, World, at, fault, layout, peek, poke};

const SEALING: u64 = 0x66_0000;

#[test]
fn a_sealed_block_is_read_and_a_write_names_the_sealer() {
    for engine in ["engine=move", "engine=marker", "engine=mprotect"] {
        for size in [24, 9000, 200_000] {
            let world = World::new(engine);
            at(0x11_0000);
            let address = world.block(size, 8);
            poke(address, 0x42);
            at(SEALING);
            let ticket = world.guard.seal_block(address, size, 0).expect("sealed");
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
            assert_eq!((seal.address, seal.size), (range.start as u64, range.len as u64));
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
    let ticket = world.guard.seal_block(address, 24, 0).expect("sealed");
    assert_eq!(world.raise(&fault(address, AccessType::Read)), Verdict::Resume);
    assert!(world.records().is_empty());
    world.guard.unseal(ticket, || ());
}

#[test]
fn seals_of_one_page_end_with_the_last() {
    let world = World::new("");
    let address = world.block(9000, 8);
    let all = world.guard.seal_block(address, 9000, 0).expect("sealed");
    let part = world.guard.seal_block(address + 100, 10, 0).expect("sealed");
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
    for engine in ["engine=move", "engine=marker", "engine=mprotect"] {
        let world = World::new(engine);
        let address = world.block(24, 8);
        let ticket = world.guard.seal_block(address, 24, 0).expect("sealed");
        world.free(address, 24, 8);
        let record = world.record();
        assert_eq!((record.kind, record.access.kind), (ErrorKind::SealViolation, AccessType::Free));
        assert!(record.notes.has(Note::FreedWhileSealed) && record.seal.is_some());
        assert!(world.sim().would_trap(address), "freed all the same");
        let other = world.block(24, 8);
        let kept = world.guard.seal_block(other, 24, 0).expect("sealed");
        world.guard.unseal(ticket, || ());
        assert!(world.sim().would_trap(address), "a seal that has ended opens nothing");
        assert!(world.sim().would_trap_write(other), "and no other");
        world.guard.unseal(kept, || ());
        assert_eq!(world.raise(&fault(address, AccessType::Write)), Verdict::Step);
        assert_eq!(world.record().kind, ErrorKind::UseAfterFree);
        world.sim().assert_no_violations();
    }
}

#[test]
fn other_memory_is_sealed_by_its_owner_and_known_here() {
    let world = World::new("");
    world.block(24, 8);
    let foreign = Range { start: 0x6000_0000_0000, len: 2 * PAGE };
    at(SEALING);
    let ticket = world.guard.note_seal(foreign, 0).expect("noted");
    at(0x50_0000);
    let aborting = World::new("on_error=abort");
    aborting.block(24, 8);
    let theirs = aborting.guard.note_seal(foreign, 0).expect("noted");
    assert_eq!(aborting.raise(&fault(foreign.start, AccessType::Write)), Verdict::Die);
    assert!(aborting.lines()[0].contains("\"kind\":\"seal-violation\""));
    aborting.guard.unseal(theirs, || ());
    world.enter();
    world.guard.unseal(ticket, || ());
    // The seal may have ended between the fault and its handling: once more, then it is believed.
    assert_eq!(world.raise(&fault(foreign.start, AccessType::Write)), Verdict::Resume);
    assert!(world.lines().is_empty());
    assert_eq!(world.raise(&fault(foreign.start, AccessType::Write)), Verdict::Die);
    assert!(world.lines()[0].contains("\"kind\":\"wild-access\""), "no seal holds it any more");
}

#[test]
fn what_cannot_be_sealed_says_why_and_changes_nothing() {
    let world = World::new("");
    let address = world.block(24, 8);
    let seal = |start, len| world.guard.seal_block(start, len, 0).map(|_| ());
    assert_eq!(seal(address, 0), Err(SealFailure::Empty));
    assert_eq!(seal(address, 25), Err(SealFailure::NotOneBlock));
    assert_eq!(seal(address - 1, 2), Err(SealFailure::NotOneBlock));
    assert_eq!(seal(0x1000, 8), Err(SealFailure::NotOneBlock));
    world.sim().fail_at(1);
    assert_eq!(seal(address, 24), Err(SealFailure::System(VmError::OutOfMemory)));
    assert!(!world.sim().would_trap_write(address));
    assert!(!world.guard.describe(address).expect("known").sealed);
    world.free(address, 24, 8);
    assert_eq!(seal(address, 24), Err(SealFailure::NotOneBlock));
    assert!(world.records().is_empty());
    assert_eq!(world.allocate(layout(1, 1)).map(|held| world.guard.is_heap(held.address)), Some(true));
}
