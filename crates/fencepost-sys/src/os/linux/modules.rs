//! The executable and the libraries that are mapped now, from the kernel's table of mappings.
//!
//! Why not the loader's list: it is behind a lock that the faulting thread may hold. The table says which file lies
//! where; the file's own header, read from where it is mapped, says how its addresses are numbered, how far it
//! reaches (its zeroed data has no file behind it) and which build it is. Every read is checked, since a library may
//! go away meanwhile. Source: the ELF specification, elf(5).

use fencepost_record::{Module, Text};

use super::maps::{Line, Maps};
use super::probe::page_size;
use super::read::read_checked;

/// Program headers looked at in one file.
const HEADERS_MAX: usize = 64;
const HEADER_LEN: usize = 56;
/// Bytes of notes looked at in one segment.
const NOTES_MAX: usize = 512;

const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
const NT_GNU_BUILD_ID: u32 = 3;
const CLASS_64_LITTLE_ENDIAN: [u8; 2] = [2, 1];

/// Calls `each` with every module. One that has another in a hole between its parts (files for pages of 64 KiB leave such
/// holes where pages are smaller, and the kernel puts its own code there) comes in two, around it: no two overlap.
pub(super) fn each_module(each: &mut dyn FnMut(&Module)) {
    let Some(maps) = Maps::open() else { return };
    let mut group: Option<Group> = None;
    let mut around: Option<Group> = None;
    maps.each(|line| {
        if line.file.1 == 0 && line.path != b"[vdso]" {
            return true;
        }
        if let Some(group) = group.as_mut().filter(|group| group.holds(line)) {
            group.add(line);
            return true;
        }
        let next = match around.take_if(|around| around.holds(line)) {
            Some(around) => around.resume(line),
            None => Group::start(line),
        };
        if let Some(mut last) = group.replace(next) {
            if last.module.end > line.start as u64 {
                let end = core::mem::replace(&mut last.module.end, line.start as u64);
                last.give(each);
                last.module.end = end;
                around = Some(last);
            } else {
                last.give(each);
            }
        }
        true
    });
    if let Some(group) = group {
        group.give(each);
    }
}

/// The mappings of one module, as they come.
struct Group {
    module: Module,
    file: (u64, u64),
    /// Whether code is among them: a file that is only being read (by a debugger, or for its symbols) is no module.
    executable: bool,
    /// What the file's header says, where it could be read.
    image: Option<Image>,
}

impl Group {
    fn start(line: &Line<'_>) -> Group {
        let image = if line.offset == 0 { Image::read(line.start) } else { None };
        let mut module = Module {
            start: line.start as u64,
            end: line.end as u64,
            bias: (line.start as u64).wrapping_sub(line.offset),
            path: Text::new(line.path),
            build_id: [0; 20],
            build_id_len: 0,
        };
        if let Some(image) = &image {
            module.bias = image.bias;
            module.end = module.end.max(image.end);
            (module.build_id, module.build_id_len) = image.build_id();
        }
        Group { module, file: line.file, executable: line.executable, image }
    }

    /// Whether a mapping belongs to this module: of the same file, and where the header puts that part of it. The
    /// same file may be mapped twice in a row, once as a module and once to be read.
    fn holds(&self, line: &Line<'_>) -> bool {
        if line.file != self.file {
            return false;
        }
        match &self.image {
            Some(image) => image.places(line),
            None => line.offset != 0 && line.start as u64 == self.module.end,
        }
    }

    fn add(&mut self, line: &Line<'_>) {
        self.module.end = self.module.end.max(line.end as u64);
        self.executable |= line.executable;
    }

    /// The same module once more, from behind another one's mappings on.
    fn resume(mut self, line: &Line<'_>) -> Group {
        self.module.start = line.start as u64;
        self.executable |= line.executable;
        self
    }

    fn give(&self, each: &mut dyn FnMut(&Module)) {
        if self.executable {
            each(&self.module);
        }
    }
}

/// What an ELF header in memory says.
struct Image {
    bias: u64,
    end: u64,
    headers: [[u8; HEADER_LEN]; HEADERS_MAX],
    count: usize,
}

/// One program header.
struct Segment {
    kind: u32,
    offset: u64,
    address: u64,
    file_len: u64,
    memory_len: u64,
    align: u64,
}

impl Image {
    /// Reads the header at the start of a mapping; `None` for what is not one of ours.
    fn read(start: usize) -> Option<Image> {
        let mut header = [0u8; 64];
        if read_checked(start, &mut header) != header.len() || !header.starts_with(b"\x7fELF") {
            return None;
        }
        if header.get(4..6)? != CLASS_64_LITTLE_ENDIAN || usize::from(u16_at(&header, 54)?) != HEADER_LEN {
            return None;
        }
        let table = start.checked_add(usize::try_from(u64_at(&header, 32)?).ok()?)?;
        let mut image = Image { bias: 0, end: 0, headers: [[0; HEADER_LEN]; HEADERS_MAX], count: 0 };
        let count = usize::from(u16_at(&header, 56)?).min(HEADERS_MAX);
        let wanted = image.headers.as_flattened_mut().get_mut(..count.checked_mul(HEADER_LEN)?)?;
        image.count = read_checked(table, wanted).checked_div(HEADER_LEN)?;
        let page = page_size() as u64;
        let first = image.segments().find(|segment| segment.kind == PT_LOAD && segment.offset < page)?;
        image.bias = (start as u64).wrapping_sub(floor(first.address, page));
        let end = image
            .segments()
            .filter(|segment| segment.kind == PT_LOAD)
            .map(|segment| image.bias.wrapping_add(segment.address).wrapping_add(segment.memory_len))
            .max()?;
        image.end = end.checked_next_multiple_of(page)?;
        Some(image)
    }

    fn segments(&self) -> impl Iterator<Item = Segment> {
        self.headers.iter().take(self.count).filter_map(|header| {
            Some(Segment {
                kind: u32_at(header, 0)?,
                offset: u64_at(header, 8)?,
                address: u64_at(header, 16)?,
                file_len: u64_at(header, 32)?,
                memory_len: u64_at(header, 40)?,
                align: u64_at(header, 48)?,
            })
        })
    }

    /// Whether a mapping lies where a loaded segment puts that part of the file.
    fn places(&self, line: &Line<'_>) -> bool {
        let page = page_size() as u64;
        let start = (line.start as u64).wrapping_sub(self.bias);
        self.segments().filter(|segment| segment.kind == PT_LOAD).any(|segment| {
            let first = floor(segment.address, page);
            let last = segment.address.wrapping_add(segment.memory_len);
            (first..last).contains(&start)
                && line.offset == floor(segment.offset, page).wrapping_add(start.wrapping_sub(first))
        })
    }

    /// The GNU build id and its length, cut at 20 bytes.
    fn build_id(&self) -> ([u8; 20], u8) {
        let mut id = [0; 20];
        for segment in self.segments().filter(|segment| segment.kind == PT_NOTE) {
            let mut notes = [0u8; NOTES_MAX];
            let len = usize::try_from(segment.file_len).unwrap_or(NOTES_MAX).min(NOTES_MAX);
            let address = self.bias.wrapping_add(segment.address) as usize;
            let got = notes.get_mut(..len).map_or(0, |room| read_checked(address, room));
            if let Some(found) = notes.get(..got).and_then(|notes| find_build_id(notes, segment.align)) {
                let len = found.len().min(id.len());
                for (place, byte) in id.iter_mut().zip(found) {
                    *place = *byte;
                }
                return (id, u8::try_from(len).unwrap_or(0));
            }
        }
        (id, 0)
    }
}

/// Walks the notes of a segment.
fn find_build_id(mut notes: &[u8], align: u64) -> Option<&[u8]> {
    let align = if align == 8 { 8usize } else { 4 };
    loop {
        let name_len = u32_at(notes, 0)? as usize;
        let content_len = u32_at(notes, 4)? as usize;
        let kind = u32_at(notes, 8)?;
        let name = notes.get(12..12usize.checked_add(name_len)?)?;
        let content_at = 12usize.checked_add(name_len)?.checked_next_multiple_of(align)?;
        let content_end = content_at.checked_add(content_len)?;
        if kind == NT_GNU_BUILD_ID && name == b"GNU\0" {
            return notes.get(content_at..content_end).filter(|id| !id.is_empty());
        }
        notes = notes.get(content_end.checked_next_multiple_of(align)?..)?;
    }
}

fn floor(value: u64, page: u64) -> u64 {
    value & !page.wrapping_sub(1)
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_le_bytes(*bytes))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_build_id_is_found_behind_other_notes() {
        let mut notes = [0u8; 48];
        notes[0] = 4; // name
        notes[4] = 6; // content: padded to 8
        notes[8] = 1; // another kind
        notes[12..16].copy_from_slice(b"GNU\0");
        notes[24] = 4;
        notes[28] = 3;
        notes[32] = 3;
        notes[36..40].copy_from_slice(b"GNU\0");
        notes[40..43].copy_from_slice(&[7, 8, 9]);
        assert_eq!(find_build_id(&notes, 4), Some([7u8, 8, 9].as_slice()));
        assert_eq!(find_build_id(&notes[..42], 4), None, "cut short");
        assert_eq!(find_build_id(&[0xff; 40], 4), None, "nonsense lengths");
    }
}
