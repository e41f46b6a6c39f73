//! The executable and the libraries that are loaded now, from the loader's own list, without its lock.
//!
//! The list is kept for debuggers (`dyld_all_image_infos` of `mach-o/dyld_images.h`), and the kernel says where. Another
//! thread may change it meanwhile: so every read is checked, the walk is bounded, and the worst outcome is a module that is
//! not named.

use core::sync::atomic::{AtomicUsize, Ordering};

use fencepost_record::{Module, Text};
use mach2::task::task_info;
use mach2::task_info::{TASK_DYLD_INFO, TASK_DYLD_INFO_COUNT, task_dyld_info};
use mach2::traps::mach_task_self;

use super::read::read_checked;

/// The most modules that are looked at.
const MODULES_MAX: usize = 2048;
/// The most commands of one header that are looked at, and the longest of them that matters here.
const COMMANDS_MAX: u32 = 256;
const PATH_MAX: usize = 240;

/// `infoArrayCount` and `infoArray` of `dyld_all_image_infos`.
const COUNT_AT: usize = 4;
const LIST_AT: usize = 8;
/// An entry: address of the header, address of the path, time of the file.
const ENTRY: usize = 24;

/// `mach-o/loader.h`: the header is 32 bytes long, with the number of its commands at 16; a command begins with its kind
/// and its length.
const MAGIC_64: u32 = 0xfeed_facf;
const HEADER: usize = 32;
const COMMANDS_AT: usize = 16;
const LC_SEGMENT_64: u32 = 0x19;
const LC_UUID: u32 = 0x1b;

/// Where the list is; 0 before the kernel was asked.
static LIST: AtomicUsize = AtomicUsize::new(0);

fn list() -> Option<usize> {
    let known = LIST.load(Ordering::Relaxed);
    if known != 0 {
        return Some(known);
    }
    let mut told = task_dyld_info::default();
    let mut len = TASK_DYLD_INFO_COUNT;
    // SAFETY: the call writes at most as many words as are announced, which is one such structure.
    let result = unsafe { task_info(mach_task_self(), TASK_DYLD_INFO, (&raw mut told).cast(), &raw mut len) };
    let at = told.all_image_info_addr as usize;
    if result != 0 || at == 0 {
        return None;
    }
    LIST.store(at, Ordering::Relaxed);
    Some(at)
}

fn word<const LEN: usize>(address: usize) -> Option<[u8; LEN]> {
    let mut bytes = [0; LEN];
    (read_checked(address, &mut bytes) == LEN).then_some(bytes)
}

fn half(address: usize) -> Option<u32> {
    word::<4>(address).map(u32::from_le_bytes)
}

fn whole(address: usize) -> Option<usize> {
    word::<8>(address).map(usize::from_le_bytes)
}

/// Calls `each` with every module.
pub(super) fn each_module(each: &mut dyn FnMut(&Module)) {
    // Without a list modules are not named, which a report says by itself.
    let _ = walk(each);
}

fn walk(each: &mut dyn FnMut(&Module)) -> Option<()> {
    let list = list()?;
    let count = half(list.wrapping_add(COUNT_AT))? as usize;
    // Null while the loader is changing it.
    let entries = whole(list.wrapping_add(LIST_AT)).filter(|entries| *entries != 0)?;
    for index in 0..count.min(MODULES_MAX) {
        let entry = entries.wrapping_add(index.wrapping_mul(ENTRY));
        if let Some(module) = module_at(entry) {
            each(&module);
        }
    }
    Some(())
}

fn module_at(entry: usize) -> Option<Module> {
    let header = whole(entry)?;
    let mut path = [0u8; PATH_MAX];
    let got = read_checked(whole(entry.wrapping_add(8))?, &mut path);
    let path = path.get(..got)?;
    let path = path.split(|byte| *byte == 0).next().unwrap_or(&[]);
    let image = Image::read(header)?;
    Some(Module {
        start: header as u64,
        end: (header as u64).saturating_add(image.text_len),
        bias: (header as u64).wrapping_sub(image.text_address),
        path: Text::new(path),
        build_id: image.build_id,
        build_id_len: image.build_id_len,
    })
}

/// What a header in memory says. Only the code counts for where a module ends: in the system's shared cache its data lies
/// among that of others.
#[derive(Default)]
struct Image {
    text_address: u64,
    text_len: u64,
    build_id: [u8; 20],
    build_id_len: u8,
}

impl Image {
    fn read(header: usize) -> Option<Image> {
        if half(header)? != MAGIC_64 {
            return None;
        }
        let commands = half(header.wrapping_add(COMMANDS_AT))?.min(COMMANDS_MAX);
        let mut image = Image::default();
        let mut at = header.wrapping_add(HEADER);
        for _ in 0..commands {
            let (kind, len) = (half(at)?, half(at.wrapping_add(4))?);
            match kind {
                // Name of 16 bytes, then address and length.
                LC_SEGMENT_64 if word::<16>(at.wrapping_add(8))?.starts_with(b"__TEXT\0") => {
                    image.text_address = whole(at.wrapping_add(24))? as u64;
                    image.text_len = whole(at.wrapping_add(32))? as u64;
                }
                LC_UUID => {
                    for (place, byte) in image.build_id.iter_mut().zip(word::<16>(at.wrapping_add(8))?) {
                        *place = byte;
                    }
                    image.build_id_len = 16;
                }
                _ => {}
            }
            if len < 8 {
                break;
            }
            at = at.wrapping_add(len as usize);
        }
        (image.text_len != 0).then_some(image)
    }
}
