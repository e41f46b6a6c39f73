//! The thread's own block, which the processor's `gs` points to, and the process's, which that one points to.
//!
//! Read by fixed offsets rather than through functions, because `TlsGetValue` changes the last error and others may wait
//! for the loader. The offsets are the same in every version of 64-bit Windows; `winternl.h` and ntdll's public symbols
//! (`_TEB`, `_PEB`).

use core::arch::asm;

/// `NtTib.ExceptionList`: handlers, in the order in which they are asked. Not used by 64-bit Windows itself.
pub(super) const HANDLERS: usize = 0;
/// `NtTib.StackBase`: one past the highest address of the stack.
pub(super) const STACK_BASE: usize = 0x08;
/// `NtTib.StackLimit`: the lowest committed one.
pub(super) const STACK_LIMIT: usize = 0x10;
const THREAD_ID: usize = 0x48;
const PROCESS_ID: usize = 0x40;
const PROCESS_BLOCK: usize = 0x60;
const LAST_ERROR: usize = 0x68;
/// `DeallocationStack`: the lowest reserved address of the stack.
pub(in crate::os) const STACK_RESERVED: usize = 0x1478;
/// `GuaranteedStackBytes`.
pub(super) const STACK_GUARANTEED: usize = 0x1748;
/// `TlsSlots`: the first 64 thread-local words.
const TLS_SLOTS: usize = 0x1480;
/// How many there are.
pub(super) const SLOTS: u32 = 64;

/// A word of the block.
pub(in crate::os) fn read(offset: usize) -> usize {
    let word: usize;
    // SAFETY: the block of the running thread is mapped and readable, and the offsets lie within it.
    unsafe {
        asm!("mov {}, qword ptr gs:[{}]", out(reg) word, in(reg) offset, options(nostack, preserves_flags, readonly));
    }
    word
}

/// Sets a word of the block.
///
/// # Safety
/// The word must be one that this thread may set.
unsafe fn write(offset: usize, word: usize) {
    // SAFETY: as in `read`; the rest is the caller's promise.
    unsafe {
        asm!("mov qword ptr gs:[{}], {}", in(reg) offset, in(reg) word, options(nostack, preserves_flags));
    }
}

pub(super) fn thread_id() -> u32 {
    read(THREAD_ID) as u32
}

pub(super) fn process_id() -> u32 {
    read(PROCESS_ID) as u32
}

/// Whether a debugger is attached (`PEB.BeingDebugged`).
pub(super) fn is_debugged() -> bool {
    // SAFETY: the block of the process is mapped as long as it lives, and this is a byte of its beginning.
    unsafe { ((process_block().wrapping_add(2)) as *const u8).read_volatile() != 0 }
}

/// Where the block of the process is.
pub(super) fn process_block() -> usize {
    read(PROCESS_BLOCK)
}

/// A thread-local word, of an index below [`SLOTS`].
pub(super) fn slot(index: u32) -> usize {
    read(TLS_SLOTS.wrapping_add((index as usize).wrapping_mul(8)))
}

/// Sets a thread-local word.
///
/// # Safety
/// The index must be below [`SLOTS`] and have been given to us by `TlsAlloc`.
pub(super) unsafe fn set_slot(index: u32, word: usize) {
    // SAFETY: the caller's promise.
    unsafe { write(TLS_SLOTS.wrapping_add((index as usize).wrapping_mul(8)), word) };
}

/// The thread's last error, put back when this is dropped: what we ask of the system must not show to the program.
pub(super) struct Kept(u32);

impl Kept {
    pub(super) fn new() -> Kept {
        Kept(read(LAST_ERROR) as u32)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // SAFETY: the last error is a 32-bit word of this thread's.
        unsafe {
            asm!("mov dword ptr gs:[{}], {:e}", in(reg) LAST_ERROR, in(reg) self.0, options(nostack, preserves_flags));
        }
    }
}
