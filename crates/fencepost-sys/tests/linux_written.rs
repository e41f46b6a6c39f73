//! Notes of written pages on the real kernel: by instructions, by the kernel, and where there can be none.
#![cfg(target_os = "linux")]
#![allow(clippy::disallowed_types, clippy::disallowed_macros, clippy::disallowed_methods)]

use fencepost_sys::{Host, Memory, Missing, MissingOffer, Platform, Range, VmError, Written};

/// Sixteen pages of memory, of which the first half was touched.
fn pages() -> (usize, Range) {
    Host.probe();
    let page = Host.page_size();
    let range = Range { start: Host.reserve(16 * page, page).expect("addresses"), len: 16 * page };
    // SAFETY: the range was reserved just now.
    unsafe { Host.commit(range) }.expect("memory");
    (0..8).for_each(|index| touch(range.start + index * page));
    (page, range)
}

fn touch(address: usize) {
    // SAFETY: the tests' own memory, readable and writable.
    unsafe { std::ptr::with_exposed_provenance_mut::<u8>(address).write_volatile(1) };
}

#[test]
fn pages_that_were_written_are_told_and_no_others() {
    let (page, range) = pages();
    // SAFETY: the range stays mapped to the end of the test.
    let noting = match unsafe { Host.note_written(range) } {
        Err(VmError::Unsupported) => return println!("skipped: the kernel does not note written pages"),
        noting => noting.expect("noted"),
    };
    let told = || {
        let mut told = Vec::new();
        Host.each_written(&noting, &mut |run| {
            told.extend((run.start..run.end()).step_by(page).map(|at| (at - range.start) / page));
        })
        .expect("told");
        told
    };
    assert!(told().is_empty());
    for index in [2, 3, 12] {
        touch(range.start + index * page + 100);
    }
    // SAFETY: reading a page that is there.
    unsafe { std::ptr::with_exposed_provenance::<u8>(range.start + 5 * page).read_volatile() };
    let zeros = std::fs::File::open("/dev/zero").expect("zeros");
    // SAFETY: the page is this test's, and as long as what is read.
    let into = unsafe {
        std::slice::from_raw_parts_mut(std::ptr::with_exposed_provenance_mut(range.start + 7 * page), 8)
    };
    assert_eq!(std::io::Read::read(&mut &zeros, into).expect("read"), 8);
    assert_eq!(told(), [2, 3, 7, 12]);
    // More runs than are asked for at once.
    Host.end_noting(noting);
    let len = 400 * page;
    let many = Range { start: Host.reserve(len, page).expect("addresses"), len };
    // SAFETY: as above.
    let noting = unsafe { Host.commit(many).and_then(|()| Host.note_written(many)) }.expect("noted again");
    (0..400).step_by(2).for_each(|index| touch(many.start + index * page));
    let mut runs = Vec::new();
    Host.each_written(&noting, &mut |run| runs.push((run.start - many.start) / page)).expect("told");
    assert_eq!(runs, (0..400).step_by(2).collect::<Vec<_>>());
    Host.end_noting(noting);
}

#[test]
fn memory_that_is_registered_already_is_refused() {
    let (page, range) = pages();
    if Host.offers().missing == MissingOffer::Nothing {
        return println!("skipped: no userfaultfd here");
    }
    Host.open_missing().expect("offered");
    let part = Range { start: range.start + 4 * page, len: 4 * page };
    // SAFETY: the pages are this test's, and nobody relies on one that is not there.
    unsafe { Host.register_missing(part) }.expect("registered");
    // SAFETY: as above.
    assert!(unsafe { Host.note_written(range) }.is_err());
    Host.close_inherited();
}
