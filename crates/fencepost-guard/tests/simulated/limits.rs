//! Limits, filters, sampling and failures on demand: what is not guarded, and the reason that is counted for it.

use fencepost_guard::{Door, Placed};
use fencepost_record::Unguarded;
use fencepost_sys::Memory;
use fencepost_sys::sim::SimOptions;

use crate::world::{World, layout};

#[test]
fn near_the_mapping_limit_a_sample_is_guarded_and_then_nothing() {
    let system =
        SimOptions { markers: false, mappings_max: Some(4096), mappings_other: 40, ..SimOptions::new() };
    let world = World::on(system, "");
    let mut held = Vec::new();
    let (mut at_first, mut later) = (0, 0);
    for number in 0..20_000 {
        if let Placed::Here(block) = world.place(24, 8) {
            held.push(block.as_ptr().addr());
            at_first += usize::from(number < 1200);
            later += usize::from(number >= 2000);
        }
        assert!(world.sim().mappings() + 40 < 4096);
    }
    assert_eq!(at_first, 1200, "far from the limit all are guarded");
    assert!((20..400).contains(&later), "near it a sample: {later}");
    assert_eq!(world.unguarded(Unguarded::Mappings), 20_000 - held.len() as u64);
    assert_eq!(world.unguarded(Unguarded::Kernel), 0, "the kernel never had to refuse");
    for address in held {
        world.free(address, 24, 8);
    }
    assert!(matches!(world.place(24, 8), Placed::Here(_)), "and again when there is room");
    world.sim().assert_no_violations();
}

#[test]
fn markers_know_no_mapping_limit() {
    let system = SimOptions { mappings_max: Some(200), mappings_other: 40, ..SimOptions::new() };
    let world = World::on(system, "");
    for _ in 0..5000 {
        world.block(24, 8);
    }
    assert!(world.sim().mappings() < 60);
}

#[test]
fn large_blocks_take_mappings_while_there_are_enough_and_markers_after_that() {
    let system = SimOptions { mappings_max: Some(400), mappings_other: 40, ..SimOptions::new() };
    let world = World::on(system, "quarantine=4G");
    let before = world.sim().mappings();
    let blocks: Vec<usize> = (0..200).map(|_| world.block(300_000, 8)).collect();
    let most = world.sim().mappings();
    assert!((before + 50..220).contains(&most), "half of the mappings and no more: {most}");
    for block in &blocks {
        let (first, end) = (block / 4096 * 4096, (block + 300_000).next_multiple_of(4096));
        let is_open = (first..end).step_by(4096).all(|page| !world.sim().would_trap(page));
        let traps = |address: usize| world.sim().would_trap(address);
        assert!(is_open && traps(first - 1) && traps(end) && traps(first - (1 << 20)), "{block:#x}");
    }
    let small: Vec<usize> = (0..500).map(|_| world.block(24, 8)).collect();
    assert_eq!(small.len(), 500, "small blocks need none, and are all guarded");
    for block in blocks {
        world.free(block, 300_000, 8);
        assert!((block..block + 300_000).step_by(4096).all(|address| world.sim().would_trap(address)));
    }
    assert!(world.sim().mappings() <= before + 60, "what is dead joins: {}", world.sim().mappings());
    assert_eq!(world.guard.stats().map(|stats| stats.fallbacks), Some(0));
    world.sim().assert_no_violations();
}

#[test]
fn a_pair_of_large_blocks_makes_a_constant_number_of_calls() {
    let world = World::new("quarantine=16G");
    for size in [70_000, 1 << 20, 100 << 20] {
        let block = world.block(size, 8);
        world.free(block, size, 8);
        let before = world.sim().calls();
        for _ in 0..10 {
            let block = world.block(size, 8);
            world.free(block, size, 8);
        }
        let calls = world.sim().calls() - before;
        // The margins, the guard page, the close; now and then addresses and tables.
        assert!(calls <= 10 * 7, "{size}: {calls}");
    }
    world.sim().assert_no_violations();
}

#[test]
fn past_the_memory_limit_blocks_go_to_the_inner_allocator() {
    for (options, available) in [("max_memory=8M", None), ("", Some(32 << 20))] {
        let world = World::on(SimOptions { available, ..SimOptions::new() }, options);
        let mut held = Vec::new();
        for _ in 0..20_000 {
            if let Placed::Here(block) = world.place(24, 8) {
                held.push(block.as_ptr().addr());
            }
        }
        assert_eq!(world.unguarded(Unguarded::Memory), 20_000 - held.len() as u64, "{options}");
        let bytes = held.len() * 4096;
        assert!((2 << 20..25 << 20).contains(&bytes), "{options}: {bytes}");
        let stats = world.guard.stats().expect("it is on");
        assert!(stats.held_bytes < 26 << 20, "{options}: {}", stats.held_bytes);
        for address in held {
            world.free(address, 24, 8);
        }
        assert!(matches!(world.place(24, 8), Placed::Here(_)), "{options}: and again when there is room");
    }
    let world = World::on(SimOptions { available: Some(1), ..SimOptions::new() }, "max_memory=none");
    (0..1000).for_each(|_| _ = world.block(24, 8));
}

#[test]
fn filters_choose_by_size_and_alignment() {
    #[expect(clippy::type_complexity, reason = "a table, read once")]
    let cases: [(&str, fn(usize, usize) -> bool); 5] = [
        ("only_size=24", |size, _| size == 24),
        ("skip_size=1-100", |size, _| size > 100 || size == 0),
        ("only_align=16-64", |_, align| (16..=64).contains(&align)),
        ("skip_align=8", |_, align| align != 8),
        ("only_size=10-200,skip_size=24,only_align=8", |size, align| {
            (10..=200).contains(&size) && size != 24 && align == 8
        }),
    ];
    for (options, chosen) in cases {
        let world = World::new(options);
        let mut left_out = 0;
        for size in [0, 1, 10, 24, 100, 101, 200, 5000, 70_000] {
            for align in [1, 8, 16, 64, 128] {
                let here = matches!(world.place(size, align), Placed::Here(_));
                assert_eq!(here, chosen(size, align), "{options}: {size} {align}");
                left_out += u64::from(!here);
            }
        }
        assert_eq!(world.unguarded(Unguarded::Filter), left_out, "{options}");
    }
}

#[test]
fn a_sample_is_as_large_as_asked_for_and_the_same_for_a_seed() {
    for (rate, total, range) in
        [(1u32, 500usize, 500..501), (10, 20_000, 1850..2150), (100, 40_000, 330..470)]
    {
        let chosen = |seed: u64| -> Vec<usize> {
            let world = World::new(&format!("mode=sample,sample_rate={rate},seed={seed}"));
            let chosen: Vec<usize> = (0..total)
                .filter(|_| match world.place(24, 8) {
                    Placed::Here(block) => {
                        world.free(block.as_ptr().addr(), 24, 8);
                        true
                    }
                    _ => false,
                })
                .collect();
            assert_eq!(world.unguarded(Unguarded::Sample), (total - chosen.len()) as u64);
            chosen
        };
        let one = chosen(7);
        assert!(range.contains(&one.len()), "one in {rate}: {} of {total}", one.len());
        assert_eq!(one, chosen(7));
        assert!(rate == 1 || one != chosen(8), "another seed, another choice");
    }
}

fn failing(options: &str, total: usize) -> Vec<usize> {
    let world = World::new(options);
    let failed: Vec<usize> = (1..=total).filter(|_| world.place(24, 8) == Placed::Fail).collect();
    assert_eq!(world.guard.stats().map(|stats| stats.guarded), Some((total - failed.len()) as u64));
    failed
}

#[test]
fn allocations_fail_on_demand() {
    assert_eq!(failing("fail_at=17", 100), [17]);
    assert_eq!(failing("fail_at=1", 100), [1]);
    assert_eq!(failing("", 100), [] as [usize; 0]);
    let one = failing("fail_rate=10,fail_seed=5", 5000);
    assert!((420..580).contains(&one.len()), "{}", one.len());
    assert_eq!(one, failing("fail_rate=10,fail_seed=5,seed=99", 5000), "its own seed decides");
    assert_ne!(one, failing("fail_rate=10,fail_seed=6", 5000));
    let of_the_run = failing("fail_rate=10,seed=5", 5000);
    assert_eq!(of_the_run, failing("fail_rate=10,seed=5", 5000));
    assert_ne!(of_the_run, failing("fail_rate=10,seed=6", 5000));
    assert_eq!(failing("fail_rate=1", 5), [1, 2, 3, 4, 5]);
}

#[test]
fn mode_off_guards_nothing_and_takes_nothing() {
    let world = World::unstarted(SimOptions::new(), "mode=off", None);
    world.guard.start("");
    assert!(world.guard.is_off() && world.guard.stats().is_none());
    assert!(!world.guard.passes(24, Door::Alloc, || 0), "with report= somebody counts");
    assert_eq!(world.guard.allocate(layout(24, 8), false, 0), Placed::Inner);
    world.sim().assert_all_released();
    assert_eq!(world.stderr(), "");
}

#[test]
fn with_nothing_guarded_and_nobody_counting_every_block_passes() {
    let world = World::unstarted(SimOptions::new(), "mode=off,report=none", None);
    assert!(
        !world.guard.passes(24, Door::Alloc, || 0) && !world.guard.is_foreign(0x5000_0000),
        "before the start"
    );
    world.guard.start("");
    assert!(
        world.guard.is_idle()
            && world.guard.passes(24, Door::Alloc, || 0)
            && world.guard.is_foreign(0x5000_0000)
    );
}

#[test]
fn under_a_sample_only_addresses_away_from_the_heap_are_the_inner_allocators() {
    let world = World::new("mode=sample,sample_rate=1");
    let block = world.block(24, 8);
    assert!(!world.guard.is_foreign(block) && !world.guard.is_foreign(16));
    let local = Box::new(0u64);
    assert!(world.guard.is_foreign(std::ptr::from_ref(&*local).addr()));
    let strict = World::new("");
    assert!(!strict.guard.is_foreign(std::ptr::from_ref(&*local).addr()), "strict asks about every address");
}

#[test]
fn a_program_that_limits_itself_has_three_quarters_of_what_is_left_guarded_large_blocks_and_all() {
    for size in [24, 100_000] {
        let world = World::on(SimOptions { available: Some(1 << 40), ..SimOptions::new() }, "");
        let first = world.block(size, 8);
        world.sim().set_available(Some(16 << 20));
        world.guard.share_what_is_left(true, None);
        let each = size.next_multiple_of(4096) as u64;
        let held: Vec<usize> = (0..20_000)
            .map_while(|_| match world.place(size, 8) {
                Placed::Here(block) => Some(block.as_ptr().addr()),
                _ => None,
            })
            .collect();
        let bytes = held.len() as u64 * each;
        // What a thread has not told yet and what the tables take meanwhile is not in the count.
        assert!(((10 << 20)..=(12 << 20) + (300 << 10)).contains(&bytes), "{size}: {bytes}");
        assert_eq!(world.unguarded(Unguarded::Memory), 1);
        for block in held.into_iter().chain([first]) {
            world.free(block, size, 8);
        }
        assert!(matches!(world.place(size, 8), Placed::Here(_)), "what was given back can be had again");
        // Lifted: nothing is kept back.
        world.guard.share_what_is_left(false, None);
        for _ in 0..200 {
            world.block(size, 8);
        }
        world.sim().assert_no_violations();
    }
}

#[test]
fn what_is_opened_stays_within_what_the_program_leaves_to_it() {
    let world = World::new("");
    world.block(24, 8);
    let before = world.guard.taken();
    world.guard.share_what_is_left(false, Some(8 << 20));
    while matches!(world.place(24, 8), Placed::Here(_)) {}
    let more = world.guard.taken().data - before.data;
    assert!(more <= (8 << 20) + (4 << 20), "8 MiB and tables: {more}");
    assert_eq!(world.guard.taken().addresses, before.addresses, "everything was reserved at the start");
    assert_eq!(world.unguarded(Unguarded::AddressSpace), 1);
    world.guard.share_what_is_left(false, None);
    world.block(24, 8);
    world.sim().assert_no_violations();
}
