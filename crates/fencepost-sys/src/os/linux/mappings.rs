//! Mappings that may hold pointers.

use super::Host;
use super::maps::Maps;
use crate::{Mappings, Range};

/// The longest mapping of a file without a right to write that is looked at: a module's data that the loader protected
/// after relocating it.
const PROTECTED_MAX: usize = 4 << 20;

impl Mappings for Host {
    fn each_mapping(&self, each: &mut dyn FnMut(Range)) -> bool {
        let Some(maps) = Maps::open() else { return false };
        maps.each(|line| {
            let range = Range { start: line.start, len: line.end.wrapping_sub(line.start) };
            // Reading a device may do something.
            let is_device = line.path.starts_with(b"/dev/")
                && ![&b"/dev/shm/"[..], b"/dev/zero"].iter().any(|path| line.path.starts_with(path));
            let was_data = line.file.1 != 0 && !line.executable && range.len <= PROTECTED_MAX;
            if line.readable && !is_device && (line.writable || was_data) {
                each(range);
            }
            true
        });
        true
    }
}
