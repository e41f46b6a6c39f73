//! Which pages are written to: userfaultfd's write protection that the kernel itself takes away at the first write
//! (`UFFD_FEATURE_WP_ASYNC`), and the ioctl `PAGEMAP_SCAN`, which tells where it is gone. Linux 6.7.
//!
//! A descriptor of its own for each: closing it takes the protection off. Memory that the engine has registered with
//! another one is refused by the kernel. A child after a fork has none of it.
//!
//! Sources: PAGEMAP_SCAN(2const), `admin-guide/mm/pagemap.rst`, `admin-guide/mm/userfaultfd.rst`.

use core::sync::atomic::{AtomicU32, Ordering};

use super::Host;
use super::probe::{self, Feature};
use super::raw::{self, File, syscall};
use super::userfault;
use crate::{Noting, Range, VmError, VmResult, Written};

/// `struct pm_scan_arg`.
#[repr(C)]
#[derive(Default)]
struct Scan {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    found: u64,
    found_len: u64,
    pages_max: u64,
    inverted: u64,
    wanted: u64,
    wanted_any: u64,
    told: u64,
}

/// `struct page_region`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Run {
    start: u64,
    end: u64,
    categories: u64,
}

const _: () = assert!(size_of::<Scan>() == 96 && size_of::<Run>() == 24);

const PAGEMAP_SCAN: u64 = 0xc060_6610;
/// Fail where a page has no such protection: it would count as written.
const CHECK_ASYNC: u64 = 1 << 1;
const IS_WRITTEN: u64 = 1 << 1;
/// Runs of pages that are asked for at once.
const RUNS: usize = 64;
/// How far below the end of what a program looks at a descriptor lies.
const NUMBERS_BACK: u64 = 24;

const UNKNOWN: u32 = 0;
const WORKS: u32 = 1;
const NOT_HERE: u32 = 2;
/// What was found out by trying it.
static FOUND: AtomicU32 = AtomicU32::new(UNKNOWN);

impl Written for Host {
    unsafe fn note_written(&self, range: Range) -> VmResult<Noting> {
        if probe::denied(Feature::Scan) || probe::denied(Feature::Proc) {
            return Err(VmError::Unsupported);
        }
        if FOUND.load(Ordering::Relaxed) == UNKNOWN {
            FOUND.store(if prove().unwrap_or(false) { WORKS } else { NOT_HERE }, Ordering::Relaxed);
        }
        if FOUND.load(Ordering::Relaxed) != WORKS {
            return Err(VmError::Unsupported);
        }
        begin(range)
    }

    fn each_written(&self, noting: &Noting, each: &mut dyn FnMut(Range)) -> VmResult {
        let file = File::open(c"/proc/self/pagemap")?;
        let mut start = noting.range.start as u64;
        let end = noting.range.end() as u64;
        while start < end {
            let mut runs = [Run::default(); RUNS];
            let mut scan = Scan {
                size: size_of::<Scan>() as u64,
                flags: CHECK_ASYNC,
                start,
                end,
                found: runs.as_mut_ptr().addr() as u64,
                found_len: RUNS as u64,
                wanted: IS_WRITTEN,
                told: IS_WRITTEN,
                ..Scan::default()
            };
            // SAFETY: the kernel reads and writes one `Scan`, and writes at most as many runs as there is room for.
            let got = unsafe { syscall!(libc::SYS_ioctl, file.number(), PAGEMAP_SCAN, &raw mut scan)? };
            for run in runs.iter().take(got) {
                each(Range { start: run.start as usize, len: run.end.saturating_sub(run.start) as usize });
            }
            // It stops where the runs do; one that does not come on would never end.
            if scan.walk_end <= start {
                return Err(VmError::Unsupported);
            }
            start = scan.walk_end;
        }
        Ok(())
    }

    fn end_noting(&self, noting: Noting) {
        raw::close(noting.number);
    }
}

/// Registers a range with a descriptor of its own, and protects all of it.
fn begin(range: Range) -> VmResult<Noting> {
    let low = userfault::open_async()?;
    let number = userfault::lift(low, NUMBERS_BACK);
    match userfault::protect_all(number, range) {
        Ok(()) => Ok(Noting { range, number }),
        Err(error) => {
            raw::close(number);
            Err(error)
        }
    }
}

/// Writes to one of three pages, and has the kernel write to another.
fn prove() -> VmResult<bool> {
    let page = probe::page_size();
    let len = page.saturating_mul(3);
    let start = raw::map(0, len, libc::PROT_READ | libc::PROT_WRITE, 0)?;
    let at = |index: usize| start.wrapping_add(index.wrapping_mul(page));
    let noting = begin(Range { start, len });
    let mut found = [false; 3];
    let told = noting.and_then(|noting| {
        // SAFETY: the page was mapped just now, and nobody else knows it.
        unsafe { (at(0) as *mut u8).write_volatile(1) };
        // SAFETY: rt_sigprocmask writes one set of 8 bytes to the page, and changes nothing.
        let asked = unsafe { syscall!(libc::SYS_rt_sigprocmask, libc::SIG_BLOCK, 0, at(2), 8) };
        let told = asked.map_err(VmError::from).and_then(|_| {
            Host.each_written(&noting, &mut |run| {
                for (index, found) in found.iter_mut().enumerate() {
                    *found |= run.contains(at(index));
                }
            })
        });
        Host.end_noting(noting);
        told
    });
    // SAFETY: the mapping is ours. Failure would leave three unused pages.
    let _ = unsafe { raw::unmap(start, len) };
    told.map(|()| found == [true, false, true])
}
