//! Names of functions, from the symbol tables of the files that are mapped as modules.
//!
//! A module's file is mapped once, when an address in it is first asked about, and stays mapped; an index of its functions,
//! sorted by address, lies in memory of its own. Building one is for one thread at a time, and nobody waits for it: the
//! others, and a fault handler that interrupted it, are told that the name is not known now. Slots are published by their
//! state (Release) and never change after. A module that is unloaded keeps its names: another one that is mapped over
//! its addresses gets its names for want of better. Source: the ELF specification, elf(5).

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU32, Ordering};

use fencepost_record::{Module, Text};

use super::Host;
use super::modules::{each_module, u16_at, u32_at, u64_at};
use super::raw::{close, map, syscall, unmap};
use crate::{CodePlace, Names};

/// Modules whose names are kept; addresses in further ones have none.
const MODULES: usize = 64;
/// The longest path, end mark included.
const PATH_MAX: usize = 512;
const SECTION_LEN: usize = 64;
const SYMBOL_LEN: usize = 24;
const SHT_SYMTAB: u32 = 2;
const SHT_DYNSYM: u32 = 11;
const STT_FUNC: u8 = 2;
const STT_GNU_IFUNC: u8 = 10;

const EMPTY: u32 = 0;
const READY: u32 = 1;

/// One function: where it starts, how long it is, where its name is.
#[repr(C)]
#[derive(Clone, Copy)]
struct Function {
    start: u64,
    len: u32,
    name: u32,
}

/// The names of one module.
struct Named {
    start: u64,
    end: u64,
    bias: u64,
    path: Text<PATH_MAX>,
    functions: &'static [Function],
    strings: &'static [u8],
}

struct Slot {
    state: AtomicU32,
    named: UnsafeCell<Option<Named>>,
}

// SAFETY: `named` is written by the one thread that holds `BUILDING`, before the Release store of READY, and only read
// after an Acquire load of it.
unsafe impl Sync for Slot {}

static SLOTS: [Slot; MODULES] =
    [const { Slot { state: AtomicU32::new(EMPTY), named: UnsafeCell::new(None) } }; MODULES];
/// Not 0 while a thread reads a module's names.
static BUILDING: AtomicU32 = AtomicU32::new(0);

impl Names for Host {
    fn place_of_code(&self, address: usize, with: &mut dyn FnMut(&CodePlace<'_>)) -> bool {
        let address = address as u64;
        let Some(named) = known(address).or_else(|| learn(address)) else { return false };
        with(&named.place(address));
        true
    }
}

fn known(address: u64) -> Option<&'static Named> {
    let ready = SLOTS.iter().take_while(|slot| slot.state.load(Ordering::Acquire) == READY);
    // SAFETY: the state says that the slot was written in full, and it is not written again.
    ready
        .filter_map(|slot| unsafe { (*slot.named.get()).as_ref() })
        .find(|named| (named.start..named.end).contains(&address))
}

/// Reads the names of the module that holds an address.
#[cold]
fn learn(address: u64) -> Option<&'static Named> {
    if BUILDING.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_err() {
        return None;
    }
    let free = SLOTS.iter().find(|slot| slot.state.load(Ordering::Acquire) == EMPTY);
    if let (Some(slot), None) = (free, known(address)) {
        let mut found = None;
        each_module(&mut |module| {
            if (module.start..module.end).contains(&address) {
                found = Some(*module);
            }
        });
        if let Some(module) = found {
            // SAFETY: this thread alone builds, and nobody reads a slot that is not ready.
            unsafe { *slot.named.get() = Some(Named::of(&module)) };
            slot.state.store(READY, Ordering::Release);
        }
    }
    BUILDING.store(0, Ordering::Release);
    known(address)
}

impl Named {
    fn of(module: &Module) -> Named {
        let mut named = Named {
            start: module.start,
            end: module.end,
            bias: module.bias,
            path: Text::new(module.path.as_str().as_bytes()),
            functions: &[],
            strings: &[],
        };
        if let Some(file) = map_file(module.path.as_str().as_bytes())
            && let Some((functions, strings)) = read_functions(file)
        {
            named.functions = functions;
            named.strings = strings;
        }
        named
    }

    fn place(&self, address: u64) -> CodePlace<'_> {
        let within = address.wrapping_sub(self.bias);
        let unnamed = CodePlace { module: self.path.as_str().as_bytes(), function: b"", offset: within };
        let after = self.functions.partition_point(|function| function.start <= within);
        let Some(function) = after.checked_sub(1).and_then(|index| self.functions.get(index)) else {
            return unnamed;
        };
        let offset = within.wrapping_sub(function.start);
        let name = self.strings.get(function.name as usize..).unwrap_or(&[]);
        let len = name.iter().position(|byte| *byte == 0).unwrap_or(0);
        match name.get(..len) {
            Some(name) if offset < u64::from(function.len) && len != 0 => {
                CodePlace { function: name, offset, ..unnamed }
            }
            _ => unnamed,
        }
    }
}

/// A whole file, mapped to be read, for good. A file that a program runs from cannot be written to meanwhile.
fn map_file(path: &[u8]) -> Option<&'static [u8]> {
    let mut ended = [0u8; PATH_MAX];
    if path.len() >= PATH_MAX || !path.starts_with(b"/") {
        return None;
    }
    ended.get_mut(..path.len())?.copy_from_slice(path);
    let flags = libc::O_RDONLY | libc::O_CLOEXEC;
    // SAFETY: openat reads a zero-ended path.
    let file = unsafe { syscall!(libc::SYS_openat, libc::AT_FDCWD, ended.as_ptr(), flags, 0) }.ok()? as i32;
    // SAFETY: lseek touches no memory.
    let len = unsafe { syscall!(libc::SYS_lseek, file, 0, libc::SEEK_END) };
    let mapped = len.ok().filter(|len| *len != 0).and_then(|len| {
        // SAFETY: a private mapping at an address of the kernel's choice touches nobody's memory.
        let start = unsafe { syscall!(libc::SYS_mmap, 0, len, libc::PROT_READ, libc::MAP_PRIVATE, file, 0) };
        Some((start.ok()?, len))
    });
    close(file);
    let (start, len) = mapped?;
    // SAFETY: the mapping was made just now, is `len` bytes long and never taken back; nobody writes to it.
    Some(unsafe { core::slice::from_raw_parts(start as *const u8, len) })
}

/// The functions of a file, sorted by address, and the strings that hold their names.
fn read_functions(file: &'static [u8]) -> Option<(&'static [Function], &'static [u8])> {
    if !file.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let sections = usize::try_from(u64_at(file, 40)?).ok()?;
    let count = usize::from(u16_at(file, 60)?);
    let section = |index: usize| {
        let at = sections.checked_add(index.checked_mul(SECTION_LEN)?)?;
        file.get(at..at.checked_add(SECTION_LEN)?)
    };
    let content = |header: &[u8]| {
        let at = usize::try_from(u64_at(header, 24)?).ok()?;
        file.get(at..at.checked_add(usize::try_from(u64_at(header, 32)?).ok()?)?)
    };
    let of_kind = |kind: u32| (0..count).filter_map(section).find(|header| u32_at(header, 4) == Some(kind));
    let header = of_kind(SHT_SYMTAB).or_else(|| of_kind(SHT_DYNSYM))?;
    let symbols = content(header)?;
    let strings = content(section(u32_at(header, 40)? as usize)?)?;
    let functions = || symbols.chunks_exact(SYMBOL_LEN).filter_map(function);
    let room = functions().count();
    let bytes = room.checked_mul(size_of::<Function>())?;
    let start = map(0, bytes.max(1), libc::PROT_READ | libc::PROT_WRITE, 0).ok()?;
    // SAFETY: the memory was mapped just now for this alone, has room for so many, is aligned to a page, and zeroed memory
    // is a valid `Function`.
    let index = unsafe { core::slice::from_raw_parts_mut(start as *mut Function, room) };
    index.iter_mut().zip(functions()).for_each(|(place, function)| *place = function);
    index.sort_unstable_by_key(|function| function.start);
    if index.is_empty() {
        // SAFETY: mapped above, and nothing refers to it.
        let unmapped = unsafe { unmap(start, bytes.max(1)) };
        // A page that stays mapped is no harm.
        let _ = unmapped;
        return None;
    }
    Some((index, strings))
}

/// A symbol that is a function of this module's.
fn function(symbol: &[u8]) -> Option<Function> {
    let kind = symbol.get(4)? & 0xf;
    let defined = u16_at(symbol, 6)? != 0;
    let len = u32::try_from(u64_at(symbol, 16)?).ok()?;
    let wanted = defined && len != 0 && (kind == STT_FUNC || kind == STT_GNU_IFUNC);
    wanted.then_some(Function { start: u64_at(symbol, 8)?, len, name: u32_at(symbol, 0)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[inline(never)]
    fn a_function_with_a_name(value: u32) -> u32 {
        std::hint::black_box(value).wrapping_mul(3)
    }

    #[test]
    fn an_address_in_a_function_has_its_name_and_offset() {
        let address = a_function_with_a_name as fn(u32) -> u32 as usize;
        std::hint::black_box(a_function_with_a_name(1));
        let mut seen = 0;
        for offset in [0, 3] {
            assert!(Host.place_of_code(address + offset, &mut |place| {
                let wanted = b"a_function_with_a_name";
                assert!(place.function.windows(wanted.len()).any(|part| part == wanted), "{place:?}");
                assert_eq!(place.offset, offset as u64);
                assert!(place.module.starts_with(b"/"));
                seen += 1;
            }));
        }
        assert_eq!(seen, 2);
        assert!(Host.place_of_code(libc::getpid as unsafe extern "C" fn() -> i32 as usize, &mut |place| {
            let linked_in = cfg!(target_feature = "crt-static");
            assert!(
                (linked_in || place.module.ends_with(b".so.6")) && !place.function.is_empty(),
                "{place:?}"
            );
        }));
        assert!(!Host.place_of_code(0x10, &mut |_| ()));
    }
}
