//! Virtual memory.
//!
//! Reserved memory is one inaccessible mapping without a commit charge; committing changes its protection in place,
//! so that neighbours in the same state stay one mapping; decommitting maps fresh inaccessible memory over the range,
//! which also gives the page tables back.
//!
//! Guard markers and vectored advice are newer than the `libc` crate's constants: see `madvise(2)` and
//! `include/uapi/asm-generic/mman-common.h` of the kernel.

use core::ptr::null;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::probe::{self, Feature};
use super::raw::{self, Errno, syscall};
use super::{Host, keys, limits, read, word, write_key};
use crate::{Memory, Moved, Offers, Protection, Range, VmError, VmResult};

/// Drops pages and makes them trap, by a marker in the page table.
pub(super) const MADV_GUARD_INSTALL: i32 = 102;
/// Removes such markers.
pub(super) const MADV_GUARD_REMOVE: i32 = 103;
/// Ranges in one vectored call: 1 KiB of stack.
const BATCH: usize = 64;
/// How often a call that was interrupted is made again before its error is believed.
const TRIES: u32 = 32;
/// The longest reservation that an emulator is asked for. It keeps some ten bytes for each page that is reserved, so that
/// terabytes would be the end of the machine.
const EMULATED_RESERVES: usize = 16 << 30;

impl Memory for Host {
    fn page_size(&self) -> usize {
        probe::page_size()
    }

    /// Counts the mappings anew each time, by reading all of `/proc/self/maps`: 0 where that cannot be read.
    fn offers(&self) -> Offers {
        Offers {
            guard_markers: probe::markers(),
            vectored: probe::vectored().is_some(),
            missing: probe::missing(),
            commits_pages: false,
            mappings_max: limits::mappings_max(),
            mappings_now: limits::mappings_now(),
        }
    }

    fn reserve(&self, len: usize, align: usize) -> VmResult<usize> {
        let page = probe::page_size();
        if probe::emulated() && len > EMULATED_RESERVES {
            return Err(VmError::OutOfMemory);
        }
        if align <= page {
            return map(0, len, libc::PROT_NONE, 0);
        }
        if !align.is_power_of_two() {
            return Err(VmError::Unsupported);
        }
        let spare = align.wrapping_sub(page);
        let whole = len.checked_add(spare).ok_or(VmError::OutOfMemory)?;
        let start = map(0, whole, libc::PROT_NONE, 0)?;
        let aligned = start.wrapping_add(spare) & !align.wrapping_sub(1);
        let head = aligned.wrapping_sub(start);
        let tail = spare.wrapping_sub(head);
        // SAFETY: both ranges are parts of the mapping just made that the caller does not get.
        let trimmed = unsafe { unmap(start, head).and_then(|()| unmap(aligned.wrapping_add(len), tail)) };
        if let Err(error) = trimmed {
            // SAFETY: the whole mapping is still ours; its head may already be gone, which unmapping allows.
            unsafe { unmap(aligned, whole.wrapping_sub(head))? };
            return Err(error);
        }
        Ok(aligned)
    }

    fn reserve_at(&self, range: Range) -> VmResult {
        let got = match map(range.start, range.len, libc::PROT_NONE, libc::MAP_FIXED_NOREPLACE) {
            Err(VmError::Other(libc::EEXIST)) => return Err(VmError::OutOfMemory),
            got => got?,
        };
        if got == range.start {
            return Ok(());
        }
        // Kernels before 4.17 do not know the flag, and take the address as a wish.
        // SAFETY: the mapping was just made elsewhere, and nothing refers to it.
        unsafe { unmap(got, range.len)? };
        Err(VmError::OutOfMemory)
    }

    unsafe fn commit(&self, range: Range) -> VmResult {
        protect(range, libc::PROT_READ | libc::PROT_WRITE)
    }

    unsafe fn protect(&self, range: Range, protection: Protection) -> VmResult {
        protect_by_key(range, protection, write_key::if_taken().is_some())
    }

    unsafe fn decommit(&self, range: Range) -> VmResult {
        map(range.start, range.len, libc::PROT_NONE, libc::MAP_FIXED).map(|_| ())
    }

    unsafe fn release(&self, range: Range) -> VmResult {
        // SAFETY: the caller owns the range, and nothing refers to it.
        unsafe { unmap(range.start, range.len) }
    }

    unsafe fn discard(&self, range: Range) -> VmResult {
        advise(range, libc::MADV_DONTNEED)
    }

    unsafe fn guard_install(&self, range: Range) -> VmResult {
        if probe::denied(Feature::Markers) || probe::emulated() {
            return Err(VmError::Unsupported);
        }
        advise(range, MADV_GUARD_INSTALL)
    }

    unsafe fn guard_install_each(&self, ranges: &[Range]) -> VmResult {
        if probe::denied(Feature::Markers) || probe::emulated() {
            return Err(VmError::Unsupported);
        }
        for batch in ranges.chunks(BATCH) {
            if let Some(own) = probe::vectored().filter(|_| batch.len() > 1)
                && advise_each(own, batch, MADV_GUARD_INSTALL).is_ok()
            {
                continue;
            }
            for range in batch {
                advise(*range, MADV_GUARD_INSTALL)?;
            }
        }
        Ok(())
    }

    unsafe fn guard_remove(&self, range: Range) -> VmResult {
        if probe::denied(Feature::Markers) || probe::emulated() {
            return Err(VmError::Unsupported);
        }
        advise(range, MADV_GUARD_REMOVE)
    }

    unsafe fn guard_remove_each(&self, ranges: &[Range]) -> VmResult {
        if probe::denied(Feature::Markers) || probe::emulated() {
            return Err(VmError::Unsupported);
        }
        for batch in ranges.chunks(BATCH) {
            open_batch(batch)?;
        }
        Ok(())
    }

    /// By mremap(2), which moves whole page tables where both ranges lie alike. It leaves a hole where the pages were, and
    /// an error may leave one where they were to go; both are filled at once, without taking what another took meanwhile.
    unsafe fn remap(&self, from: Range, to: Range) -> VmResult<Moved> {
        if probe::denied(Feature::Moves) {
            return Err(VmError::Unsupported);
        }
        count();
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        // SAFETY: both ranges are the caller's, who gives up the content of `to`.
        let moved = unsafe { syscall!(libc::SYS_mremap, from.start, from.len, to.len, flags, to.start) };
        let Err(error) = moved else {
            let kept = self.reserve_at(from).is_ok();
            return Ok(if kept { Moved::Whole } else { Moved::FromLost });
        };
        if self.is_mapped(to) {
            return Err(error.into());
        }
        // SAFETY: if it can be had again, it is the caller's as before.
        let again = self.reserve_at(to).and_then(|()| unsafe { self.commit(to) });
        if again.is_err() { Ok(Moved::ToLost) } else { Err(error.into()) }
    }

    unsafe fn populate(&self, range: Range) -> VmResult {
        advise(range, libc::MADV_POPULATE_WRITE)
    }

    unsafe fn no_huge_pages(&self, range: Range) -> VmResult {
        advise(range, libc::MADV_NOHUGEPAGE)
    }

    fn is_mapped(&self, range: Range) -> bool {
        // A flush that starts nothing: it only looks whether each page has a mapping, in one call whatever the
        // length, and answers ENOMEM where one has not (msync(2)).
        let start = range.start & !probe::page_size().wrapping_sub(1);
        let Some(len) = range.len.checked_add(range.start.wrapping_sub(start)) else { return false };
        count();
        // SAFETY: MS_ASYNC neither reads nor writes the memory.
        unsafe { syscall!(libc::SYS_msync, start, len, libc::MS_ASYNC) }.is_ok()
    }

    fn read_checked(&self, address: usize, into: &mut [u8]) -> usize {
        read::read_checked(address, into)
    }

    fn available(&self) -> Option<u64> {
        limits::available()
    }

    fn calls(&self) -> u64 {
        let shared = SHARED_CALLS.load(Ordering::Relaxed);
        CALLS.iter().fold(shared, |sum, shard| sum.wrapping_add(shard.0.load(Ordering::Relaxed)))
    }
}

/// Maps anonymous memory, counted.
fn map(address: usize, len: usize, protection: i32, flags: i32) -> VmResult<usize> {
    count();
    raw::map(address, len, protection, flags)
}

/// Unmaps a range, counted; nothing to do for an empty one.
///
/// # Safety
/// As [`raw::unmap`].
unsafe fn unmap(address: usize, len: usize) -> VmResult {
    if len == 0 {
        return Ok(());
    }
    count();
    // SAFETY: the caller's promise.
    unsafe { raw::unmap(address, len) }
}

/// A protection as the kernel takes it.
pub(super) fn bits_of(protection: Protection) -> i32 {
    match protection {
        Protection::None | Protection::Once => libc::PROT_NONE,
        Protection::Read => libc::PROT_READ,
        Protection::ReadWrite | Protection::Keyed => libc::PROT_READ | libc::PROT_WRITE,
    }
}

/// Changes what is allowed on pages; where any key was taken, what no key closes loses the key that it may have had.
pub(super) fn protect_by_key(range: Range, protection: Protection, were_keys: bool) -> VmResult {
    let key = write_key::of(protection);
    match (were_keys, protection) {
        (true, Protection::Keyed) if key == 0 => Err(VmError::Unsupported),
        (false, Protection::Keyed) => Err(VmError::Unsupported),
        (true, _) => keys::protect(range, bits_of(protection), key),
        (false, _) => protect(range, bits_of(protection)),
    }
}

pub(super) fn protect(range: Range, bits: i32) -> VmResult {
    count();
    // SAFETY: the callers pass on that they own the range and that no reference contradicts the change.
    unsafe { syscall!(libc::SYS_mprotect, range.start, range.len, bits)? };
    Ok(())
}

/// Advises the kernel about one range, whose owner the caller is.
pub(super) fn advise(range: Range, advice: i32) -> VmResult {
    let mut tries = TRIES;
    loop {
        count();
        // SAFETY: the callers own the range and allow for the loss of its content where the advice drops it.
        match unsafe { syscall!(libc::SYS_madvise, range.start, range.len, advice) } {
            Ok(_) => return Ok(()),
            Err(Errno(libc::EINTR | libc::EAGAIN)) if tries > 0 => tries = tries.wrapping_sub(1),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Advises the kernel about up to [`BATCH`] ranges at once; an error also where only some were taken.
pub(super) fn advise_each(own: isize, ranges: &[Range], advice: i32) -> VmResult {
    let mut vector = [libc::iovec { iov_base: null::<u8>().cast_mut().cast(), iov_len: 0 }; BATCH];
    let mut total = 0usize;
    for (place, range) in vector.iter_mut().zip(ranges) {
        *place = libc::iovec { iov_base: range.start as *mut _, iov_len: range.len };
        total = total.wrapping_add(range.len);
    }
    count();
    // SAFETY: the vector holds as many ranges as are announced, and the callers own them.
    let done = unsafe {
        syscall!(libc::SYS_process_madvise, own, vector.as_ptr(), ranges.len().min(BATCH), advice, 0)
    };
    match done {
        Ok(done) if done == total => Ok(()),
        // Some were taken; which error stopped it, the kernel does not say.
        Ok(_) => Err(VmError::Other(libc::EAGAIN)),
        Err(error) => {
            if matches!(error, Errno(libc::ENOSYS | libc::EPERM)) {
                probe::forget_vectored();
            }
            Err(error.into())
        }
    }
}

/// Removes the guards of one batch and populates it: by two calls where that works, else range by range. Doing a
/// range a second time changes nothing, since nobody uses it yet.
fn open_batch(batch: &[Range]) -> VmResult {
    if let Some(own) = probe::vectored().filter(|_| batch.len() > 1)
        && advise_each(own, batch, MADV_GUARD_REMOVE).is_ok()
    {
        // What could not be populated is filled at first use.
        let _ = advise_each(own, batch, libc::MADV_POPULATE_WRITE);
        return Ok(());
    }
    for range in batch {
        advise(*range, MADV_GUARD_REMOVE)?;
        let _ = advise(*range, libc::MADV_POPULATE_WRITE);
    }
    Ok(())
}

/// One counter per cache line: threads that count at once do not take the line from each other.
#[repr(align(128))]
struct Shard(AtomicU64);

const SHARDS: usize = 64;
static CALLS: [Shard; SHARDS] = [const { Shard(AtomicU64::new(0)) }; SHARDS];
/// The first shard that no thread has; past the last one threads count in [`SHARED_CALLS`].
static NEXT_SHARD: AtomicUsize = AtomicUsize::new(0);
static SHARED_CALLS: AtomicU64 = AtomicU64::new(0);

/// This thread's word when there was no shard left for it.
const SHARED: usize = 1;

/// Counts one system call. A thread's word holds the address of its shard.
#[inline(always)]
pub(super) fn count() {
    let place = word::count();
    if place <= SHARED {
        return count_first(place);
    }
    // SAFETY: such a word is only ever set below, to the address of a counter that lives as long as the process.
    let count = unsafe { &*(place as *const AtomicU64) };
    // This thread's alone: no locked instruction. (A signal handler that comes in between may go uncounted.)
    count.store(count.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
}

/// The same in a thread that has no shard (yet).
#[cold]
fn count_first(place: usize) {
    let shard = if place == SHARED { None } else { CALLS.get(NEXT_SHARD.fetch_add(1, Ordering::Relaxed)) };
    word::set_count(shard.map_or(SHARED, |shard| (&raw const shard.0).expose_provenance()));
    shard.map_or(&SHARED_CALLS, |shard| &shard.0).fetch_add(1, Ordering::Relaxed);
}
