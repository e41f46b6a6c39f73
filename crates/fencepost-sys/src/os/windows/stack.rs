//! Running a function on another stack.
//!
//! The system keeps the bounds of a thread's stack in the thread's block, and neither unwinds nor dispatches exceptions
//! outside of them; so they are changed with the stack pointer, and put back with it.

use core::arch::naked_asm;
use core::sync::atomic::{AtomicUsize, Ordering};

use windows_sys::Win32::System::Memory::{MEM_COMMIT, PAGE_GUARD};

use super::{memory, teb};
use crate::Range;

/// Where [`abandon`] goes back to: the stack pointer inside the running [`switch`].
static RETURN: AtomicUsize = AtomicUsize::new(0);

/// Runs `work` with `argument` on another stack; false when it was abandoned.
///
/// # Safety
/// As [`crate::Faults::call_on_stack`].
pub(super) unsafe fn call(stack: Range, work: extern "C" fn(usize), argument: usize) -> bool {
    // SAFETY: the caller's promises.
    unsafe { switch(stack.end(), work, argument, RETURN.as_ptr(), &bounds(stack)) != 0 }
}

/// The same for a function that comes back.
///
/// # Safety
/// As [`crate::Pages::run_on_stack`].
pub(super) unsafe fn run(stack: Range, work: extern "C" fn(usize), argument: usize) {
    let mut back = 0;
    // SAFETY: the caller's promises; `back` is ours.
    unsafe { switch(stack.end(), work, argument, &raw mut back, &bounds(stack)) };
}

/// Runs `work` with `argument` on the rest of this thread's own stack, below `top`; false when it was left by [`leave_to`]
/// with what is in `back` meanwhile.
///
/// # Safety
/// Nothing below `top` may be in use, and what is left must hold nothing that others need.
pub(super) unsafe fn run_below(
    top: usize,
    work: extern "C" fn(usize),
    argument: usize,
    back: &AtomicUsize,
) -> bool {
    let (limit, reserved) = (teb::read(teb::STACK_LIMIT), teb::read(teb::STACK_RESERVED));
    let bounds = Bounds { limit, reserved, handlers: teb::read(teb::HANDLERS) };
    // SAFETY: the caller's promises.
    unsafe { switch(top, work, argument, back.as_ptr(), &bounds) != 0 }
}

/// Leaves what [`run_below`] runs.
///
/// # Safety
/// `back` must be what that stored, on this thread, and it must be running.
pub(super) unsafe fn leave_to(back: usize) -> ! {
    // SAFETY: the caller's promise.
    unsafe { unwind_to(back) }
}

/// The lowest committed address of a stack, above its guard if it has one, and the lowest reserved one; and the list of
/// handlers that holds there.
#[repr(C)]
struct Bounds {
    limit: usize,
    reserved: usize,
    handlers: usize,
}

/// The end of a list of handlers (`EXCEPTION_CHAIN_END`).
const NO_HANDLERS: usize = usize::MAX;

/// Wine keeps handlers of its own in the list that 64-bit Windows does not use, and takes those at lower addresses for inner
/// ones, on whatever stack they lie: a panic on a stack above them would never find its frame.
fn bounds(stack: Range) -> Bounds {
    let handlers = if memory::is_wine() { NO_HANDLERS } else { teb::read(teb::HANDLERS) };
    Bounds { limit: lowest_usable(stack), reserved: stack.start, handlers }
}

/// Where a stack's committed part begins. The system tells of an address how far what it lies in goes on upwards, never
/// downwards, so this goes through the parts from the lowest: reserved, guard, committed.
fn lowest_usable(stack: Range) -> usize {
    let mut at = stack.start;
    while let Some(part) = memory::query(at).filter(|_| at < stack.end()) {
        if part.State == MEM_COMMIT && part.Protect & PAGE_GUARD == 0 {
            return at;
        }
        let end = part.BaseAddress.addr().saturating_add(part.RegionSize);
        if end <= at {
            break;
        }
        at = end;
    }
    stack.start
}

/// What the thread's block must say while code runs on a stack.
#[derive(Clone, Copy, Debug)]
pub struct Fields {
    /// `StackBase`.
    pub base: usize,
    /// `StackLimit`.
    pub limit: usize,
    /// `DeallocationStack`.
    pub reserved: usize,
    /// `GuaranteedStackBytes`: what this thread keeps for the handler of an overflow, on whatever stack it is.
    pub guaranteed: usize,
}

/// What the thread's block must say while code runs on this stack, which [`crate::Pages::prepare_stack`] has prepared.
pub fn fields(stack: Range) -> Fields {
    let guaranteed = teb::read(teb::STACK_GUARANTEED);
    Fields { base: stack.end(), limit: lowest_usable(stack), reserved: stack.start, guaranteed }
}

/// Goes back to the running [`call`], which says false.
///
/// # Safety
/// As [`crate::Faults::abandon_call`].
pub(super) unsafe fn abandon() -> ! {
    // SAFETY: `RETURN` was written by the call that is running, whose frame is untouched by the code it called.
    unsafe { unwind_to(RETURN.load(Ordering::Relaxed)) }
}

/// The next instruction and the stack pointer of a thread that is to leave its running [`call`], which then says false.
pub(super) fn give_up() -> (u64, u64) {
    (given_up as *const () as u64, RETURN.load(Ordering::Relaxed) as u64)
}

/// Runs `work` with `argument` on the stack that ends at `top` and has these bounds, and gives 1; or 0 when [`unwind_to`] came instead.
///
/// The unwind table says that the frame pointer keeps the old stack, so that unwinders walk from `work` through to the
/// caller. What a callee must preserve by the rules of 64-bit Windows is kept on the old stack, with the old bounds.
///
/// # Safety
/// The memory up to `top` must be a stack of these bounds that nobody else uses.
#[unsafe(naked)]
unsafe extern "C" fn switch(
    top: usize,
    work: extern "C" fn(usize),
    argument: usize,
    back: *mut usize,
    bounds: &Bounds,
) -> usize {
    naked_asm!(
        ".seh_proc {this}",
        "push rbp",
        ".seh_pushreg rbp",
        "push rbx",
        ".seh_pushreg rbx",
        "push rdi",
        ".seh_pushreg rdi",
        "push rsi",
        ".seh_pushreg rsi",
        "push r12",
        ".seh_pushreg r12",
        "push r13",
        ".seh_pushreg r13",
        "push r14",
        ".seh_pushreg r14",
        "push r15",
        ".seh_pushreg r15",
        "sub rsp, 200",
        ".seh_stackalloc 200",
        "mov rbp, rsp",
        ".seh_setframe rbp, 0",
        ".seh_endprologue",
        "movups [rsp], xmm6",
        "movups [rsp + 16], xmm7",
        "movups [rsp + 32], xmm8",
        "movups [rsp + 48], xmm9",
        "movups [rsp + 64], xmm10",
        "movups [rsp + 80], xmm11",
        "movups [rsp + 96], xmm12",
        "movups [rsp + 112], xmm13",
        "movups [rsp + 128], xmm14",
        "movups [rsp + 144], xmm15",
        "mov rax, gs:[{base}]",
        "mov [rsp + 160], rax",
        "mov rax, gs:[{limit}]",
        "mov [rsp + 168], rax",
        "mov rax, gs:[{reserved}]",
        "mov [rsp + 176], rax",
        "mov rax, gs:[{handlers}]",
        "mov [rsp + 184], rax",
        "mov [r9], rsp",
        // The fifth argument: above 8 saved words, our own room, and the return address.
        "mov rax, [rsp + 200 + 64 + 8 + 32]",
        "mov r10, [rax]",
        "mov gs:[{limit}], r10",
        "mov r10, [rax + 8]",
        "mov gs:[{reserved}], r10",
        "mov r10, [rax + 16]",
        "mov gs:[{handlers}], r10",
        "mov gs:[{base}], rcx",
        "and rcx, -16",
        "lea rsp, [rcx - 32]",
        "mov rcx, r8",
        "call rdx",
        "mov eax, 1",
        "mov rsp, rbp",
        "jmp {leave}",
        ".seh_endproc",
        this = sym switch,
        leave = sym leave,
        handlers = const teb::HANDLERS,
        base = const teb::STACK_BASE,
        limit = const teb::STACK_LIMIT,
        reserved = const teb::STACK_RESERVED,
    )
}

/// Ends the [`switch`] that left `back`, which gives 0.
///
/// # Safety
/// `back` must come from a switch that is still running on this thread.
#[unsafe(naked)]
unsafe extern "C" fn unwind_to(back: usize) -> ! {
    naked_asm!("mov rsp, rcx", "xor eax, eax", "jmp {leave}", leave = sym leave)
}

/// [`unwind_to`] for a thread whose stack pointer is set from outside: in the middle of a call to the system it keeps no argument.
///
/// # Safety
/// Gone on at by [`give_up`] only.
#[unsafe(naked)]
unsafe extern "C" fn given_up() -> ! {
    naked_asm!("xor eax, eax", "jmp {leave}", leave = sym leave)
}

/// The end of [`switch`]: the stack pointer is where it was before it left, and the result is in place.
///
/// # Safety
/// Jumped to by the three above only.
#[unsafe(naked)]
unsafe extern "C" fn leave() {
    naked_asm!(
        "mov rcx, [rsp + 160]",
        "mov gs:[{base}], rcx",
        "mov rcx, [rsp + 168]",
        "mov gs:[{limit}], rcx",
        "mov rcx, [rsp + 176]",
        "mov gs:[{reserved}], rcx",
        "mov rcx, [rsp + 184]",
        "mov gs:[{handlers}], rcx",
        "movups xmm6, [rsp]",
        "movups xmm7, [rsp + 16]",
        "movups xmm8, [rsp + 32]",
        "movups xmm9, [rsp + 48]",
        "movups xmm10, [rsp + 64]",
        "movups xmm11, [rsp + 80]",
        "movups xmm12, [rsp + 96]",
        "movups xmm13, [rsp + 112]",
        "movups xmm14, [rsp + 128]",
        "movups xmm15, [rsp + 144]",
        "add rsp, 200",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rsi",
        "pop rdi",
        "pop rbx",
        "pop rbp",
        "ret",
        handlers = const teb::HANDLERS,
        base = const teb::STACK_BASE,
        limit = const teb::STACK_LIMIT,
        reserved = const teb::STACK_RESERVED,
    )
}
