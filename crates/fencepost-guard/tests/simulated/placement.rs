//! Where blocks lie, what is around them, and that nothing of them can be touched once they are freed.

use fencepost_guard::{Freed, Placed};
use fencepost_sys::sim::SimOptions;

use crate::world::{Draw, PAGE, World, bytes, layout, peek, poke};

const FILL: u64 = 0x0000_1fe9_ce1f_e9ce;
/// New memory beyond this is not filled.
const FILL_MAX: usize = 4 << 10;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Side {
    Right,
    Left,
}

/// Where a block lies on its pages: first page, and one past the last.
fn pages(address: usize, size: usize) -> (usize, usize) {
    (address & !(PAGE - 1), (address + size).next_multiple_of(PAGE))
}

fn sizes() -> Vec<usize> {
    let mut sizes: Vec<usize> = (0..=130).collect();
    for edge in [256, 4096, 8192, 16384, 65536, 70000] {
        sizes.extend(edge - 9..=edge + 9);
    }
    let mut draw = Draw(3);
    sizes.extend((0..60).map(|_| 1 + draw.below(70_000)));
    sizes
}

/// Checks one block from its birth to after its end; the address it had.
fn live_and_die(world: World, size: usize, align: usize, side: Side) -> usize {
    let address = world.block(size, align);
    assert_eq!(address % align, 0, "{size} {align}");
    let (first, end) = pages(address, size);
    match side {
        Side::Right => {
            // To the byte, as far as the alignment allows.
            assert!(world.sim().would_trap(end), "{size} {align}: the page after traps");
            assert!(
                end - (address + size) < align,
                "{size} {align}: {} bytes of slack",
                end - (address + size)
            );
        }
        Side::Left => {
            assert!(world.sim().would_trap(address - 1), "{size} {align}: the byte before traps");
        }
    }
    if size > 0 {
        assert!(world.sim().would_trap(first - 1) && world.sim().would_trap(end), "{size} {align}");
        world.expect_traps(first, end - first, false);
        check_patterns(world, address, size, align);
        for byte in [address, address + size / 2, address + size - 1] {
            poke(byte, 0xa5);
            assert_eq!(peek(byte), 0xa5);
        }
    }
    assert_eq!(world.free(address, size, align), Freed::Here);
    world.expect_traps(first - 1, end - first + 2, true);
    address
}

/// The block holds the fill, in step with its addresses; no byte around it is zero or the fill.
fn check_patterns(world: World, address: usize, size: usize, align: usize) {
    let (first, end) = pages(address, size);
    let small = end - first <= 16 * PAGE && align <= PAGE;
    let content = bytes(address, size);
    let filled = size.min(if small { FILL_MAX } else { 0 });
    let fill = FILL.to_le_bytes();
    let is_fill = |(offset, byte): (usize, &u8)| *byte == fill[(address + offset) % 8];
    assert!(content[..filled].iter().enumerate().all(is_fill), "{size}: new memory is filled");
    // Small blocks of engine move live on pages that were used before, or are copies of the redzone's.
    let fresh = !small || world.guard.stats().is_some_and(|stats| stats.engine != "move");
    let zero = content[filled..].iter().all(|byte| *byte == 0);
    assert!(zero || !fresh, "{size}: what is not filled is zero");
    let redzone = [bytes(first, address - first), bytes(address + size, end - address - size)].concat();
    assert!(redzone.iter().all(|byte| byte & 1 == 1), "{size}: the redzone has no zero and no even byte");
    if redzone.len() > 64 {
        let mut distinct = redzone.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert!(distinct.len() > 16, "{size}: the redzone is a pattern nobody guesses");
    }
}

#[test]
fn blocks_end_where_memory_traps() {
    let world = World::new("");
    for size in sizes() {
        for align in [1, 8, 64, 4096] {
            live_and_die(world, size, align, Side::Right);
        }
    }
    assert!(world.records().is_empty());
    world.sim().assert_no_violations();
}

#[test]
fn blocks_start_where_memory_traps() {
    let world = World::new("place=left");
    for size in sizes() {
        for align in [1, 64, 4096] {
            live_and_die(world, size, align, Side::Left);
        }
    }
    assert!(world.records().is_empty());
    world.sim().assert_no_violations();
}

#[test]
fn both_engines_place_alike() {
    for system in [SimOptions { markers: false, ..SimOptions::new() }, SimOptions::new()] {
        for (options, side) in [("engine=mprotect", Side::Right), ("engine=mprotect,place=left", Side::Left)]
        {
            let world = World::on(system, options);
            assert_eq!(world.guard.stats().map(|stats| stats.engine), Some("mprotect"));
            for size in sizes().into_iter().step_by(3) {
                live_and_die(world, size, 8, side);
            }
            assert!(world.records().is_empty());
            world.sim().assert_no_violations();
        }
    }
}

#[test]
fn large_alignments_are_kept() {
    for (options, side) in [("", Side::Right), ("place=left", Side::Left)] {
        for engine in ["engine=move", "engine=marker", "engine=mprotect", "engine=commit"] {
            let world = World::new(&format!("{engine},{options}"));
            for align in (0..=22).map(|power| 1usize << power) {
                for size in [0, 1, align.saturating_sub(1), align, align + 1, 3 * PAGE + 5, 70_000] {
                    if align <= PAGE || side == Side::Left {
                        live_and_die(world, size, align, side);
                        continue;
                    }
                    // No page boundary is nearer than the alignment: the pages around are what guards it.
                    let address = world.block(size, align);
                    let (first, end) = pages(address, size);
                    assert_eq!(address % align, 0, "{size} {align}");
                    assert!(
                        world.sim().would_trap(first - 1) && world.sim().would_trap(end),
                        "{size} {align}"
                    );
                    world.expect_traps(first, end - first, false);
                    world.free(address, size, align);
                    world.expect_traps(first - PAGE, end - first + 2 * PAGE, true);
                }
            }
            world.sim().assert_no_violations();
        }
    }
}

#[test]
fn alternate_takes_a_side_for_each_place_in_the_code() {
    let world = World::new("place=alternate");
    let mut sides = [0usize; 2];
    for code in 0..200u64 {
        crate::world::at(0x10_0000 + code * 16);
        let is_right = |address: usize| (address + 24).is_multiple_of(PAGE);
        let (one, other) = (world.block(24, 8), world.block(24, 8));
        assert!(is_right(one) || one % PAGE == 0, "{one:#x} lies at an end of its page");
        assert_eq!(is_right(one), is_right(other), "one place in the code has one side");
        sides[usize::from(is_right(one))] += 1;
    }
    assert!(sides[0] > 50 && sides[1] > 50, "{sides:?}");
    world.sim().assert_no_violations();
}

#[test]
fn zeroed_memory_is_zero_and_has_its_redzone() {
    for engine in ["engine=move", "engine=marker", "engine=mprotect", "engine=commit"] {
        let world = World::new(engine);
        for size in [1, 24, 4096, 5000, 65537, 300_000] {
            let Placed::Here(block) = world.guard.allocate(layout(size, 8), true, 0) else {
                panic!("{size}")
            };
            let address = block.as_ptr().addr();
            assert!(bytes(address, size).iter().all(|byte| *byte == 0), "{size}");
            let (_, end) = pages(address, size);
            assert!(bytes(address + size, end - address - size).iter().all(|byte| *byte != 0), "{size}");
            poke(address, 1);
            world.free(address, size, 8);
        }
        assert!(world.records().is_empty());
    }
}

#[test]
fn without_fill_nothing_is_written() {
    let world = World::new("fill=off");
    let address = world.block(1001, 8);
    let (first, end) = pages(address, 1001);
    assert!(bytes(first, end - first).iter().all(|byte| *byte == 0));
    poke(first, 1);
    world.free(address, 1001, 8);
    assert!(world.records().is_empty(), "and nothing is checked");
}

#[test]
fn other_page_sizes_do_as_well() {
    for page in [16384, 65536] {
        for options in ["", "engine=mprotect", "place=left"] {
            let world = World::on(SimOptions { page_size: page, ..SimOptions::new() }, options);
            for size in [0usize, 1, 24, 4096, page - 1, page, page + 1, 16 * page, 17 * page + 3, 3 << 20] {
                let address = world.block(size, 8);
                let end = (address + size).next_multiple_of(page);
                let first = address & !(page - 1);
                assert!(size == 0 || world.sim().would_trap(end), "{page} {size}");
                assert!(size == 0 || world.sim().would_trap(first - 1), "{page} {size}");
                if options.ends_with("left") {
                    assert!(world.sim().would_trap(address - 1));
                } else {
                    assert!(end - (address + size) < 8, "{page} {size}");
                }
                let traps = |world: World| {
                    (first..end).step_by(page).filter(|page| world.sim().would_trap(*page)).count()
                };
                assert_eq!(traps(world), 0, "{page} {size}");
                world.free(address, size, 8);
                assert_eq!(traps(world), (end - first) / page, "{page} {size}");
            }
            world.sim().assert_no_violations();
        }
    }
}

#[test]
fn no_two_blocks_share_a_page() {
    let world = World::new("");
    let mut taken = std::collections::BTreeSet::new();
    for size in (1..400).chain([5000, 9000, 70_000]) {
        let address = world.block(size, 1);
        let (first, end) = pages(address, size);
        for page in (first..end).step_by(PAGE) {
            assert!(taken.insert(page), "{page:#x}");
        }
    }
}

#[test]
fn the_engine_is_what_the_system_can_do() {
    let engine = |markers, commits_pages, options: &str| {
        let world = World::on(SimOptions { markers, commits_pages, ..SimOptions::new() }, options);
        world.guard.stats().map(|stats| stats.engine.to_owned()).unwrap_or_default()
    };
    assert_eq!(engine(true, false, ""), "marker");
    assert_eq!(engine(false, false, ""), "mprotect");
    assert_eq!(engine(false, true, "engine=commit"), "commit");
}
