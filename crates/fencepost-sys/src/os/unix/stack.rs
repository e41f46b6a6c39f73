//! Alternate stacks for signal handlers, and running a function on another stack.

use core::arch::naked_asm;
use core::cell::Cell;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicUsize, Ordering};

use super::signal_calls::{alternate_stack, stack_above_a_guard};
use super::{chain, probe, raw};
use crate::{Range, VmResult};

/// Usable bytes of an alternate stack of ours: room to walk stacks, write a report and resolve names. Only what is
/// touched costs memory.
const STACK_LEN: usize = 1 << 20;
/// The smallest stack of somebody else's that is good enough. The standard library's is 8 KiB.
pub(super) const STACK_ENOUGH: usize = 64 << 10;

thread_local! {
    /// The thread's setting before ours, as (start, length); none is (0, 0).
    static BEFORE: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

/// Gives this thread a stack of ours; an empty range if it has a good one, or if none can be had.
pub(super) fn ensure() -> Range {
    chain::ready_thread();
    let Some(current) = exchange(None) else { return Range::default() };
    let has_one = current.ss_flags & libc::SS_DISABLE == 0;
    // While the thread runs on it, it cannot be changed.
    if has_one && (current.ss_size >= STACK_ENOUGH || current.ss_flags & libc::SS_ONSTACK != 0) {
        return Range::default();
    }
    let Ok(stack) = create() else { return Range::default() };
    if exchange(Some(setting(stack.start, stack.len))).is_none() {
        free(stack);
        return Range::default();
    }
    BEFORE.set(if has_one { (current.ss_sp.addr(), current.ss_size) } else { (0, 0) });
    stack
}

/// Puts the thread's former setting back, if ours is still in force, and frees ours.
pub(super) fn drop_stack(stack: Range) {
    if stack.len == 0 {
        return;
    }
    let ours = exchange(None).is_some_and(|now| now.ss_sp.addr() == stack.start);
    if ours {
        let (start, len) = BEFORE.take();
        let before = if len == 0 { disabled() } else { setting(start, len) };
        if exchange(Some(before)).is_none() {
            // Still in force, whatever the reason: better kept than pulled away.
            return;
        }
    }
    free(stack);
}

/// A new stack above a page that traps.
pub(super) fn create() -> VmResult<Range> {
    let page = probe::page_size();
    let start = stack_above_a_guard(STACK_LEN.saturating_add(page))?;
    Ok(Range { start: start.wrapping_add(page), len: STACK_LEN })
}

fn free(stack: Range) {
    let page = probe::page_size();
    // SAFETY: `create` made this mapping with one page below; the thread is not on it and its setting points
    // elsewhere. Failure would leave an unused mapping.
    let _ = unsafe { raw::unmap(stack.start.wrapping_sub(page), stack.len.saturating_add(page)) };
}

fn setting(start: usize, len: usize) -> libc::stack_t {
    libc::stack_t { ss_sp: start as *mut _, ss_flags: 0, ss_size: len }
}

fn disabled() -> libc::stack_t {
    libc::stack_t { ss_sp: null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 }
}

/// Reads the thread's setting, and sets a new one if given.
fn exchange(new: Option<libc::stack_t>) -> Option<libc::stack_t> {
    let mut old = disabled();
    let new = new.as_ref().map_or(core::ptr::null(), core::ptr::from_ref);
    // SAFETY: sigaltstack reads one structure where there is one, and writes one.
    unsafe { alternate_stack(new, &raw mut old) }.then_some(old)
}

/// Where [`abandon`] goes back to: the stack pointer inside the running [`switch`].
static RETURN: AtomicUsize = AtomicUsize::new(0);

/// Bytes left free below the frame that waits on an alternate stack.
const MARGIN: usize = 1024;

/// What [`away`] runs on the other stack.
struct Work<'a> {
    work: extern "C" fn(usize),
    argument: usize,
    /// The alternate stack that the caller is running on, if it is.
    alternate: Option<libc::stack_t>,
    /// The caller's stack pointer, once it has left.
    back: &'a AtomicUsize,
}

/// Runs `work` with `argument` on another stack; false when it was abandoned.
///
/// # Safety
/// As [`crate::Faults::call_on_stack`].
pub(super) unsafe fn call(stack: Range, work: extern "C" fn(usize), argument: usize) -> bool {
    let mask = chain::current_mask();
    // SAFETY: the caller's promises.
    let done = unsafe { away(stack.end(), work, argument, &RETURN) };
    if !done {
        // The handler that gave up did not return, which would have put the mask back.
        chain::set_mask(mask);
    }
    done
}

/// Runs `work` with `argument` on the stack that ends at `top`; false when it was abandoned through `back`.
///
/// A caller in a signal handler stands on the thread's alternate stack. Seen from the other stack nobody does, and a
/// fault there would put its handler's frame over the caller's. So meanwhile the alternate stack is only the part
/// that is still free.
///
/// # Safety
/// Below `top` there must be enough writable memory that nobody else uses.
pub(super) unsafe fn away(
    top: usize,
    work: extern "C" fn(usize),
    argument: usize,
    back: &AtomicUsize,
) -> bool {
    let standing_on = |setting: &libc::stack_t| setting.ss_flags & libc::SS_ONSTACK != 0;
    let alternate = exchange(None).filter(standing_on);
    let job = Work { work, argument, alternate, back };
    // SAFETY: the caller gives a stack; `job` and `back` outlive the switch.
    let done = unsafe { switch(top, away_there, (&raw const job).addr(), back.as_ptr()) } != 0;
    if let Some(alternate) = alternate {
        // Our frame lies above what is the alternate stack now, so that the kernel lets us change it.
        let _ = exchange(Some(setting(alternate.ss_sp.addr(), alternate.ss_size)));
    }
    done
}

extern "C" fn away_there(job: usize) {
    // SAFETY: `away` gives the address of its job, which lives until this returns or is abandoned.
    let job = unsafe { &*(job as *const Work<'_>) };
    if let Some(alternate) = job.alternate {
        let start = alternate.ss_sp.addr();
        let free = job.back.load(Ordering::Relaxed).saturating_sub(MARGIN).saturating_sub(start);
        // Where too little is left for a frame, a handler runs on the stack where it interrupts.
        if free < STACK_ENOUGH / 2 || exchange(Some(setting(start, free & !0xf))).is_none() {
            let _ = exchange(Some(disabled()));
        }
    }
    (job.work)(job.argument);
}

/// Runs `work` with `argument` on the stack that ends at `top`; it may leave by jumping over us.
///
/// # Safety
/// Below `top` there must be enough writable memory that nobody else uses.
pub(super) unsafe fn run(top: usize, work: extern "C" fn(usize), argument: usize) {
    let mut back = 0;
    // SAFETY: the caller's promise; `back` is ours.
    unsafe { switch(top, work, argument, &raw mut back) };
}

/// Goes back to the running [`call`], which says false.
///
/// # Safety
/// As [`crate::Faults::abandon_call`].
pub(super) unsafe fn abandon() -> ! {
    // SAFETY: `RETURN` was written by the call that is running, whose frame is untouched by the code it called.
    unsafe { unwind_to(RETURN.load(Ordering::Relaxed)) }
}

/// Runs `work` with `argument` on the stack that ends at `top`, and gives 1; or 0 when [`unwind_to`] came instead.
///
/// The frame pointer keeps the old stack, and the unwind table says so: debuggers and unwinders walk from `work`
/// through to the caller. What a callee must preserve is kept on the old stack, whose pointer goes to `back`.
///
/// # Safety
/// Below `top` there must be enough writable memory that nobody else uses.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
unsafe extern "C" fn switch(
    top: usize,
    work: extern "C" fn(usize),
    argument: usize,
    back: *mut usize,
) -> usize {
    naked_asm!(
        ".cfi_startproc",
        "push rbp",
        ".cfi_def_cfa_offset 16",
        ".cfi_offset rbp, -16",
        "mov rbp, rsp",
        ".cfi_def_cfa_register rbp",
        "push rbx",
        ".cfi_offset rbx, -24",
        "push r12",
        ".cfi_offset r12, -32",
        "push r13",
        ".cfi_offset r13, -40",
        "push r14",
        ".cfi_offset r14, -48",
        "push r15",
        ".cfi_offset r15, -56",
        "mov [rcx], rsp",
        "and rdi, -16",
        "mov rsp, rdi",
        "mov rdi, rdx",
        "call rsi",
        "mov eax, 1",
        "lea rsp, [rbp - 40]",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "pop rbp",
        ".cfi_def_cfa rsp, 8",
        "ret",
        ".cfi_endproc",
    )
}

/// Ends the [`switch`] that left `back`, which gives 0.
///
/// # Safety
/// `back` must come from a switch that is still running on this thread.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
unsafe extern "C" fn unwind_to(back: usize) -> ! {
    naked_asm!(
        "mov rsp, rdi",
        "xor eax, eax",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "pop rbp",
        "ret",
    )
}

/// As above.
///
/// # Safety
/// As above.
#[cfg(target_arch = "aarch64")]
#[unsafe(naked)]
unsafe extern "C" fn switch(
    top: usize,
    work: extern "C" fn(usize),
    argument: usize,
    back: *mut usize,
) -> usize {
    naked_asm!(
        ".cfi_startproc",
        "stp x29, x30, [sp, #-160]!",
        ".cfi_def_cfa_offset 160",
        ".cfi_offset x29, -160",
        ".cfi_offset x30, -152",
        "mov x29, sp",
        ".cfi_def_cfa x29, 160",
        "stp x19, x20, [sp, #16]",
        "stp x21, x22, [sp, #32]",
        "stp x23, x24, [sp, #48]",
        "stp x25, x26, [sp, #64]",
        "stp x27, x28, [sp, #80]",
        "stp d8, d9, [sp, #96]",
        "stp d10, d11, [sp, #112]",
        "stp d12, d13, [sp, #128]",
        "stp d14, d15, [sp, #144]",
        "mov x9, sp",
        "str x9, [x3]",
        "and x0, x0, #0xfffffffffffffff0",
        "mov sp, x0",
        "mov x0, x2",
        "blr x1",
        "mov sp, x29",
        "mov x0, #1",
        "ldp x29, x30, [sp], #160",
        ".cfi_def_cfa sp, 0",
        "ret",
        ".cfi_endproc",
    )
}

/// As above.
///
/// # Safety
/// As above.
#[cfg(target_arch = "aarch64")]
#[unsafe(naked)]
unsafe extern "C" fn unwind_to(back: usize) -> ! {
    naked_asm!(
        "mov sp, x0",
        "ldp x19, x20, [sp, #16]",
        "ldp x21, x22, [sp, #32]",
        "ldp x23, x24, [sp, #48]",
        "ldp x25, x26, [sp, #64]",
        "ldp x27, x28, [sp, #80]",
        "ldp d8, d9, [sp, #96]",
        "ldp d10, d11, [sp, #112]",
        "ldp d12, d13, [sp, #128]",
        "ldp d14, d15, [sp, #144]",
        "mov x0, #0",
        "ldp x29, x30, [sp], #160",
        "ret",
    )
}
