//! Missing pages on the real kernel: what traps, what moves, and what becomes of a descriptor that is taken away.
#![cfg(target_os = "linux")]
#![allow(clippy::disallowed_types, clippy::disallowed_macros, clippy::disallowed_methods)]

use fencepost_sys::{Host, Memory, Missing, MissingError, MissingOffer, Partly, Platform, Range};
use std::sync::{Mutex, MutexGuard};

/// The descriptor is the process's: one test at a time.
static ONE: Mutex<()> = Mutex::new(());

struct Pages {
    _turn: MutexGuard<'static, ()>,
    base: usize,
    page: usize,
}

/// Eight registered pages of which none is there; `None` where the kernel offers nothing.
fn pages() -> Option<Pages> {
    pages_of(turn())
}

fn turn() -> MutexGuard<'static, ()> {
    ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn pages_of(turn: MutexGuard<'static, ()>) -> Option<Pages> {
    Host.probe();
    if Host.offers().missing != MissingOffer::Moves {
        println!("skipped: userfaultfd offers {:?} here", Host.offers().missing);
        return None;
    }
    let page = Host.page_size();
    let base = Host.reserve(8 * page, page).expect("addresses");
    Host.open_missing().expect("offered");
    // SAFETY: the range is ours, and nobody uses it yet.
    unsafe {
        Host.commit(Range { start: base, len: 8 * page }).expect("committed");
        Host.register_missing(Range { start: base, len: 8 * page }).expect("registered");
    }
    Some(Pages { _turn: turn, base, page })
}

impl Pages {
    fn at(&self, first: usize, count: usize) -> Range {
        Range { start: self.base + first * self.page, len: count * self.page }
    }

    fn is_there(&self, index: usize) -> bool {
        let mut byte = [0];
        Host.read_checked(self.at(index, 1).start, &mut byte) == 1
    }

    fn put(&self, first: usize, count: usize, value: u8) -> Result<(), Partly> {
        let source = vec![value; (count + 1) * self.page];
        let from = (source.as_ptr().addr() + self.page - 1) & !(self.page - 1);
        // SAFETY: the pages are ours; the source has that many whole pages after its first boundary.
        unsafe { Host.put_missing(self.at(first, count), from) }
    }

    fn move_one(&self, from: usize, to: usize) -> Result<(), Partly> {
        // SAFETY: the pages are ours.
        unsafe { Host.move_pages(self.at(from, 1), self.at(to, 1).start) }
    }

    fn byte(&self, index: usize) -> u8 {
        let mut byte = [0];
        assert_eq!(Host.read_checked(self.at(index, 1).start, &mut byte), 1, "page {index} is there");
        byte[0]
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the range was reserved by `pages`, and the test is over.
        unsafe { Host.release(self.at(0, 8)) }.expect("released");
    }
}

fn refused(result: Result<(), Partly>) -> Option<(usize, MissingError)> {
    result.err().map(|partly| (partly.done, partly.why))
}

/// The highest open descriptor that is a userfaultfd.
fn descriptor() -> Option<i32> {
    let entries = std::fs::read_dir("/proc/self/fd").expect("/proc is mounted").flatten();
    let ours = entries.filter(|entry| {
        std::fs::read_link(entry.path()).is_ok_and(|to| to.to_string_lossy().contains("userfaultfd"))
    });
    ours.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).max()
}

#[test]
fn pages_are_put_moved_and_dropped_and_trap_where_they_are_not() {
    let Some(pages) = pages() else { return };
    assert!((0..8).all(|index| !pages.is_there(index)));
    pages.put(0, 2, 7).expect("put");
    assert_eq!((pages.byte(0), pages.byte(1), pages.is_there(2)), (7, 7, false));
    pages.move_one(1, 4).expect("moved");
    assert_eq!((pages.byte(4), pages.is_there(1)), (7, false));
    // SAFETY: the page is ours.
    unsafe { Host.drop_pages(pages.at(0, 1)) }.expect("dropped");
    assert!(!pages.is_there(0));
}

#[test]
fn refusals_say_why_and_how_far_the_call_came() {
    let Some(pages) = pages() else { return };
    pages.put(2, 1, 1).expect("put");
    // Of a call that was done in part the kernel does not say why it stopped; the next one tells.
    assert_eq!(refused(pages.put(0, 4, 2)), Some((2 * pages.page, MissingError::Busy)));
    assert_eq!(refused(pages.put(2, 2, 2)), Some((0, MissingError::Taken)));
    assert_eq!((pages.byte(1), pages.byte(2)), (2, 1));
    assert_eq!(refused(pages.move_one(1, 2)), Some((0, MissingError::Taken)));
    assert_eq!(refused(pages.move_one(6, 7)), Some((0, MissingError::Absent)));
    // A second process that has the page keeps it from moving, until it is written to.
    // SAFETY: the child makes one system call and ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: as above.
        unsafe { libc::_exit(0) }
    }
    assert_eq!(refused(pages.move_one(1, 7)), Some((0, MissingError::Shared)));
    // SAFETY: the child is ours, and nobody reads its status.
    unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
}

#[test]
fn the_number_is_high_and_the_programs_own_numbers_are_as_without_it() {
    let lowest = || std::fs::File::open("/dev/null").map(|file| std::os::fd::AsRawFd::as_raw_fd(&file));
    // Other tests open files, too.
    let turn = turn();
    let before = lowest().expect("opens");
    let Some(_pages) = pages_of(turn) else { return };
    assert_eq!(lowest().expect("opens"), before);
    assert!(descriptor().expect("it is open") >= 900);
}

#[test]
fn a_descriptor_that_the_program_closes_or_replaces_is_lost_and_can_be_had_again() {
    for replaced in [false, true] {
        let Some(pages) = pages() else { return };
        pages.put(0, 1, 5).expect("put");
        let number = descriptor().expect("it is open");
        // SAFETY: both act on descriptors only; the library under test is asked what it makes of it.
        unsafe {
            if replaced {
                let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDONLY);
                assert_eq!(libc::dup2(null, number), number);
                libc::close(null);
            } else {
                assert_eq!(libc::close(number), 0);
            }
        }
        assert!(Host.has_missing(), "only a call finds it out");
        assert_eq!(refused(pages.move_one(0, 1)), Some((0, MissingError::Lost)), "{replaced}");
        assert!(!Host.has_missing());
        Host.open_missing().expect("again");
        // SAFETY: the range is ours; what is there stays.
        unsafe { Host.register_missing(pages.at(0, 8)) }.expect("registered");
        assert_eq!(pages.byte(0), 5);
        assert!(!pages.is_there(3));
        pages.move_one(0, 1).expect("moved");
        if replaced {
            // SAFETY: the number is the test's file by now.
            assert_eq!(unsafe { libc::close(number) }, 0, "the program's file was left alone");
        }
    }
}

/// Exit status of a child that runs `work`: 0 if that said true.
fn in_child(work: impl FnOnce() -> bool) -> i32 {
    // SAFETY: the child makes system calls and ends without running anything of the parent's.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let fine = work();
        // SAFETY: as above.
        unsafe { libc::_exit(i32::from(!fine)) }
    }
    let mut status = 0;
    // SAFETY: the child is ours, and `status` lives.
    unsafe { libc::waitpid(child, &mut status, 0) };
    libc::WEXITSTATUS(status)
}

#[test]
fn a_child_has_lost_it_and_never_acts_on_its_parent() {
    let Some(pages) = pages() else { return };
    pages.put(0, 1, 3).expect("put");
    let status = in_child(|| {
        if Host.has_missing() || pages.put(5, 1, 9) != Err(Partly { done: 0, why: MissingError::Lost }) {
            return false;
        }
        let inherited = descriptor();
        Host.close_inherited();
        if inherited.is_none() || descriptor().is_some() || Host.open_missing().is_err() {
            return false;
        }
        // SAFETY: the child's own copy of the range.
        let registered = unsafe { Host.register_missing(pages.at(0, 8)) }.is_ok();
        registered && pages.put(5, 1, 9).is_ok() && pages.byte(5) == 9 && pages.byte(0) == 3
    });
    assert_eq!(status, 0);
    assert!(!pages.is_there(5), "the parent's page is still missing");
    assert!(Host.has_missing());
    pages.put(5, 1, 4).expect("the parent's descriptor works");
}
