//! Pages are moved, what they came from traps, and what could not be moved is as it was.
#![cfg(target_os = "linux")]

use fencepost_sys::{Host, Memory, Moved, Platform, Range};

fn range(start: usize, pages: usize) -> Range {
    Range { start, len: pages * Host.page_size() }
}

fn readable(address: usize) -> bool {
    Host.read_checked(address, &mut [0]) == 1
}

/// Committed memory of so many pages, each with a byte of its own, in the midst of reserved memory.
fn numbered(pages: usize) -> Range {
    let page = Host.page_size();
    let base = Host.reserve((pages + 2) * page, page).expect("addresses");
    let data = range(base + page, pages);
    // SAFETY: the range was reserved just now.
    unsafe { Host.commit(data).expect("memory") };
    for index in 0..pages {
        // SAFETY: as above.
        unsafe { ((data.start + index * page) as *mut u8).write_volatile(index as u8 ^ 0x3c) };
    }
    data
}

fn byte(data: Range, index: usize) -> u8 {
    // SAFETY: the tests ask for committed pages only.
    unsafe { ((data.start + index * Host.page_size()) as *const u8).read_volatile() }
}

#[test]
fn pages_move_and_their_old_addresses_trap() {
    Host.probe();
    let page = Host.page_size();
    for [from, to] in [[20, 20], [20, 30], [30, 20], [1100, 1700]] {
        let (source, target) = (numbered(from), numbered(to));
        // SAFETY: both are the test's own, and nothing refers to them.
        let moved = unsafe { Host.remap(source, target) };
        assert_eq!(moved, Ok(Moved::Whole));
        assert!((0..from.min(to)).all(|index| byte(target, index) == index as u8 ^ 0x3c));
        assert!((from..to).all(|index| byte(target, index) == 0));
        assert!((0..from).all(|index| !readable(source.start + index * page)));
        assert!(Host.is_mapped(source), "nobody else can take the addresses");
        assert!(!readable(target.start - 1) && !readable(target.end()));
        // SAFETY: as above.
        unsafe { ((target.end() - 1) as *mut u8).write_volatile(1) };
    }
}

#[test]
fn what_cannot_be_moved_stays_and_the_target_can_be_used() {
    Host.probe();
    let (source, target) = (numbered(20), numbered(30));
    // SAFETY: the page is the test's own. A second mapping in the range: it cannot be moved as one.
    unsafe { Host.protect(range(source.start + 5 * Host.page_size(), 1), fencepost_sys::Protection::Read) }
        .expect("protected");
    // SAFETY: both are the test's own, and nothing refers to them.
    let moved = unsafe { Host.remap(source, target) };
    assert!(moved.is_err(), "{moved:?}");
    assert!((0..20).all(|index| byte(source, index) == index as u8 ^ 0x3c));
    // SAFETY: as above.
    unsafe { ((target.end() - 1) as *mut u8).write_volatile(1) };
}
