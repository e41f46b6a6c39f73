//! Engine move: pages that move from the freed to the new, everything that keeps them from it, and the loss of the right
//! to move them.

use fencepost_record::{AccessType, ErrorKind, Unguarded};
use fencepost_sys::sim::{PageState, SimOptions};
use fencepost_sys::{Memory, MissingError, MissingOffer};

use crate::world::{PAGE, World, bytes, fault, peek, poke};

const SIZE: usize = 100;

fn page_of(address: usize) -> usize {
    address & !(PAGE - 1)
}

/// A pair of malloc and free by turns: what calls each made.
fn calls_of_a_pair(world: World, size: usize) -> [u64; 2] {
    let before = world.sim().calls();
    let block = world.block(size, 8);
    let between = world.sim().calls();
    world.free(block, size, 8);
    [between - before, world.sim().calls() - between]
}

#[test]
fn a_steady_malloc_makes_no_call_and_a_free_makes_one() {
    let world = World::new("engine=move");
    for size in [16, 100, 1000, 5000, 65_536] {
        calls_of_a_pair(world, size);
        let pairs: Vec<_> = (0..100).map(|_| calls_of_a_pair(world, size)).collect();
        // Now and then a span is full: the next one needs a few calls more.
        let steady = pairs.iter().filter(|pair| **pair == [0, 1]).count();
        assert!(steady >= 92, "{size}: {pairs:?}");
        assert!(pairs.iter().all(|pair| pair[0] == 0), "{size}: {pairs:?}");
    }
    assert_eq!(world.guard.stats().map(|stats| stats.fallbacks), Some(0));
    world.sim().assert_no_violations();
}

#[test]
fn what_is_asked_about_first_is_as_steady_then() {
    for options in [
        "engine=move,mode=sample,sample_rate=1",
        "engine=move,skip_size=9999",
        "engine=move,place=alternate",
        "engine=move,mode=budget,budget=100",
    ] {
        let world = World::new(options);
        let pairs: Vec<_> = (0..100).map(|_| calls_of_a_pair(world, SIZE)).collect();
        let steady = pairs.iter().filter(|pair| **pair == [0, 1]).count();
        assert!(steady >= 90, "{options}: {pairs:?}");
        let stats = world.guard.stats().expect("it is on");
        assert_eq!((stats.guarded, stats.live), (100, 0), "{options}");
        // And an error there is found as anywhere.
        let block = world.block(SIZE, 4);
        poke(block - 20, 0);
        world.free(block, SIZE, 4);
        assert_eq!(world.record().kind, ErrorKind::RedzoneCorruption, "{options}");
        world.sim().assert_no_violations();
    }
}

#[test]
fn where_moving_is_forbidden_later_no_pair_is_steady_any_more_and_all_is_guarded_as_before() {
    let world = World::new("engine=move");
    let first = world.block(SIZE, 4);
    world.sim().refuse_missing(0, MissingError::Denied);
    world.free(first, SIZE, 4);
    assert!(world.sim().would_trap(first));
    for _ in 0..10 {
        let block = world.block(SIZE, 4);
        assert!(!world.sim().would_trap(block) && world.sim().would_trap(page_of(block) + PAGE));
        world.free(block, SIZE, 4);
        assert!(world.sim().would_trap(block));
    }
    let stats = world.guard.stats().expect("it is on");
    assert_eq!((stats.refused[MissingError::Denied.number()], stats.guarded, stats.live), (1, 11, 0));
    world.sim().assert_no_violations();
}

#[test]
fn a_freed_page_moves_to_the_next_slot_and_is_clean_there() {
    let world = World::new("engine=move");
    let first = world.block(SIZE, 4);
    for offset in 0..SIZE {
        poke(first + offset, 0xaa);
    }
    world.free(first, SIZE, 4);
    assert_eq!(world.sim().page_state(first), PageState::Missing);
    let next = page_of(first) + 2 * PAGE;
    assert_eq!(
        world.sim().page_state(next),
        PageState::Committed,
        "the page is where the next block will be"
    );
    // A smaller block: what the first one wrote is redzone now, and its free finds that undamaged.
    let second = world.block(SIZE / 2, 4);
    assert_eq!(page_of(second), next);
    assert!(bytes(next, PAGE).iter().all(|byte| *byte != 0xaa));
    world.free(second, SIZE / 2, 4);
    let zeroed = match world.guard.allocate(crate::world::layout(3000, 8), true, 0) {
        fencepost_guard::Placed::Here(block) => block.as_ptr().addr(),
        other => panic!("{other:?}"),
    };
    assert!(bytes(zeroed, 3000).iter().all(|byte| *byte == 0), "calloc clears what it reuses");
    world.free(zeroed, 3000, 8);
    assert!(world.records().is_empty());
    world.sim().assert_no_violations();
}

#[test]
fn a_damaged_redzone_is_reported_once_and_not_handed_on() {
    let world = World::new("engine=move");
    let block = world.block(SIZE, 4);
    poke(block - 20, 0);
    world.free(block, SIZE, 4);
    assert_eq!(world.record().kind, ErrorKind::RedzoneCorruption);
    let next = world.block(SIZE, 4);
    world.free(next, SIZE, 4);
    assert!(world.records().is_empty());
}

#[test]
fn the_ring_of_ready_pages_is_bounded() {
    let world = World::new("engine=move");
    let blocks: Vec<_> = (0..400).map(|_| world.block(SIZE, 4)).collect();
    for block in &blocks {
        world.free(*block, SIZE, 4);
        assert!(world.sim().would_trap(*block));
    }
    let span = page_of(blocks[399]) & !((2 << 20) - 1);
    let open = (0..512).filter(|page| !world.sim().would_trap(span + page * PAGE)).count();
    assert_eq!(open, 32);
    world.sim().assert_no_violations();
}

#[test]
fn whatever_keeps_a_page_from_moving_the_old_address_traps_and_the_program_goes_on() {
    let reasons = [
        MissingError::Shared,
        MissingError::Taken,
        MissingError::Absent,
        MissingError::Unfit,
        MissingError::Busy,
        MissingError::NoMemory,
        MissingError::Other(5),
    ];
    for size in [SIZE, 20_000] {
        for why in reasons {
            for done in [0, PAGE, 3 * PAGE] {
                let world = World::new("engine=move");
                let block = world.block(size, 4);
                world.sim().refuse_missing(done, why);
                world.free(block, size, 4);
                world.expect_traps(page_of(block), size, true);
                let stats = world.guard.stats().expect("it is on");
                assert_eq!((stats.fallbacks, stats.refused[why.number()]), (1, 1), "{why:?}");
                // And the next pages are put in place, whatever refuses them at first.
                let next = world.block(size, 4);
                world.expect_traps(page_of(next), size, false);
                assert!(world.sim().would_trap(next + size.next_multiple_of(4)));
                world.free(next, size, 4);
                assert!(world.records().is_empty(), "{why:?}");
                world.sim().assert_no_violations();
                world.release_everything();
            }
        }
    }
}

#[test]
fn a_page_that_cannot_be_put_in_place_costs_a_guard_and_no_more() {
    for (why, served) in [
        (MissingError::Busy, true),
        (MissingError::Taken, true),
        (MissingError::NoMemory, false),
        (MissingError::Unfit, false),
    ] {
        let world = World::new("engine=move");
        world.sim().refuse_missing(0, why);
        let held = world.allocate(crate::world::layout(SIZE, 4)).expect("served by somebody");
        assert_eq!(world.guard.is_heap(held.address), served, "{why:?}");
        assert_eq!(world.unguarded(Unguarded::Kernel), u64::from(!served));
        world.release(held, AccessType::Free);
        assert!(world.guard.is_heap(world.block(SIZE, 4)), "{why:?}");
        world.sim().assert_no_violations();
    }
}

#[test]
fn what_a_fork_shares_does_not_move_and_is_dropped_instead() {
    let world = World::new("engine=move");
    let blocks: Vec<_> = (0..50).map(|_| world.block(SIZE, 4)).collect();
    world.sim().share_pages();
    for block in &blocks {
        world.free(*block, SIZE, 4);
        assert_eq!(world.sim().page_state(*block), PageState::Missing);
    }
    assert_eq!(world.guard.stats().map(|stats| stats.fallbacks), Some(50));
    let before = world.guard.stats().map(|stats| stats.fallbacks);
    for _ in 0..20 {
        let block = world.block(SIZE, 4);
        world.free(block, SIZE, 4);
    }
    assert_eq!(world.guard.stats().map(|stats| stats.fallbacks), before, "new pages move again");
    world.sim().assert_no_violations();
}

#[test]
fn a_child_guards_with_a_descriptor_of_its_own() {
    let world = World::new("engine=move");
    let block = world.block(SIZE, 4);
    let opened = world.sim().missing_opened();
    world.sim().become_child();
    assert!(!world.sim().would_trap(block + SIZE), "nothing traps in the child before it has done anything");
    world.sim().fork(|| {
        assert_eq!(world.sim().missing_opened(), opened + 1);
        assert!(world.sim().would_trap(block + SIZE));
        world.free(block, SIZE, 4);
        assert!(world.sim().would_trap(block));
        let own = world.block(SIZE, 4);
        assert!(world.sim().would_trap(own + SIZE) && !world.sim().would_trap(own));
        world.free(own, SIZE, 4);
    });
    assert!(world.stderr().is_empty(), "{}", world.stderr());
    world.sim().assert_no_violations();
}

/// A process made by a call that runs no handlers of ours (raw `clone`) finds out at its first call.
#[test]
fn a_loss_is_noticed_by_the_next_call_and_said_once() {
    for first_frees in [false, true] {
        let world = World::new("engine=move");
        let blocks: Vec<_> = (0..3).map(|_| world.block(SIZE, 4)).collect();
        world.sim().close_descriptors();
        assert!(!world.sim().would_trap(blocks[0] + SIZE));
        if first_frees {
            world.free(blocks[1], SIZE, 4);
            assert!(world.sim().would_trap(blocks[1]));
        } else {
            let more = world.block(SIZE, 4);
            assert!(!world.sim().would_trap(more));
        }
        assert!(world.sim().would_trap(blocks[0] + SIZE), "{first_frees}");
        world.sim().close_descriptors();
        world.free(blocks[2], SIZE, 4);
        assert!(world.sim().would_trap(blocks[0] + SIZE));
        let told = world.stderr();
        assert_eq!(told.matches("it was opened again").count(), 1, "{told}");
        world.sim().assert_no_violations();
    }
}

#[test]
fn a_process_that_borrows_its_memory_leaves_it_as_it_is() {
    let world = World::new("engine=move");
    let block = world.block(SIZE, 4);
    let opened = world.sim().missing_opened();
    world.sim().borrow_memory(true);
    world.free(block, SIZE, 4);
    let held = world.allocate(crate::world::layout(SIZE, 4)).expect("served by somebody");
    assert!(!world.guard.is_heap(held.address));
    world.release(held, AccessType::Free);
    world.sim().borrow_memory(false);
    assert_eq!(world.sim().missing_opened(), opened);
    let again = world.block(SIZE, 4);
    assert!(world.sim().would_trap(again + SIZE));
    assert!(world.stderr().is_empty());
    world.sim().assert_no_violations();
}

/// A filter that forbids the calls: what comes next is guarded in another way.
#[test]
fn calls_that_are_forbidden_later_make_way_for_the_next_engine() {
    for markers in [true, false] {
        let world = World::on(SimOptions { markers, ..SimOptions::new() }, "engine=move");
        let old = world.block(SIZE, 4);
        world.sim().refuse_missing(0, MissingError::Denied);
        world.free(old, SIZE, 4);
        assert!(world.sim().would_trap(old));
        world.sim().refuse_missing(0, MissingError::Denied);
        let lost = world.allocate(crate::world::layout(SIZE, 4)).expect("served by somebody");
        assert!(!world.guard.is_heap(lost.address), "the one that met the refusal");
        world.release(lost, AccessType::Free);
        let block = world.block(SIZE, 4);
        assert_ne!(world.sim().page_state(block + SIZE), PageState::Missing, "closed in another way");
        assert!(world.sim().would_trap(block + SIZE));
        world.free(block, SIZE, 4);
        assert!(world.sim().would_trap(block));
        assert_eq!(world.stderr().matches("engine=move has stopped").count(), 1);
        world.sim().assert_no_violations();
    }
}

#[test]
fn without_moves_pages_are_copied_and_dropped() {
    let world = World::on(SimOptions { missing: MissingOffer::Copies, ..SimOptions::new() }, "engine=move");
    for _ in 0..300 {
        let block = world.block(SIZE, 4);
        assert!(world.sim().would_trap(block + SIZE));
        assert_eq!(peek(block - 1) & 1, 1, "the redzone is there");
        world.free(block, SIZE, 4);
        assert_eq!(world.sim().page_state(block), PageState::Missing);
    }
    assert_eq!(world.guard.stats().map(|stats| (stats.engine, stats.fallbacks)), Some(("move", 0)));
    world.sim().assert_no_violations();
}

#[test]
fn the_best_way_is_taken_when_none_is_asked_for() {
    for (missing, markers, engine) in [
        (MissingOffer::Moves, true, "move"),
        (MissingOffer::Moves, false, "move"),
        (MissingOffer::Copies, true, "marker"),
        (MissingOffer::Copies, false, "move"),
        (MissingOffer::Nothing, true, "marker"),
        (MissingOffer::Nothing, false, "mprotect"),
    ] {
        let world = World::on(SimOptions { missing, markers, ..SimOptions::new() }, "engine=auto");
        assert_eq!(world.guard.stats().map(|stats| stats.engine), Some(engine), "{missing:?} {markers}");
        assert!(world.stderr().is_empty(), "{}", world.stderr());
        let block = world.block(24, 8);
        assert!(world.sim().would_trap(block + 24) && !world.sim().would_trap(block));
        world.release_everything();
    }
}

#[test]
fn without_userfaultfd_the_forced_engine_is_replaced_and_said() {
    let world = World::on(SimOptions { missing: MissingOffer::Nothing, ..SimOptions::new() }, "engine=move");
    assert_eq!(world.guard.stats().map(|stats| stats.engine), Some("marker"));
    let told = world.stderr();
    assert!(told.contains("engine=move does not work here") && told.lines().count() == 1, "{told}");
    assert!(world.sim().would_trap(world.block(24, 8) + 24));
}

/// A program may drop pages of its own block, and expects zeros then.
#[test]
fn a_page_that_the_program_dropped_comes_back_as_zeros() {
    let world = World::new("engine=move");
    let block = world.block(3 * PAGE, PAGE);
    poke(block + PAGE, 7);
    // SAFETY: the page is within the block, which is this test's.
    unsafe { world.sim().discard(fencepost_sys::Range { start: block + PAGE, len: PAGE }) }.expect("dropped");
    assert!(world.sim().would_trap(block + PAGE));
    let verdict = world.raise(&fault(block + PAGE, AccessType::Read));
    assert_eq!(verdict, fencepost_sys::Verdict::Resume);
    assert!(!world.sim().would_trap(block + PAGE));
    assert_eq!(peek(block + PAGE), 0);
    assert!(world.records().is_empty());
}

#[test]
fn threads_take_their_slots_from_memory_apart() {
    let world = World::new("engine=move");
    let mine = world.block(SIZE, 4);
    let before = world.sim().mappings();
    let theirs = std::thread::spawn(move || {
        world.enter();
        let block = world.block(SIZE, 4);
        world.free(block, SIZE, 4);
        world.sim().end_thread();
        block
    });
    let theirs = theirs.join().expect("no panic in the thread");
    let gap = (theirs & !(crate::world::SPAN - 1)) - 1;
    assert_eq!(world.sim().page_state(gap), PageState::Reserved, "a closed span keeps the mappings apart");
    assert!(theirs.abs_diff(mine) > 8 * crate::world::SPAN, "{mine:#x} {theirs:#x}");
    // How many there were before depends on other tests: reservations that happen to be neighbours are one mapping.
    let more = world.sim().mappings() - before;
    assert!(more < 6, "{more} more than {before}");
    world.free(mine, SIZE, 4);
    world.sim().assert_no_violations();
}
