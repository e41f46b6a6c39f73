//! What the program asks about its signals, answered as if we were not there.
//!
//! Where the C library's functions are exported by us, the program's wishes for SIGSEGV and SIGBUS come through here: its
//! handler is put behind ours in the same moment, and it reads back what it set. A signal that is held back when a fault
//! raises it ends the process without a word, so these two never are; each thread remembers that it asked.

use core::cell::Cell;

use super::chain::Action;
use super::raw::syscall;
use super::signals::{SIGNALS, bit_of_both, former_of, put_behind};

/// A signal action, as the C library's `sigaction` takes it.
pub use libc::sigaction as SignalAction;
/// A set of signals, as the C library's functions take it.
pub use libc::sigset_t as SignalSet;

thread_local! {
    /// Which of our signals this thread has asked to hold back.
    static HELD_BACK: Cell<u64> = const { Cell::new(0) };
}

/// `SA_RESTORER` of x86 Linux: the kernel is told where a handler returns to.
const SA_RESTORER: i32 = 0x0400_0000;

/// The mask operations of `sigprocmask`.
pub const UNBLOCK: i32 = libc::SIG_UNBLOCK;
/// See [`UNBLOCK`].
pub const SET_MASK: i32 = libc::SIG_SETMASK;

/// Does what `sigaction` would: for one of our signals, while our handler is in force. `None` where the C library is to
/// do it, with the action as it is given back.
///
/// # Safety
/// As the C library's `sigaction`: `old` must be null or writable.
pub unsafe fn replace_action(signal: i32, new: Option<&SignalAction>, old: *mut SignalAction) -> Option<()> {
    // The news of steps is ours only once there was one, as `former_of` finds out.
    if !SIGNALS.contains(&signal) && signal != libc::SIGTRAP {
        return None;
    }
    let former = former_of(signal)?;
    if let Some(new) = new {
        let action = Action::new(new.sa_sigaction, new.sa_flags as usize, first_word(&new.sa_mask));
        put_behind(signal, action)?;
    }
    if !old.is_null() {
        // SAFETY: all-zero is a valid value of a structure of integers and pointers, and the caller gives the place.
        let old = unsafe {
            old.write(core::mem::zeroed());
            &mut *old
        };
        old.sa_sigaction = former.handler;
        // What the C library adds for the kernel is none of the caller's.
        old.sa_flags = former.flags as i32 & !SA_RESTORER;
        set_first_word(&mut old.sa_mask, former.mask);
    }
    Some(())
}

/// A set without our signals: a handler of the program's that holds back all others must not silence us.
pub fn without_ours(set: &SignalSet) -> SignalSet {
    let mut set = *set;
    let word = first_word(&set) & !bit_of_both();
    set_first_word(&mut set, word);
    set
}

/// Notes what a change of this thread's mask asks of our signals, and gives what it asked before.
pub fn note_mask(how: i32, set: Option<&SignalSet>) -> u64 {
    let before = HELD_BACK.get();
    if let Some(set) = set {
        let asked = first_word(set) & bit_of_both();
        HELD_BACK.set(match how {
            UNBLOCK => before & !asked,
            SET_MASK => asked,
            _ => before | asked,
        });
    }
    before
}

/// Sets what this thread has asked to hold back: a new thread inherits it.
pub fn inherit_mask(asked: u64) {
    HELD_BACK.set(asked);
}

/// Adds signals to a set that the program reads back.
///
/// # Safety
/// `set` must be null or point to a set.
pub unsafe fn add_to_mask(set: *mut SignalSet, asked: u64) {
    // SAFETY: the caller's promise.
    if let Some(set) = unsafe { set.as_mut() } {
        let word = first_word(set) | asked;
        set_first_word(set, word);
    }
}

/// The signals that the kernel knows: it reads the first word of a set.
fn first_word(set: &SignalSet) -> u64 {
    // SAFETY: a set is at least one word long and aligned to it.
    unsafe { core::ptr::from_ref(set).cast::<u64>().read() }
}

fn set_first_word(set: &mut SignalSet, word: u64) {
    // SAFETY: as above.
    unsafe { core::ptr::from_mut(set).cast::<u64>().write(word) };
}

/// A system call filter is about to come into force, which may kill the process for calls it does not expect: from here
/// on only the calls are used that every C library's allocator makes.
pub fn expect_filter() {
    super::probe::expect_filter();
}

/// The number of the limit on the process's addresses (`RLIMIT_AS`), as C programs give it.
pub const ADDRESS_SPACE: i32 = libc::RLIMIT_AS as i32;
/// The number of the limit on its writable private memory (`RLIMIT_DATA`).
pub const DATA: i32 = libc::RLIMIT_DATA as i32;

/// A limit on a resource, as `struct rlimit` lies in memory.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResourceLimit {
    /// What is in force.
    pub current: u64,
    /// What it may be raised to.
    pub most: u64,
}

impl ResourceLimit {
    /// No limit (`RLIM_INFINITY`).
    pub const UNLIMITED: u64 = libc::RLIM64_INFINITY;
}

/// A limit of this process's, by its number.
pub fn limit_of(resource: i32) -> Option<ResourceLimit> {
    let mut limit = ResourceLimit { current: ResourceLimit::UNLIMITED, most: ResourceLimit::UNLIMITED };
    // SAFETY: prlimit64 on this process writes one such structure.
    let asked = unsafe { syscall!(libc::SYS_prlimit64, 0, resource, 0, &raw mut limit) };
    asked.ok().map(|_| limit)
}

/// Sets a limit of this process's; whether that was allowed.
pub fn set_limit(resource: i32, limit: ResourceLimit) -> bool {
    // SAFETY: prlimit64 on this process reads one such structure.
    unsafe { syscall!(libc::SYS_prlimit64, 0, resource, &raw const limit, 0) }.is_ok()
}

/// Takes the first entry out of the list that an environment variable holds, with colons between its entries. Before there
/// are threads.
pub fn drop_first_of(name: &core::ffi::CStr) {
    super::environment::drop_first_of(name);
}
