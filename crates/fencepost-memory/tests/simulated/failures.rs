//! Every call to the system fails once, and then all from there on: errors, nothing leaked, nothing misused.

use std::alloc::Layout;

use fencepost_memory::growing::{Arena, Options};
use fencepost_memory::{Access, Builder, HugePages, Limit, MemoryError, VmError};
use fencepost_sys::Memory as _;
use fencepost_sys::sim::{Sim, SimOptions};

const PAGE: usize = 4096;

fn system(options: SimOptions) -> &'static Sim {
    Box::leak(Box::new(Sim::with(options)))
}

/// Runs `work` with the n-th call failing for every n that it makes, once alone and once with all that follow.
fn every_failure(options: SimOptions, work: impl Fn(&'static Sim) -> Result<(), MemoryError>) {
    let calls = {
        let sim = system(options);
        work(sim).expect("without failures all goes well");
        sim.assert_all_released();
        sim.assert_no_violations();
        sim.calls()
    };
    assert!(calls > 3, "the work makes calls");
    // Miri takes a thousand times as long: every seventh has to do there.
    for n in (1..=calls).step_by(if cfg!(miri) { 7 } else { 1 }) {
        let sim = system(options);
        sim.fail_at(n);
        // Where there is another way, one failure need not be an error.
        if let Err(error) = work(sim) {
            assert!(error.limit().is_some(), "call {n}: {error}");
        }
        sim.assert_all_released();
        sim.assert_no_violations();
        let sim = system(options);
        sim.fail_from(n);
        let _ = work(sim);
        sim.fail_never();
        sim.assert_no_violations();
        // What could not be given back because every call failed stays reserved; nothing of it is committed anew.
        assert!(sim.reserved().len() <= 8, "call {n}");
    }
}

#[test]
fn a_reservation_survives_every_failure() {
    for (huge_pages, huge_reserves) in [(false, false), (true, false), (false, true)] {
        every_failure(SimOptions { huge_pages, huge_reserves, ..SimOptions::new() }, |sim| {
            let mut space = Builder::on(sim, 32 << 20)
                .name("tested")
                .huge_pages(HugePages::Explicit(2 << 20))
                .reserve()?;
            let unit = space.unit();
            assert_eq!(unit, 2 << 20);
            space.commit(0..unit)?;
            space.commit(3 * unit..5 * unit)?;
            assert_eq!(
                space.huge_bytes(),
                if space.fell_back().is_none() { 3 * unit } else { space.huge_bytes() }
            );
            space.commit(0..4 * unit)?;
            space.slice_mut(0..8).expect("committed").fill(7);
            space.protect(0..unit, Access::Read)?;
            assert!(space.slice_mut(0..1).is_none() && space.slice(0..8) == Some(&[7; 8][..]));
            space.commit(0..unit)?;
            space.guard(2 * unit..3 * unit)?;
            assert_eq!(space.commit(unit..4 * unit), Err(MemoryError::Guarded));
            space.decommit(0..unit)?;
            let before = space.committed();
            if space.commit(0..2 * unit).is_err() {
                assert!(space.committed() >= before, "what was committed stays");
            }
            space.release()
        });
    }
}

#[test]
fn without_a_stock_of_huge_pages_the_fallback_is_named() {
    let sim = system(SimOptions::new());
    let mut space = Builder::on(sim, 8 << 20).huge_pages(HugePages::Explicit(2 << 20)).reserve().unwrap();
    space.commit(0..4 << 20).unwrap();
    assert_eq!((space.committed(), space.huge_bytes()), (4 << 20, 0));
    let Some(MemoryError::Refused { error: Some(VmError::OutOfMemory), .. }) = space.fell_back() else {
        panic!("{:?}", space.fell_back());
    };
    let sim = system(SimOptions { huge_pages: true, ..SimOptions::new() });
    let mut space = Builder::on(sim, 8 << 20).huge_pages(HugePages::Explicit(2 << 20)).reserve().unwrap();
    space.commit(0..4 << 20).unwrap();
    assert_eq!((space.huge_bytes(), space.fell_back()), (4 << 20, None));
}

#[test]
fn huge_pages_that_come_with_their_addresses_trap_until_they_are_committed() {
    let sim = system(SimOptions { huge_reserves: true, ..SimOptions::new() });
    let mut space = Builder::on(sim, 8 << 20).huge_pages(HugePages::Explicit(2 << 20)).reserve().unwrap();
    let start = space.addresses().start;
    assert!(sim.would_trap(start) && sim.would_trap(start + (6 << 20)) && sim.would_trap(start - 1));
    space.commit(0..4 << 20).unwrap();
    assert!(!sim.would_trap_write(start) && sim.would_trap(start + (4 << 20)));
    assert_eq!((space.huge_bytes(), space.fell_back()), (4 << 20, None));
    // Addresses that came without them fall back, and the others do not.
    sim.fail_at(2);
    let mut plain = Builder::on(sim, 8 << 20).huge_pages(HugePages::Explicit(2 << 20)).reserve().unwrap();
    plain.commit(0..2 << 20).unwrap();
    assert_eq!(plain.huge_bytes(), 0);
    assert!(plain.fell_back().is_some());
    plain.release().unwrap();
    space.release().unwrap();
    sim.assert_all_released();
    sim.assert_no_violations();
}

#[test]
fn huge_pages_that_are_never_made_or_have_no_such_size_are_told() {
    let sim = system(SimOptions { transparent: false, ..SimOptions::new() });
    let mut space = Builder::on(sim, 8 << 20).huge_pages(HugePages::Transparent).reserve().unwrap();
    space.commit(0..PAGE).unwrap();
    let told = space.fell_back().expect("a reason");
    assert_eq!((space.unit(), told.limit()), (PAGE, Some(Limit::TransparentHugePages)));
    assert!(told.to_string().contains("/sys/kernel/mm/transparent_hugepage/enabled"), "{told}");
    for size in [0, PAGE, 3 << 20] {
        let refused = Builder::on(sim, 8 << 20).huge_pages(HugePages::Explicit(size)).reserve();
        assert_eq!(refused.err(), Some(MemoryError::BadSize), "pages of {size} bytes");
    }
}

#[test]
fn the_allocators_survive_every_failure() {
    for strict in [false, true] {
        every_failure(SimOptions::new(), |sim| {
            let options = || Options::on(sim, 64 * PAGE).name("tested").strict(strict);
            let mut arena: Arena<Sim> = options().arena()?;
            let mark = arena.mark();
            for n in 0..20 {
                arena.alloc_slice(&[n as u8; 3000])?;
            }
            arena.rewind(mark);
            arena.alloc_layout(Layout::from_size_align(100, 4096).unwrap())?;
            arena.shrink_to_fit()?;

            let mut vector = options().vec::<Box<usize>>()?;
            for n in 0..2000 {
                vector.push(Box::new(n))?;
            }
            vector.truncate(10);
            vector.shrink_to_fit()?;
            assert_eq!(*vector[9], 9);

            let mut pool = options().pool::<String>()?;
            let handles: Result<Vec<_>, _> = (0..12).map(|n| pool.insert(n.to_string())).collect();
            let handles = handles?;
            assert_eq!(pool.remove(handles[3]).as_deref(), Some("3"));
            let again = pool.insert("again".into())?;
            assert_eq!((pool.get(handles[3]), pool.get(again).map(String::as_str)), (None, Some("again")));

            let mut stack = options().stack()?;
            let low = stack.push([1u8; 5000])?;
            let high = stack.push(String::from("high"))?;
            assert_eq!(stack.pop(high).ok().as_deref(), Some("high"));
            assert!(stack.pop(low).is_ok());

            let append = options().append_arena()?;
            append.alloc_slice(&[5u16; 9000])?;
            Ok(())
        });
    }
}

#[test]
fn the_bound_is_an_error_and_nothing_is_lost() {
    let sim = system(SimOptions::new());
    let mut vector = Options::on(sim, 2 * PAGE).name("small").vec::<u64>().unwrap();
    for n in 0..1024 {
        vector.push(n).unwrap();
    }
    let refused = vector.push(1024).unwrap_err();
    assert_eq!(refused.value, 1024);
    assert!(refused.error.is_full(), "{}", refused.error);
    assert_eq!(refused.error.limit(), Some(Limit::Reservation { limit: 8192, used: 8192 }));
    assert!(vector.iter().copied().eq(0..1024));

    let arena = Options::on(sim, PAGE).arena().unwrap();
    arena.alloc_slice(&[1u8; 4000]).unwrap();
    assert!(arena.alloc_slice(&[1u8; 97]).unwrap_err().is_full());
    assert_eq!(arena.alloc_slice(&[1u8; 96]).unwrap().len(), 96, "a smaller one still fits");

    let mut pool = Options::on(sim, 8 * 3).strict(true).pool::<u64>().unwrap();
    let full = (0..4).map(|n| pool.insert(n)).filter(Result::is_err).count();
    assert_eq!((pool.len(), full), (3, 1));
}

#[test]
#[cfg_attr(miri, ignore = "a gigabyte is more than Miri keeps account of")]
fn little_memory_is_an_error_before_it_is_a_kill() {
    let sim = system(SimOptions::new());
    let mut vector = Options::on(sim, 1 << 30).name("large").vec::<u8>().unwrap();
    sim.set_available(Some(10 << 20));
    let error = vector.reserve_more(512 << 20).unwrap_err();
    assert_eq!(error.limit(), Some(Limit::Memory { available: 10 << 20 }), "{error}");
    assert_eq!(vector.committed(), 0);
    vector.reserve_more(1 << 20).unwrap();
}

#[test]
fn strict_closes_what_is_given_back_and_steps_are_pages() {
    let sim = system(SimOptions::new());
    let mut arena = Options::on(sim, 64 * PAGE).strict(true).arena().unwrap();
    arena.alloc_slice(&[1u8; 100]).unwrap();
    let mark = arena.mark();
    let gone = arena.alloc_slice(&[2u8; 3 * PAGE]).unwrap().as_ptr().addr();
    assert_eq!(arena.committed(), 4 * PAGE);
    assert!(sim.would_trap(gone + 3 * PAGE + PAGE) && !sim.would_trap(gone + 3 * PAGE - 1));
    arena.rewind(mark);
    assert!(sim.would_trap(gone + PAGE) && !sim.would_trap(gone - 1));

    let mut pool = Options::on(sim, 64 * PAGE).strict(true).pool::<[u8; 40]>().unwrap();
    let (one, two) = (pool.insert([1; 40]).unwrap(), pool.insert([2; 40]).unwrap());
    let [first, second] = [one, two].map(|handle| pool.get(handle).unwrap().as_ptr().addr());
    assert!(sim.would_trap(first + 40), "the byte past a value traps");
    pool.remove(one);
    assert!(sim.would_trap(first) && !sim.would_trap(second));
    let three = pool.insert([3; 40]).unwrap();
    assert_eq!(pool.get(three).unwrap().as_ptr().addr(), first);
    assert!(!sim.would_trap(first) && pool.left_open() == 0);
}

#[test]
fn memory_is_kept_unless_it_is_to_be_given_back() {
    let sim = system(SimOptions::new());
    for give_back in [false, true] {
        let mut arena = Options::on(sim, 64 << 20).give_back(give_back).arena().unwrap();
        arena.alloc_slice(&vec![0u8; 8 << 20]).unwrap();
        arena.reset();
        assert_eq!(arena.committed() == 0, give_back, "{}", arena.committed());
        arena.shrink_to_fit().unwrap();
        assert_eq!(arena.committed(), 0);
        assert_eq!(arena.alloc(5u32), Ok(&mut 5));
    }
}
