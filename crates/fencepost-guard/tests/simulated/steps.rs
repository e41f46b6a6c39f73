//! Going on after a fault by running the one instruction: what opens, what closes again, and what is kept.

use fencepost_record::{AccessType, ErrorKind, Note};
use fencepost_sys::sim::SimOptions;
use fencepost_sys::{AfterStep, Fault, Range, Steps, Verdict};

use crate::world::{Draw, PAGE, World, at, fault, peek, poke, stack};

const PC: usize = 0x50_0000;
const NEXT: Option<AfterStep> = Some(AfterStep::Done);

fn on(steps: Steps, options: &str) -> World {
    World::on(SimOptions { steps, ..SimOptions::new() }, options)
}

#[test]
fn what_was_written_behind_a_guard_is_there_at_the_next_step() {
    for engine in ["engine=marker", "engine=mprotect"] {
        let world = World::new(engine);
        let address = world.block(24, 8);
        let past = address + 24;
        let write = fault(past, AccessType::Write);
        assert_eq!(world.begin(&write), Verdict::Step);
        assert_eq!(peek(past), 0, "{engine}: fresh");
        poke(past, 7);
        assert_eq!(world.sim().step_ends(PC + 3), NEXT);
        assert!(world.sim().would_trap(past), "{engine}");
        assert_eq!(world.begin(&fault(past, AccessType::Read)), Verdict::Step);
        assert_eq!(peek(past), 7, "{engine}: the program reads back what it wrote");
        assert_eq!(world.sim().step_ends(PC + 3), NEXT);
        world.free(address, 24, 8);
        world.sim().assert_no_violations();
    }
}

/// An access to a freed block finds what the block held, as far as that is kept, and then what steps wrote there.
#[test]
fn a_freed_block_is_read_as_it_was() {
    for engine in ["engine=move", "engine=marker", "engine=mprotect", "engine=commit"] {
        for size in [24, 9000, 200_000] {
            let world = World::new(engine);
            let address = world.block(size, 8);
            (0..size).for_each(|offset| poke(address + offset, offset as u8 | 1));
            world.free(address, size, 8);
            let look = |offset: usize, access: AccessType| {
                assert!(world.sim().would_trap(address + offset), "{engine} {size}: closed");
                assert_eq!(world.begin(&fault(address + offset, access)), Verdict::Step);
                let found = peek(address + offset);
                if access == AccessType::Write {
                    poke(address + offset, 0x66);
                }
                assert_eq!(world.sim().step_ends(PC + 3), NEXT);
                found
            };
            for offset in [0, size - 1, size / 2] {
                let kept = if offset < 16 << 10 { offset as u8 | 1 } else { 0 };
                assert_eq!(look(offset, AccessType::Read), kept, "{engine} {size}: at {offset}");
            }
            look(1, AccessType::Write);
            assert_eq!(look(1, AccessType::Read), 0x66, "{engine} {size}: written in between");
            assert_eq!(look(2, AccessType::Read), 3);
            world.sim().assert_no_violations();
        }
    }
}

/// Where there is no memory for it, a freed block reads as zeros, and all else is as ever.
#[test]
fn without_memory_for_it_a_freed_block_reads_as_zeros() {
    let mut zeros = 0;
    for failing in 1..40 {
        let world = World::unstarted(SimOptions::new(), "engine=marker", None);
        world.sim().fail_at(failing);
        world.guard.start("");
        let Some(address) = world.allocate(crate::world::layout(24, 8)).map(|held| held.address) else {
            continue;
        };
        if !world.guard.is_heap(address) {
            continue;
        }
        poke(address, 7);
        world.free(address, 24, 8);
        if world.begin(&fault(address, AccessType::Read)) == Verdict::Step {
            let found = peek(address);
            assert!(found == 7 || found == 0);
            zeros += usize::from(found == 0);
            world.sim().step_ends(PC + 3);
        }
    }
    assert!((1..=4).contains(&zeros), "{zeros} of the calls at the start take memory for it");
}

/// However many pages were stepped on, what blocks get is zero.
#[test]
fn blocks_never_find_what_steps_left() {
    for engine in ["engine=marker", "engine=mprotect"] {
        let world = World::new(&format!("{engine},quarantine=4M,fill=off,max_memory=none"));
        let mut draw = Draw(3);
        for round in 0..600 {
            let size = [24, 5000, 70_000][draw.below(3)];
            let address = world.block(size, 8);
            let end = (address + size).next_multiple_of(PAGE);
            for at in [address, end - PAGE] {
                assert_eq!(peek(at.max(address)), 0, "{engine} round {round}");
            }
            // Past its end, then inside it once it is freed, then somewhere behind.
            let touch = |at: usize| {
                let write = fault(at, AccessType::Write);
                if world.sim().would_trap(at) && world.begin(&write) == Verdict::Step {
                    poke(at, 0xee);
                    world.sim().step_ends(PC + 3);
                }
            };
            touch(end);
            world.free(address, size, 8);
            touch(address);
            touch(end + 3 * PAGE);
        }
        assert!(world.sim().open_for_steps().is_empty());
        world.sim().assert_no_violations();
    }
}

#[test]
fn an_instruction_that_touches_two_pages_has_both_open() {
    let world = World::new("");
    let (one, other) = (world.block(4096, 8), world.block(4096, 8));
    world.free(other, 4096, 8);
    let first = fault(one + 2 * PAGE - 4, AccessType::Write);
    assert_eq!(world.begin(&first), Verdict::Step);
    let second = Fault { address: Some(other), ..first };
    assert_eq!(world.begin(&second), Verdict::Step);
    let open: Vec<usize> = world.sim().open_for_steps().iter().map(|range: &Range| range.start).collect();
    assert_eq!(open, [one + PAGE, other]);
    assert_eq!(world.sim().step_ends(PC + 3), NEXT);
    assert!(world.sim().open_for_steps().is_empty());
    assert_eq!(world.record().kind, ErrorKind::UseAfterFree, "one access to one block");
}

/// A string instruction comes back to itself until it is done, and crosses into the next page.
#[test]
fn a_repeated_instruction_is_one_error() {
    let world = World::new("");
    let address = world.block(3 * PAGE, 8);
    world.free(address, 3 * PAGE, 8);
    for page in 0..3 {
        assert_eq!(world.begin(&fault(address + page * PAGE, AccessType::Write)), Verdict::Step);
        for _ in 0..100 {
            assert_eq!(world.sim().step_ends(PC), Some(AfterStep::Again));
        }
    }
    assert_eq!(world.sim().step_ends(PC + 2), NEXT);
    assert_eq!(world.record().kind, ErrorKind::UseAfterFree);
    world.expect_traps(address, 3 * PAGE, true);
}

#[test]
fn a_repeated_instruction_that_never_ends_gets_its_page_for_good() {
    let world = World::new("");
    let address = world.block(24, 8);
    world.free(address, 24, 8);
    assert_eq!(world.begin(&fault(address, AccessType::Write)), Verdict::Step);
    let rounds = (0..).take_while(|_| world.sim().step_ends(PC) == Some(AfterStep::Again)).count();
    assert!((100_000..1_000_000).contains(&rounds), "{rounds}");
    assert!(!world.sim().would_trap_write(address) && world.stderr().contains("stays open"));
}

#[test]
fn without_steps_the_page_is_opened_and_said_to_be() {
    for engine in ["engine=marker", "engine=mprotect"] {
        let world = on(Steps::Impossible, engine);
        let address = world.block(24, 8);
        assert_eq!(world.raise(&fault(address + 24, AccessType::Write)), Verdict::Resume);
        assert!(!world.sim().would_trap_write(address + 24));
        assert!(world.record().notes.has(Note::PageOpened));
        let world = on(Steps::Shared, engine);
        let address = world.block(24, 8);
        assert_eq!(world.raise(&fault(address + 24, AccessType::Write)), Verdict::Step);
        let notes = world.record().notes;
        assert!(notes.has(Note::SteppedShared) && !notes.has(Note::SteppedAlone));
    }
}

/// A fault of something else in the same instruction comes first: nothing stays open, and others are asked.
#[test]
fn a_fault_that_is_not_ours_ends_the_step() {
    let world = World::new("");
    let address = world.block(24, 8);
    assert_eq!(world.begin(&fault(address + 24, AccessType::Write)), Verdict::Step);
    let null = Fault { others: true, ..fault(8, AccessType::Read) };
    assert_eq!(world.begin(&null), Verdict::Pass);
    assert!(world.sim().open_for_steps().is_empty() && world.sim().would_trap(address + 24));
    assert_eq!(world.sim().step_ends(PC + 3), NEXT, "news of a step that has ended");
    // The next one finds everything in order.
    assert_eq!(world.raise(&fault(address + 24, AccessType::Write)), Verdict::Step);
}

/// Left by a jump from a handler of the program's: the same thread begins another, or another thread takes the turn.
#[test]
fn a_step_that_was_left_is_closed_by_the_next() {
    let world = World::new("");
    let (one, other) = (world.block(24, 8), world.block(24, 8));
    assert_eq!(world.begin(&fault(one + 24, AccessType::Write)), Verdict::Step);
    let elsewhere = Fault { pc: 0x70_0000, ..fault(other + 24, AccessType::Write) };
    assert_eq!(world.begin(&elsewhere), Verdict::Step);
    assert_eq!(world.sim().open_for_steps().len(), 1);
    std::thread::scope(|scope| {
        let next = scope.spawn(|| {
            world.enter();
            assert_eq!(world.raise(&fault(one + 24, AccessType::Write)), Verdict::Step);
        });
        while !next.is_finished() {
            world.sim().advance_ms(1_000);
            std::thread::yield_now();
        }
    });
    assert!(world.sim().open_for_steps().is_empty());
    assert_eq!(world.sim().step_ends(0x70_0003), NEXT);
    world.sim().assert_no_violations();
}

/// Other threads' accesses to a page that is open to one wait for the end of its step.
#[test]
fn a_page_that_is_held_is_waited_for() {
    let world = World::new("");
    let address = world.block(24, 8);
    assert_eq!(world.begin(&fault(address + 24, AccessType::Write)), Verdict::Step);
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            world.enter();
            let held = Fault { held: true, ..fault(address + 24, AccessType::Read) };
            world.begin(&held)
        });
        assert_eq!(world.sim().step_ends(PC + 3), NEXT);
        assert_eq!(other.join().expect("an answer"), Verdict::Resume);
    });
    assert_eq!(world.records().len(), 1, "it is no error yet");
}

#[test]
fn many_errors_of_one_site_are_counted() {
    let world = World::new("");
    at(0x11_0000);
    let address = world.block(24, 8);
    for code in 0..1000u64 {
        stack(&[0x99_0000, PC as u64, 0x60_0000 + code]);
        assert_eq!(world.raise(&fault(address + 24, AccessType::Write)), Verdict::Step);
    }
    let stats = world.guard.stats().expect("counters");
    assert_eq!(stats.reports + stats.reports_lost, 1000);
    assert_eq!(stats.reports, 32, "so many stacks of one instruction are told apart");
}

/// Every n-th call fails: the program goes on, or ends with a word, and nothing is left open unsaid.
#[test]
fn calls_that_fail_leave_nothing_open_unsaid() {
    for engine in ["engine=marker", "engine=mprotect"] {
        for fails in 1..8 {
            let world = World::new(engine);
            let address = world.block(24, 8);
            world.sim().fail_at(fails);
            let past = address + 24;
            let verdict = world.begin(&fault(past, AccessType::Write));
            if verdict == Verdict::Step {
                world.sim().step_ends(PC + 3);
            }
            world.sim().fail_never();
            let said = world.stderr().contains("stays open");
            assert_eq!(
                world.sim().would_trap(past),
                !said,
                "{engine} {fails}: {verdict:?} {}",
                world.stderr()
            );
            world.free(address, 24, 8);
            world.sim().assert_no_violations();
        }
    }
}

#[test]
fn what_a_thread_expects_is_noted_and_not_told() {
    let world = World::new("on_error=abort,only_size=1000-2000");
    let expecting = world.guard.expect_begin().expect("it guards");
    let address = world.block(24, 8);
    for _ in 0..100 {
        assert_eq!(world.raise(&fault(address + 24, AccessType::Write)), Verdict::Step);
    }
    world.free(address, 24, 8);
    world.free(address, 24, 8);
    let noted = world.guard.expect_end(expecting);
    let kinds: Vec<ErrorKind> = noted.kinds().collect();
    assert_eq!((kinds, noted.unguarded), (vec![ErrorKind::HeapBufferOverflow, ErrorKind::DoubleFree], 0));
    assert!(world.records().is_empty() && world.lines().is_empty());
    let address = world.block(1500, 8);
    assert_eq!(world.raise(&fault(address + 1500 + 4, AccessType::Write)), Verdict::Die, "and then as ever");
    let off = World::unstarted(SimOptions::new(), "mode=off", None);
    off.guard.start("");
    assert!(off.guard.expect_begin().is_none());
}
