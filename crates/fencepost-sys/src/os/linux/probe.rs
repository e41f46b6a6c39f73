//! Finds out what the kernel offers, by use.
//!
//! A version number says nothing under a container's filter, and a return code says nothing under user-mode
//! emulation, which answers 0 to advice it does not know. So a page is guarded and then read *by a system call*: a
//! call answers `EFAULT` where an instruction would trap, and needs no handler of ours. The call is
//! `rt_sigprocmask(SIG_BLOCK, page)`, which copies 8 bytes in before anything else and, since the pages used here
//! are zero, changes nothing. It takes no descriptor, and no filter forbids it.

use core::sync::atomic::{AtomicBool, AtomicIsize, AtomicU8, AtomicU32, AtomicUsize, Ordering};

use super::environment::environment;
use super::memory::{MADV_GUARD_INSTALL, MADV_GUARD_REMOVE, advise, advise_each};
use super::raw::{map, syscall, unmap};
use super::{read, threads, userfault};
use crate::{MissingOffer, Range, VmResult};

/// What a test can have treated as missing.
#[derive(Clone, Copy)]
pub(super) enum Feature {
    Markers = 1,
    Vectored = 2,
    ProcessVmReadv = 4,
    Proc = 8,
    Keys = 16,
    Steps = 32,
    Userfault = 64,
    Move = 128,
    Tables = 1 << 16,
    Moves = 1 << 10,
    WriteProtect = 1 << 11,
    Watchpoints = 1 << 12,
    WatchKernel = 1 << 13,
    Scan = 1 << 14,
}

static DENIED: AtomicU32 = AtomicU32::new(0);
static FILTERED: AtomicBool = AtomicBool::new(false);
static PAGE_SIZE: AtomicUsize = AtomicUsize::new(0);
static MARKERS: AtomicBool = AtomicBool::new(false);
/// Whether advice that no kernel knows is answered as if it had been taken: an emulator of programs does that.
static EMULATED: AtomicBool = AtomicBool::new(false);
/// What was proved of missing pages: the number of the [`MissingOffer`].
static MISSING: AtomicU8 = AtomicU8::new(0);
/// The descriptor number that means "this process" to a vectored call; 0 while there is none.
static VECTORED: AtomicIsize = AtomicIsize::new(0);

/// `PIDFD_SELF_THREAD_GROUP` and `PIDFD_SELF_THREAD` of `linux/pidfd.h`: this process, without a descriptor that a
/// fork would leave pointing at the parent.
const SELVES: [isize; 2] = [-10001, -10000];

/// Advice of a number that no kernel gives a meaning to.
const UNKNOWN_ADVICE: i32 = 0x4ff;

/// Whether a test wants a feature to be treated as missing.
pub(super) fn denied(feature: Feature) -> bool {
    DENIED.load(Ordering::Relaxed) & feature as u32 != 0
}

/// Bytes in a page.
pub(super) fn page_size() -> usize {
    match PAGE_SIZE.load(Ordering::Relaxed) {
        0 => {
            // SAFETY: getauxval reads a table that the kernel left on the stack at start, and the page size is
            // always in it.
            let size = unsafe { libc::getauxval(libc::AT_PAGESZ) } as usize;
            let size = if size.is_power_of_two() { size } else { 4096 };
            PAGE_SIZE.store(size, Ordering::Relaxed);
            size
        }
        size => size,
    }
}

/// Whether guard markers were seen to trap.
pub(super) fn markers() -> bool {
    MARKERS.load(Ordering::Relaxed)
}

/// Whether an emulator of programs stands between us and the kernel (qemu-user).
pub(super) fn emulated() -> bool {
    EMULATED.load(Ordering::Relaxed)
}

/// The descriptor to give to a vectored call, if such calls were seen to work.
pub(super) fn vectored() -> Option<isize> {
    Some(VECTORED.load(Ordering::Relaxed)).filter(|descriptor| *descriptor != 0)
}

/// Remembers that vectored calls are no longer allowed (a system call filter came into force).
pub(super) fn forget_vectored() {
    VECTORED.store(0, Ordering::Relaxed);
}

/// Treats what a system call filter may not know as missing from now on.
pub(super) fn expect_filter() {
    let unusual = Feature::Markers as u32
        | Feature::Vectored as u32
        | Feature::ProcessVmReadv as u32
        | Feature::Watchpoints as u32
        | Feature::Userfault as u32
        | Feature::WriteProtect as u32
        | Feature::Scan as u32;
    DENIED.fetch_or(unusual, Ordering::Relaxed);
    FILTERED.store(true, Ordering::SeqCst);
    userfault::forbid_moves();
    forget_vectored();
}

/// Whether a filter may end the process for a call that no C library's allocator makes.
pub(super) fn filtered() -> bool {
    FILTERED.load(Ordering::SeqCst)
}

/// Tries everything and remembers what worked.
pub(super) fn probe() {
    DENIED.store(environment(c"FENCEPOST_DENY").map_or(0, parse_denied), Ordering::Relaxed);
    threads::prepare();
    read::prove();
    MARKERS.store(false, Ordering::Relaxed);
    MISSING.store(MissingOffer::Nothing as u8, Ordering::Relaxed);
    forget_vectored();
    let page = page_size();
    let Some(len) = page.checked_mul(4) else { return };
    let Ok(base) = map(0, len, libc::PROT_READ | libc::PROT_WRITE, 0) else { return };
    let page_at = |index: usize| Range { start: base.wrapping_add(index.wrapping_mul(page)), len: page };
    EMULATED.store(advise(page_at(0), UNKNOWN_ADVICE).is_ok(), Ordering::Relaxed);
    if !denied(Feature::Markers) && prove_markers(page_at(1), page_at(2)).unwrap_or(false) {
        MARKERS.store(true, Ordering::Relaxed);
        let proven = |own: &isize| prove_vectored(*own, &[page_at(1), page_at(3)]).unwrap_or(false);
        if !denied(Feature::Vectored)
            && let Some(own) = SELVES.into_iter().find(proven)
        {
            VECTORED.store(own, Ordering::Relaxed);
        }
    }
    prove_missing(page);
    // SAFETY: the mapping was made above, and nothing refers to it. Failure would leave four unused pages.
    let _ = unsafe { unmap(base, len) };
}

/// What was proved of missing pages.
pub(super) fn missing() -> MissingOffer {
    match MISSING.load(Ordering::Relaxed) {
        2 => MissingOffer::Moves,
        1 => MissingOffer::Copies,
        _ => MissingOffer::Nothing,
    }
}

/// On pages that nobody has touched, which is what missing means.
fn prove_missing(page: usize) {
    let Some(len) = page.checked_mul(4) else { return };
    let Ok(base) = map(0, len, libc::PROT_READ | libc::PROT_WRITE, 0) else { return };
    let page_at = |index: usize| Range { start: base.wrapping_add(index.wrapping_mul(page)), len: page };
    let offer = userfault::prove(&[page_at(0), page_at(2), page_at(3)], readable);
    MISSING.store(offer as u8, Ordering::Relaxed);
    // SAFETY: the mapping was made above, and nothing refers to it. Failure would leave four unused pages.
    let _ = unsafe { unmap(base, len) };
}

fn parse_denied(list: &[u8]) -> u32 {
    list.split(|byte| *byte == b',').fold(0, |denied, word| {
        denied
            | match word {
                b"markers" => Feature::Markers as u32,
                b"vectored" => Feature::Vectored as u32,
                b"process_vm_readv" => Feature::ProcessVmReadv as u32,
                b"proc" => Feature::Proc as u32,
                b"keys" => Feature::Keys as u32,
                b"steps" => Feature::Steps as u32,
                b"userfaultfd" => Feature::Userfault as u32,
                b"move" => Feature::Move as u32,
                b"write-protect" => Feature::WriteProtect as u32,
                b"watchpoints" => Feature::Watchpoints as u32,
                b"watch-kernel" => Feature::WatchKernel as u32,
                b"pagemap" => Feature::Scan as u32,
                b"tables" => Feature::Tables as u32,
                b"mremap" => Feature::Moves as u32,
                _ => 0,
            }
    })
}

/// Guards one page and sees it, and only it, trap until the guard is removed.
fn prove_markers(guarded: Range, open: Range) -> VmResult<bool> {
    advise(guarded, MADV_GUARD_INSTALL)?;
    let traps = !readable(guarded.start) && readable(open.start);
    advise(guarded, MADV_GUARD_REMOVE)?;
    Ok(traps && readable(guarded.start))
}

/// Guards two pages, removes and populates both by one call each, and sees them open.
fn prove_vectored(own: isize, pages: &[Range; 2]) -> VmResult<bool> {
    for page in pages {
        advise(*page, MADV_GUARD_INSTALL)?;
    }
    let closed = pages.iter().all(|page| !readable(page.start));
    let removed = advise_each(own, pages, MADV_GUARD_REMOVE).is_ok();
    let open = pages.iter().all(|page| readable(page.start));
    let populated = advise_each(own, pages, libc::MADV_POPULATE_WRITE).is_ok();
    for page in pages {
        advise(*page, MADV_GUARD_REMOVE)?;
    }
    Ok(closed && removed && open && populated)
}

/// Whether the kernel can read 8 bytes of a page of zeros (see the module's header).
pub(super) fn readable(address: usize) -> bool {
    // SAFETY: the kernel checks the address; the set of signals there is empty, and adding it changes nothing.
    unsafe { syscall!(libc::SYS_rt_sigprocmask, libc::SIG_BLOCK, address, 0, 8) }.is_ok()
}
