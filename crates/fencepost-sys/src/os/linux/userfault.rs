//! Missing pages by userfaultfd(2), without a reader: `UFFD_FEATURE_SIGBUS` answers every fault with a signal.
//!
//! The descriptor is the weak spot: a program may close it, a forked child inherits it *and it acts on the parent's
//! memory*. So its number is kept on a page that a fork wipes (`MADV_WIPEONFORK`) and read from there before each call:
//! a child, by whatever call it was made, finds 0. A process that borrows its parent's memory (`vfork`) finds the number,
//! which acts on that very memory and is right, unless it has closed it; then the process id beside it tells. After a call
//! that failed for a reason that a lost descriptor can have, the file's inode tells whether the number is still ours:
//! every userfaultfd has one of its own.
//!
//! The number lies high, so that the numbers that the program gets are the same as without us.
//!
//! Sources: userfaultfd(2), ioctl_userfaultfd(2), `include/uapi/linux/userfaultfd.h`, `mm/userfaultfd.c`.

mod transfer;

use core::mem::{offset_of, size_of};
use core::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering};

use super::Host;
use super::memory::{advise, count};
use super::probe::{self, Feature};
use super::raw::{self, Errno, syscall};
use crate::{Missing, MissingError, MissingOffer, Partly, Range, VmError, VmResult};
use transfer::{UFFDIO_COPY, UFFDIO_MOVE, transfer, why_not_moved};

const UFFD_API: u64 = 0xaa;
/// For faults of instructions only: what an ordinary user may ask for.
const UFFD_USER_MODE_ONLY: i32 = 1;
const FEATURE_SIGBUS: u64 = 1 << 7;
const FEATURE_MOVE: u64 = 1 << 16;
/// The kernel takes write protection away itself, at the first write.
const FEATURE_ASYNC: u64 = 1 << 15;
const MODE_MISSING: u64 = 1;
const MODE_WP: u64 = 2;
/// Writes trap; without it that ends, and whoever waits is woken (nobody does).
const PROTECT: u64 = 1;
/// How often a call is made again that met somebody who changes the memory.
const TRIES: u32 = 16;
/// Since Linux 5.18.
const MADV_DONTNEED_LOCKED: i32 = 24;
/// Below this the program may look for its numbers, above it the kernel would need a larger table.
const NUMBERS_END: u64 = 1024;
/// How far below the end ours lies.
const NUMBERS_BACK: u64 = 24;

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
struct Register {
    start: u64,
    len: u64,
    mode: u64,
    ioctls: u64,
}

#[repr(C)]
struct WriteProtect {
    start: u64,
    len: u64,
    mode: u64,
}

const UFFDIO_API: u64 = both_ways(0x3f, size_of::<Api>());
/// `_IOR(0xaa, 0x01, struct uffdio_range)`.
const UFFDIO_UNREGISTER: u64 = 0x8010_aa01;
const UFFDIO_REGISTER: u64 = both_ways(0x00, size_of::<Register>());
const UFFDIO_WRITEPROTECT: u64 = both_ways(0x06, size_of::<WriteProtect>());

/// `_IOWR(0xaa, number, size)`.
const fn both_ways(number: u64, size: usize) -> u64 {
    (3 << 30) | ((size as u64) << 16) | (0xaa << 8) | number
}

const _: () = assert!(size_of::<Api>() == 24 && size_of::<Register>() == 32);
const _: () = assert!(offset_of!(Register, mode) == 16);
const _: () = assert!(UFFDIO_API == 0xc018_aa3f && UFFDIO_REGISTER == 0xc020_aa00);
const _: () = assert!(UFFDIO_WRITEPROTECT == 0xc018_aa06);

/// What a fork wipes.
#[repr(C)]
struct Wiped {
    /// The descriptor plus 1; 0 while there is none.
    number: AtomicI32,
    /// The process that opened it.
    process: AtomicI32,
}

/// What a fork leaves: the number plus 1 of the descriptor that was opened last, and which file it is.
static LAST: AtomicI32 = AtomicI32::new(0);
static DEVICE: AtomicU64 = AtomicU64::new(0);
static INODE: AtomicU64 = AtomicU64::new(0);

/// The address of the [`Wiped`] page; 0 before the first opening.
static WIPED: AtomicUsize = AtomicUsize::new(0);

/// The same address while pages may be moved: 0 as well where moving is not offered, a test denies it or a filter came
/// into force. All that a move asks before its call.
static MOVES_BY: AtomicUsize = AtomicUsize::new(0);

fn wiped() -> Option<&'static Wiped> {
    wiped_at(WIPED.load(Ordering::Acquire))
}

#[inline(always)]
fn wiped_at(address: usize) -> Option<&'static Wiped> {
    // SAFETY: the callers' address is that of a page that `prepare` mapped for this alone and that is never given back; it
    // is made of atomics, and zeroed memory is a valid one.
    (address != 0).then(|| unsafe { &*(address as *const Wiped) })
}

/// Lets pages be moved from here on, unless something is against it.
fn allow_moves(wiped: &Wiped, offer: MissingOffer) {
    let moves = offer == MissingOffer::Moves && !probe::denied(Feature::Move);
    let address = if moves { core::ptr::from_ref(wiped).expose_provenance() } else { 0 };
    MOVES_BY.store(address, Ordering::SeqCst);
    // A filter that comes into force meanwhile is noted before it looks at what is allowed.
    if probe::filtered() {
        forbid_moves();
    }
}

/// Moves nothing from here on.
pub(super) fn forbid_moves() {
    MOVES_BY.store(0, Ordering::SeqCst);
}

/// Maps the page that a fork wipes.
fn prepare() -> Result<&'static Wiped, MissingError> {
    if let Some(wiped) = wiped() {
        return Ok(wiped);
    }
    let len = probe::page_size();
    let page = raw::map(0, len, libc::PROT_READ | libc::PROT_WRITE, 0).map_err(|_| MissingError::NoMemory)?;
    let range = Range { start: page, len };
    if advise(range, libc::MADV_WIPEONFORK).is_err()
        || WIPED.compare_exchange(0, page, Ordering::AcqRel, Ordering::Acquire).is_err()
    {
        // SAFETY: the page was mapped just now and nobody else knows it. One that stays is a page lost.
        let _ = unsafe { raw::unmap(page, len) };
    }
    wiped().ok_or(MissingError::Denied)
}

impl Missing for Host {
    fn open_missing(&self) -> Result<MissingOffer, MissingError> {
        if probe::denied(Feature::Userfault) {
            return Err(MissingError::Denied);
        }
        let wiped = prepare()?;
        let before = wiped.number.load(Ordering::Acquire);
        if before != 0 && wiped.process.load(Ordering::Relaxed) != raw::process_id() {
            return Err(MissingError::Borrowed);
        }
        let (low, offer) = open()?;
        if before != 0 && is_kept(before.wrapping_sub(1)) {
            raw::close(before.wrapping_sub(1));
        }
        let fd = lift(low, NUMBERS_BACK);
        let (device, inode) = identity(fd).unwrap_or_default();
        DEVICE.store(device, Ordering::Relaxed);
        INODE.store(inode, Ordering::Relaxed);
        LAST.store(fd.wrapping_add(1), Ordering::Relaxed);
        wiped.process.store(raw::process_id(), Ordering::Relaxed);
        wiped.number.store(fd.wrapping_add(1), Ordering::Release);
        allow_moves(wiped, offer);
        Ok(offer)
    }

    fn close_inherited(&self) {
        // Where the number is still there, this process did not come by a fork.
        let last = LAST.swap(0, Ordering::Relaxed);
        if last != 0 && descriptor().is_err() && is_kept(last.wrapping_sub(1)) {
            raw::close(last.wrapping_sub(1));
        }
    }

    fn has_missing(&self) -> bool {
        descriptor().is_ok()
    }

    unsafe fn register_missing(&self, range: Range) -> VmResult {
        let fd = descriptor().map_err(|_| VmError::Unsupported)?;
        register(fd, range)
    }

    unsafe fn unregister_missing(&self, range: Range) -> VmResult {
        let fd = descriptor().map_err(|_| VmError::Unsupported)?;
        let mut wish = [range.start as u64, range.len as u64];
        count();
        // SAFETY: the kernel reads a `struct uffdio_range`, two numbers of 8 bytes; the caller owns the range.
        unsafe { syscall!(libc::SYS_ioctl, fd, UFFDIO_UNREGISTER, wish.as_mut_ptr())? };
        Ok(())
    }

    unsafe fn put_missing(&self, range: Range, from: usize) -> Result<(), Partly> {
        if probe::filtered() {
            return Err(Partly { done: 0, why: MissingError::Denied });
        }
        let fd = descriptor().map_err(|why| Partly { done: 0, why })?;
        transfer(fd, UFFDIO_COPY, range.start, from, range.len)
    }

    /// All of it is inlined, the system call too: after a call the processor has forgotten where functions return to, so
    /// that each level between it and the program costs a wrong guess.
    #[inline(always)]
    unsafe fn move_pages(&self, from: Range, to: usize) -> Result<(), Partly> {
        let number = wiped_at(MOVES_BY.load(Ordering::Acquire))
            .map_or(0, |wiped| wiped.number.load(Ordering::Acquire));
        if number == 0 {
            return Err(Partly { done: 0, why: why_not_moved() });
        }
        transfer(number.wrapping_sub(1), UFFDIO_MOVE, to, from.start, from.len)
    }

    unsafe fn drop_pages(&self, range: Range) -> VmResult {
        match advise(range, libc::MADV_DONTNEED) {
            Err(VmError::Unsupported) => advise(range, MADV_DONTNEED_LOCKED),
            done => done,
        }
    }

    unsafe fn trap_writes(&self, range: Range, trap: bool) -> VmResult {
        if probe::denied(Feature::WriteProtect) {
            return Err(VmError::Unsupported);
        }
        let fd = descriptor().map_err(|_| VmError::Unsupported)?;
        protect_writes(fd, range, if trap { PROTECT } else { 0 })
    }
}

/// Sets or takes write protection on registered memory of the callers'.
fn protect_writes(fd: i32, range: Range, mode: u64) -> VmResult {
    let mut tries = TRIES;
    loop {
        let wish = WriteProtect { start: range.start as u64, len: range.len as u64, mode };
        count();
        // SAFETY: the kernel reads one `WriteProtect`, which `wish` is, and changes registered memory only; the callers
        // own the range.
        match unsafe { syscall!(libc::SYS_ioctl, fd, UFFDIO_WRITEPROTECT, &raw const wish) } {
            Ok(_) => return Ok(()),
            Err(Errno(libc::EAGAIN)) if tries > 0 => tries = tries.wrapping_sub(1),
            // Registered without it, no such ioctl, or a number that is not ours any more.
            Err(Errno(libc::ENOENT | libc::EINVAL | libc::ENOTTY | libc::EBADF)) => {
                return Err(VmError::Unsupported);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Our descriptor's number, as far as this process has it.
fn descriptor() -> Result<i32, MissingError> {
    match wiped().map_or(0, |wiped| wiped.number.load(Ordering::Acquire)) {
        0 => Err(MissingError::Lost),
        number => Ok(number.wrapping_sub(1)),
    }
}

/// A new descriptor and what it allows.
fn open() -> Result<(i32, MissingOffer), MissingError> {
    let flags = libc::O_CLOEXEC | libc::O_NONBLOCK | UFFD_USER_MODE_ONLY;
    for (features, offer) in
        [(FEATURE_SIGBUS | FEATURE_MOVE, MissingOffer::Moves), (FEATURE_SIGBUS, MissingOffer::Copies)]
    {
        if offer == MissingOffer::Moves && probe::denied(Feature::Move) {
            continue;
        }
        count();
        // SAFETY: userfaultfd touches no memory of ours.
        let fd = unsafe { syscall!(libc::SYS_userfaultfd, flags) }.map_err(|_| MissingError::Denied)? as i32;
        let mut api = Api { api: UFFD_API, features, ioctls: 0 };
        count();
        // SAFETY: the kernel reads and writes one `Api`, which `api` is.
        if unsafe { syscall!(libc::SYS_ioctl, fd, UFFDIO_API, &raw mut api) }.is_ok() {
            return Ok((fd, offer));
        }
        // A descriptor takes one such call: the next try needs a new one.
        raw::close(fd);
    }
    Err(MissingError::Denied)
}

/// A descriptor for write protection that the kernel takes away itself.
pub(super) fn open_async() -> VmResult<i32> {
    let flags = libc::O_CLOEXEC | libc::O_NONBLOCK | UFFD_USER_MODE_ONLY;
    count();
    // SAFETY: userfaultfd touches no memory of ours.
    let fd = unsafe { syscall!(libc::SYS_userfaultfd, flags)? } as i32;
    let mut api = Api { api: UFFD_API, features: FEATURE_ASYNC, ioctls: 0 };
    count();
    // SAFETY: the kernel reads and writes one `Api`, which `api` is.
    match unsafe { syscall!(libc::SYS_ioctl, fd, UFFDIO_API, &raw mut api) } {
        Ok(_) => Ok(fd),
        Err(error) => {
            raw::close(fd);
            Err(error.into())
        }
    }
}

/// Registers memory of the callers' for write protection alone, and protects all of it.
pub(super) fn protect_all(fd: i32, range: Range) -> VmResult {
    register_as(fd, range, MODE_WP)?;
    protect_writes(fd, range, PROTECT)
}

/// Puts a descriptor of ours where the program does not look for numbers, so far below their end or above; it stays
/// where it is if that cannot be.
pub(super) fn lift(low: i32, back: u64) -> i32 {
    let mut limit = [0u64; 2];
    // SAFETY: prlimit64 writes the two numbers of a limit to `limit`.
    let asked = unsafe { syscall!(libc::SYS_prlimit64, 0, libc::RLIMIT_NOFILE, 0, limit.as_mut_ptr()) };
    let [now, _] = limit;
    let floor = now.min(NUMBERS_END).saturating_sub(back);
    if asked.is_err() || floor <= low.unsigned_abs().into() {
        return low;
    }
    // SAFETY: fcntl touches no memory.
    match unsafe { syscall!(libc::SYS_fcntl, low, libc::F_DUPFD_CLOEXEC, floor) } {
        Ok(high) => {
            raw::close(low);
            high as i32
        }
        Err(_) => low,
    }
}

/// Which file a descriptor is.
fn identity(fd: i32) -> Option<(u64, u64)> {
    // SAFETY: `stat` is plain numbers, for which zero is a value.
    let mut stat: libc::stat = unsafe { core::mem::zeroed() };
    // SAFETY: fstat writes one `stat`, as which the kernel and libc agree on this architecture.
    unsafe { syscall!(libc::SYS_fstat, fd, &raw mut stat) }.ok()?;
    Some((stat.st_dev, stat.st_ino))
}

/// Whether a descriptor is still the file that was opened last.
fn is_kept(fd: i32) -> bool {
    identity(fd) == Some((DEVICE.load(Ordering::Relaxed), INODE.load(Ordering::Relaxed)))
}

fn register(fd: i32, range: Range) -> VmResult {
    // Write protection comes with it: sealing needs it, and it costs nothing until it is used. Older kernels know
    // missing pages alone.
    let mut answer = Err(VmError::Unsupported);
    for mode in [MODE_MISSING | MODE_WP, MODE_MISSING] {
        answer = register_as(fd, range, mode);
        if answer.is_ok() {
            break;
        }
    }
    answer
}

fn register_as(fd: i32, range: Range, mode: u64) -> VmResult {
    if probe::filtered() {
        return Err(VmError::Unsupported);
    }
    let mut wish = Register { start: range.start as u64, len: range.len as u64, mode, ioctls: 0 };
    count();
    // SAFETY: the kernel reads and writes one `Register`, which `wish` is; the callers own the range.
    unsafe { syscall!(libc::SYS_ioctl, fd, UFFDIO_REGISTER, &raw mut wish)? };
    Ok(())
}

/// Puts a page in place, moves it, and sees each step by what traps; gives up what it opened.
pub(super) fn prove(pages: &[Range; 3], readable: fn(usize) -> bool) -> MissingOffer {
    let [here, there, from] = *pages;
    let Ok(offer) = Host.open_missing() else { return MissingOffer::Nothing };
    let proved = (|| {
        let fd = descriptor().ok()?;
        register(fd, here).and_then(|()| register(fd, there)).ok()?;
        let missing = !readable(here.start) && !readable(there.start);
        // SAFETY: the pages are the probe's own.
        unsafe { Host.put_missing(here, from.start) }.ok()?;
        if !missing || !readable(here.start) {
            return None;
        }
        // SAFETY: as above.
        let moved = offer == MissingOffer::Moves && unsafe { Host.move_pages(here, there.start) }.is_ok();
        if moved && readable(there.start) && !readable(here.start) {
            return Some(MissingOffer::Moves);
        }
        // SAFETY: as above.
        unsafe { Host.drop_pages(here) }.ok()?;
        (!moved && !readable(here.start)).then_some(MissingOffer::Copies)
    })();
    if let (Some(wiped), Ok(fd)) = (wiped(), descriptor()) {
        wiped.number.store(0, Ordering::Release);
        raw::close(fd);
    }
    proved.unwrap_or_default()
}
