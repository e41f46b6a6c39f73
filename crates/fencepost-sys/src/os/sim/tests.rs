//! The simulated system keeps the promises of the contract, and notices those who break theirs.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::*;
use crate::{Memory, Protection, Range, Verdict, VmError, Written};

const PAGE: usize = 4096;

fn range(start: usize, len: usize) -> Range {
    Range { start, len }
}

fn byte(address: usize) -> *mut u8 {
    address as *mut u8
}

#[test]
fn states_and_content_follow_the_calls() {
    let sim = Sim::new();
    let base = sim.reserve(8 * PAGE, PAGE).unwrap();
    assert_eq!(sim.page_state(base), PageState::Reserved);
    assert!(sim.would_trap(base));
    // SAFETY: the range is ours, and host memory lies under it whatever its state.
    unsafe {
        sim.commit(range(base, 4 * PAGE)).unwrap();
        assert_eq!(byte(base).read(), 0);
        byte(base).write(1);
        byte(base + PAGE).write(2);
        byte(base + 2 * PAGE).write(3);
        sim.guard_install(range(base + PAGE, PAGE)).unwrap();
        assert_eq!(sim.page_state(base + 2 * PAGE - 1), PageState::Guarded);
        assert_eq!(sim.page_state(base + 2 * PAGE), PageState::Committed);
        sim.guard_remove(range(base, 3 * PAGE)).unwrap();
        assert_eq!(
            (byte(base).read(), byte(base + PAGE).read(), byte(base + 2 * PAGE).read()),
            (1, 0, 3),
            "only what was guarded lost its content"
        );
        sim.protect(range(base, PAGE), Protection::Read).unwrap();
        assert!(!sim.would_trap(base) && sim.would_trap_write(base));
        sim.protect(range(base, PAGE), Protection::None).unwrap();
        assert!(sim.would_trap(base));
        sim.protect(range(base, PAGE), Protection::ReadWrite).unwrap();
        assert_eq!(byte(base).read(), 1);
        sim.decommit(range(base, 4 * PAGE)).unwrap();
        sim.commit(range(base, PAGE)).unwrap();
        assert_eq!(byte(base).read(), 0);
        sim.release(range(base, 8 * PAGE)).unwrap();
    }
    assert_eq!(sim.page_state(base), PageState::Released);
    sim.assert_all_released();
    sim.assert_no_violations();
}

#[test]
#[cfg_attr(
    windows,
    ignore = "parts of a reservation cannot be given back there, and the simulated system stands on the host"
)]
fn mappings_are_counted_as_a_kernel_would() {
    let sim = Sim::with(SimOptions { mappings_max: Some(44), mappings_other: 40, ..SimOptions::new() });
    let base = sim.reserve(16 * PAGE, PAGE).unwrap();
    assert_eq!(sim.mappings(), 1);
    // SAFETY: the range is ours.
    unsafe {
        sim.commit(range(base, 8 * PAGE)).unwrap();
        assert_eq!(sim.mappings(), 2);
        sim.guard_install(range(base + PAGE, PAGE)).unwrap();
        assert_eq!(sim.mappings(), 2, "a marker is no mapping");
        sim.protect(range(base + 3 * PAGE, PAGE), Protection::None).unwrap();
        assert_eq!(sim.mappings(), 4);
        let more = sim.protect(range(base + 5 * PAGE, PAGE), Protection::None);
        assert_eq!(more, Err(VmError::OutOfMemory), "the limit is reached");
        assert_eq!((sim.mappings(), sim.page_state(base + 5 * PAGE)), (4, PageState::Committed));
        sim.protect(range(base + 4 * PAGE, PAGE), Protection::None).unwrap();
        assert_eq!(sim.mappings(), 4, "beside one of its kind it is free");
        sim.decommit(range(base, 8 * PAGE)).unwrap();
        assert_eq!(sim.mappings(), 1);
        sim.release(range(base + PAGE, PAGE)).unwrap();
        assert_eq!(sim.mappings(), 2, "a hole splits");
        sim.release(range(base, PAGE)).unwrap();
        sim.release(range(base + 2 * PAGE, 14 * PAGE)).unwrap();
    }
    assert_eq!(sim.mappings(), 0);
    sim.assert_all_released();
    sim.assert_no_violations();
}

/// The incremental count and the joined runs agree with a plain table of pages, whatever is done.
#[test]
fn the_table_agrees_with_a_plain_one() {
    use super::space::{Page, RESERVED, Space};
    const PAGES: usize = 24;
    let mut space = Space::new();
    let mut plain: [Option<Page>; PAGES] = [None; PAGES];
    let mut seed = 7u64;
    let mut draw = |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % below
    };
    for _ in 0..20_000 {
        let first = draw(PAGES);
        let count = 1 + draw(PAGES - first);
        let touched = range((first + 1) * PAGE, count * PAGE);
        let page = Page {
            committed: true,
            guarded: draw(2) == 0,
            protection: [
                Protection::None,
                Protection::Once,
                Protection::Read,
                Protection::Keyed,
                Protection::ReadWrite,
            ][draw(5)],
            ..RESERVED
        };
        let new = [None, Some(RESERVED), Some(page)][draw(3)];
        let limit = draw(12);
        let mut after = plain;
        after[first..first + count].fill(new);
        let mappings = |pages: &[Option<Page>]| {
            let kind = |page: Option<Page>| page.map(|page| page.protection);
            (0..PAGES)
                .filter(|at| {
                    kind(pages[*at]).is_some() && (*at == 0 || kind(pages[at - 1]) != kind(pages[*at]))
                })
                .count()
        };
        let allowed = mappings(&after) <= limit || mappings(&after) <= mappings(&plain);
        assert_eq!(space.set(touched, new, limit), allowed);
        if allowed {
            plain = after;
        }
        assert_eq!(space.mappings(), mappings(&plain));
        for (at, page) in plain.iter().enumerate() {
            assert_eq!(space.page((at + 1) * PAGE), *page);
            assert_eq!(space.page((at + 2) * PAGE - 1), *page);
        }
        let runs: Vec<_> = space.taken().collect();
        for pair in runs.windows(2) {
            let joined = pair[0].0.end() == pair[1].0.start && pair[0].1 == pair[1].1;
            assert!(!joined, "equal neighbours are one run: {pair:x?}");
        }
    }
}

#[test]
fn the_chosen_call_fails_and_changes_nothing() {
    let sim = Sim::new();
    let base = sim.reserve(4 * PAGE, PAGE).unwrap();
    let all = range(base, 4 * PAGE);
    sim.fail_at(2);
    // SAFETY: the range is ours.
    unsafe {
        sim.commit(all).unwrap();
        assert_eq!(sim.guard_install(all), Err(VmError::OutOfMemory));
        assert_eq!(sim.page_state(base), PageState::Committed);
        sim.guard_install(all).unwrap();
        sim.fail_from(1);
        assert_eq!(sim.guard_remove(all), Err(VmError::OutOfMemory));
        assert_eq!(sim.release(all), Err(VmError::OutOfMemory));
        assert_eq!(sim.calls(), 6);
        sim.fail_at(1);
        let halves = [range(base, PAGE), range(base + 2 * PAGE, PAGE)];
        assert_eq!(sim.guard_remove_each(&halves), Err(VmError::OutOfMemory));
        assert_eq!(sim.page_state(base), PageState::Committed, "some guards may be gone after an error");
        assert_eq!(sim.page_state(base + 2 * PAGE), PageState::Guarded);
        sim.guard_remove_each(&halves).unwrap();
        assert_eq!(sim.page_state(base + 2 * PAGE), PageState::Committed);
        sim.release(all).unwrap();
    }
    sim.assert_no_violations();
}

#[test]
fn misuse_is_written_down() {
    let sim = Sim::new();
    let base = sim.reserve(4 * PAGE, PAGE).unwrap();
    let all = range(base, 4 * PAGE);
    // SAFETY: the range is ours as long as it is reserved; the calls after that are refused.
    unsafe {
        assert!(sim.guard_install(all).is_err());
        assert!(sim.populate(all).is_err());
        assert!(sim.commit(range(base + 1, PAGE)).is_err());
        sim.release(all).unwrap();
        assert!(sim.release(all).is_err());
        assert!(sim.commit(all).is_err());
    }
    let violations = sim.violations();
    let told = ["guard_install", "populate", "commit", "release", "commit"];
    assert_eq!(violations.len(), told.len(), "{violations:?}");
    for (violation, call) in violations.iter().zip(told) {
        assert!(violation.starts_with(call), "{violation}");
    }
}

#[test]
fn reads_stop_where_a_program_would_trap() {
    let sim = Sim::with(SimOptions { page_size: 16384, ..SimOptions::new() });
    let base = sim.reserve(3 * 16384, 1 << 20).unwrap();
    assert_eq!(base % (1 << 20), 0);
    let mut into = [9u8; 64];
    // SAFETY: the range is ours.
    unsafe {
        sim.commit(range(base, 2 * 16384)).unwrap();
        sim.guard_install(range(base + 16384, 16384)).unwrap();
    }
    assert_eq!(sim.read_checked(base + 16384 - 8, &mut into), 8);
    assert_eq!(sim.read_checked(base + 16384, &mut into), 0);
    assert_eq!(sim.read_checked(into.as_ptr().addr(), &mut [0; 64]), 64, "memory of others is the host's");
    // SAFETY: as above.
    unsafe { sim.release(range(base, 3 * 16384)).unwrap() };
    sim.assert_no_violations();
}

#[test]
fn without_markers_guards_are_refused() {
    let sim = Sim::with(SimOptions { markers: false, ..SimOptions::new() });
    let base = sim.reserve(PAGE, PAGE).unwrap();
    // SAFETY: the range is ours.
    unsafe {
        sim.commit(range(base, PAGE)).unwrap();
        assert_eq!(sim.guard_install(range(base, PAGE)), Err(VmError::Unsupported));
        assert_eq!(sim.guard_remove_each(&[range(base, PAGE)]), Err(VmError::Unsupported));
        sim.release(range(base, PAGE)).unwrap();
    }
    sim.assert_no_violations();
}

#[test]
fn files_threads_and_faults_are_the_instances_own() {
    use crate::{Faults, Output, Threads};
    let (one, other) = (Sim::new(), Sim::new());
    let file = one.open_append(b"/log").unwrap();
    one.write(file, b"first ").unwrap();
    let again = one.open_append(b"/log").unwrap();
    one.write(again, b"second").unwrap();
    one.write(2, b"to the terminal").unwrap();
    assert_eq!(one.file("/log").unwrap(), b"first second");
    assert_eq!(one.file_len(file), Some(12));
    assert_eq!(one.written(2), b"to the terminal");
    assert_eq!(other.file("/log"), None);
    assert!(other.write(file, b"x").is_err());
    one.set_thread_word(5);
    std::thread::scope(|scope| {
        scope.spawn(|| assert_eq!(one.thread_word(), 0));
    });
    assert_eq!((one.thread_word(), other.thread_word()), (5, 0));
    one.install(|_| Verdict::Die).unwrap();
    assert!(one.is_installed() && !other.is_installed());
}

#[test]
fn pages_whose_content_has_changed_were_written() {
    let sim = Sim::new();
    let start = sim.reserve(3 * PAGE, PAGE).unwrap();
    let range = Range { start, len: 3 * PAGE };
    // SAFETY: the range was reserved just now.
    let noting = unsafe { sim.commit(range).and_then(|()| sim.note_written(range)) }.unwrap();
    // SAFETY: the page is the test's, and real underneath.
    unsafe { std::ptr::with_exposed_provenance_mut::<u8>(start + PAGE).write_volatile(1) };
    let mut told = Vec::new();
    sim.each_written(&noting, &mut |run| told.push(run)).unwrap();
    assert_eq!(told, [Range { start: start + PAGE, len: PAGE }]);
    sim.end_noting(noting);
    sim.fail_at(1);
    // SAFETY: as above.
    assert!(unsafe { sim.note_written(range) }.is_err());
}
