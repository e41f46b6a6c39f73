//! The register of protection keys in the context to which a signal handler returns.
//!
//! Behind the registers of 512 bytes that every x86_64 has, the kernel saves the extended ones, as the processor's
//! `XSAVE` lays them out. Sources: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter
//! 13, and `arch/x86/include/uapi/asm/sigcontext.h` of the kernel.

use core::arch::x86_64::{__cpuid, __cpuid_count};
use core::sync::atomic::{AtomicU32, Ordering};

use super::keys::Rights;

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

/// Sets what a key allows in saved registers, if they hold the register.
///
/// # Safety
/// `saved` must be null or what the kernel gave a signal handler.
pub(super) unsafe fn set_key(saved: *mut u8, key: i32, rights: Rights) {
    // SAFETY: the caller's promise.
    let Some((header, register)) = (unsafe { saved_register(saved) }) else { return };
    // SAFETY: `saved_register` says that both are there.
    unsafe {
        let value = value_of(header, register);
        header.write_unaligned(header.read_unaligned() | (1 << COMPONENT));
        register.write_unaligned(with_rights(value, key, rights));
    }
}

/// What a key allows in saved registers; all, if they do not hold the register.
///
/// # Safety
/// As [`set_key`].
pub(super) unsafe fn key_in(saved: *mut u8, key: i32) -> Rights {
    // SAFETY: the caller's promise.
    match unsafe { saved_register(saved) } {
        // SAFETY: `saved_register` says that both are there.
        Some((header, register)) => rights_of(unsafe { value_of(header, register) }, key),
        None => Rights::All,
    }
}

/// The register in its place; 0 where it was in its initial state, in which it is not saved.
///
/// # Safety
/// Both must be from [`saved_register`].
unsafe fn value_of(header: *mut u64, register: *mut u32) -> u32 {
    // SAFETY: the caller's promise.
    unsafe { if header.read_unaligned() & (1 << COMPONENT) == 0 { 0 } else { register.read_unaligned() } }
}

/// Where saved registers say which components they hold, and where the register lies.
///
/// # Safety
/// As [`set_key`].
unsafe fn saved_register(saved: *mut u8) -> Option<(*mut u64, *mut u32)> {
    let offset = offset().filter(|_| !saved.is_null())?;
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
    if magic != MAGIC || components & (1 << COMPONENT) == 0 || (size as usize) < end {
        return None;
    }
    // SAFETY: the kernel says that it has room for this component, and that the area reaches so far.
    unsafe { Some((saved.add(HEADER).cast(), saved.add(offset).cast())) }
}

/// Sets what a key allows this thread.
pub(super) fn set_here(key: i32, rights: Rights) {
    // SAFETY: that there is a key says that the processor and the kernel have the register.
    unsafe { write_register(with_rights(read_register(), key, rights)) };
}

/// What a key allows this thread.
pub(super) fn rights_here(key: i32) -> Rights {
    // SAFETY: as above.
    rights_of(unsafe { read_register() }, key)
}

/// The lower of a key's two bits forbids all access, the higher writing.
const ALL_ACCESS: u32 = 0x5555_5555;

fn with_rights(value: u32, key: i32, rights: Rights) -> u32 {
    let bits = bits_of(key);
    let forbidden = match rights {
        Rights::All => 0,
        Rights::Read => bits & !ALL_ACCESS,
        Rights::Nothing => bits & ALL_ACCESS,
    };
    (value & !bits) | forbidden
}

fn rights_of(value: u32, key: i32) -> Rights {
    let forbidden = value & bits_of(key);
    match forbidden {
        0 => Rights::All,
        some if some & ALL_ACCESS != 0 => Rights::Nothing,
        _ => Rights::Read,
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_two_bits_and_leaves_the_others() {
        for key in 1..16 {
            for other in [0, u32::MAX, 0x5555_5554] {
                for rights in [Rights::All, Rights::Read, Rights::Nothing] {
                    let value = with_rights(other, key, rights);
                    assert_eq!(rights_of(value, key), rights);
                    assert_eq!((value ^ other) & !bits_of(key), 0);
                }
            }
        }
        assert_eq!(with_rights(0, 2, Rights::Nothing), 0x10);
        assert_eq!(with_rights(0, 2, Rights::Read), 0x20);
    }
}
