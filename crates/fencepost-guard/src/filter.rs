//! Filters by thread, module, function and site, and what a site is.
//!
//! A *site* is the way that an allocation was asked for: its innermost [`SITE_FRAMES`] return addresses, each as the name
//! of its module's file, the linker's name of its function, and the distance from that function's start. So it is the
//! same in every run of a program, wherever it is loaded, and after a rebuild that leaves these functions as they were.
//! Where a module has no symbols, the distance from the module's start stands for the last two.
//!
//! Whether a stack is wanted is decided once: verdicts are kept by the stack's number, and hashes of addresses by the
//! address, in small tables that forget. Each entry is one word with a tag, so that a reader sees a whole one or none.
//! Without such filters nothing of this runs before a report.

use fencepost_record::Unguarded;
use fencepost_sys::atomic::{AtomicU64, Ordering};
use fencepost_sys::{CodePlace, Memory, Platform, VmResult};

use crate::options::Options;
use crate::pattern::mix;
use crate::region::Region;
use crate::runtime::{Guard, Setup};
use crate::threads::ThreadState;

/// Return addresses that make a site.
pub(crate) const SITE_FRAMES: usize = 8;
/// Verdicts and hashes remembered; powers of two.
const VERDICTS: usize = 1 << 12;
const HASHES: usize = 1 << 13;
/// Allocations of a thread after which its name is asked for again: often at first, because threads get their names
/// after their start.
const NAME_OFTEN: u32 = 256;
const NAME_RARELY: u32 = 64;

/// What filters remember.
pub(crate) struct Filters {
    verdicts: Region,
    hashes: Region,
}

impl Filters {
    pub(crate) const fn new() -> Filters {
        Filters { verdicts: Region::new(), hashes: Region::new() }
    }

    pub(crate) fn start<M: Memory>(&self, memory: &M) -> VmResult {
        for (region, entries) in [(&self.verdicts, VERDICTS), (&self.hashes, HASHES)] {
            let bytes = entries.wrapping_mul(size_of::<AtomicU64>());
            region.reserve(memory, bytes)?;
            region.ensure(memory, bytes)?;
        }
        Ok(())
    }

    /// The memory that it keeps.
    pub(crate) fn regions(&self) -> [&Region; 2] {
        [&self.verdicts, &self.hashes]
    }

    pub(crate) fn release<M: Memory>(&self, memory: &M) {
        self.verdicts.release(memory);
        self.hashes.release(memory);
    }

    fn verdict(&self, trace: u32) -> Option<&'static AtomicU64> {
        // SAFETY: the region holds a table of `AtomicU64` only, valid when zeroed.
        unsafe { self.verdicts.get(trace as usize & VERDICTS.wrapping_sub(1)) }
    }

    fn hash(&self, address: u64) -> Option<&'static AtomicU64> {
        let place = mix(address) as usize & HASHES.wrapping_sub(1);
        // SAFETY: as above.
        unsafe { self.hashes.get(place) }
    }
}

/// Whether a filter asks for the name of a thread.
pub(crate) fn ask_for_thread(options: &Options) -> bool {
    !options.only_thread.is_empty() || !options.skip_thread.is_empty()
}

/// Whether a filter asks for the stack of an allocation.
pub(crate) fn ask_for_stack(options: &Options) -> bool {
    let names = [&options.only_module, &options.skip_module, &options.only_fn, &options.skip_fn];
    let sites = [&options.only_site, &options.skip_site];
    names.iter().any(|list| !list.is_empty()) || sites.iter().any(|list| !list.is_empty())
}

impl<P: Platform> Guard<P> {
    /// Whether the filters by thread want this one's blocks.
    pub(crate) fn filter_thread(&self, setup: &Setup, state: &ThreadState) -> Result<(), Unguarded> {
        let options = &setup.options;
        let left = state.name_check.load(Ordering::Relaxed);
        if left == 0 {
            let number = state.number.load(Ordering::Relaxed);
            self.threads.remember(&self.platform, state);
            let info = self.threads.info(number);
            let name = info.name.as_str().as_bytes();
            let wanted = (options.only_thread.is_empty() || options.only_thread.fits(name))
                && !options.skip_thread.fits(name);
            state.is_filtered.store(u32::from(!wanted), Ordering::Relaxed);
            let asked = state.names_asked.load(Ordering::Relaxed);
            if asked < NAME_OFTEN {
                state.names_asked.store(asked.wrapping_add(1), Ordering::Relaxed);
            } else {
                state.name_check.store(NAME_RARELY, Ordering::Relaxed);
            }
        } else {
            state.name_check.store(left.wrapping_sub(1), Ordering::Relaxed);
        }
        if state.is_filtered.load(Ordering::Relaxed) == 0 { Ok(()) } else { Err(Unguarded::Filter) }
    }

    /// Whether the filters by module, function and site want this allocation.
    pub(crate) fn filter_stack(&self, setup: &Setup, anchor: usize) -> Result<(), Unguarded> {
        let trace = self.act(setup, anchor).trace;
        let answer = |wanted: bool| if wanted { Ok(()) } else { Err(Unguarded::Filter) };
        let Some(place) = self.filters.verdict(trace) else { return answer(false) };
        let known = place.load(Ordering::Relaxed);
        if known >> 1 == u64::from(trace) && trace != 0 {
            return answer(known & 1 != 0);
        }
        let frames = self.depot.frames(trace).unwrap_or(&[]);
        let Some(wanted) = self.is_stack_wanted(&setup.options, frames) else {
            // Names are being read by somebody else just now: not decided for good.
            return answer(false);
        };
        place.store(u64::from(trace) << 1 | u64::from(wanted), Ordering::Relaxed);
        answer(wanted)
    }

    fn is_stack_wanted(&self, options: &Options, frames: &[u64]) -> Option<bool> {
        let site = if options.only_site.is_empty() && options.skip_site.is_empty() {
            0
        } else {
            self.site_of(frames)?
        };
        if !options.only_site.is_empty() && !options.only_site.contains(site)
            || options.skip_site.contains(site)
        {
            return Some(false);
        }
        let (mut in_only_fn, mut in_skip_fn) = (false, false);
        if !options.only_fn.is_empty() || !options.skip_fn.is_empty() {
            for frame in frames {
                self.with_place(*frame, &mut |place| {
                    (self.hooks.demangle)(place.function, &mut |name| {
                        in_only_fn |= options.only_fn.fits(name);
                        in_skip_fn |= options.skip_fn.fits(name);
                    });
                });
            }
        }
        if !options.only_fn.is_empty() && !in_only_fn || in_skip_fn {
            return Some(false);
        }
        if options.only_module.is_empty() && options.skip_module.is_empty() {
            return Some(true);
        }
        let mut wanted = options.only_module.is_empty();
        if let Some(frame) = frames.first() {
            self.with_place(*frame, &mut |place| {
                let name = file_name(place.module);
                wanted = (options.only_module.is_empty() || options.only_module.fits(name))
                    && !options.skip_module.fits(name);
            });
        }
        Some(wanted)
    }

    /// Where a return address lies: the place of the call.
    pub(crate) fn with_place(&self, address: u64, with: &mut dyn FnMut(&CodePlace<'_>)) -> bool {
        usize::try_from(address.saturating_sub(1))
            .is_ok_and(|address| self.platform.place_of_code(address, with))
    }

    /// The site of a stack; `None` for no stack, and while somebody else reads the names.
    pub(crate) fn site_of(&self, frames: &[u64]) -> Option<u64> {
        if frames.is_empty() {
            return None;
        }
        let mut site = 0u64;
        for frame in frames.iter().take(SITE_FRAMES) {
            site = mix(site.rotate_left(7) ^ self.hash_of(*frame)?);
        }
        Some(site | 1)
    }

    /// What a return address adds to a site.
    fn hash_of(&self, address: u64) -> Option<u64> {
        // The upper 16 bits tag the entry, and are the same for every address in a table's place but by chance: so the
        // hash itself is what the other 48 bits are.
        let tag = mix(!address) >> 48 << 48;
        let place = self.filters.hash(address);
        let known = place.map_or(0, |place| place.load(Ordering::Relaxed));
        if known >> 48 << 48 == tag && known << 16 != 0 {
            return Some(known & KEPT);
        }
        let mut hash = 0u64;
        if !self.with_place(address, &mut |place| hash = hash_place(place)) && self.is_in_module(address) {
            return None;
        }
        // Code that no module holds was made at run time: all of it counts as one place.
        let hash = (hash & KEPT).max(1);
        if let Some(place) = place {
            place.store(tag | hash, Ordering::Relaxed);
        }
        Some(hash)
    }

    fn is_in_module(&self, address: u64) -> bool {
        let mut found = false;
        self.platform.each_module(&mut |module| found |= (module.start..module.end).contains(&address));
        found
    }
}

/// The bits of a hash that are kept.
const KEPT: u64 = (1 << 48) - 1;

fn hash_place(place: &CodePlace<'_>) -> u64 {
    let hash = hash_bytes(0xcbf2_9ce4_8422_2325, file_name(place.module));
    // The compiler adds such an ending to what several units of a crate share; it changes with all of them.
    let shared = b".llvm.";
    let end = place.function.windows(shared.len()).position(|part| part == shared);
    let function = end.and_then(|end| place.function.get(..end)).unwrap_or(place.function);
    mix(hash_bytes(hash ^ 0xff, function) ^ place.offset)
}

/// FNV-1a.
fn hash_bytes(start: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(start, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

pub(crate) fn file_name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
}
