//! Memory that may hold pointers.

use windows_sys::Win32::System::Memory::{
    MEM_COMMIT, PAGE_EXECUTE_READWRITE, PAGE_EXECUTE_WRITECOPY, PAGE_READWRITE, PAGE_WRITECOPY,
};

use super::{Host, memory};
use crate::{Mappings, Range};

/// The most parts that are looked at: what changes faster than it can be looked through ends here.
const PARTS_MAX: usize = 1 << 22;

impl Mappings for Host {
    /// What is committed and writable. One-shot guards have other bits set, and are not touched; neither is memory that is
    /// not cached, which may be a device's. Constant data of modules holds no pointers into heaps.
    fn each_mapping(&self, each: &mut dyn FnMut(Range)) -> bool {
        let mut at = 0usize;
        for _ in 0..PARTS_MAX {
            let Some(info) = memory::query(at) else { return at != 0 };
            let start = info.BaseAddress.addr();
            let writable = matches!(
                info.Protect,
                PAGE_READWRITE | PAGE_WRITECOPY | PAGE_EXECUTE_READWRITE | PAGE_EXECUTE_WRITECOPY
            );
            if info.State == MEM_COMMIT && writable {
                each(Range { start, len: info.RegionSize });
            }
            match start.checked_add(info.RegionSize) {
                Some(next) if next > at => at = next,
                _ => return false,
            }
        }
        false
    }
}
