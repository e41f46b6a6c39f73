//! What the loader has mapped, and where its unwind tables are.
//!
//! The loader is asked by `dl_iterate_phdr`, once for each code address that a walk meets for the first time. Whoever
//! remembers an answer must know how long it holds. Most modules stay for as long as the process does: the program,
//! this runtime, and all that they need, directly or not. That set is worked out once from what the modules say of
//! themselves (`DT_NEEDED`). Anything else was loaded by the program and may go again; an answer about it holds while
//! no module at all has gone. Source: the ELF specification, dl_iterate_phdr(3).

use core::ffi::{CStr, c_char, c_int, c_void};
use core::mem::offset_of;
use core::slice::from_raw_parts;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use libc::{Elf64_Phdr, dl_phdr_info};

use super::Host;
use super::probe::{Feature, denied};
use crate::{Code, Loader, Range};

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_GNU_EH_FRAME: u32 = 0x6474_e550;
const DT_NEEDED: usize = 1;
const DT_STRTAB: usize = 5;
const DT_SONAME: usize = 14;

/// Modules that can be known to stay; further ones are taken for modules that may go.
const LASTING_MAX: usize = 256;
const UNKNOWN: u32 = 0;
const ASKING: u32 = 1;
const KNOWN: u32 = 2;

/// The dynamic sections of the modules that stay, and what their addresses are relative to. Entries are only added, and
/// only before `STATE` is `KNOWN`.
static LASTING: [[AtomicUsize; 2]; LASTING_MAX] = [const { [const { AtomicUsize::new(0) }; 2] }; LASTING_MAX];
static LASTING_USED: AtomicUsize = AtomicUsize::new(0);
static STATE: AtomicU32 = AtomicU32::new(UNKNOWN);
static LEFT_ALONE: AtomicBool = AtomicBool::new(false);

impl Loader for Host {
    fn code_at(&self, address: usize, look: &mut dyn FnMut(&Code)) -> bool {
        if !may_ask() {
            return false;
        }
        if STATE.compare_exchange(UNKNOWN, ASKING, Ordering::Acquire, Ordering::Relaxed).is_ok() {
            find_lasting();
            STATE.store(KNOWN, Ordering::Release);
        }
        // Another thread works it out just now. Whoever asks keeps the answer, so for this moment there is none.
        if STATE.load(Ordering::Acquire) != KNOWN {
            return false;
        }
        let mut found = false;
        each(&mut |module| {
            if !module.holds(address) {
                return true;
            }
            if let Some(code) = module.code() {
                look(&code);
                found = true;
            }
            false
        });
        found
    }

    fn departures(&self) -> Option<u64> {
        if !may_ask() {
            return None;
        }
        let mut departures = None;
        each(&mut |module| {
            departures = Some(module.departures());
            false
        });
        departures
    }

    fn leave_loader_alone(&self) {
        LEFT_ALONE.store(true, Ordering::Relaxed);
    }
}

fn may_ask() -> bool {
    !LEFT_ALONE.load(Ordering::Relaxed) && !denied(Feature::Tables)
}

/// One module, while the loader holds it in place.
struct Loaded<'a> {
    info: &'a dl_phdr_info,
}

/// Calls `look` with every module, the program first, until it says false.
fn each(look: &mut dyn FnMut(&Loaded<'_>) -> bool) {
    extern "C" fn one(info: *mut dl_phdr_info, size: usize, data: *mut c_void) -> c_int {
        if size < offset_of!(dl_phdr_info, dlpi_tls_modid) {
            // Without the counts of modules that came and went nothing may be remembered.
            return 1;
        }
        // SAFETY: `data` is the reference to `look` below, which lives longer than the iteration; the loader gives a
        // description that is valid during the call, and of which the fields up to the counts are there.
        let (look, info) = unsafe { (&mut *data.cast::<&mut dyn FnMut(&Loaded<'_>) -> bool>(), &*info) };
        c_int::from(!look(&Loaded { info }))
    }
    let mut look = look;
    // SAFETY: the callback is given what it expects, and does not unwind.
    unsafe { libc::dl_iterate_phdr(Some(one), (&raw mut look).cast()) };
}

impl Loaded<'_> {
    fn headers(&self) -> &[Elf64_Phdr] {
        if self.info.dlpi_phdr.is_null() {
            return &[];
        }
        // SAFETY: the loader says how many headers there are, and they are mapped with the module.
        unsafe { from_raw_parts(self.info.dlpi_phdr, usize::from(self.info.dlpi_phnum)) }
    }

    fn bias(&self) -> usize {
        self.info.dlpi_addr as usize
    }

    /// Where a segment lies.
    fn range(&self, header: &Elf64_Phdr) -> Range {
        Range { start: self.bias().wrapping_add(header.p_vaddr as usize), len: header.p_memsz as usize }
    }

    fn segment_of(&self, address: usize) -> Option<&Elf64_Phdr> {
        let mut loaded = self.headers().iter().filter(|header| header.p_type == PT_LOAD);
        loaded.find(|header| self.range(header).contains(address))
    }

    fn holds(&self, address: usize) -> bool {
        self.segment_of(address).is_some()
    }

    fn departures(&self) -> u64 {
        self.info.dlpi_subs
    }

    fn code(&self) -> Option<Code> {
        let index = self.headers().iter().find(|header| header.p_type == PT_GNU_EH_FRAME)?;
        let index = self.range(index);
        let segment = self.segment_of(index.start)?;
        let segment = Range { len: segment.p_filesz as usize, ..self.range(segment) };
        let lasting = self.is_lasting();
        (index.end() <= segment.end()).then_some(Code {
            index,
            segment,
            lasting,
            departures: self.departures(),
        })
    }

    fn dynamic(&self) -> usize {
        let section = self.headers().iter().find(|header| header.p_type == PT_DYNAMIC);
        section.map_or(0, |header| self.range(header).start)
    }

    fn is_lasting(&self) -> bool {
        let dynamic = self.dynamic();
        lasting().any(|(known, bias)| known == dynamic && bias == self.bias())
    }

    /// Whether another module may mean this one by a name.
    fn is_called(&self, name: &CStr) -> bool {
        let mut names = strings(self.dynamic(), self.bias(), DT_SONAME);
        if names.any(|own| own == name) {
            return true;
        }
        if self.info.dlpi_name.is_null() {
            return false;
        }
        // SAFETY: the loader gives a path ended by a zero, valid during the call.
        let path = unsafe { CStr::from_ptr(self.info.dlpi_name) }.to_bytes();
        path.rsplit(|byte| *byte == b'/').next() == Some(name.to_bytes())
    }
}

fn lasting() -> impl Iterator<Item = (usize, usize)> {
    LASTING
        .iter()
        .take(LASTING_USED.load(Ordering::Acquire))
        .map(|[dynamic, bias]| (dynamic.load(Ordering::Relaxed), bias.load(Ordering::Relaxed)))
}

/// Works out which modules stay: the program and this runtime's own module, and again and again whatever is needed by
/// one that stays.
fn find_lasting() {
    let mut first = true;
    let own = find_lasting as *const () as usize;
    each(&mut |module| {
        if core::mem::take(&mut first) || module.holds(own) {
            add(module);
        }
        true
    });
    loop {
        let before = LASTING_USED.load(Ordering::Relaxed);
        each(&mut |module| {
            let needed = || {
                lasting().any(|(dynamic, bias)| {
                    strings(dynamic, bias, DT_NEEDED).any(|name| module.is_called(name))
                })
            };
            if !module.is_lasting() && needed() {
                add(module);
            }
            true
        });
        if LASTING_USED.load(Ordering::Relaxed) == before {
            return;
        }
    }
}

/// Notes a module that stays. Called by one thread only.
fn add(module: &Loaded<'_>) {
    let used = LASTING_USED.load(Ordering::Relaxed);
    let (Some([dynamic, bias]), false) = (LASTING.get(used), module.is_lasting()) else { return };
    dynamic.store(module.dynamic(), Ordering::Relaxed);
    bias.store(module.bias(), Ordering::Relaxed);
    LASTING_USED.store(used.wrapping_add(1), Ordering::Release);
}

/// The strings that a dynamic section names under a tag. The module must be one that stays, or be held by the loader.
fn strings(dynamic: usize, bias: usize, wanted: usize) -> impl Iterator<Item = &'static CStr> {
    let table = entries(dynamic).find(|[tag, _]| *tag == DT_STRTAB).map_or(0, |[_, address]| address);
    // Some loaders turn addresses in this section into true ones, others leave them as they are in the file.
    let table = if table < bias { table.wrapping_add(bias) } else { table };
    entries(dynamic).filter(move |[tag, _]| *tag == wanted && table != 0).map(move |[_, offset]| {
        // SAFETY: the section of a module that is mapped says where its strings are, each ended by a zero.
        unsafe { CStr::from_ptr(table.wrapping_add(offset) as *const c_char) }
    })
}

/// A dynamic section's tags and values, up to the last.
fn entries(dynamic: usize) -> impl Iterator<Item = [usize; 2]> {
    let mut next = dynamic as *const [usize; 2];
    core::iter::from_fn(move || {
        if next.is_null() {
            return None;
        }
        // SAFETY: a dynamic section is an array of pairs that ends with the tag 0, and the module it belongs to is
        // mapped by the caller's word.
        let entry = unsafe { next.read() };
        next = next.wrapping_add(1);
        (entry[0] != 0).then_some(entry)
    })
}
