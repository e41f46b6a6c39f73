//! Handlers of the program, before ours and after, are asked as if ours were not there.

use core::cell::Cell;
use core::mem::zeroed;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

use fencepost_sys::{Fault, Faults, Host, Memory, Range, Threads, Verdict};

use crate::faults::{PLACE, border, forget_handlers};
use crate::{End, Scene, say};

type Handler = extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void);

static CALLS: AtomicUsize = AtomicUsize::new(0);
static OLD: AtomicUsize = AtomicUsize::new(0);
static OLD_FLAGS: AtomicI32 = AtomicI32::new(0);

fn pass(fault: &Fault) -> Verdict {
    say(if fault.others { "ours, others next" } else { "ours, last" });
    Verdict::Pass
}

fn set(signal: i32, handler: usize, flags: i32) -> libc::sigaction {
    // SAFETY: a handler of the form that the flags say.
    unsafe {
        let mut action: libc::sigaction = zeroed();
        action.sa_sigaction = handler;
        action.sa_flags = flags;
        let mut old = zeroed();
        assert_eq!(libc::sigaction(signal, &raw const action, &raw mut old), 0);
        old
    }
}

fn set_and_remember(handler: Handler) {
    let old = set(libc::SIGSEGV, handler as usize, libc::SA_SIGINFO | libc::SA_ONSTACK);
    OLD.store(old.sa_sigaction, Ordering::SeqCst);
    OLD_FLAGS.store(old.sa_flags, Ordering::SeqCst);
}

fn write(address: usize) {
    // SAFETY: it is not, on purpose.
    unsafe { (address as *mut u8).write_volatile(1) };
}

fn open_page() {
    let (start, len) = (PLACE.load(Ordering::SeqCst), Host.page_size());
    // SAFETY: the page is the scene's.
    unsafe { Host.commit(Range { start, len }).unwrap() };
}

fn close_page() {
    let (start, len) = (PLACE.load(Ordering::SeqCst), Host.page_size());
    // SAFETY: the page is the scene's.
    unsafe { Host.decommit(Range { start, len }).unwrap() };
}

/// Opens the page, after a look at the mask and at whose stack it is on.
extern "C" fn mends(signal: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the mask is ours to look at, and the kernel's siginfo is valid.
    unsafe {
        let mut mask = zeroed();
        libc::pthread_sigmask(libc::SIG_BLOCK, core::ptr::null(), &raw mut mask);
        let blocked = |signal| libc::sigismember(&raw const mask, signal) == 1;
        assert!(blocked(signal), "as without SA_NODEFER");
        assert!(!blocked(libc::SIGUSR1), "ours blocks it, theirs does not");
        assert_eq!((*info).si_addr().addr(), PLACE.load(Ordering::SeqCst));
    }
    say("theirs");
    open_page();
}

fn handler_from_before_mends() {
    let border = border();
    set(libc::SIGSEGV, mends as *const () as usize, libc::SA_SIGINFO | libc::SA_ONSTACK);
    Host.install(pass).unwrap();
    Host.install(pass).unwrap();
    write(border);
    close_page();
    write(border);
}

/// Of one argument, without an alternate stack, once.
extern "C" fn simple(_: i32) {
    let local = 0u8;
    let on_own = Host.stack_bounds().unwrap().contains((&raw const local).addr());
    say(if on_own { "simple, on the thread's stack" } else { "simple, elsewhere" });
    open_page();
}

fn simple_handler_once() {
    forget_handlers();
    let border = border();
    set(libc::SIGSEGV, simple as *const () as usize, libc::SA_RESETHAND);
    Host.ensure_alternate_stack();
    Host.install(pass).unwrap();
    write(border);
    close_page();
    write(border);
}

/// Hands on to whom it found, as a function.
extern "C" fn hands_on(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    say("theirs");
    CALLS.fetch_add(1, Ordering::SeqCst);
    let old = OLD.load(Ordering::SeqCst);
    if old == libc::SIG_DFL {
        set(signal, libc::SIG_DFL, 0);
        return;
    }
    assert!(OLD_FLAGS.load(Ordering::SeqCst) & libc::SA_SIGINFO != 0);
    // SAFETY: the address came from the kernel as a handler of this form.
    let old: Handler = unsafe { core::mem::transmute(old) };
    old(signal, info, context);
}

fn handler_from_after_hands_on() {
    forget_handlers();
    let border = border();
    Host.install(pass).unwrap();
    set_and_remember(hands_on);
    assert!(!Host.is_installed());
    write(border);
}

fn in_front_of_one_that_hands_on() {
    forget_handlers();
    let border = border();
    Host.install(pass).unwrap();
    set_and_remember(hands_on);
    Host.install(pass).unwrap();
    assert!(Host.is_installed());
    write(border);
}

/// Puts back whom it found and returns, so that the fault happens again for that one.
extern "C" fn puts_back(signal: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    say("theirs");
    set(signal, OLD.load(Ordering::SeqCst), OLD_FLAGS.load(Ordering::SeqCst));
}

fn in_front_of_one_that_puts_back() {
    forget_handlers();
    let border = border();
    Host.install(pass).unwrap();
    set_and_remember(puts_back);
    Host.install(pass).unwrap();
    write(border);
}

/// A handler that, by the program's own mistake, hands on to itself.
extern "C" fn goes_in_circles(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    CALLS.fetch_add(1, Ordering::SeqCst);
    // SAFETY: asks who is in force, which is ours, and calls it.
    let current: Handler = unsafe {
        let mut action: libc::sigaction = zeroed();
        libc::sigaction(signal, core::ptr::null(), &raw mut action);
        core::mem::transmute(action.sa_sigaction)
    };
    current(signal, info, context);
}

fn circle_ends() {
    forget_handlers();
    let border = border();
    set(libc::SIGSEGV, goes_in_circles as *const () as usize, libc::SA_SIGINFO | libc::SA_NODEFER);
    Host.install(|_| Verdict::Pass).unwrap();
    write(border);
}

#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(
    // attempt(address): 1 after a write there, 0 when `leave` was called meanwhile.
    ".globl attempt, leave",
    "attempt:",
    "push rbx",
    "push rbp",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "mov [rip + attempt_frame], rsp",
    "mov byte ptr [rdi], 1",
    "mov eax, 1",
    "jmp 2f",
    "leave:",
    "mov rsp, [rip + attempt_frame]",
    "xor eax, eax",
    "2:",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbp",
    "pop rbx",
    "ret",
    ".bss",
    "attempt_frame: .quad 0",
    ".text",
);

#[cfg(target_arch = "aarch64")]
core::arch::global_asm!(
    // As above.
    ".globl attempt, leave",
    "attempt:",
    "stp x29, x30, [sp, #-96]!",
    "stp x19, x20, [sp, #16]",
    "stp x21, x22, [sp, #32]",
    "stp x23, x24, [sp, #48]",
    "stp x25, x26, [sp, #64]",
    "stp x27, x28, [sp, #80]",
    "mov x9, sp",
    "adrp x10, attempt_frame",
    "str x9, [x10, :lo12:attempt_frame]",
    "mov w11, #1",
    "strb w11, [x0]",
    "mov w0, #1",
    "b 2f",
    "leave:",
    "adrp x10, attempt_frame",
    "ldr x9, [x10, :lo12:attempt_frame]",
    "mov sp, x9",
    "mov w0, #0",
    "2:",
    "ldp x19, x20, [sp, #16]",
    "ldp x21, x22, [sp, #32]",
    "ldp x23, x24, [sp, #48]",
    "ldp x25, x26, [sp, #64]",
    "ldp x27, x28, [sp, #80]",
    "ldp x29, x30, [sp], #96",
    "ret",
    ".bss",
    ".p2align 3",
    "attempt_frame: .quad 0",
    ".text",
);

unsafe extern "C" {
    fn attempt(address: usize) -> i32;
    fn leave() -> !;
}

thread_local! {
    static MASK: Cell<Option<libc::sigset_t>> = const { Cell::new(None) };
}

/// Leaves as `siglongjmp` does: to an older frame, with an older mask, and without returning.
extern "C" fn jumps(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    CALLS.fetch_add(1, Ordering::SeqCst);
    let mask = MASK.get().unwrap();
    // SAFETY: the mask was this thread's, and `attempt` is running.
    unsafe {
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const mask, null_mut());
        leave()
    }
}

fn handler_that_jumps() {
    let border = border();
    set(libc::SIGSEGV, jumps as *const () as usize, libc::SA_SIGINFO | libc::SA_ONSTACK);
    static OURS: AtomicUsize = AtomicUsize::new(0);
    Host.install(|_| {
        OURS.fetch_add(1, Ordering::SeqCst);
        Verdict::Pass
    })
    .unwrap();
    // SAFETY: reads this thread's mask.
    unsafe {
        let mut mask = zeroed();
        libc::pthread_sigmask(libc::SIG_BLOCK, core::ptr::null(), &raw mut mask);
        MASK.set(Some(mask));
    }
    for _ in 0..1000 {
        // SAFETY: the handler comes back here.
        assert_eq!(unsafe { attempt(border) }, 0);
    }
    assert_eq!((CALLS.load(Ordering::SeqCst), OURS.load(Ordering::SeqCst)), (1000, 1000));
    // SAFETY: as above; this address is fine.
    assert_eq!(unsafe { attempt(border - 1) }, 1);
}

fn ignored() {
    let border = border();
    set(libc::SIGSEGV, libc::SIG_IGN, 0);
    Host.install(pass).unwrap();
    // SAFETY: sends this thread a signal.
    unsafe { libc::raise(libc::SIGSEGV) };
    say("still here");
    write(border);
}

extern "C" fn sees_sent(_: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel's siginfo is valid.
    let (code, sender) = unsafe { ((*info).si_code, (*info).si_pid()) };
    assert_eq!((code, sender as u32), (libc::SI_TKILL, std::process::id()));
    say("theirs");
}

fn sent_to_a_handler() {
    border();
    set(libc::SIGSEGV, sees_sent as *const () as usize, libc::SA_SIGINFO);
    Host.install(pass).unwrap();
    // SAFETY: sends this thread a signal.
    unsafe { libc::raise(libc::SIGSEGV) };
}

/// A program that sets two handlers in turn a thousand times does not wear us out.
fn many_turns() {
    let border = border();
    for turn in 0..1000 {
        let flags = libc::SA_SIGINFO | if turn % 2 == 0 { libc::SA_ONSTACK } else { 0 };
        set(libc::SIGSEGV, mends as *const () as usize, flags);
        Host.install(pass).unwrap();
        assert!(Host.is_installed());
    }
    write(border);
}

/// The standard library's own handler, which we find in every Rust program that starts us late.
fn standard_library_behind_us() {
    let border = border();
    Host.install(pass).unwrap();
    write(border);
}

pub(crate) fn scenes() -> Vec<Scene> {
    let (fine, segv) = (|| End::Status(0), || End::Signal(libc::SIGSEGV));
    let (next, last) = ("ours, others next", "ours, last");
    let leak = |lines: &[&'static str]| -> &'static [&'static str] { Vec::leak(lines.to_vec()) };
    vec![
        (
            "handler_from_before_mends",
            handler_from_before_mends as fn(),
            fine(),
            leak(&[next, "theirs", next, "theirs"]),
        ),
        (
            "simple_handler_once",
            simple_handler_once,
            segv(),
            leak(&[next, "simple, on the thread's stack", last]),
        ),
        ("handler_from_after_hands_on", handler_from_after_hands_on, segv(), leak(&["theirs", last])),
        (
            "in_front_of_one_that_hands_on",
            in_front_of_one_that_hands_on,
            segv(),
            leak(&[next, "theirs", last]),
        ),
        (
            "in_front_of_one_that_puts_back",
            in_front_of_one_that_puts_back,
            segv(),
            leak(&[next, "theirs", last]),
        ),
        ("circle_ends", circle_ends, segv(), leak(&[])),
        ("handler_that_jumps", handler_that_jumps, fine(), leak(&[])),
        ("ignored", ignored, segv(), leak(&[last, "still here", last])),
        ("sent_to_a_handler", sent_to_a_handler, fine(), leak(&[next, "theirs"])),
        ("many_turns", many_turns, fine(), leak(&[next, "theirs"])),
        ("standard_library_behind_us", standard_library_behind_us, segv(), leak(&[next])),
    ]
}
