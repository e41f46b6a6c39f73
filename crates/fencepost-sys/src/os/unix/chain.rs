//! Those who handled a signal before us, and how they are asked as if we were not there.
//!
//! Each time we step in front of somebody, a *generation* begins: it has an entry function of its own, which is what
//! the kernel is given, and it remembers whom it stepped in front of. So who is next follows from the function that
//! was called, and from nothing else. A handler that replaced us and calls what was there before, as a function or
//! by putting it back and returning, arrives at the generation it knew, and from there at the one before: no circle,
//! and no state of a thread that a handler which leaves by `siglongjmp` would leave behind.
//!
//! A generation is reused for the handler it already stands before, so that a program which sets two handlers in
//! turn does not use them up.

use core::cell::Cell;
use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use super::{context, signal_calls, stack};

pub(super) use super::signal_calls::{Action, current_mask, set_default, set_mask};

/// How many different handlers we step in front of, for each signal.
pub(super) const GENERATIONS: usize = 12;
/// How often a handler may call the function it found before, deeper each time, before that is a circle of its own.
const DEPTH_MAX: u32 = 16;

impl Action {
    /// Whether it is a function, not one of the kernel's own two effects.
    pub(super) fn is_handler(self) -> bool {
        self.handler != libc::SIG_DFL && self.handler != libc::SIG_IGN
    }

    fn has(self, flag: i32) -> bool {
        self.flags as i32 & flag != 0
    }
}

/// One we stepped in front of. A value never changes while handlers may read it, except to the default effect.
struct Former {
    handler: AtomicUsize,
    flags: AtomicUsize,
    mask: AtomicU64,
}

impl Former {
    const fn nobody() -> Former {
        Former { handler: AtomicUsize::new(0), flags: AtomicUsize::new(0), mask: AtomicU64::new(0) }
    }
}

/// The generations of one signal.
pub(super) struct Chain {
    used: AtomicU32,
    formers: [Former; GENERATIONS],
}

impl Chain {
    pub(super) const fn new() -> Chain {
        Chain { used: AtomicU32::new(0), formers: [const { Former::nobody() }; GENERATIONS] }
    }

    /// Whom a generation stepped in front of.
    pub(super) fn former(&self, generation: usize) -> Action {
        self.formers.get(generation).map_or(Action::default(), |former| {
            let handler = former.handler.load(Ordering::Acquire);
            Action::new(handler, former.flags.load(Ordering::Relaxed), former.mask.load(Ordering::Relaxed))
        })
    }

    /// The generation that stands before an action, a new one if there is none; `None` when all are used. One
    /// caller at a time.
    pub(super) fn generation_before(&self, action: Action) -> Option<usize> {
        let used = self.used.load(Ordering::Relaxed) as usize;
        let same = |generation: &usize| {
            let former = self.former(*generation);
            (former.handler, former.flags, former.mask) == (action.handler, action.flags, action.mask)
        };
        if let Some(known) = (0..used).rev().find(same) {
            return Some(known);
        }
        let former = self.formers.get(used)?;
        former.flags.store(action.flags, Ordering::Relaxed);
        former.mask.store(action.mask, Ordering::Relaxed);
        former.handler.store(action.handler, Ordering::Release);
        self.used.store(used.saturating_add(1) as u32, Ordering::Release);
        Some(used)
    }

    /// Takes a handler out that wished to be called once (`SA_RESETHAND`).
    fn reset(&self, generation: usize) {
        if let Some(former) = self.formers.get(generation) {
            former.handler.store(libc::SIG_DFL, Ordering::Release);
        }
    }
}

/// A signal as the kernel handed it over.
#[derive(Clone, Copy)]
pub(super) struct Delivery {
    pub(super) signal: i32,
    pub(super) info: *mut libc::siginfo_t,
    pub(super) context: *mut libc::ucontext_t,
}

impl Delivery {
    /// Whether it came from outside the instruction stream: from a process or a timer, or as early news of broken
    /// memory. Running the instruction again would not raise it again.
    pub(super) fn is_sent(&self) -> bool {
        signal_calls::is_sent(self)
    }
}

thread_local! {
    /// Context, stack pointer and count of the last handler asked: only to notice a handler's own circle.
    static ASKED: Cell<(usize, usize, u32)> = const { Cell::new((0, 0, 0)) };
}

/// Has this thread's words made ready outside of handlers: where the system makes them at their first use, it allocates
/// them.
pub(super) fn ready_thread() {
    ASKED.set((0, 0, 0));
}

/// Whether the same fault came back too often, each time from deeper in the stack. After a handler that left by
/// `siglongjmp` the next fault is not deeper, so that the count begins anew.
fn in_circle(delivery: &Delivery) -> bool {
    let local = 0u8;
    let (here, deep) = (delivery.context.addr(), (&raw const local).addr());
    let (context, sp, count) = ASKED.get();
    let count = if context == here && deep < sp { count.saturating_add(1) } else { 0 };
    ASKED.set((here, deep, count));
    count > DEPTH_MAX
}

/// Does what would have happened if a generation had never stepped in.
pub(super) fn pass(chain: &Chain, generation: usize, delivery: &Delivery) {
    let former = chain.former(generation);
    if former.handler == libc::SIG_IGN && delivery.is_sent() {
        return;
    }
    // The kernel does not let a fault be ignored.
    if !former.is_handler() || in_circle(delivery) {
        end(delivery);
        return;
    }
    if former.has(libc::SA_RESETHAND) {
        chain.reset(generation);
    }
    // SAFETY: the kernel hands a handler a valid context.
    let mut mask = unsafe { context::mask(delivery.context) } | former.mask;
    if !former.has(libc::SA_NODEFER) {
        mask |= signal_bit(delivery.signal);
    }
    set_mask(mask);
    let call = Call { former, delivery: *delivery };
    match interrupted_stack(&call) {
        // SAFETY: below its red zone the interrupted stack is free for handlers, as for one without SA_ONSTACK it
        // always is; `ask` returns normally, or leaves that stack for good by siglongjmp as it may.
        Some(top) => unsafe { stack::run(top, ask, (&raw const call).addr()) },
        None => ask((&raw const call).addr()),
    }
}

struct Call {
    former: Action,
    delivery: Delivery,
}

/// Calls the former handler in the form it asked for.
extern "C" fn ask(call: usize) {
    // SAFETY: `pass` gives the address of a Call that lives until this returns.
    let Call { former, delivery } = unsafe { &*(call as *const Call) };
    if former.has(libc::SA_SIGINFO) {
        // SAFETY: the program registered this address as a handler of three arguments.
        let handler: extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::ucontext_t) =
            unsafe { core::mem::transmute(former.handler) };
        handler(delivery.signal, delivery.info, delivery.context);
    } else {
        // SAFETY: the program registered this address as a handler of one argument.
        let handler: extern "C" fn(i32) = unsafe { core::mem::transmute(former.handler) };
        handler(delivery.signal);
    }
}

/// Where a handler without `SA_ONSTACK` would have run: on the interrupted stack, if we are not there already. One
/// that asks for no other stack may walk it, or switch away from it. A stack that just overflowed has no room: the
/// kernel would have ended the process, and we do better by staying where we are.
fn interrupted_stack(call: &Call) -> Option<usize> {
    const ROOM: usize = 64 << 10;
    if call.former.has(libc::SA_ONSTACK) {
        return None;
    }
    // SAFETY: the kernel hands a handler a valid context and siginfo; of a fault it has an address.
    let (alternate, sp, address) = unsafe {
        let context = call.delivery.context;
        let alternate = signal_calls::alternate_of(context);
        (alternate, context::stack_pointer(context), (*call.delivery.info).si_addr().addr())
    };
    let within = |at: usize| at.wrapping_sub(alternate.ss_sp.addr()) < alternate.ss_size;
    let local = 0u8;
    let moved =
        alternate.ss_flags & libc::SS_DISABLE == 0 && within((&raw const local).addr()) && !within(sp);
    let overflow =
        !call.delivery.is_sent() && address.wrapping_sub(sp.wrapping_sub(ROOM)) < ROOM.wrapping_mul(2);
    (moved && !overflow).then_some(sp.wrapping_sub(context::RED_ZONE))
}

/// Gives the signal its default effect. A fault happens again when the handler returns; what was sent is sent again,
/// and taken when the handler's mask ends, so that the core shows the interrupted place. So is a trap, which comes after
/// its instruction, and a fault on a system that does not tell for certain that it was one.
pub(super) fn end(delivery: &Delivery) {
    set_default(delivery.signal);
    let comes_again = signal_calls::RAISED_IS_CERTAIN && delivery.signal != libc::SIGTRAP;
    if delivery.is_sent() || !comes_again {
        set_mask(signal_bit(delivery.signal) | current_mask());
        signal_calls::send_again(delivery);
    }
}

/// The bit of a signal in a set of the kernel's.
pub(super) fn signal_bit(signal: i32) -> u64 {
    1u64.wrapping_shl(signal.wrapping_sub(1) as u32)
}
