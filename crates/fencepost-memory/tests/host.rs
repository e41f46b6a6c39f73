//! The same on the system this runs on: what traps, what is resident, what the kernel may write to, what threads share.

use std::fs::File;
use std::io::Read;

use fencepost_memory::growing::{AppendArena, Arena, CallStack, GrowVec, Options};
use fencepost_memory::{HugePages, Limit, MemoryError, Reservation, page_size, regions};
use fencepost_sys::{Host, Memory};

/// Whether reading a byte would trap: the kernel is asked, which answers instead of trapping.
fn traps(address: usize) -> bool {
    Host::new().read_checked(address, &mut [0]) == 0
}

#[test]
fn reserved_memory_traps_committed_memory_is_zero_and_ends_are_guards() {
    let page = page_size();
    let mut space = Reservation::builder(8 * page).name("ends").reserve().unwrap();
    let start = space.addresses().start;
    assert!(traps(start) && traps(start + 8 * page - 1));
    space.commit(0..8 * page).unwrap();
    assert!(space.slice(0..8 * page).unwrap().iter().all(|byte| *byte == 0));
    assert!(traps(start - 1) && traps(start + 8 * page));
    space.decommit(page..2 * page).unwrap();
    assert!(traps(start + page) && !traps(start + 2 * page));
    let region = regions::find(start + 3).unwrap();
    assert_eq!((region.name(), region.committed), ("ends", 7 * page));
    drop(space);
    // Another test's thread may be given the addresses at once: one of many releases is seen before that.
    let is_gone = |start| traps(start) && regions::find(start).is_none();
    assert!(is_gone(start) || (0..100).any(|_| is_gone(released(8 * page))));
}

/// Where a reservation was that has been released.
fn released(len: usize) -> usize {
    Reservation::reserve(len).unwrap().addresses().start
}

#[test]
fn a_terabyte_of_addresses_holds_no_memory() {
    let space = Reservation::reserve(1 << 40);
    // Wine keeps a byte for each page that is reserved.
    if cfg!(windows) && space.is_err() {
        println!("skipped: so many addresses are not to be had under Wine");
        return;
    }
    let mut space = space.unwrap();
    assert_eq!((space.committed(), space.resident().unwrap()), (0, 0));
    let page = page_size();
    let middle = 1 << 39;
    space.commit(middle..middle + page).unwrap();
    space.slice_mut(middle..middle + 1).unwrap()[0] = 1;
    assert_eq!((space.committed(), space.resident().unwrap()), (page, page));
    space.discard(middle..middle + page).unwrap();
    assert_eq!((space.committed(), space.resident().unwrap()), (page, 0));
}

#[test]
fn too_many_addresses_is_an_error_that_says_so() {
    let error = Reservation::reserve(1 << 62).unwrap_err();
    assert!(matches!(error.limit(), Some(Limit::Addresses { .. })), "{error}");
    assert!(matches!(Reservation::reserve(usize::MAX), Err(MemoryError::Refused { .. })));
}

#[test]
fn huge_pages_fall_back_and_say_so() {
    for huge in [HugePages::Transparent, HugePages::Explicit(2 << 20)] {
        let mut space = Reservation::builder(16 << 20).huge_pages(huge).reserve().unwrap();
        let unit = space.unit();
        assert!(space.addresses().start.is_multiple_of(unit));
        space.commit(0..unit).unwrap();
        space.slice_mut(0..unit).unwrap().fill(1);
        if space.huge_bytes() == 0 && huge == HugePages::Explicit(2 << 20) {
            let error = space.fell_back().expect("a reason");
            println!("skipped: no explicit huge pages here: {error}");
        }
    }
}

#[test]
fn what_a_vector_holds_in_memory_is_at_most_a_step_more_than_it_uses() {
    let mut numbers = GrowVec::<u64>::reserve(1 << 28).unwrap();
    let step = (256 << 10) + page_size();
    for n in 0..4 << 20 {
        numbers.push(n).unwrap();
        if n % 77_777 == 0 {
            let used = numbers.len() * 8;
            let resident = numbers.resident().unwrap();
            assert!(resident >= used.saturating_sub(step) && resident <= used + step, "{resident} of {used}");
        }
    }
    numbers.truncate(1000);
    numbers.shrink_to_fit().unwrap();
    assert!(numbers.resident().unwrap() <= 8000 + page_size(), "memory is given back");
    assert!(numbers.iter().copied().eq(0..1000));
}

#[test]
fn elements_are_dropped_once() {
    use std::rc::Rc;
    let counted = Rc::new(());
    let mut vector = GrowVec::reserve(100).unwrap();
    let mut pool = Options::new(1 << 16).pool().unwrap();
    for _ in 0..50 {
        vector.push(Rc::clone(&counted)).unwrap();
        pool.insert(Rc::clone(&counted)).unwrap();
    }
    vector.truncate(20);
    drop(vector.pop());
    assert_eq!(Rc::strong_count(&counted), 1 + 19 + 50);
    drop((vector, pool));
    assert_eq!(Rc::strong_count(&counted), 1);
}

#[test]
fn values_without_a_size_need_no_memory() {
    let mut units = GrowVec::<()>::reserve(10).unwrap();
    let mut pool = Options::new(64).pool::<()>().unwrap();
    for _ in 0..100_000 {
        units.push(()).unwrap();
    }
    let handles: Vec<_> = (0..50).map(|_| pool.insert(()).unwrap()).collect();
    assert_eq!(
        (units.len(), units.committed(), pool.remove(handles[7]), pool.len()),
        (100_000, 0, Some(()), 49)
    );
}

#[test]
fn threads_intern_into_one_arena() {
    let arena = AppendArena::reserve(1 << 30).unwrap();
    let all: Vec<Vec<(&str, usize)>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let arena = &arena;
                scope.spawn(move || {
                    let make = |n: usize| (arena.alloc_str(&format!("{thread}:{n}")).unwrap(), n);
                    (0..20_000).map(make).collect()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for (thread, names) in all.iter().enumerate() {
        assert!(names.iter().all(|(name, n)| *name == format!("{thread}:{n}")));
    }
    let mut places: Vec<_> =
        all.iter().flatten().map(|(name, _)| (name.as_ptr().addr(), name.len())).collect();
    places.sort_unstable();
    assert!(places.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0), "no two names overlap");
}

#[test]
fn arenas_go_to_other_threads_and_marks_are_theirs() {
    let mut arena = Arena::reserve(1 << 20).unwrap();
    arena.alloc(1u8).unwrap();
    let mut arena = std::thread::spawn(move || {
        arena.reset();
        arena
    })
    .join()
    .unwrap();
    let other = Arena::reserve(1 << 20).unwrap();
    let foreign = other.mark();
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| arena.rewind(foreign)));
    assert!(panic.is_err(), "another arena's mark is refused");
}

#[inline(never)]
fn descend(depth: usize) -> usize {
    let frame = std::hint::black_box([1u8; 512]);
    if depth == 0 { 0 } else { descend(depth - 1) + usize::from(std::hint::black_box(frame)[0]) }
}

#[test]
fn a_call_stack_starts_small_grows_and_is_trimmed() {
    let mut stack = CallStack::reserve(64 << 20).unwrap();
    assert_eq!(stack.run(|| 7), 7);
    let small = stack.resident().unwrap();
    assert!(small <= 16 * page_size(), "{small}");
    assert_eq!(stack.run(|| descend(16_000)), 16_000);
    let large = stack.resident().unwrap();
    assert!(large >= 8 << 20, "{large}");
    stack.trim().unwrap();
    assert!(stack.resident().unwrap() <= page_size());
    assert_eq!(stack.run(|| descend(100)), 100, "it is good for more");
}

#[test]
fn the_kernel_may_write_to_a_part_of_the_stack_that_was_never_touched() {
    if cfg!(windows) {
        println!("skipped: where a stack grows by its guard page, the kernel refuses what lies below it");
        return;
    }
    let mut stack = CallStack::reserve(4 << 20).unwrap();
    let addresses = stack.addresses();
    let (read, touched) = stack.run(|| {
        // A buffer far below the stack pointer, by address: no instruction has touched its page.
        let far = addresses.start + (1 << 20);
        let before = Host::new().page_size();
        let buffer = core::ptr::with_exposed_provenance_mut::<u8>(far);
        // SAFETY: the memory is committed, and this far below the stack pointer nothing lies.
        let buffer = unsafe { core::slice::from_raw_parts_mut(buffer, 4 * before) };
        (File::open("/dev/zero").and_then(|mut zeros| zeros.read(buffer)), before)
    });
    assert_eq!(read.expect("no EFAULT"), 4 * touched);
}

#[test]
fn panics_come_back_from_the_other_stack() {
    let mut stack = CallStack::reserve(1 << 20).unwrap();
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| stack.run(|| panic!("over there"))));
    assert_eq!(panic.unwrap_err().downcast_ref::<&str>(), Some(&"over there"));
    let nested = stack.run(|| {
        let mut inner = CallStack::reserve(1 << 20).unwrap();
        inner.run(|| descend(50))
    });
    assert_eq!(nested, 50);
}

#[test]
fn mappings_carry_their_names_where_the_kernel_shows_them() {
    let mut space = Reservation::builder(1 << 20).name("maps test").reserve().unwrap();
    space.commit(0..page_size()).unwrap();
    // Wine shows the list of what lies beneath it.
    if cfg!(windows) {
        println!("skipped: this system has no names of mappings");
        return;
    }
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let start = format!("{:x}-", space.addresses().start);
    let line = maps.lines().find(|line| line.starts_with(&start)).expect("the mapping is listed");
    if line.contains("[anon:") {
        assert!(line.contains("[anon:fencepost:maps test]"), "{line}");
    } else {
        println!("skipped: this kernel shows no names of mappings (CONFIG_ANON_VMA_NAME)");
    }
    let usage = regions::usage();
    let usage = usage.iter().find(|usage| usage.name == "maps test").unwrap();
    assert_eq!((usage.regions, usage.committed), (1, page_size()));
}

#[cfg(feature = "allocator-api2")]
#[test]
fn collections_live_in_arenas() {
    use allocator_api2::{boxed::Box, vec::Vec};
    let arena = Arena::reserve(1 << 24).unwrap();
    let mut numbers = Vec::new_in(&arena);
    for n in 0..10_000u32 {
        numbers.push(n);
    }
    assert_eq!(arena.used(), numbers.capacity() * 4, "the last block grows where it lies");
    let boxed = Box::new_in(5u64, &arena);
    numbers.extend(0..10_000);
    assert_eq!((*boxed, numbers[19_999]), (5, 9_999));
    drop(numbers);
    numbers_are_taken_back(&arena);
    let shared = AppendArena::reserve(1 << 24).unwrap();
    let mut words = Vec::new_in(&shared);
    words.extend(["a", "b", "c"]);
    assert_eq!(words.concat(), "abc");
}

#[cfg(feature = "allocator-api2")]
fn numbers_are_taken_back(arena: &Arena) {
    use allocator_api2::vec::Vec;
    let before = arena.used();
    let mut last = Vec::with_capacity_in(1000, arena);
    last.push(1u8);
    last.shrink_to_fit();
    assert_eq!(arena.used(), before + 1);
    drop(last);
    assert_eq!(arena.used(), before);
}
