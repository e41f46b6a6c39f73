//! Alternate stacks, running on another stack, giving such a run up, and the watchdog.

use core::mem::zeroed;
use core::ptr::{null, null_mut};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use fencepost_sys::{Fault, Faults, Host, Memory, Platform, Range, Threads, Verdict};

use crate::faults::{border, forget_handlers};
use crate::{End, Scene, say};

static STACK: AtomicUsize = AtomicUsize::new(0);
const STACK_LEN: usize = 512 << 10;

fn setting() -> libc::stack_t {
    // SAFETY: asks only.
    unsafe {
        let mut current = zeroed();
        assert_eq!(libc::sigaltstack(null(), &raw mut current), 0);
        current
    }
}

fn new_stack() -> Range {
    let stack = Range { start: Host.reserve(STACK_LEN, 4096).unwrap(), len: STACK_LEN };
    // SAFETY: the range was just reserved.
    unsafe { Host.commit(stack).unwrap() };
    STACK.store(stack.start, Ordering::SeqCst);
    stack
}

fn report_stack() -> Range {
    Range { start: STACK.load(Ordering::SeqCst), len: STACK_LEN }
}

/// A stack is given where there is none or a small one, kept where there is a good one, and taken back.
fn given_and_taken_back() {
    Host.probe();
    let before = setting();
    assert!(before.ss_size < 64 << 10, "the standard library's is small");
    for _ in 0..3 {
        let stack = Host.ensure_alternate_stack();
        assert!(stack.len >= 256 << 10);
        assert_eq!((setting().ss_sp.addr(), setting().ss_size), (stack.start, stack.len));
        assert_eq!(Host.read_checked(stack.start - 1, &mut [0]), 0, "an overflow traps");
        assert_eq!(Host.read_checked(stack.start, &mut [0]), 1);
        assert_eq!(Host.ensure_alternate_stack(), Range::default(), "a good one is kept");
        // SAFETY: the stack is this thread's, which does not run on it.
        unsafe { Host.drop_alternate_stack(stack) };
        assert_eq!(setting().ss_sp, before.ss_sp);
        assert_eq!((setting().ss_size, setting().ss_flags), (before.ss_size, before.ss_flags));
        assert!(!Host.is_mapped(stack));
    }
    let stack = Host.ensure_alternate_stack();
    let theirs = libc::stack_t { ss_sp: null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 };
    // SAFETY: turns the thread's alternate stack off; ours is not in use.
    unsafe {
        libc::sigaltstack(&raw const theirs, null_mut());
        Host.drop_alternate_stack(stack);
    }
    assert!(setting().ss_flags & libc::SS_DISABLE != 0, "what others set since stays");
    assert!(!Host.is_mapped(stack));
}

fn overflow(depth: u64) -> u64 {
    let mut room = [depth; 512];
    core::hint::black_box(&mut room);
    if depth == u64::MAX { 0 } else { overflow(depth + 1).wrapping_add(room[7]) }
}

extern "C" fn overflows(_: *mut libc::c_void) -> *mut libc::c_void {
    let stack = Host.stack_bounds().unwrap();
    let local = 0u8;
    assert!(stack.contains((&raw const local).addr()));
    Host.ensure_alternate_stack();
    core::hint::black_box(overflow(0));
    null_mut()
}

fn tell_stack_overflow(fault: &Fault) -> Verdict {
    let address = fault.address.unwrap();
    assert!(fault.sp.abs_diff(address) < 64 << 10);
    say("overflow");
    Verdict::Die
}

/// A thread that C made has no alternate stack but ours.
fn overflow_in_a_thread_of_c() {
    Host.probe();
    forget_handlers();
    Host.install(tell_stack_overflow).unwrap();
    // SAFETY: the function has the form asked for, and the thread is waited for.
    unsafe {
        let mut thread = zeroed();
        assert_eq!(libc::pthread_create(&raw mut thread, null(), overflows, null_mut()), 0);
        libc::pthread_join(thread, null_mut());
    }
}

static SUM: AtomicUsize = AtomicUsize::new(0);

extern "C" fn add(argument: usize) {
    let local = 0u128;
    assert!(report_stack().contains((&raw const local).addr()), "on the other stack");
    SUM.fetch_add(argument, Ordering::SeqCst);
}

extern "C" fn backtraces(_: usize) {
    let trace = std::backtrace::Backtrace::force_capture().to_string();
    assert!(trace.contains("backtraces"), "{trace}");
    assert!(trace.contains("runs_elsewhere"), "unwinds through to the caller: {trace}");
}

fn runs_elsewhere() {
    Host.probe();
    let stack = new_stack();
    for argument in 1..=10 {
        // SAFETY: the stack is ours.
        assert!(unsafe { Host.call_on_stack(stack, add, argument) });
    }
    assert_eq!(SUM.load(Ordering::SeqCst), 55);
    // SAFETY: the stack is ours.
    assert!(unsafe { Host.call_on_stack(stack, backtraces, 0) });
}

static REPORTING: AtomicBool = AtomicBool::new(false);

extern "C" fn faults_itself(argument: usize) {
    say("rendering");
    let deep = overflow(u64::MAX - 8);
    core::hint::black_box(deep);
    // SAFETY: it is not, on purpose.
    unsafe { (argument as *mut u8).write_volatile(1) };
    say("not reached");
}

extern "C" fn hangs(_: usize) {
    say("hanging");
    Host.watchdog(50);
    loop {
        core::hint::spin_loop();
    }
}

/// Reports on the other stack; a fault or a signal meanwhile gives the report up. The frames on the alternate stack
/// must survive that.
fn report(fault: &Fault, work: extern "C" fn(usize)) -> Verdict {
    if REPORTING.swap(false, Ordering::SeqCst) {
        say(if fault.sent { "interrupted" } else { "fault in the report" });
        let mut room = [0xaa_u8; 16 << 10];
        core::hint::black_box(&mut room);
        // SAFETY: the call is running on this thread.
        unsafe { Host.abandon_call() }
    }
    let mark = [fault.pc as u64; 64];
    let marked = core::hint::black_box(&mark);
    let before = (setting().ss_sp, setting().ss_size);
    REPORTING.store(true, Ordering::SeqCst);
    // SAFETY: the stack is ours.
    let whole = unsafe { Host.call_on_stack(report_stack(), work, 8) };
    assert!(!whole && marked.iter().all(|value| *value == fault.pc as u64));
    assert_eq!((setting().ss_sp, setting().ss_size), before);
    Host.watchdog(0);
    say("given up");
    Verdict::Die
}

fn prepare(on_fault: fn(&Fault) -> Verdict) -> usize {
    forget_handlers();
    let border = border();
    new_stack();
    Host.ensure_alternate_stack();
    Host.install(on_fault).unwrap();
    border
}

fn report_that_faults() {
    let border = prepare(|fault| report(fault, faults_itself));
    // SAFETY: it is not, on purpose.
    unsafe { (border as *mut u8).write_volatile(1) };
}

fn report_that_hangs() {
    let border = prepare(|fault| report(fault, hangs));
    // SAFETY: it is not, on purpose.
    unsafe { (border as *mut u8).write_volatile(1) };
}

/// Outside a handler the mask must be what it was, too.
fn given_up_outside_a_handler() {
    prepare(|_| {
        say("fault in the report");
        // SAFETY: the call is running on this thread.
        unsafe { Host.abandon_call() }
    });
    for _ in 0..3 {
        // SAFETY: the stack is ours.
        assert!(!unsafe { Host.call_on_stack(report_stack(), faults_itself, 8) });
    }
    // SAFETY: asks only.
    unsafe {
        let mut mask = zeroed();
        libc::pthread_sigmask(libc::SIG_BLOCK, null(), &raw mut mask);
        assert_eq!(libc::sigismember(&raw const mask, libc::SIGUSR1), 0);
    }
}

fn watchdog_taken_back() {
    prepare(|_| {
        say("watchdog");
        Verdict::Resume
    });
    Host.watchdog(100);
    Host.watchdog(0);
    Host.watchdog(3_600_000);
    Host.watchdog(0);
    std::thread::sleep(core::time::Duration::from_millis(300));
    say("quiet");
}

pub(crate) fn scenes() -> Vec<Scene> {
    let (fine, segv) = (|| End::Status(0), || End::Signal(libc::SIGSEGV));
    vec![
        ("given_and_taken_back", given_and_taken_back as fn(), fine(), &[]),
        ("overflow_in_a_thread_of_c", overflow_in_a_thread_of_c, segv(), &["overflow"]),
        ("runs_elsewhere", runs_elsewhere, fine(), &[]),
        ("report_that_faults", report_that_faults, segv(), &["rendering", "fault in the report", "given up"]),
        ("report_that_hangs", report_that_hangs, segv(), &["hanging", "interrupted", "given up"]),
        (
            "given_up_outside_a_handler",
            given_up_outside_a_handler,
            fine(),
            &[
                "rendering",
                "fault in the report",
                "rendering",
                "fault in the report",
                "rendering",
                "fault in the report",
            ],
        ),
        ("watchdog_taken_back", watchdog_taken_back, fine(), &["quiet"]),
    ]
}
