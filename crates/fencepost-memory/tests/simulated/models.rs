//! Random operations, on the allocators and on the simplest things that do the same.

use std::collections::HashMap;

use fencepost_memory::growing::{Options, StackError};
use fencepost_memory::{Access, Builder, MemoryError};
use fencepost_sys::sim::{PageState, Sim};

use super::random::{Random, seeds};

const PAGE: usize = 4096;

fn system() -> &'static Sim {
    Box::leak(Box::new(Sim::new()))
}

#[test]
fn a_reservation_is_what_a_list_of_pages_is() {
    const PAGES: usize = 24;
    for seed in seeds() {
        let (sim, mut random) = (system(), Random::new(seed));
        let mut space = Builder::on(sim, PAGES * PAGE).reserve().unwrap();
        // Of each page: nothing, a guard, or what it allows and the byte that fills it.
        #[derive(Clone, Copy, PartialEq, Debug)]
        enum Model {
            Addresses,
            Guard,
            Memory(Access, u8),
        }
        let mut model = [Model::Addresses; PAGES];
        for turn in 0..400 {
            let (a, b) = (random.below(PAGES), random.below(PAGES));
            let (from, to) = (a.min(b), a.max(b) + 1);
            let range = from * PAGE..to * PAGE;
            let part = &mut model[from..to];
            let all_memory = part.iter().all(|page| matches!(page, Model::Memory(..)));
            let what = format!("seed {seed}, turn {turn}");
            match random.below(6) {
                0 => {
                    let expected = !part.contains(&Model::Guard);
                    assert_eq!(space.commit(range).is_ok(), expected, "{what}");
                    for page in part.iter_mut().filter(|_| expected) {
                        *page = match *page {
                            Model::Memory(_, byte) => Model::Memory(Access::ReadWrite, byte),
                            _ => Model::Memory(Access::ReadWrite, 0),
                        };
                    }
                }
                1 => {
                    space.decommit(range).unwrap();
                    part.fill(Model::Addresses);
                }
                2 => {
                    space.guard(range).unwrap();
                    part.fill(Model::Guard);
                }
                3 => {
                    let access = [Access::None, Access::Read, Access::ReadWrite][random.below(3)];
                    assert_eq!(space.protect(range, access).is_ok(), all_memory, "{what}");
                    for page in part.iter_mut().filter(|_| all_memory) {
                        let Model::Memory(_, byte) = *page else { unreachable!() };
                        *page = Model::Memory(access, byte);
                    }
                }
                4 => {
                    let writable =
                        part.iter().all(|page| matches!(page, Model::Memory(Access::ReadWrite, _)));
                    let byte = random.below(255) as u8;
                    let slice = space.slice_mut(range);
                    assert_eq!(slice.is_some(), writable, "{what}");
                    if let Some(slice) = slice {
                        slice.fill(byte);
                        part.fill(Model::Memory(Access::ReadWrite, byte));
                    }
                }
                _ => {
                    assert_eq!(space.discard(range).is_ok(), all_memory, "{what}");
                    for page in part.iter_mut().filter(|_| all_memory) {
                        let Model::Memory(access, _) = *page else { unreachable!() };
                        *page = Model::Memory(access, 0);
                    }
                }
            }
            let memory = model.iter().filter(|page| matches!(page, Model::Memory(..))).count();
            assert_eq!(space.committed(), memory * PAGE, "{what}");
            for (index, page) in model.iter().enumerate() {
                let at = index * PAGE;
                let state = sim.page_state(space.addresses().start + at);
                let expected = match page {
                    Model::Memory(Access::ReadWrite, _) => PageState::Committed,
                    Model::Memory(Access::Read, _) => PageState::ReadOnly,
                    Model::Memory(Access::None, _) => state,
                    _ => PageState::Reserved,
                };
                assert_eq!(state, expected, "{what}, page {index}");
                let slice = space.slice(at..at + PAGE);
                match page {
                    Model::Memory(Access::None, _) | Model::Addresses | Model::Guard => {
                        assert!(slice.is_none(), "{what}, page {index}");
                    }
                    Model::Memory(_, byte) => {
                        let slice = slice.unwrap_or_else(|| panic!("{what}, page {index}"));
                        assert!(slice.iter().all(|b| b == byte), "{what}, page {index}");
                    }
                }
            }
        }
        sim.assert_no_violations();
        drop(space);
        sim.assert_all_released();
    }
}

#[test]
fn an_arena_keeps_what_was_put_in_until_it_is_wound_back() {
    for seed in seeds() {
        let (sim, mut random) = (system(), Random::new(seed));
        let options = Options::on(sim, 256 * PAGE).strict(seed % 2 == 0).give_back(seed % 3 == 0);
        let mut arena = options.arena().unwrap();
        // Blocks as addresses, so that the compiler lets us wind back under them; read only while they are alive.
        let mut blocks: Vec<(usize, usize, u8)> = Vec::new();
        let mut marks = Vec::new();
        for turn in 0..600 {
            match random.below(10) {
                0 => marks.push((arena.mark(), blocks.len(), arena.used())),
                1 if !marks.is_empty() => {
                    let keep = random.below(marks.len());
                    let (mark, count, used) = marks[keep];
                    marks.truncate(keep);
                    arena.rewind(mark);
                    assert_eq!(arena.used(), used, "seed {seed}, turn {turn}");
                    blocks.truncate(count);
                }
                2 => arena.shrink_to_fit().unwrap(),
                _ => {
                    let (len, byte) = (random.below(3000), turn as u8);
                    match arena.alloc_slice_with(len, |_| byte) {
                        Ok(slice) => blocks.push((slice.as_ptr().expose_provenance(), len, byte)),
                        Err(error) => {
                            assert!(error.is_full(), "{error}");
                            assert!(arena.used() + len > arena.bound(), "seed {seed}, turn {turn}");
                            marks.clear();
                            blocks.clear();
                            arena.reset();
                        }
                    }
                }
            }
            let mut end = 0;
            for (start, len, byte) in &blocks {
                assert!(*start >= end, "seed {seed}, turn {turn}: blocks overlap");
                end = start + len;
                let pointer = core::ptr::with_exposed_provenance::<u8>(*start);
                // SAFETY: the block has not been wound back.
                let slice = unsafe { core::slice::from_raw_parts(pointer, *len) };
                assert!(slice.iter().all(|b| b == byte), "seed {seed}, turn {turn}");
            }
            assert!(arena.used() <= arena.committed(), "seed {seed}, turn {turn}");
            assert!(
                arena.committed() - arena.used() <= arena.used().max(4 * PAGE) + PAGE
                    || arena.committed() <= 256 * PAGE
            );
        }
        drop(arena);
        sim.assert_no_violations();
        sim.assert_all_released();
    }
}

#[test]
fn a_vector_is_what_a_vector_is() {
    for seed in seeds() {
        let (sim, mut random) = (system(), Random::new(seed));
        let mut vector = Options::on(sim, 8 * PAGE).strict(seed % 2 == 0).vec::<Box<u64>>().unwrap();
        let mut model: Vec<u64> = Vec::new();
        for turn in 0..6000_u64 {
            match random.below(12) {
                0 => assert_eq!(vector.pop().map(|boxed| *boxed), model.pop()),
                1 => {
                    let len = random.below(model.len() + 2);
                    vector.truncate(len);
                    model.truncate(len);
                }
                2 => vector.shrink_to_fit().unwrap(),
                _ => match vector.push(Box::new(turn)) {
                    Ok(()) => model.push(turn),
                    Err(refused) => {
                        assert_eq!((*refused.value, model.len()), (turn, vector.bound()));
                        assert!(refused.error.is_full());
                    }
                },
            }
            assert_eq!(vector.len(), model.len());
            assert!(vector.iter().map(|boxed| **boxed).eq(model.iter().copied()), "seed {seed}, turn {turn}");
        }
        drop(vector);
        sim.assert_no_violations();
        sim.assert_all_released();
    }
}

#[test]
fn a_pool_is_what_a_map_is() {
    for seed in seeds() {
        let (sim, mut random) = (system(), Random::new(seed));
        let mut pool = Options::on(sim, 24 * 40).strict(seed % 2 == 0).pool::<String>().unwrap();
        let bound = pool.bound();
        let (mut model, mut stale) = (HashMap::new(), Vec::new());
        for turn in 0..1500 {
            if random.below(5) < 3 {
                match pool.insert(turn.to_string()) {
                    Ok(handle) => assert!(model.insert(handle, turn.to_string()).is_none()),
                    Err(refused) => {
                        assert!(refused.error.is_full() && model.len() == bound, "{}", refused.error)
                    }
                }
            } else if let Some(handle) = model.keys().nth(random.below(model.len().max(1))).copied() {
                assert_eq!(pool.remove(handle), model.remove(&handle), "seed {seed}, turn {turn}");
                stale.push(handle);
            }
            assert_eq!(pool.len(), model.len());
            assert!(model.iter().all(|(handle, value)| pool.get(*handle) == Some(value)));
            assert!(stale.iter().all(|handle| pool.get(*handle).is_none() && !model.contains_key(handle)));
            assert_eq!(pool.iter().count(), model.len());
        }
        pool.clear();
        assert!(pool.is_empty() && pool.insert("last".into()).is_ok());
        drop(pool);
        sim.assert_no_violations();
        sim.assert_all_released();
    }
}

#[test]
fn a_stack_gives_back_in_the_opposite_order_only() {
    for seed in seeds() {
        let (sim, mut random) = (system(), Random::new(seed));
        let mut stack = Options::on(sim, 64 * PAGE).strict(seed % 2 == 0).stack().unwrap();
        let mut other = Options::on(sim, PAGE).stack().unwrap();
        let mut model = Vec::new();
        for turn in 0..2000 {
            match random.below(5) {
                0 | 1 if !model.is_empty() => {
                    let index = random.below(model.len());
                    let newest = index + 1 == model.len();
                    let (place, value): (_, String) = model.remove(index);
                    assert_eq!(stack.get(&place), Some(&value));
                    assert!(other.get(&place).is_none());
                    let Err(StackError::Foreign(place)) = other.pop(place) else { panic!("a foreign place") };
                    match stack.pop(place) {
                        Ok(got) => assert!(newest && got == value, "seed {seed}, turn {turn}"),
                        Err(StackError::NotTheNewest(place)) => {
                            assert!(!newest, "seed {seed}, turn {turn}");
                            model.insert(index, (place, value));
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
                _ => match stack.push(turn.to_string()) {
                    Ok(place) => model.push((place, turn.to_string())),
                    Err(refused) => assert!(refused.error.is_full()),
                },
            }
            assert_eq!(stack.depth(), model.len());
            assert!(model.iter().all(|(place, value)| stack.get(place) == Some(value)));
        }
        while let Some((place, value)) = model.pop() {
            assert_eq!(stack.pop(place).unwrap(), value);
        }
        assert_eq!(stack.used(), 0);
        drop((stack, other));
        sim.assert_no_violations();
        sim.assert_all_released();
    }
}

#[test]
fn misuse_is_an_error() {
    let sim = system();
    assert_eq!(Builder::on(sim, 0).reserve().err(), Some(MemoryError::BadSize));
    assert_eq!(Builder::on(sim, PAGE).align(3).reserve().err(), Some(MemoryError::BadSize));
    assert_eq!(Builder::on(sim, PAGE).name("a\0b").reserve().err(), Some(MemoryError::BadName));
    let mut space = Builder::on(sim, PAGE + 1).align(1 << 20).reserve().unwrap();
    assert_eq!((space.len(), space.as_ptr().addr() % (1 << 20)), (2 * PAGE, 0));
    assert_eq!(space.commit(0..1), Err(MemoryError::Unaligned { unit: PAGE }));
    assert_eq!(space.commit(0..3 * PAGE), Err(MemoryError::OutOfBounds { len: 2 * PAGE }));
    assert_eq!(space.commit(PAGE..PAGE), Err(MemoryError::OutOfBounds { len: 2 * PAGE }));
    assert_eq!(space.protect(0..PAGE, Access::Read), Err(MemoryError::NotCommitted));
    assert!(space.slice(0..PAGE).is_none());
    sim.assert_no_violations();
}
