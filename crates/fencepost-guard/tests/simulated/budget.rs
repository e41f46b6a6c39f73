//! `mode=budget`: what is guarded, what it may take, and that contexts are told apart.

use fencepost_guard::{Door, Placed};
use fencepost_record::Unguarded;
use fencepost_sys::Range;

use crate::world::{World, at, walks_take};

/// A thread's first block belongs to a context of its own: before it, nobody knows the thread.
const FIRST: u64 = 1;

/// Allocates and frees a block of each size from 1 to `contexts` in turn, and says how many of each were guarded after
/// the first `from` rounds. Every round of the program takes `own_ns` of its own time.
fn rounds(world: World, contexts: usize, rounds: usize, from: usize, own_ns: u64) -> Vec<u32> {
    let mut guarded = vec![0; contexts];
    for round in 0..rounds {
        world.sim().spend_ns(own_ns);
        world.sim().advance_ms(0);
        for (index, count) in guarded.iter_mut().enumerate() {
            if let Placed::Here(block) = world.place(index + 1, 1) {
                world.free(block.as_ptr().addr(), index + 1, 1);
                *count += u32::from(round >= from);
            }
        }
    }
    guarded
}

#[test]
fn while_little_is_spent_everything_is_guarded() {
    let world = World::new("mode=budget");
    assert!(rounds(world, 20, 50, 0, 0).iter().all(|guarded| *guarded == 50));
    let stats = world.guard.stats().expect("it is on");
    assert_eq!((stats.contexts, stats.contexts_guarded, stats.guarded), (20 + FIRST, 20 + FIRST, 1000));
    assert_eq!(stats.contexts_confused, 0);
}

#[test]
fn the_share_is_held_and_every_context_is_guarded_early_and_late() {
    for percent in [5u64, 20] {
        let world = World::new(&format!("mode=budget,budget={percent}"));
        walks_take(2_000);
        let begun = fencepost_sys::Threads::now_ns(world.sim());
        let (contexts, all, per_round) = (50usize, 20_000usize, 20_000u64);
        let mut late = vec![0u32; contexts];
        let mut first = vec![0u32; contexts];
        for step in 0..200 {
            // The coarse clock moves now and then, as the system's does.
            world.sim().advance_ms(1);
            let guarded = rounds(world, contexts, all / 200, 0, per_round - 10_000);
            for (index, count) in guarded.iter().enumerate() {
                if step == 0 {
                    first[index] += count;
                }
                if step >= 100 {
                    late[index] += count;
                }
            }
        }
        walks_take(0);
        let taken = fencepost_sys::Threads::now_ns(world.sim()) - begun;
        let stats = world.guard.stats().expect("it is on");
        // A walk at the allocation and one at the free.
        let spent = stats.guarded * 4_000;
        let share = spent * 1000 / (taken - spent);
        assert!(share <= percent * 10 + 60, "{share} of 1000 for {percent} percent");
        // An eighth may go into looks; the rest is left for guarding.
        assert!(share >= percent * 7, "{share} of 1000 for {percent} percent: the rest is not used");
        assert!(first.iter().all(|guarded| *guarded > 0), "every context near its start: {first:?}");
        let missed = late.iter().filter(|guarded| **guarded == 0).count();
        assert!(missed <= contexts / 20, "{missed} contexts not once in the second half: {late:?}");
        assert_eq!(stats.total, (contexts * all) as u64, "every block is counted, whoever served it");
    }
}

#[test]
fn a_thread_that_allocates_often_is_looked_at_in_bursts() {
    let world = World::new("mode=budget");
    let layout = std::alloc::Layout::from_size_align(64, 8).expect("a layout");
    let (mut runs, mut run, mut at_once) = (Vec::new(), 0u32, 0u64);
    for block in 0..400_000 {
        if block % 1000 == 0 {
            world.sim().spend_ns(20_000);
        }
        if world.guard.passes_at_once() {
            at_once += 1;
            runs.extend((run != 0).then_some(run));
            run = 0;
            continue;
        }
        run += 1;
        if !world.guard.passes(64, Door::Alloc, || 0)
            && let Placed::Here(block) = world.guard.allocate(layout, false, 0)
        {
            world.free(block.as_ptr().addr(), 64, 8);
        }
    }
    assert!(at_once > 300_000, "{at_once} of 400,000 blocks passed without a look");
    // The first run ends when the thread has been measured; a measurement is a look that does not count.
    let late = &runs[runs.len() / 2..];
    assert!(late.len() > 10 && late.iter().all(|run| (16..=17).contains(run)), "{late:?}");
}

#[test]
fn an_expected_error_is_not_missed_because_of_what_may_pass() {
    let world = World::new("mode=budget");
    walks_take(2_000);
    rounds(world, 50, 2_000, 0, 1_000);
    let expecting = world.guard.expect_begin().expect("it is on");
    let blocks: Vec<usize> = (1..=50).map(|size| world.block(size, 1)).collect();
    assert_eq!(world.guard.expect_end(expecting).unguarded, 0);
    for (index, block) in blocks.into_iter().enumerate() {
        world.free(block, index + 1, 1);
    }
    walks_take(0);
}

#[test]
fn what_passes_at_once_does_not_come_back_by_way_of_c() {
    for mode in ["mode=budget", "mode=sample,sample_rate=50"] {
        let world = World::new(mode);
        world.guard.note_exported();
        let layout = std::alloc::Layout::from_size_align(64, 8).expect("a layout");
        let (mut passed, all) = (0u64, 100_000u64);
        for _ in 0..all {
            assert!(!world.guard.passes_at_once(), "{mode}: it is asked each time");
            if world.guard.passes(64, Door::C, || 0) {
                passed += 1;
            } else if let Placed::Here(block) = world.guard.allocate(layout, false, 0) {
                world.free(block.as_ptr().addr(), 64, 8);
            }
        }
        assert!(passed > all / 2, "{mode}: {passed} passed");
        assert_eq!(world.guard.stats().expect("it is on").total, all, "{mode}: each is counted once");
    }
}

#[test]
fn a_context_that_is_new_late_is_guarded_at_once() {
    let world = World::new("mode=budget");
    walks_take(2_000);
    for _ in 0..100 {
        world.sim().advance_ms(1);
        // So rarely that every block is looked at.
        rounds(world, 100, 50, 0, 6_000_000);
    }
    // What was earned is worked out when the coarse clock moves.
    world.sim().advance_ms(1);
    assert!(matches!(world.place(5000, 1), Placed::Here(_)));
    walks_take(0);
}

#[test]
fn endless_new_contexts_leave_time_for_the_old_ones() {
    let world = World::new("mode=budget");
    walks_take(2_000);
    let mut old = 0;
    for step in 0..400usize {
        world.sim().advance_ms(1);
        for index in 0..200 {
            let _ = world.place(1_000 + step * 200 + index, 1);
        }
        if step > 200 {
            old += rounds(world, 10, 20, 0, 1_000).iter().sum::<u32>();
        } else {
            rounds(world, 10, 20, 0, 1_000);
        }
    }
    walks_take(0);
    assert!(old > 0, "the contexts known for long are still guarded now and then");
}

#[test]
fn filters_and_failures_on_demand_hold_under_a_budget_too() {
    let world = World::new("mode=budget,only_size=8");
    assert!(
        rounds(world, 10, 10, 0, 0)
            .iter()
            .enumerate()
            .all(|(index, count)| *count == if index == 7 { 10 } else { 0 })
    );
    assert_eq!(world.unguarded(Unguarded::Filter), 90);
    let world = World::new("mode=budget,fail_at=3");
    let failed: Vec<usize> = (1..10).filter(|_| world.place(24, 8) == Placed::Fail).collect();
    assert_eq!(failed, [3]);
}

/// A stack of the test's own, of which the runtime reads words: the return addresses lie at fixed distances.
#[test]
fn contexts_are_told_apart_by_return_addresses_once_their_places_are_learned() {
    let world = World::unstarted(fencepost_sys::sim::SimOptions::new(), "mode=budget", None);
    let mut stack = vec![0usize; 512];
    let start = stack.as_ptr().addr();
    world.sim().set_stack_bounds(Some(Range { start, len: 512 * 8 }));
    world.guard.start("");
    let mut call = |first: usize, second: usize| {
        (stack[103], stack[110]) = (first, second);
        std::hint::black_box(&mut stack);
        crate::world::stack(&[first as u64, second as u64, 0x40_0000]);
        if world.guard.passes(64, Door::Alloc, || start + 100 * 8) {
            return;
        }
        let layout = std::alloc::Layout::from_size_align(64, 8).expect("a layout");
        if let Placed::Here(block) = world.guard.allocate(layout, false, 0) {
            world.free(block.as_ptr().addr(), 64, 8);
        }
    };
    for _ in 0..5 {
        for first in [0x5000, 0x6000] {
            for second in [0x7000, 0x8000, 0x9000] {
                call(first, second);
            }
        }
    }
    let stats = world.guard.stats().expect("it is on");
    assert_eq!((stats.contexts, stats.contexts_guarded, stats.contexts_confused), (6 + FIRST, 6 + FIRST, 0));
    at(0);
}

/// Nothing of the thread's stack is known here, so that a call is known by its size alone.
#[test]
fn contexts_that_are_taken_for_one_are_counted_as_such() {
    let world = World::new("mode=budget");
    let calls = |size: usize, codes: &[u64]| {
        for code in codes {
            at(*code);
            let Placed::Here(block) = world.place(size, 8) else {
                panic!("{size} from {code:#x} is guarded")
            };
            world.free(block.as_ptr().addr(), size, 8);
        }
        world.guard.stats().map(|stats| (stats.contexts, stats.contexts_confused))
    };
    assert_eq!(calls(24, &[0x5000, 0x5000]), Some((1 + FIRST, 0)));
    assert_eq!(calls(48, &[0x6000, 0x7000, 0x7000]), Some((2 + FIRST, 1)), "once a context, however often");
    assert_eq!(calls(24, &[0x5000, 0x8000]), Some((2 + FIRST, 2)));
    at(0);
}

#[test]
fn what_ended_threads_did_not_use_is_not_counted() {
    let world = World::new("mode=budget");
    walks_take(50_000);
    let (contexts, all) = (50, 2_000);
    let run = move || {
        world.enter();
        walks_take(50_000);
        let guarded = rounds(world, contexts, all, 0, 100);
        world.sim().end_thread();
        walks_take(0);
        guarded.iter().map(|count| u64::from(*count)).sum::<u64>()
    };
    let mut guarded = std::thread::spawn(run).join().expect("no panic");
    guarded += std::thread::spawn(run).join().expect("no panic");
    walks_take(0);
    let stats = world.guard.stats().expect("it is on");
    let asked = 2 * (contexts * all) as u64;
    assert_eq!((stats.total, stats.guarded), (asked, guarded));
    assert_eq!(world.unguarded(Unguarded::Budget), asked - guarded);
    assert!(guarded < asked / 10, "{guarded} of {asked}");
}
