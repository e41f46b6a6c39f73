//! Audits of blocks that the engine has registered: the kernel notes what is written, and the block is guarded as before.

use fencepost_guard::{Purpose, SealFailure};
use fencepost_record::AccessType;
use fencepost_sys::sim::SimOptions;
use fencepost_sys::{Range, VmError};

use crate::world::{PAGE, World, fault, poke};

const SIZE: usize = 3 * PAGE;

fn block(world: World) -> Range {
    Range { start: world.block(SIZE, PAGE), len: SIZE }
}

/// Ends an audit, and says which pages it found, counted from the block's first.
fn found(world: World, ticket: fencepost_guard::SealTicket, block: Range) -> Result<Vec<usize>, VmError> {
    let mut pages = Vec::new();
    let told = world.guard.end_audit(ticket, &mut |run| {
        pages.extend((run.start..run.end()).step_by(PAGE).map(|at| (at - block.start) / PAGE));
    });
    told.map(|()| pages)
}

#[test]
fn an_audit_tells_which_pages_were_written_and_the_block_is_guarded_after_it() {
    let world = World::new("engine=move");
    let block = block(world);
    let ticket = world.guard.audit_block(block, 0).expect("audited");
    assert!(ticket.range().len == 0 && !world.sim().would_trap_write(block.start), "nothing is closed");
    poke(block.start + PAGE + 7, 0x42);
    poke(block.start + 2 * PAGE, 0x42);
    assert_eq!(found(world, ticket, block), Ok(vec![1, 2]));
    let seal = world.guard.seal_block(Purpose::Seal, block.start, 8, 0).expect("sealed");
    assert!(world.sim().would_trap_write(block.start), "by a note in the page table");
    world.guard.unseal(seal, || ());
    world.free(block.start, SIZE, PAGE);
    assert!(world.sim().would_trap(block.start));
    world.raise(&fault(block.start, AccessType::Write));
    assert_eq!(world.record().kind, fencepost_record::ErrorKind::UseAfterFree);
    world.sim().assert_no_violations();
}

#[test]
fn a_block_that_is_freed_ends_its_audit_first() {
    let world = World::new("engine=move");
    let block = block(world);
    let ticket = world.guard.audit_block(block, 0).expect("audited");
    poke(block.start, 1);
    world.free(block.start, SIZE, PAGE);
    assert!(world.records().is_empty(), "nobody is told of an audit");
    assert!((0..3).all(|page| world.sim().would_trap(block.start + page * PAGE)));
    assert_eq!(found(world, ticket, block), Err(VmError::Unsupported));
    let again = world.block(SIZE, PAGE);
    world.free(again, SIZE, PAGE);
    world.sim().assert_no_violations();
}

#[test]
fn what_cannot_be_audited_so_says_why_and_stays_as_it_is() {
    let unsupported = Some(SealFailure::System(VmError::Unsupported));
    let world = World::new("engine=move");
    let held = block(world);
    let seal = world.guard.seal_block(Purpose::Seal, held.start, 8, 0).expect("sealed");
    assert_eq!(world.guard.audit_block(held, 0).err(), unsupported, "a note would be lost");
    assert!(world.sim().would_trap_write(held.start));
    world.guard.unseal(seal, || ());
    let part = Range { start: held.start, len: SIZE + 1 };
    assert_eq!(world.guard.audit_block(part, 0).err(), Some(SealFailure::NotOneBlock));
    let blocks: Vec<Range> = (0..8).map(|_| block(world)).collect();
    let tickets: Vec<_> = blocks.iter().map(|block| world.guard.audit_block(*block, 0)).collect();
    assert_eq!(world.guard.audit_block(held, 0).err(), Some(SealFailure::TooMany));
    for (ticket, block) in tickets.into_iter().zip(&blocks) {
        assert_eq!(found(world, ticket.expect("audited"), *block), Ok(vec![]));
    }
    let marked = World::new("engine=marker");
    assert_eq!(marked.guard.audit_block(block(marked), 0).err(), unsupported);
    let without = World::on(SimOptions { notes_writes: false, ..SimOptions::new() }, "engine=move");
    let kept = block(without);
    assert_eq!(without.guard.audit_block(kept, 0).err(), unsupported);
    without.free(kept.start, SIZE, PAGE);
    assert!(without.sim().would_trap(kept.start), "registered again");
}

#[test]
fn any_call_of_an_audit_may_fail() {
    let mut refused = 0;
    for failing in 1..12 {
        let world = World::new("engine=move");
        let block = block(world);
        // What the first audit or seal needs once.
        found(world, world.guard.audit_block(block, 0).expect("audited"), block).expect("told");
        world.sim().fail_at(failing);
        match world.guard.audit_block(block, 0) {
            Ok(ticket) => drop(found(world, ticket, block)),
            Err(SealFailure::System(_)) => refused += 1,
            Err(other) => panic!("{other:?}"),
        }
        world.sim().fail_at(0);
        assert!(!world.sim().would_trap_write(block.start), "call {failing}");
        let seal = world.guard.seal_block(Purpose::Seal, block.start, 8, 0).expect("nothing holds it");
        world.guard.unseal(seal, || ());
        world.free(block.start, SIZE, PAGE);
        world.sim().assert_no_violations();
    }
    assert!(refused > 0);
}
