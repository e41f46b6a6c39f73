//! Limits on memory that the program sets for itself.
//!
//! What the guard has reserved counts towards `RLIMIT_AS`, and what it has opened towards `RLIMIT_DATA`: a program that
//! allows itself some hundred megabytes could map nothing any more, and start no thread. So the limit that is set is the
//! program's and what the guard takes, and a program that asks is told its own. Of what is left the guard takes three
//! quarters at most, as at the start.
//!
//! A program that takes this one's place starts with the limit that was wished for. Not so what `posix_spawn` and the
//! `execl` functions start: they have the raised one.
#![allow(clippy::missing_safety_doc, reason = "each has the rules of the C function of its name")]
#![allow(missing_docs, reason = "documented by POSIX and the Linux manual pages")]

use core::ffi::{c_int, c_void};
use core::sync::atomic::{AtomicU64, Ordering};

use fencepost_sys::program::{self, ResourceLimit};
use fencepost_sys::{Memory, Next, Threads};

use super::buffers::{Missing, filled, named, read_from};
use super::{MALLOC, ending};
use crate::runtime::{GUARD, here};

/// What the guard may yet take besides blocks: stacks and memory for threads, tables.
const ALLOWANCE: u64 = 32 << 20;
/// And this part of the limit: a thread's stack takes eight times what we take for it.
const ALLOWANCE_SHARE: u64 = 8;
/// Bytes of `struct rlimit`.
const LIMIT: usize = size_of::<ResourceLimit>();

/// A limit as the program wished it, and as it was set.
struct Wish {
    resource: c_int,
    wished: Pair,
    set: Pair,
}

struct Pair {
    current: AtomicU64,
    most: AtomicU64,
}

impl Pair {
    const fn unlimited() -> Pair {
        Pair {
            current: AtomicU64::new(ResourceLimit::UNLIMITED),
            most: AtomicU64::new(ResourceLimit::UNLIMITED),
        }
    }

    fn get(&self) -> ResourceLimit {
        ResourceLimit {
            current: self.current.load(Ordering::Relaxed),
            most: self.most.load(Ordering::Relaxed),
        }
    }

    fn put(&self, limit: ResourceLimit) {
        self.current.store(limit.current, Ordering::Relaxed);
        self.most.store(limit.most, Ordering::Relaxed);
    }
}

static WISHES: [Wish; 2] = [
    Wish { resource: program::ADDRESS_SPACE, wished: Pair::unlimited(), set: Pair::unlimited() },
    Wish { resource: program::DATA, wished: Pair::unlimited(), set: Pair::unlimited() },
];

impl Clone for Wish {
    fn clone(&self) -> Wish {
        let copy = |pair: &Pair| {
            let copy = Pair::unlimited();
            copy.put(pair.get());
            copy
        };
        Wish { resource: self.resource, wished: copy(&self.wished), set: copy(&self.set) }
    }
}

impl Wish {
    fn of(resource: c_int) -> Option<&'static Wish> {
        WISHES.iter().find(|wish| wish.resource == resource && !MALLOC.stands_back())
    }

    /// What the program is told of a limit that is in force. Somebody else may have changed it.
    fn told(&self, real: ResourceLimit) -> ResourceLimit {
        let (wished, set) = (self.wished.get(), self.set.get());
        ResourceLimit {
            current: if real.current == set.current { wished.current } else { real.current },
            most: if real.most == set.most { wished.most } else { real.most },
        }
    }

    /// What is to be set, for the program to have what it wishes; `real` is in force.
    fn raised(&self, wished: ResourceLimit, real: ResourceLimit) -> ResourceLimit {
        let taken = GUARD.taken();
        let own = if self.resource == program::DATA { taken.data } else { taken.addresses };
        let raise = |limit: u64| {
            // What is opened counts as data, and as much as the program has may be: see `change`.
            let opened = if self.resource == program::DATA { limit } else { 0 };
            let parts = [own, opened, ALLOWANCE, limit / ALLOWANCE_SHARE];
            let is_ours = limit != ResourceLimit::UNLIMITED && own != 0;
            if is_ours { parts.into_iter().fold(limit, u64::saturating_add) } else { limit }
        };
        let mut set = ResourceLimit { current: raise(wished.current), most: raise(wished.most) };
        // What the program may ask for, the system has to grant.
        if wished.most <= self.told(real).most {
            set.most = set.most.min(real.most);
            set.current = set.current.min(set.most);
        }
        set
    }
}

/// Reads a limit that the program gives; `None` where there is none, or no readable memory.
fn given(address: *const c_void) -> Option<ResourceLimit> {
    let mut bytes = [0u8; LIMIT];
    let read = GUARD.platform().read_checked(address.addr(), &mut bytes);
    if address.is_null() || read != LIMIT {
        return None;
    }
    // SAFETY: any bytes are two numbers.
    Some(unsafe { bytes.as_ptr().cast::<ResourceLimit>().read_unaligned() })
}

/// Sets a limit by `set`, which is given the program's or a raised one: the C library's own function.
fn change(resource: c_int, limit: *const c_void, set: impl FnOnce(*const c_void) -> c_int) -> c_int {
    // A child of vfork uses this memory, and has limits of its own.
    let wish = Wish::of(resource).filter(|_| ending::is_at_home());
    let (Some(wish), Some(wished)) = (wish, given(limit)) else { return set(limit) };
    let Some(real) = program::limit_of(resource).filter(|_| wished.current <= wished.most) else {
        return set(limit);
    };
    let raised = wish.raised(wished, real);
    let done = set((&raw const raised).cast());
    if done == 0 {
        wish.wished.put(wished);
        wish.set.put(raised);
        let [addresses, data] = WISHES.each_ref().map(|wish| wish.wished.get().current);
        let more = Some(data).filter(|data| *data != ResourceLimit::UNLIMITED);
        GUARD.share_what_is_left(more.is_some() || addresses != ResourceLimit::UNLIMITED, more);
    }
    done
}

/// Puts what the program wished in the place of what was set.
///
/// # Safety
/// `limit` must be null, or hold a limit that the system gave.
unsafe fn tell(wish: Option<&Wish>, limit: *mut c_void) {
    let Some(wish) = wish.filter(|_| !limit.is_null()) else { return };
    let limit = limit.cast::<ResourceLimit>();
    // SAFETY: the caller's promise; the C library asks for no alignment.
    unsafe { limit.write_unaligned(wish.told(limit.read_unaligned())) };
}

/// Before another program takes this one's place: the limits that it is to have. Gives those that were in force.
pub(super) fn lower() -> [Option<ResourceLimit>; 2] {
    WISHES.each_ref().map(|wish| {
        let set = wish.set.get();
        let is_raised = set != wish.wished.get();
        let real = program::limit_of(wish.resource).filter(|real| is_raised && *real == set)?;
        // The most cannot be raised again, should this program go on.
        let wished = ResourceLimit { current: wish.wished.get().current, most: real.most };
        program::set_limit(wish.resource, wished).then_some(real)
    })
}

/// No other program took this one's place.
pub(super) fn raise_again(real: [Option<ResourceLimit>; 2]) {
    for (wish, real) in WISHES.iter().zip(real) {
        if let Some(real) = real {
            // What could be lowered can be raised: the most stayed.
            let raised = program::set_limit(wish.resource, real);
            let _ = raised;
        }
    }
}

/// Looks for a function behind ours and has it called; without one, the error answer.
fn with(next: &Next, call: impl FnOnce(usize) -> c_int) -> c_int {
    let done = next.address().map_or_else(Missing::missing, call);
    GUARD.after_call();
    done
}

type Setter = unsafe extern "C" fn(c_int, *const c_void) -> c_int;
type Getter = unsafe extern "C" fn(c_int, *mut c_void) -> c_int;
type Both = unsafe extern "C" fn(c_int, c_int, *const c_void, *mut c_void) -> c_int;

macro_rules! sets_and_gets {
    ($($set:ident $get:ident $both:ident)*) => { $(
        #[inline(never)]
        pub unsafe extern "C" fn $set(resource: c_int, limit: *const c_void) -> c_int {
            static NEXT: Next = Next::new(named(concat!(stringify!($set), "\0")));
            read_from(limit.cast_mut(), LIMIT, here());
            with(&NEXT, |address| {
                // SAFETY: the C library's function of this name has this type.
                let function: Setter = unsafe { core::mem::transmute(address) };
                // SAFETY: the caller keeps its rules, and a limit of ours does.
                change(resource, limit, |limit| unsafe { function(resource, limit) })
            })
        }

        #[inline(never)]
        pub unsafe extern "C" fn $get(resource: c_int, limit: *mut c_void) -> c_int {
            static NEXT: Next = Next::new(named(concat!(stringify!($get), "\0")));
            filled(limit, LIMIT, here());
            with(&NEXT, |address| {
                // SAFETY: the C library's function of this name has this type, and the caller keeps its rules.
                let done = unsafe {
                    let function: Getter = core::mem::transmute(address);
                    function(resource, limit)
                };
                if done == 0 {
                    // SAFETY: the system has filled it just now.
                    unsafe { tell(Wish::of(resource), limit) };
                }
                done
            })
        }

        #[inline(never)]
        pub unsafe extern "C" fn $both(
            process: c_int,
            resource: c_int,
            new: *const c_void,
            old: *mut c_void,
        ) -> c_int {
            static NEXT: Next = Next::new(named(concat!(stringify!($both), "\0")));
            let anchor = here();
            if !new.is_null() {
                read_from(new.cast_mut(), LIMIT, anchor);
            }
            if !old.is_null() {
                filled(old, LIMIT, anchor);
            }
            let own = process == 0 || u32::try_from(process) == Ok(GUARD.platform().process_id());
            // As it was before: the system gives the old one.
            let before = Wish::of(resource).filter(|_| own).map(Wish::clone);
            with(&NEXT, |address| {
                // SAFETY: the C library's function of this name has this type.
                let function: Both = unsafe { core::mem::transmute(address) };
                // SAFETY: the caller keeps its rules, and a limit of ours does.
                let call = |new| unsafe { function(process, resource, new, old) };
                let done = if own { change(resource, new, call) } else { call(new) };
                if done == 0 {
                    // SAFETY: the system has filled it just now.
                    unsafe { tell(before.as_ref(), old) };
                }
                done
            })
        }
    )* };
}

sets_and_gets! {
    setrlimit getrlimit prlimit
    setrlimit64 getrlimit64 prlimit64
}
