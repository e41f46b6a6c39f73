//! Watches by watchpoints of the processor: what is noted, what stays open, and what is done when they go.

use fencepost_guard::{Change, Purpose, SealTicket};
use fencepost_record::AccessType;
use fencepost_sys::sim::SimOptions;
use fencepost_sys::{Memory, NoWatchpoints, Range, Verdict, WatchpointOffer};

use crate::world::{PAGE, World, at, fault, poke, stack};

/// Where the simulated instruction after a write is.
const NEXT: u64 = 0x50_0000;

fn watched(world: World, start: usize, len: usize) -> Option<SealTicket> {
    at(0x66_0000);
    world.guard.watch_bytes(Range { start, len }, 0)
}

/// A write to one byte, and the news of it, if a watchpoint sees it.
fn write(world: World, address: usize, value: u8, late: bool) -> bool {
    stack(&[0x11_0000, NEXT, 0x40_0000]);
    poke(address, value);
    world.sim().sees_write(Range { start: address, len: 1 }, &fault(address, AccessType::Write), late)
}

fn changes(world: World, ticket: &SealTicket) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut log = Default::default();
    world.guard.changes(ticket.serial(), &mut log, &mut |change| changes.push(*change));
    changes
}

#[test]
fn a_watchpoint_notes_writes_and_leaves_the_page_open() {
    let world = World::new("");
    world.guard.start_log().expect("memory");
    let address = world.block(24, 8);
    (0..24).for_each(|offset| poke(address + offset, 1));
    let ticket = watched(world, address, 16).expect("watched");
    assert!(world.guard.is_watchpoint(&ticket) && !world.sim().would_trap_write(address));
    assert_eq!(world.sim().watchpoints().len(), 2);
    assert!(write(world, address + 8, 7, false));
    assert!(!write(world, address + 16, 7, false), "not watched");
    assert!(write(world, address, 1, false), "the same value again");
    let changes = changes(world, &ticket);
    let [one, same] = &changes[..] else { panic!("{changes:?}") };
    assert_eq!((one.address, one.instruction), (address + 8, NEXT as usize - 1));
    assert_eq!((one.old.as_slice(), one.new.as_slice()), (&[1; 8][..], &[7, 1, 1, 1, 1, 1, 1, 1][..]));
    assert_eq!(one.writer.trace.frames(), [NEXT - 1, 0x40_0000], "the handler's own frames are left out");
    assert_eq!((same.address, same.old), (address, same.new));
    assert_eq!(world.guard.hits(&ticket), 2);
    world.guard.unseal(ticket, || ());
    assert!(world.sim().watchpoints().is_empty() && !write(world, address, 3, false));
    assert!(world.records().is_empty());
    world.free(address, 24, 8);
    world.sim().assert_no_violations();
}

#[test]
fn what_watchpoints_cannot_do_is_left_to_pages() {
    let none =
        SimOptions { watchpoints: WatchpointOffer::Nothing(NoWatchpoints::Denied), ..SimOptions::new() };
    let world = World::on(none, "");
    let address = world.block(64, 8);
    assert!(watched(world, address, 8).is_none(), "there are none");
    let world = World::new("");
    let address = world.block(64, 8);
    assert!(watched(world, address, 33).is_none(), "too long");
    assert!(watched(world, address + 1, 30).is_none(), "too many parts");
    assert!(watched(world, address + 60, 8).is_none(), "out of its block");
    let all: Vec<_> = (0..4).map(|index| watched(world, address + 8 * index, 8)).collect();
    assert!(all.iter().all(Option::is_some));
    assert!(watched(world, address + 32, 1).is_none(), "all four are taken");
    let pages = world.guard.seal_block(Purpose::Watch, address + 32, 8, 0).expect("by its page");
    assert!(world.sim().would_trap_write(address) && !world.guard.is_watchpoint(&pages));
    world.free(address, 64, 8);
    assert!(world.sim().watchpoints().is_empty(), "a block that is freed is watched no more");
    let other = world.block(64, 8);
    let kept = watched(world, other, 32).expect("room again");
    all.into_iter().flatten().chain([pages]).for_each(|ticket| world.guard.unseal(ticket, || ()));
    assert_eq!(world.sim().watchpoints().len(), 4, "and no other");
    world.guard.unseal(kept, || ());
    assert!(world.records().is_empty());
    world.sim().assert_no_violations();
}

#[test]
fn a_call_that_fails_leaves_nothing_behind() {
    for n in 1..6 {
        let world = World::new("");
        let address = world.block(24, 8);
        world.sim().fail_at(n);
        let ticket = watched(world, address, 8);
        world.sim().fail_never();
        assert_eq!(world.sim().watchpoints().is_empty(), ticket.is_none(), "{n}");
        if let Some(ticket) = ticket {
            world.guard.unseal(ticket, || ());
        }
        assert!(!world.guard.describe(address).expect("known").sealed);
        world.free(address, 24, 8);
        assert!(world.records().is_empty() && world.sim().watchpoints().is_empty());
        world.sim().assert_no_violations();
    }
}

#[test]
fn a_watch_whose_watchpoints_are_gone_closes_its_pages() {
    let world = World::new("");
    world.guard.start_log().expect("memory");
    let address = world.block(24, 8);
    let ticket = watched(world, address, 8).expect("watched");
    world.sim().lose_watchpoints();
    assert!(changes(world, &ticket).is_empty());
    assert!(!world.guard.is_watchpoint(&ticket) && world.sim().would_trap_write(address));
    assert!(world.stderr().contains("goes on by closing its pages"));
    assert_eq!(world.raise(&fault(address, AccessType::Write)), Verdict::Step);
    assert_eq!(changes(world, &ticket).len(), 1);
    world.guard.unseal(ticket, || ());
    assert!(!world.sim().would_trap_write(address));
    world.sim().assert_no_violations();
}

#[test]
fn memory_that_is_not_the_heaps_is_watched_by_watchpoints_alone() {
    let world = World::new("");
    world.guard.start_log().expect("memory");
    world.block(8, 8);
    let start = world.sim().reserve(PAGE, PAGE).expect("addresses");
    // SAFETY: the range was reserved just now.
    unsafe { world.sim().commit(Range { start, len: PAGE }) }.expect("memory");
    let ticket = watched(world, start + 16, 4).expect("watched");
    assert!(write(world, start + 18, 9, false));
    assert_eq!(changes(world, &ticket)[0].new.as_slice(), [0, 0, 9, 0]);
    world.sim().lose_watchpoints();
    assert!(changes(world, &ticket).len() == 1 && !world.sim().would_trap_write(start + 16));
    assert!(world.stderr().contains("has ended: its watchpoints are gone"));
    world.guard.unseal(ticket, || ());
    world.sim().assert_no_violations();
}

#[test]
fn a_child_sets_its_own_watchpoints() {
    let world = World::new("");
    let address = world.block(24, 8);
    let ticket = watched(world, address, 8).expect("watched");
    let before = world.sim().watchpoints();
    world.sim().fork(|| {
        assert_eq!(world.sim().watchpoints(), before);
        assert!(world.guard.is_watchpoint(&ticket));
    });
    world.guard.unseal(ticket, || ());
}

#[test]
fn news_that_comes_late_has_no_stack_and_tells_all_that_has_changed() {
    let world = World::new("");
    world.guard.start_log().expect("memory");
    let address = world.block(16, 8);
    (0..16).for_each(|offset| poke(address + offset, 0));
    let ticket = watched(world, address, 16).expect("watched");
    poke(address + 3, 1);
    assert!(write(world, address + 12, 2, true));
    let changes = changes(world, &ticket);
    let [late] = &changes[..] else { panic!("{changes:?}") };
    assert!(late.writer.trace.frames().is_empty() && late.instruction == 0);
    assert_eq!((late.address, late.new.as_slice().len()), (address + 3, 13));
    world.guard.unseal(ticket, || ());
}

#[test]
fn what_the_kernel_is_about_to_write_is_noted_before_and_known_after() {
    for offer in [WatchpointOffer::Instructions, WatchpointOffer::AndKernel] {
        let world = World::on(SimOptions { watchpoints: offer, ..SimOptions::new() }, "");
        world.guard.start_log().expect("memory");
        let address = world.block(64, 8);
        (0..64).for_each(|offset| poke(address + offset, 0));
        let ticket = watched(world, address + 8, 8).expect("watched");
        world.guard.check_buffer(address, 32, AccessType::Read, 0);
        world.guard.after_call();
        assert!(changes(world, &ticket).is_empty(), "the kernel reads");
        world.guard.check_buffer(address, 12, AccessType::Write, 0);
        poke(address + 9, 5);
        world.guard.after_call();
        let noted = changes(world, &ticket);
        if offer == WatchpointOffer::AndKernel {
            assert!(noted.is_empty(), "a watchpoint tells of it");
        } else {
            assert_eq!(
                (noted.len(), noted[0].address, noted[0].old.as_slice()),
                (1, address + 8, &[0; 4][..])
            );
            assert!(write(world, address + 8, 6, false));
            let noted = changes(world, &ticket);
            assert_eq!(noted[1].old.as_slice()[..2], [0, 5], "what the call has left is known");
        }
        world.guard.unseal(ticket, || ());
        assert!(world.records().is_empty());
    }
}

#[test]
fn what_a_step_changes_under_a_watchpoint_is_noted_with_it() {
    let world = World::new("");
    world.guard.start_log().expect("memory");
    let address = world.block(16, 8);
    let ticket = watched(world, address, 8).expect("watched");
    let seal = world.guard.seal_block(Purpose::Seal, address, 16, 0).expect("sealed");
    stack(&[NEXT, 0x40_0000]);
    let mut written = fault(address, AccessType::Write);
    written.size = Some(8);
    assert_eq!(world.begin(&written), Verdict::Step);
    poke(address, 0x77);
    assert!(world.sim().step_ends(written.pc + 3).is_some());
    let noted = changes(world, &ticket);
    assert_eq!((noted.len(), noted[0].new.as_slice()[0]), (1, 0x77));
    assert_eq!((world.guard.hits(&ticket), world.record().kind.name()), (1, "seal-violation"));
    world.guard.unseal(seal, || ());
    world.guard.unseal(ticket, || ());
}

#[test]
fn watches_that_overlap_have_a_note_each() {
    let world = World::new("");
    world.guard.start_log().expect("memory");
    let address = world.block(64, 8);
    let by_page = |len| world.guard.seal_block(Purpose::Watch, address, len, 0).expect("watched");
    let pages = [by_page(64), by_page(8)];
    let points =
        [watched(world, address, 8), watched(world, address, 16)].map(|ticket| ticket.expect("watched"));
    let mut written = fault(address + 4, AccessType::Write);
    written.size = Some(4);
    assert_eq!(world.begin(&written), Verdict::Step);
    poke(address + 4, 0x77);
    assert!(world.sim().step_ends(written.pc + 3).is_some());
    for ticket in pages.iter().chain(&points) {
        let noted = changes(world, ticket);
        assert_eq!((noted.len(), world.guard.hits(ticket)), (1, 1));
        assert_eq!((noted[0].address, noted[0].new.as_slice()[0]), (address + 4, 0x77));
    }
    pages.into_iter().for_each(|ticket| world.guard.unseal(ticket, || ()));
    assert!(write(world, address + 1, 0, false), "the same value: only where it was written is known");
    for ticket in &points {
        assert_eq!((changes(world, ticket).len(), world.guard.hits(ticket)), (2, 2));
    }
    world.guard.check_buffer(address, 8, AccessType::Write, 0);
    world.guard.after_call();
    for ticket in points {
        assert_eq!(changes(world, &ticket).len(), 3);
        world.guard.unseal(ticket, || ());
    }
    world.sim().assert_no_violations();
}
