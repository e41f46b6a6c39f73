//! The register of protection keys in the context to which a signal handler returns.
//!
//! Behind the registers of 512 bytes that every x86_64 has, the kernel saves the extended ones, as the processor's
//! `XSAVE` lays them out. Sources: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter
//! 13, and `arch/x86/include/uapi/asm/sigcontext.h` of the kernel.

use core::arch::x86_64::{__cpuid, __cpuid_count};
use core::sync::atomic::{AtomicU32, Ordering};

/// The component that holds the register.
const COMPONENT: u32 = 9;
/// `FP_XSTATE_MAGIC1`: what the kernel writes where extended registers follow.
const MAGIC: u32 = 0x4650_5853;
/// Where the kernel describes what it saved: magic, size, components (8 bytes), size without its own trailer.
const DESCRIPTION: usize = 464;
/// Where the processor notes which components are not in their initial state.
const HEADER: usize = 512;

/// Where the register lies from the start of the saved registers, in bytes; 0 before it was asked.
static OFFSET: AtomicU32 = AtomicU32::new(0);

fn offset() -> Option<usize> {
    let mut offset = OFFSET.load(Ordering::Relaxed);
    if offset == 0 {
        // Components are listed from leaf 13 on.
        offset = if __cpuid(0).eax >= 13 { __cpuid_count(13, COMPONENT).ebx } else { u32::MAX };
        offset = if offset == 0 { u32::MAX } else { offset };
        OFFSET.store(offset, Ordering::Relaxed);
    }
    (offset != u32::MAX).then_some(offset as usize)
}

/// Whether the processor saves such a register.
pub(super) fn has_keys() -> bool {
    offset().is_some()
}

/// Opens or closes a key in saved registers, if they hold the register.
///
/// # Safety
/// `saved` must be null or what the kernel gave a signal handler.
pub(super) unsafe fn set_key(saved: *mut u8, key: i32, open: bool) {
    let (Some(offset), false) = (offset(), saved.is_null()) else { return };
    let end = offset.saturating_add(size_of::<u32>());
    // SAFETY: the first 512 bytes are always there, of which these are the last 48.
    let (magic, components, size) = unsafe {
        let description = saved.add(DESCRIPTION);
        (
            description.cast::<u32>().read_unaligned(),
            description.add(8).cast::<u64>().read_unaligned(),
            description.add(16).cast::<u32>().read_unaligned(),
        )
    };
    let bit = 1u64 << COMPONENT;
    if magic != MAGIC || components & bit == 0 || (size as usize) < end {
        return;
    }
    let bits = bits_of(key);
    // SAFETY: the kernel says that it saved this component, and that the area reaches so far.
    unsafe {
        let header = saved.add(HEADER).cast::<u64>();
        header.write_unaligned(header.read_unaligned() | bit);
        let register = saved.add(offset).cast::<u32>();
        let closed = bits & 0x5555_5555;
        let value = register.read_unaligned() & !bits;
        register.write_unaligned(if open { value } else { value | closed });
    }
}

/// Opens a key to this thread.
pub(super) fn open_here(key: i32) {
    // SAFETY: that there is a key says that the processor and the kernel have the register.
    unsafe { write_register(read_register() & !bits_of(key)) };
}

/// Closes a key to this thread.
pub(super) fn close_here(key: i32) {
    // SAFETY: as above.
    unsafe { write_register(read_register() | (bits_of(key) & 0x5555_5555)) };
}

/// Two bits a key: no access at all, and no writing.
fn bits_of(key: i32) -> u32 {
    3u32.wrapping_shl(key.unsigned_abs().wrapping_mul(2))
}

/// # Safety
/// The processor must have the register, and the kernel have switched it on.
unsafe fn read_register() -> u32 {
    let value: u32;
    // SAFETY: the caller's word. It asks for zero in ecx and clears edx.
    unsafe {
        core::arch::asm!("rdpkru", in("ecx") 0, out("eax") value, out("edx") _, options(nomem, nostack))
    };
    value
}

/// # Safety
/// As [`read_register`].
unsafe fn write_register(value: u32) {
    // SAFETY: as above. What it allows is read and written only after it, so it counts as touching memory.
    unsafe { core::arch::asm!("wrpkru", in("eax") value, in("ecx") 0, in("edx") 0, options(nostack)) };
}
