//! Watchpoints by perf_event_open(2): `PERF_TYPE_BREAKPOINT` with `sigtrap`, which tells the writing thread by SIGTRAP.
//!
//! An event watches one thread and those that this one starts (`inherit_thread`), so there is one for each thread that
//! exists. A thread that was started meanwhile, by one that was not watched yet, is not: the threads are listed until the
//! list holds nobody new, and else all is begun again. The descriptors are the program's to close by mistake: each is
//! known by its event's number, and none is closed that is not ours.
//!
//! A kernel before 5.19 ends the process when a thread that holds SIGTRAP back writes (`send_sig_perf` of
//! `kernel/signal.c` has delivered it later since); programs that hold everything back in all threads but one are common,
//! so such a kernel counts as one without. This is the one thing here that cannot be found out by trying it.
//!
//! Sources: perf_event_open(2), `include/uapi/linux/perf_event.h`, `hw_breakpoint.h`, `asm-generic/siginfo.h`.

use core::mem::{offset_of, size_of};
use core::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering, compiler_fence};

use super::chain::{self, Delivery, signal_bit};
use super::memory::count;
use super::probe::{self, Feature};
use super::raw::{self, Errno, syscall};
use super::{Host, context, emergency, limits, maps, signals, step, userfault};
use crate::{
    Hit, NoWatchpoints, OnHit, Range, VmError, VmResult, WatchpointOffer, Watchpoints, watchpoints_of,
};

/// `struct perf_event_attr` as it was given its last field that is needed here (`PERF_ATTR_SIZE_VER7`).
#[repr(C)]
#[derive(Default)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup: u32,
    breakpoint_type: u32,
    breakpoint_address: u64,
    breakpoint_len: u64,
    unused: [u64; 6],
    signal_data: u64,
}

const _: () = assert!(size_of::<Attributes>() == 128 && offset_of!(Attributes, flags) == 40);
const _: () = assert!(offset_of!(Attributes, breakpoint_type) == 52);
const _: () = assert!(offset_of!(Attributes, signal_data) == 120);

const TYPE_BREAKPOINT: u32 = 5;
const BREAKPOINT_WRITE: u32 = 2;
/// Bits of [`Attributes::flags`].
const INHERIT: u64 = 1 << 1;
const EXCLUDE_KERNEL: u64 = 1 << 5;
const EXCLUDE_HYPERVISOR: u64 = 1 << 6;
const INHERIT_THREAD: u64 = 1 << 35;
const REMOVE_ON_EXEC: u64 = 1 << 36;
const SIGTRAP: u64 = 1 << 37;
/// Of the call: close the descriptor when another program is started.
const CLOSE_ON_EXEC: u64 = 1 << 3;
/// `PERF_EVENT_IOC_ID`.
const IOC_ID: u64 = 0x8008_2407;
/// `si_code` of a SIGTRAP from an event, and the flag that it was held back.
const TRAP_PERF: i32 = 6;
const LATE: u32 = 1;
/// Where `siginfo` keeps what an event has to say, in bytes: its data, its type, its flags.
const SI_PERF: [usize; 3] = [24, 32, 36];

/// The upper half of the data of our events.
const MARK: u64 = 0x666e_6370;
/// The tag of the event by which all of this is tried.
const TRIAL: u32 = 0;

/// The most descriptors at once.
const DESCRIPTORS: usize = 256;
/// How far below the end of what a program looks at they lie.
const NUMBERS_BACK: u64 = 280;
/// Of the descriptors that a process may have, one in so many at most.
const SHARE: u64 = 4;
/// How often the threads are listed anew because there were new ones.
const TRIES: usize = 16;
/// The most threads that are watched.
const THREADS: usize = DESCRIPTORS;

/// A descriptor of ours: its number plus one (0: none), its event's number, and what it is for.
struct Descriptor {
    number: AtomicI32,
    tag: AtomicU32,
    event: AtomicU64,
}

static TABLE: [Descriptor; DESCRIPTORS] =
    [const { Descriptor { number: AtomicI32::new(0), tag: AtomicU32::new(0), event: AtomicU64::new(0) } };
        DESCRIPTORS];

/// The runtime's function, as an address; 0 before there is one.
static ON_HIT: AtomicUsize = AtomicUsize::new(0);
/// What was found out: 0 for nothing yet, else one of the numbers below.
static FOUND: AtomicU32 = AtomicU32::new(0);
const INSTRUCTIONS: u32 = 1;
const AND_KERNEL: u32 = 2;
const UNSEEN: u32 = 3;
const DENIED: u32 = 4;
const TOO_OLD: u32 = 5;

/// What is written to when this is tried.
static WORD: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// How often the trial's event has told this thread of a write. Atomic, because the signal's handler changes it between
    /// two instructions of the code that reads it.
    static SEEN: AtomicU32 = const { AtomicU32::new(0) };
}

impl Watchpoints for Host {
    fn ready_to_watch(&self, on_hit: OnHit) -> WatchpointOffer {
        ON_HIT.store(on_hit as usize, Ordering::Release);
        if cfg!(not(target_arch = "x86_64")) || probe::denied(Feature::Proc) {
            // Elsewhere the news comes before the write (aarch64), or was not tried.
            return WatchpointOffer::Nothing(NoWatchpoints::Absent);
        }
        if probe::denied(Feature::Watchpoints) {
            return WatchpointOffer::Nothing(NoWatchpoints::Denied);
        }
        if step::is_traced() {
            return WatchpointOffer::Nothing(NoWatchpoints::Traced);
        }
        if !signals::put_trap_in_force() {
            return WatchpointOffer::Nothing(NoWatchpoints::Unseen);
        }
        if FOUND.load(Ordering::Relaxed) == 0 {
            FOUND.store(find_out(), Ordering::Relaxed);
        }
        match FOUND.load(Ordering::Relaxed) {
            INSTRUCTIONS => WatchpointOffer::Instructions,
            AND_KERNEL => WatchpointOffer::AndKernel,
            DENIED => WatchpointOffer::Nothing(NoWatchpoints::Denied),
            TOO_OLD => WatchpointOffer::Nothing(NoWatchpoints::TooOld),
            _ => WatchpointOffer::Nothing(NoWatchpoints::Unseen),
        }
    }

    fn arm_watchpoints(&self, range: Range, tag: u32) -> VmResult {
        let parts = watchpoints_of(range).ok_or(VmError::Unsupported)?;
        for _ in 0..TRIES {
            match arm_all(&parts, tag) {
                Ok(true) => return Ok(()),
                Ok(false) => self.disarm_watchpoints(tag),
                Err(error) => {
                    self.disarm_watchpoints(tag);
                    return Err(error.into());
                }
            }
        }
        Err(VmError::OutOfMemory)
    }

    fn disarm_watchpoints(&self, tag: u32) {
        for place in of_tag(tag) {
            let number = place.number.load(Ordering::Relaxed).wrapping_sub(1);
            if event_of(number) == Some(place.event.load(Ordering::Relaxed)) {
                raw::close(number);
            }
            place.number.store(0, Ordering::Relaxed);
        }
    }

    fn is_armed(&self, tag: u32) -> bool {
        of_tag(tag).all(|place| {
            event_of(place.number.load(Ordering::Relaxed).wrapping_sub(1))
                == Some(place.event.load(Ordering::Relaxed))
        })
    }
}

/// Whether anything is watched.
pub(super) fn are_armed() -> bool {
    TABLE.iter().any(|place| place.number.load(Ordering::Relaxed) != 0)
}

/// The descriptors of one tag.
fn of_tag(tag: u32) -> impl Iterator<Item = &'static Descriptor> {
    TABLE.iter().filter(move |place| {
        place.number.load(Ordering::Relaxed) != 0 && place.tag.load(Ordering::Relaxed) == tag
    })
}

/// The number of the event that a descriptor is; `None` for any other file.
fn event_of(number: i32) -> Option<u64> {
    let mut event = 0u64;
    // SAFETY: of an event's descriptor the kernel writes one number to `event`; any other refuses the call, whose
    // letter is that of events alone.
    unsafe { syscall!(libc::SYS_ioctl, number, IOC_ID, &raw mut event) }.ok().map(|_| event)
}

/// Opens events for all threads; false when there were new threads each time one looked.
fn arm_all(parts: &[Range], tag: u32) -> Result<bool, Errno> {
    let mut known = [0i32; THREADS];
    let first = list_threads(&mut known)?;
    let threads = known.get(..first).unwrap_or(&[]);
    let parts = parts.iter().filter(|part| part.len > 0);
    let used = TABLE.iter().filter(|place| place.number.load(Ordering::Relaxed) != 0).count();
    if threads.len().saturating_mul(parts.clone().count()).saturating_add(used) > allowed() {
        return Err(Errno(libc::ENOMEM));
    }
    for part in parts {
        for thread in threads {
            match open(*part, tag, *thread) {
                Ok(number) => keep(number, tag)?,
                // It has ended meanwhile.
                Err(Errno(libc::ESRCH)) => {}
                Err(error) => return Err(error),
            }
        }
    }
    let mut now = [0i32; THREADS];
    let second = list_threads(&mut now)?;
    // Whoever is new was started before or after its starter was watched, and nobody tells.
    Ok(now.iter().take(second).all(|thread| threads.contains(thread)))
}

/// How many descriptors may be ours.
fn allowed() -> usize {
    let share = limits::resource(libc::RLIMIT_NOFILE).map_or(u64::MAX, |limit| limit / SHARE);
    usize::try_from(share).unwrap_or(usize::MAX).min(DESCRIPTORS)
}

fn keep(low: i32, tag: u32) -> Result<(), Errno> {
    let number = userfault::lift(low, NUMBERS_BACK);
    let free = TABLE.iter().find(|place| place.number.load(Ordering::Relaxed) == 0);
    let (Some(place), Some(event)) = (free, event_of(number)) else {
        raw::close(number);
        return Err(Errno(libc::ENOMEM));
    };
    place.tag.store(tag, Ordering::Relaxed);
    place.event.store(event, Ordering::Relaxed);
    place.number.store(number.wrapping_add(1), Ordering::Relaxed);
    Ok(())
}

/// Opens an event for one thread and those that it starts; 0 is this thread.
fn open(part: Range, tag: u32, thread: i32) -> Result<i32, Errno> {
    let sees_kernel = FOUND.load(Ordering::Relaxed) == AND_KERNEL;
    open_with(part, tag, thread, if sees_kernel { 0 } else { EXCLUDE_KERNEL })
}

fn open_with(part: Range, tag: u32, thread: i32, more: u64) -> Result<i32, Errno> {
    let wish = Attributes {
        kind: TYPE_BREAKPOINT,
        size: size_of::<Attributes>() as u32,
        sample_period: 1,
        flags: INHERIT | INHERIT_THREAD | REMOVE_ON_EXEC | SIGTRAP | EXCLUDE_HYPERVISOR | more,
        breakpoint_type: BREAKPOINT_WRITE,
        breakpoint_address: part.start as u64,
        breakpoint_len: part.len as u64,
        signal_data: (MARK << 32) | u64::from(tag),
        ..Attributes::default()
    };
    count();
    // SAFETY: the kernel reads one `Attributes`, which `wish` is.
    let number = unsafe {
        syscall!(libc::SYS_perf_event_open, &raw const wish, thread, -1isize, -1isize, CLOSE_ON_EXEC)?
    };
    Ok(number as i32)
}

/// Writes the numbers of this process's threads down, and says how many there are.
fn list_threads(into: &mut [i32]) -> Result<usize, Errno> {
    let file = raw::File::open_folder(c"/proc/self/task")?;
    let mut room = [0u64; 512];
    let mut found = 0usize;
    loop {
        let got = file.read_folder(&mut room)?;
        if got == 0 {
            return Ok(found);
        }
        // SAFETY: the array is as many bytes, all of which are numbers.
        let bytes = unsafe { core::slice::from_raw_parts(room.as_ptr().cast::<u8>(), size_of_val(&room)) };
        let mut rest = bytes.get(..got).unwrap_or(&[]);
        // Of `struct linux_dirent64`: two numbers of 8 bytes, the length of the entry, a type, and the name.
        while let Some(&[low, high]) = rest.get(16..18) {
            let len = usize::from(u16::from_ne_bytes([low, high]));
            let name = rest.get(19..len).and_then(|name| name.split(|byte| *byte == 0).next());
            if let Some(thread) = name.and_then(maps::decimal).and_then(|thread| i32::try_from(thread).ok()) {
                *into.get_mut(found).ok_or(Errno(libc::ENOMEM))? = thread;
                found = found.saturating_add(1);
            }
            rest = rest.get(len.max(1)..).unwrap_or(&[]);
        }
    }
}

/// Tries it: a watchpoint of this thread's, a write by an instruction, and one by the kernel.
fn find_out() -> u32 {
    if !is_new_enough() {
        return TOO_OLD;
    }
    let mask = chain::current_mask();
    chain::set_mask(mask & !signal_bit(libc::SIGTRAP));
    let with_kernel = if probe::denied(Feature::WatchKernel) { Ok(UNSEEN) } else { try_with(0) };
    let found = match with_kernel {
        Ok(AND_KERNEL) => AND_KERNEL,
        // What the kernel does is not everybody's to see, or it tells of nothing.
        _ => match try_with(EXCLUDE_KERNEL) {
            Ok(found) => found,
            Err(Errno(libc::EACCES | libc::EPERM | libc::ENOSYS)) => DENIED,
            Err(_) => UNSEEN,
        },
    };
    chain::set_mask(mask);
    found
}

fn try_with(more: u64) -> Result<u32, Errno> {
    let word = Range { start: (&raw const WORD).addr(), len: size_of::<u64>() };
    let number = open_with(word, TRIAL, 0, more)?;
    seen();
    WORD.store(1, Ordering::SeqCst);
    let by_instruction = seen();
    // SAFETY: rt_sigprocmask writes one set of 8 bytes to the word, which is ours and atomic, and changes nothing.
    let asked =
        unsafe { syscall!(libc::SYS_rt_sigprocmask, libc::SIG_BLOCK, 0, WORD.as_ptr(), size_of::<u64>()) };
    let by_kernel = seen();
    raw::close(number);
    Ok(match (by_instruction, asked, by_kernel) {
        (1, Ok(_), 1) => AND_KERNEL,
        (1, ..) => INSTRUCTIONS,
        _ => UNSEEN,
    })
}

/// How often the trial has told of a write since the last call.
fn seen() -> u32 {
    compiler_fence(Ordering::SeqCst);
    let count = SEEN.with(|seen| seen.swap(0, Ordering::SeqCst));
    compiler_fence(Ordering::SeqCst);
    count
}

/// Whether the kernel is 5.19 or later (see the module's header).
fn is_new_enough() -> bool {
    // SAFETY: all-zero is a valid value of a structure of characters.
    let mut name: libc::utsname = unsafe { core::mem::zeroed() };
    // SAFETY: uname writes one `utsname`.
    if unsafe { syscall!(libc::SYS_uname, &raw mut name) }.is_err() {
        return false;
    }
    let mut numbers = name.release.split(|letter| !(*letter as u8).is_ascii_digit()).map(|digits| {
        let digit = |value: u32, letter: &libc::c_char| {
            value.saturating_mul(10).saturating_add(u32::from((*letter as u8).wrapping_sub(b'0')))
        };
        digits.iter().fold(0, digit)
    });
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (5, 19)
}

/// Handles a SIGTRAP; false when no event of ours sent it.
pub(super) fn on_trap(delivery: &Delivery) -> bool {
    // SAFETY: the kernel hands a handler a valid siginfo, at least this long; of an event's SIGTRAP these are filled in.
    let (code, data, kind, flags) = unsafe {
        let info = delivery.info.cast::<u8>();
        let [data, kind, flags] = SI_PERF;
        (
            (*delivery.info).si_code,
            info.add(data).cast::<u64>().read(),
            info.add(kind).cast::<u32>().read(),
            info.add(flags).cast::<u32>().read(),
        )
    };
    if code != TRAP_PERF || kind != TYPE_BREAKPOINT || data >> 32 != MARK {
        return false;
    }
    let late = flags & LATE != 0;
    // One SIGTRAP waits at a time: this may stand for the end of a step as well.
    if !late && step::ends_with(delivery) {
        return true;
    }
    let tag = data as u32;
    if tag == TRIAL {
        SEEN.with(|seen| seen.fetch_add(1, Ordering::SeqCst));
    } else {
        let mut news = News { delivery, tag, late };
        emergency::run(delivery, tell_here, (&raw mut news).addr());
    }
    true
}

/// What a signal said.
struct News<'a> {
    delivery: &'a Delivery,
    tag: u32,
    late: bool,
}

/// Not inlined: the description is large.
#[inline(never)]
extern "C" fn tell_here(news: usize) {
    // SAFETY: `on_trap` gives the address of its news and waits.
    let news = unsafe { &*(news as *const News<'_>) };
    let address = ON_HIT.load(Ordering::Acquire);
    if address == 0 {
        return;
    }
    // SAFETY: `ready_to_watch` stored a function of this type.
    let on_hit: OnHit = unsafe { core::mem::transmute(address) };
    let mut after = context::fault(news.delivery, false);
    after.access = fencepost_record::AccessType::Write;
    let address = after.address.unwrap_or(0);
    on_hit(&Hit { tag: news.tag, address, after, late: news.late });
}
