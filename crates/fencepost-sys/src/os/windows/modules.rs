//! The list of loaded modules, as the loader keeps it, without the loader's lock.
//!
//! The list hangs off the process's block (`PEB.Ldr`, `LDR_DATA_TABLE_ENTRY` of `winternl.h` and ntdll's public symbols).
//! Another thread may change it meanwhile: so every entry is read by [`Memory::read_checked`], the walk is bounded, and
//! the worst outcome is a module that is not named.

use fencepost_record::{Module, Text};

use super::{Host, teb, text};
use crate::Memory;

/// The most entries that are looked at: a list that goes in a circle ends here.
const ENTRIES_MAX: usize = 512;
/// The longest path that is kept, in words.
const PATH_MAX: usize = 256;

/// `PEB.Ldr` and `PEB.ProcessParameters`, and of these `ImagePathName`.
const LOADER: usize = 0x18;
const PARAMETERS: usize = 0x20;
const IMAGE: usize = 0x60;
/// `PEB_LDR_DATA.InLoadOrderModuleList`.
const LIST: usize = 0x10;
/// `DllBase`, `SizeOfImage` and `FullDllName` of an entry, which begins with its links.
const BASE: usize = 0x30;
const SIZE: usize = 0x40;
const NAME: usize = 0x48;

fn word(address: usize) -> Option<usize> {
    let mut bytes = [0; 8];
    (Host.read_checked(address, &mut bytes) == 8).then(|| usize::from_le_bytes(bytes))
}

/// Calls `each` with every module.
pub(super) fn each_module(each: &mut dyn FnMut(&Module)) {
    let walked = walk(each);
    // Without a list modules are not named, which a report says by itself.
    let _ = walked;
}

fn walk(each: &mut dyn FnMut(&Module)) -> Option<()> {
    let head = word(teb::process_block().wrapping_add(LOADER))?.wrapping_add(LIST);
    let mut entry = word(head)?;
    for _ in 0..ENTRIES_MAX {
        if entry == head {
            break;
        }
        if let Some(module) = module_at(entry) {
            each(&module);
        }
        entry = word(entry)?;
    }
    Some(())
}

/// Whether an address lies in the executable or library that this code was linked into.
pub fn is_in_this_object(address: usize) -> bool {
    let (here, mut both) = (is_in_this_object as *const () as u64, false);
    each_module(&mut |module| {
        let holds = |address: u64| (module.start..module.end).contains(&address);
        both |= holds(here) && holds(address as u64);
    });
    both
}

fn module_at(entry: usize) -> Option<Module> {
    let start = word(entry.wrapping_add(BASE))?;
    let size = word(entry.wrapping_add(SIZE))? & 0xffff_ffff;
    let mut path = [0u8; 240];
    let len = string_at(entry.wrapping_add(NAME), &mut path)?;
    let start = start as u64;
    Some(Module {
        start,
        end: start.saturating_add(size as u64),
        // Offsets within the image: what tools call relative virtual addresses.
        bias: start,
        path: Text::new(path.get(..len)?),
        build_id: [0; 20],
        build_id_len: 0,
    })
}

/// Copies the path of the executable, as the process was started with it: `GetModuleFileNameW` would wait for the loader.
pub(super) fn executable(into: &mut [u8]) -> usize {
    let parameters = word(teb::process_block().wrapping_add(PARAMETERS));
    parameters.and_then(|parameters| string_at(parameters.wrapping_add(IMAGE), into)).unwrap_or(0)
}

/// The system's own form of a string: the length in bytes, and 8 bytes on the address.
fn string_at(address: usize, into: &mut [u8]) -> Option<usize> {
    let len = word(address)? & 0xffff;
    let start = word(address.wrapping_add(8))?;
    let mut wide = [0u8; PATH_MAX.saturating_mul(2)];
    let room = wide.get_mut(..len.min(PATH_MAX.saturating_mul(2)))?;
    let got = Host.read_checked(start, room);
    let words = wide.get(..got)?.chunks_exact(2).map(|pair| match pair {
        [low, high] => u16::from_le_bytes([*low, *high]),
        _ => 0,
    });
    Some(text::to_utf8(words, into))
}
