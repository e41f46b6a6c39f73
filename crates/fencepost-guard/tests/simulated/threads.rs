//! Threads that free each other's blocks, come and go, and fork.

use std::sync::mpsc;

use fencepost_guard::Placed;
use fencepost_record::{AccessType, ErrorKind, Unguarded};

use crate::world::{Draw, SPAN, World, at, fault, layout, peek, poke, stack};

/// Runs work on a thread of this world, to its simulated end.
fn on_thread<R: Send + 'static>(world: World, work: impl FnOnce() -> R + Send + 'static) -> R {
    let run = move || {
        world.enter();
        at(0x5_0000);
        let result = work();
        world.sim().end_thread();
        result
    };
    std::thread::spawn(run).join().expect("no panic in the thread")
}

#[test]
fn blocks_are_freed_by_other_threads() {
    for engine in ["engine=move", "engine=marker", "engine=mprotect"] {
        let world = World::new(engine);
        let (give, take) = mpsc::channel::<(usize, usize, u8)>();
        let freer = std::thread::spawn(move || {
            world.enter();
            at(0x2_0000);
            for (address, size, mark) in take {
                assert_eq!(
                    (peek(address), peek(address + size - 1)),
                    (mark, mark),
                    "nobody else wrote to it"
                );
                world.free(address, size, 8);
            }
            world.sim().end_thread();
        });
        let givers: Vec<_> = (1..=3u8)
            .map(|mark| {
                let give = give.clone();
                std::thread::spawn(move || {
                    world.enter();
                    let mut draw = Draw(u64::from(mark));
                    for _ in 0..2000 {
                        let size = 1 + draw.below(if mark == 3 { 9000 } else { 300 });
                        let address = world.block(size, 8);
                        poke(address, mark);
                        poke(address + size - 1, mark);
                        give.send((address, size, mark)).expect("the other side listens");
                    }
                    world.sim().end_thread();
                })
            })
            .collect();
        drop(give);
        givers.into_iter().chain([freer]).for_each(|thread| thread.join().expect("no panic"));
        let stats = world.guard.stats().expect("it is on");
        assert_eq!((stats.guarded, stats.live, stats.reports), (6000, 0, 0), "{engine}");
        world.sim().assert_no_violations();
    }
}

#[test]
fn a_thread_that_ends_hands_its_span_on() {
    let world = World::new("");
    let one = on_thread(world, move || world.block(24, 8));
    let other = on_thread(world, move || world.block(24, 8));
    assert_eq!(one / SPAN, other / SPAN, "the next thread goes on in the same span");
    assert_ne!(one, other);
    let mine = world.block(24, 8);
    let beside = on_thread(world, move || world.block(24, 8));
    assert_ne!(mine / SPAN, beside / SPAN, "a span that a thread has is its own");
    assert_eq!(world.guard.stats().map(|stats| (stats.guarded, stats.live)), Some((4, 4)));
}

#[test]
fn many_short_threads_cost_no_memory() {
    let world = World::new("");
    let mut after_hundred = (0, 0);
    for number in 0..2000 {
        on_thread(world, move || {
            for size in [24, 100, 5000] {
                let address = world.block(size, 8);
                world.free(address, size, 8);
            }
        });
        if number == 99 {
            after_hundred = (world.sim().committed(), world.sim().mappings());
        }
    }
    let (committed, mappings) = (world.sim().committed(), world.sim().mappings());
    // 4000 blocks of one page are 16 spans, and their tables.
    assert!(committed < after_hundred.0 + (64 << 20), "{committed} after {}", after_hundred.0);
    assert!(mappings < after_hundred.1 + 10, "{mappings} after {}", after_hundred.1);
    assert_eq!(world.guard.stats().map(|stats| (stats.guarded, stats.live)), Some((6000, 0)));
    world.sim().assert_no_violations();
}

#[test]
fn after_a_threads_end_its_destructors_are_served_by_the_inner_allocator() {
    let world = World::new("");
    let (held, inner) = std::thread::spawn(move || {
        world.enter();
        let held = world.block(24, 8);
        world.sim().end_thread();
        let inner = world.allocate(layout(24, 8)).expect("served");
        world.free(held, 24, 8);
        world.release(inner, AccessType::Free);
        (held, inner.address)
    })
    .join()
    .expect("no panic");
    assert!(!world.guard.is_heap(inner));
    assert!(world.sim().would_trap(held), "a free is possible to the end");
    assert_eq!(world.guard.stats().map(|stats| (stats.guarded, stats.live)), Some((1, 0)));
    assert!(world.records().is_empty());
}

#[test]
fn a_forked_child_takes_over_what_the_other_threads_had() {
    let world = World::new("");
    let mine = world.block(24, 8);
    let (tell, told) = mpsc::channel();
    let (stop, stopped) = mpsc::channel::<()>();
    let other = std::thread::spawn(move || {
        world.enter();
        tell.send(world.block(24, 8)).expect("the test listens");
        stopped.recv().expect_err("until the test is over");
    });
    let theirs = told.recv().expect("a block");
    assert_ne!(mine / SPAN, theirs / SPAN);
    world.sim().fork(|| {
        let adopted = std::thread::spawn(move || {
            world.enter();
            world.block(24, 8)
        });
        let adopted = adopted.join().expect("no panic");
        assert_eq!(
            adopted / SPAN,
            theirs / SPAN,
            "the child's next thread goes on in the lost thread's span"
        );
        assert_eq!(world.block(24, 8) / SPAN, mine / SPAN, "this thread keeps its own");
        assert_eq!(world.guard.stats().map(|stats| (stats.guarded, stats.live)), Some((4, 4)));
        world.free(theirs, 24, 8);
        stack(&[0x50_0000]);
        world.raise(&fault(theirs, AccessType::Read));
        assert_eq!(world.record().kind, ErrorKind::UseAfterFree);
    });
    drop(stop);
    other.join().expect("no panic");
}

#[test]
fn the_parent_goes_on_after_a_fork() {
    let world = World::new("");
    let held = world.block(24, 8);
    world.sim().fork_as_parent();
    let next = world.block(24, 8);
    assert_eq!(held / SPAN, next / SPAN);
    world.free(held, 24, 8);
    world.free(held, 24, 8);
    assert_eq!(world.record().kind, ErrorKind::DoubleFree);
    assert!(world.sim().would_trap(held));
    on_thread(world, move || world.block(70_000, 8));
}

#[test]
fn what_passes_is_counted_exactly_in_threads_that_live_and_that_ended() {
    let world = World::new("mode=sample,sample_rate=300");
    let passing = move |blocks: u64| {
        let guarded = (0..blocks).filter(|_| matches!(world.place(24, 8), Placed::Here(_))).count() as u64;
        blocks - guarded
    };
    let mut passed = on_thread(world, move || passing(10_001));
    passed += on_thread(world, move || passing(7));
    passed += passing(3_456);
    assert_eq!(world.unguarded(Unguarded::Sample), passed);
    assert_eq!(world.guard.stats().map(|stats| stats.total), Some(10_001 + 7 + 3_456));
}

/// Every byte of the runtime but for the system beneath: what all threads share that is not a table of a thread's own.
fn shared(world: World) -> Vec<u8> {
    let start = std::ptr::from_ref(world.guard).cast::<u8>();
    let system = std::ptr::from_ref(world.sim()).addr();
    let system = system..system + size_of_val(world.sim());
    let place = |offset| start.wrapping_add(offset);
    let own = |at: &*const u8| !system.contains(&at.addr());
    // SAFETY: the bytes are of a live value, and no other thread is at work in it.
    (0..size_of_val(world.guard)).map(place).filter(own).map(|at| unsafe { at.read_volatile() }).collect()
}

#[test]
fn a_steady_pair_writes_to_nothing_that_threads_share() {
    for options in ["engine=move", "engine=move,stack_depth=0,fill=off", "engine=marker", "engine=mprotect"] {
        // Under `continue` what freed blocks held goes into a ring that threads share.
        let world = World::new(&format!("on_error=abort,{options}"));
        let pair = || {
            let block = world.block(100, 8);
            world.free(block, 100, 8);
        };
        // The stacks are known, and the next span is not needed for a while.
        (0..40).for_each(|_| pair());
        let before = shared(world);
        (0..40).for_each(|_| pair());
        let after = shared(world);
        let changed: Vec<usize> = (0..before.len()).filter(|at| before[*at] != after[*at]).collect();
        assert!(before.len() > 1000 && changed.is_empty(), "{options}: bytes {changed:?}");
    }
}
