//! Arenas, pools, vectors and stacks that grow, used past their ends and after what they held was given back.

use crate::{Touch, armed, victim_touches};
use fencepost::growing::Options;
use fencepost::memory::page_size;
use std::hint::black_box;

#[inline(never)]
fn victim_recurses(depth: usize) -> usize {
    let frame = black_box([depth; 64]);
    // The sum after the call keeps it from becoming a loop.
    if depth == usize::MAX { 0 } else { victim_recurses(depth + 1) + frame[depth % 64] }
}

fn strict(name: &str) -> Options<'_> {
    Options::new(1 << 20).name(name).strict(true)
}

/// `arena-past|arena-rewound|arena-before|arena-end|pool-freed|pool-past|vec-cut|reservation|call-stack`.
pub fn misuse(words: &[&str]) {
    let what = words.first().copied().unwrap_or_default();
    match what {
        "arena-past" | "arena-before" | "arena-rewound" | "arena-end" => arena(what),
        "pool-freed" | "pool-past" => pool(what),
        "vec-cut" => {
            let mut numbers = strict("numbers").vec::<u64>().expect("addresses");
            // Nearly four pages of numbers, and then less than one.
            let count = page_size() / 2 - 48;
            numbers.extend_from_slice(&vec![7; count]).expect("memory");
            let last = numbers.as_mut_ptr().wrapping_add(count - 1);
            numbers.truncate(100);
            armed();
            victim_touches(last.cast(), Touch::Read);
        }
        "reservation" => {
            let space = fencepost::memory::Reservation::builder(1 << 20).name("table").reserve();
            let space = space.expect("addresses");
            armed();
            victim_touches(space.as_ptr().wrapping_add(100), Touch::Write);
        }
        "call-stack" => {
            let stack = Options::new(1 << 20).name("fiber").call_stack();
            let mut stack = stack.expect("memory");
            armed();
            black_box(stack.run(|| victim_recurses(0)));
        }
        _ => {
            eprintln!("victim: which misuse?");
            std::process::exit(2);
        }
    }
}

fn arena(what: &str) {
    let mut arena = strict("frames").arena().expect("addresses");
    let mark = arena.mark();
    let len = page_size() + 1000;
    let block = arena.alloc_slice(&vec![1u8; len]).expect("memory").as_mut_ptr();
    let described = fencepost::describe(block).expect("the arena is known");
    assert_eq!(described.region.expect("a region").name(), "frames");
    assert_eq!((described.size, fencepost::stats().regions), (len, 1));
    match what {
        "arena-past" => {
            armed();
            victim_touches(block.wrapping_add(2 * page_size()), Touch::Write);
        }
        "arena-end" => {
            armed();
            victim_touches(block.wrapping_add(1 << 20), Touch::Write);
        }
        "arena-before" => {
            armed();
            victim_touches(block.wrapping_sub(1), Touch::Read);
        }
        _ => {
            arena.rewind(mark);
            armed();
            victim_touches(block.wrapping_add(10), Touch::Write);
        }
    }
}

fn pool(what: &str) {
    let mut pool = strict("sessions").pool::<[u8; 24]>().expect("addresses");
    let first = pool.insert([1; 24]).expect("memory");
    let second = pool.insert([2; 24]).expect("memory");
    let value = pool.get_mut(second).expect("it is there").as_mut_ptr();
    if what == "pool-freed" {
        pool.remove(second);
        armed();
        victim_touches(value.wrapping_add(4), Touch::Read);
    } else {
        armed();
        victim_touches(value.wrapping_add(24), Touch::Write);
    }
    pool.remove(first);
}
