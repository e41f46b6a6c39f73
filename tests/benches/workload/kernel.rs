//! What the kernel asks for the calls that guarding is made of, without any allocator.

use std::hint::black_box;
use std::time::Duration;

use super::clock::{self, Reading, Spent, Total};
use super::process::Mapping;

/// `MADV_GUARD_INSTALL`, Linux 6.13: `include/uapi/asm-generic/mman-common.h`. Newer than the libc crate's constants.
const MADV_GUARD_INSTALL: i32 = 102;
/// Pages of one batch: 16 MiB where pages have 4 KiB.
const PAGES: usize = 4096;

/// Nanoseconds of one repetition of what is named.
pub fn run(what: &str, enough: Duration) -> Result<Spent, String> {
    match what {
        "syscall" => clock::repeat(enough, 256, || {
            // SAFETY: getppid takes no arguments and cannot fail.
            (0..256).for_each(|_| _ = unsafe { libc::syscall(libc::SYS_getppid) });
            Ok(())
        }),
        "move" => super::moves::run(1, 1, enough),
        "move-16" => super::moves::run(1, 16, enough),
        "move-mix" => super::moves::mix(50_000, enough),
        "move-two" => two_move(enough),
        "move-random" => super::moves::run(1000, 1, enough),
        "fault" => over_pages(enough, Touched::Within),
        "guard" => over_pages(enough, Touched::Before),
        "fault-guard" => fault_and_guard(enough),
        "chain" => clock::repeat(enough, 256, || {
            let frames = chain();
            (0..256).for_each(|_| _ = black_box(follow(black_box(&frames))));
            Ok(())
        }),
        "mmap" => clock::repeat(enough, 64, || (0..64).try_for_each(|_| mapping_per_block())),
        _ => Err(format!("no such kernel figure: {what}")),
    }
}

/// Two threads of this process that move pages, each in memory and by a descriptor of its own: for one move of all.
fn two_move(enough: Duration) -> Result<Spent, String> {
    let [one, two] = std::thread::scope(|scope| {
        [(); 2]
            .map(|()| scope.spawn(|| super::moves::run(1, 1, enough)))
            .map(|thread| thread.join().expect("no panic"))
    });
    let (one, two) = (one?, two?);
    // Each counts what both took.
    let share = |one: f64, two: f64| (one + two) / 4.0;
    Ok(Spent {
        cpu: share(one.cpu, two.cpu),
        system: share(one.system, two.system),
        wall: share(one.wall, two.wall),
        rounds: one.rounds + two.rounds,
    })
}

/// Frames of the chain below, and words of each.
const FRAMES: usize = 20;
const FRAME: usize = 12;

/// A stack as code with frame pointers leaves it: each frame holds where the next is, and an address beside it.
fn chain() -> [usize; FRAMES * FRAME] {
    let mut words = [0; FRAMES * FRAME];
    for frame in 0..FRAMES {
        (words[frame * FRAME], words[frame * FRAME + 1]) = ((frame + 1) * FRAME, 0x40_0000 + frame);
    }
    words
}

/// What the walk along frame pointers costs at least: no check of anything but the end.
#[inline(never)]
fn follow(stack: &[usize; FRAMES * FRAME]) -> [usize; FRAMES] {
    let mut found = [0; FRAMES];
    let mut at = 0;
    for place in &mut found {
        *place = stack[at + 1];
        at = stack[at] % stack.len();
    }
    found
}

fn page_size() -> usize {
    // SAFETY: sysconf takes a number and gives one.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// When the pages of a batch are touched: what is timed with it is the fault, else the guard.
#[derive(Clone, Copy, PartialEq)]
enum Touched {
    /// The touch is what is measured, and nothing is guarded.
    Within,
    /// Each page is populated before its guard is installed, one call a page.
    Before,
}

fn over_pages(enough: Duration, touched: Touched) -> Result<Spent, String> {
    let page = page_size();
    let mut total = Total::default();
    let mut rounds = 0;
    while total.wall() < enough {
        let area = Mapping::map(
            PAGES * page,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
        )?;
        // SAFETY: the range is the mapping made just now. Advice only: where it is refused, the figure shows it.
        unsafe { libc::madvise(area.start().cast(), PAGES * page, libc::MADV_NOHUGEPAGE) };
        let touch = || {
            // SAFETY: every page of the area is writable, and nobody else knows of it.
            (0..PAGES).for_each(|index| unsafe { area.start().add(index * page).write_volatile(1) });
        };
        if touched == Touched::Before {
            touch();
        }
        let start = Reading::now();
        if touched == Touched::Within {
            touch();
        } else {
            guard_each(&area, page)?;
        }
        total.add(&start);
        rounds += PAGES as u64;
    }
    Ok(total.per_round(rounds))
}

fn guard_each(area: &Mapping, page: usize) -> Result<(), String> {
    (0..PAGES).try_for_each(|index| guard(area.start().wrapping_add(index * page), page))
}

fn guard(place: *mut u8, page: usize) -> Result<(), String> {
    // SAFETY: callers name a page of a mapping of their own that nothing refers to; it is not touched again.
    if unsafe { libc::madvise(place.cast(), page, MADV_GUARD_INSTALL) } == 0 {
        return Ok(());
    }
    Err(format!("no MADV_GUARD_INSTALL here (Linux 6.13 has it): {}", std::io::Error::last_os_error()))
}

/// What a design with markers and without any more cunning pays for a pair: the first touch of a page, and the marker that
/// takes it away.
fn fault_and_guard(enough: Duration) -> Result<Spent, String> {
    let page = page_size();
    let mut total = Total::default();
    let mut rounds = 0;
    while total.wall() < enough {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let area = Mapping::map(PAGES * page, libc::PROT_READ | libc::PROT_WRITE, flags, -1)?;
        // SAFETY: the range is the mapping made just now. Advice only: where it is refused, the figure shows it.
        unsafe { libc::madvise(area.start().cast(), PAGES * page, libc::MADV_NOHUGEPAGE) };
        let start = Reading::now();
        for index in 0..PAGES {
            let place = area.start().wrapping_add(index * page);
            // SAFETY: the page is writable, ours alone, and not touched again.
            unsafe { place.write_volatile(1) };
            guard(place, page)?;
        }
        total.add(&start);
        rounds += PAGES as u64;
    }
    Ok(total.per_round(rounds))
}

/// What a design without an arena pays for a block: a mapping, its guard, the first touch, and the end of both.
fn mapping_per_block() -> Result<(), String> {
    let page = page_size();
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let block = Mapping::map(2 * page, libc::PROT_READ | libc::PROT_WRITE, flags, -1)?;
    // SAFETY: the second page of the mapping made just now; it is never touched.
    let result = unsafe { libc::mprotect(block.start().add(page).cast(), page, libc::PROT_NONE) };
    if result != 0 {
        return Err(format!("mprotect: {}", std::io::Error::last_os_error()));
    }
    // SAFETY: the first page is writable and ours.
    unsafe { block.start().write_volatile(1) };
    Ok(())
}
