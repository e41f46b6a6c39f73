//! Mappings that may hold pointers, as the kernel tells them. Compiled, and never run.
//!
//! Source: `osfmk/mach/vm_region.h`, `osfmk/mach/vm_statistics.h` and `mach_vm_region_recurse` of XNU.

use mach2::traps::mach_task_self;
use mach2::vm::mach_vm_region_recurse;
use mach2::vm_prot::{VM_PROT_EXECUTE, VM_PROT_READ, VM_PROT_WRITE};
use mach2::vm_region::{SM_EMPTY, vm_region_submap_info_64};

use super::Host;
use crate::{Mappings, Range};

/// The longest mapping that was writable and is not now that is looked at: a module's data that the loader protected
/// after fixing it up.
const PROTECTED_MAX: u64 = 4 << 20;
/// What drivers map has these tags (`VM_MEMORY_IOKIT`, `VM_MEMORY_IOSURFACE`, `VM_MEMORY_IOACCELERATOR`): reading a device
/// may do something.
const DEVICES: [u32; 3] = [21, 88, 100];
/// The most mappings that are looked at.
const MAPPINGS_MAX: u32 = 1 << 20;

impl Mappings for Host {
    fn each_mapping(&self, each: &mut dyn FnMut(Range)) -> bool {
        let (mut address, mut depth) = (0u64, 0u32);
        for _ in 0..MAPPINGS_MAX {
            let mut told = vm_region_submap_info_64::default();
            let mut count = vm_region_submap_info_64::count();
            let mut size = 0u64;
            // SAFETY: the call writes two numbers, and at most as many words as are announced, which is one such structure.
            let result = unsafe {
                let (place, into) = ((&raw mut told).cast(), &raw mut address);
                mach_vm_region_recurse(
                    mach_task_self(),
                    into,
                    &raw mut size,
                    &raw mut depth,
                    place,
                    &raw mut count,
                )
            };
            // Nothing lies above.
            if result != 0 {
                return address != 0;
            }
            // A map within the map, such as that of the system's own libraries: its entries are next.
            if told.is_submap != 0 {
                depth = depth.saturating_add(1);
                continue;
            }
            if may_hold_pointers(&told, size) {
                each(Range { start: address as usize, len: size as usize });
            }
            let Some(next) = address.checked_add(size).filter(|next| *next > address) else { return true };
            address = next;
        }
        false
    }
}

fn may_hold_pointers(told: &vm_region_submap_info_64, size: u64) -> bool {
    let (now, ever) = (told.protection, told.max_protection);
    let was_data = ever & VM_PROT_WRITE != 0 && now & VM_PROT_EXECUTE == 0 && size <= PROTECTED_MAX;
    now & VM_PROT_READ != 0
        && (now & VM_PROT_WRITE != 0 || was_data)
        && told.share_mode != SM_EMPTY
        && !DEVICES.contains(&{ told.user_tag })
}
