//! What C programs and debuggers ask of the guard: `fencepost.h`.
//!
//! Nothing here is the C library's. The names begin with `fencepost_`, so that no program's own function is hidden.
#![allow(clippy::missing_safety_doc, reason = "fencepost.h says what each asks")]
#![allow(missing_docs, reason = "documented in fencepost.h")]

use core::cmp::Reverse;
use core::ffi::c_void;
use core::ptr::null_mut;
use std::collections::BTreeMap;

use crate::closing::Closed;
use crate::runtime::{GUARD, here};
use fencepost_guard::Purpose;
use fencepost_record::{BlockState, Where};

/// `struct fencepost_block`.
#[repr(C)]
pub struct BlockAnswer {
    address: usize,
    size: usize,
    align: usize,
    distance: usize,
    place: i32,
    state: i32,
    sealed: i32,
    thread: u32,
}

/// `struct fencepost_stats`.
#[repr(C)]
pub struct StatsAnswer {
    blocks: u64,
    guarded: u64,
    live: u64,
    held_bytes: u64,
    quarantined_bytes: u64,
    reports: u64,
    reports_lost: u64,
}

/// A handle for C; null where the memory cannot be closed.
fn handle(purpose: Purpose, pointer: *const c_void, len: usize, anchor: usize) -> *mut c_void {
    match Closed::new(purpose, pointer.addr(), len, anchor) {
        Ok(closed) => Box::into_raw(Box::new(closed)).cast(),
        Err(_) => null_mut(),
    }
}

#[inline(never)]
pub unsafe extern "C" fn fencepost_seal(pointer: *const c_void, len: usize) -> *mut c_void {
    handle(Purpose::Seal, pointer, len, here())
}

#[inline(never)]
pub unsafe extern "C" fn fencepost_tripwire(pointer: *const c_void, len: usize) -> *mut c_void {
    handle(Purpose::Tripwire, pointer, len, here())
}

pub unsafe extern "C" fn fencepost_unseal(handle: *mut c_void) {
    if !handle.is_null() {
        // SAFETY: the caller gives back what `fencepost_seal` or `fencepost_tripwire` gave out, once.
        drop(unsafe { Box::from_raw(handle.cast::<Closed>()) });
    }
}

pub unsafe extern "C" fn fencepost_hits(handle: *const c_void) -> u32 {
    // SAFETY: the caller gives what one of the functions above gave out and was not given back.
    unsafe { handle.cast::<Closed>().as_ref() }.map_or(0, Closed::hits)
}

pub unsafe extern "C" fn fencepost_describe(pointer: *const c_void, into: *mut BlockAnswer) -> i32 {
    let (Some(facts), false) = (GUARD.describe(pointer.addr()), into.is_null()) else { return 0 };
    let answer = BlockAnswer {
        address: facts.address,
        size: facts.size,
        align: facts.align,
        distance: facts.distance,
        place: match facts.place {
            Where::Before => -1,
            Where::Inside => 0,
            Where::After => 1,
        },
        state: match facts.state {
            BlockState::Live => 1,
            BlockState::Freed => 2,
            BlockState::Unknown => 0,
        },
        sealed: i32::from(facts.sealed),
        thread: facts.allocated.thread.id,
    };
    // SAFETY: the caller gives room for one answer.
    unsafe { into.write(answer) };
    1
}

pub unsafe extern "C" fn fencepost_describe_print(pointer: *const c_void) {
    match crate::questions::describe(pointer.cast::<u8>()) {
        Some(info) => eprintln!("{}", described(pointer.addr(), &info)),
        None => eprintln!("fencepost: {:#x} is no guarded block's", pointer.addr()),
    }
}

/// What is known about an address, for a person at a debugger.
fn described(address: usize, info: &crate::BlockInfo) -> String {
    let place = match info.place {
        Where::Before => format!("{} bytes before", info.distance),
        Where::Inside => format!("{} bytes inside", info.distance),
        Where::After => format!("{} bytes after", info.distance),
    };
    let state = match info.state {
        BlockState::Live => "a live",
        BlockState::Freed => "a freed",
        BlockState::Unknown => "a forgotten",
    };
    let sealed = if info.sealed { ", sealed or watched" } else { "" };
    let mut text = format!(
        "fencepost: {address:#x} is {place} {state} block of {} bytes at {:#x}, alignment {}{sealed}",
        info.size, info.address, info.align
    );
    let acts = [("allocated", Some(&info.allocated)), ("freed", info.freed.as_ref())];
    for (what, origin) in acts.into_iter().filter_map(|(what, origin)| Some((what, origin?))) {
        text +=
            &format!("\n  {what} {:?} ago by thread {} '{}':", origin.age, origin.thread, origin.thread_name);
        for frame in &origin.frames {
            text += &format!(" {frame:#x}");
        }
    }
    text
}

pub unsafe extern "C" fn fencepost_sites_print(most: usize) {
    eprintln!("{}", sites(most));
}

/// The live blocks by where they were allocated, the most bytes first, for a person at a debugger.
fn sites(most: usize) -> String {
    // What is made here is not among what is counted.
    GUARD.call_inner(|| {
        let mut sites = BTreeMap::<u32, (u64, u64)>::new();
        GUARD.each_live(&mut |size, trace| {
            let (blocks, bytes) = sites.entry(trace).or_default();
            *blocks = blocks.saturating_add(1);
            *bytes = bytes.saturating_add(size as u64);
        });
        let mut sites: Vec<_> = sites.into_iter().collect();
        sites.sort_by_key(|(trace, (blocks, bytes))| (Reverse((*bytes, *blocks)), *trace));
        let total = sites.iter().fold((0u64, 0u64), |(blocks, bytes), (_, site)| {
            (blocks.saturating_add(site.0), bytes.saturating_add(site.1))
        });
        let mut text = format!(
            "fencepost: {} live guarded blocks of {} bytes from {} places",
            total.0,
            total.1,
            sites.len()
        );
        for (trace, (blocks, bytes)) in sites.iter().take(most) {
            text += &format!("\n  {bytes} bytes in {blocks} blocks:");
            let frames = GUARD.kept_trace(*trace);
            if frames.frames().is_empty() {
                text += " the stack was not kept";
            }
            for frame in frames.frames() {
                text += &format!(" {frame:#x}");
            }
        }
        text
    })
}

pub unsafe extern "C" fn fencepost_reports_print() {
    for report in crate::drain_reports() {
        eprintln!("{}", report.text);
    }
}

#[inline(never)]
pub unsafe extern "C" fn fencepost_check() -> usize {
    GUARD.check(here())
}

pub unsafe extern "C" fn fencepost_stats(into: *mut StatsAnswer) -> i32 {
    let (Some(stats), false) = (GUARD.stats(), into.is_null()) else { return 0 };
    let answer = StatsAnswer {
        blocks: stats.total,
        guarded: stats.guarded,
        live: stats.live,
        held_bytes: stats.held_bytes,
        quarantined_bytes: stats.quarantined_bytes,
        reports: stats.reports,
        reports_lost: stats.reports_lost,
    };
    // SAFETY: the caller gives room for one answer.
    unsafe { into.write(answer) };
    1
}
