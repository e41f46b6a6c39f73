//! Modules from the kernel's table of mappings, where they do not simply follow each other.
#![cfg(target_os = "linux")]
#![allow(clippy::disallowed_types, clippy::disallowed_macros, clippy::disallowed_methods)]

use std::os::fd::AsRawFd;
use std::path::Path;

use fencepost_record::Module;
use fencepost_sys::{Host, Memory, Output, Platform, Range};

/// As an ELF file that is aligned for larger pages has a hole, and the kernel puts its own code there.
#[test]
fn a_module_in_the_hole_of_another_parts_it_in_two() {
    Host.probe();
    let page = Host.page_size();
    let mut image = vec![0u8; 2 * page];
    image[..6].copy_from_slice(b"\x7fELF\x02\x01");
    let mut put = |at: usize, value: usize, len: usize| {
        image[at..at + len].copy_from_slice(&value.to_le_bytes()[..len])
    };
    let file_header = [(32, 64, 8), (54, 56, 2), (56, 2, 2)];
    file_header.into_iter().for_each(|(at, value, len)| put(at, value, len));
    for (header, (offset, address)) in [(64, (0, 0)), (120, (page, 8 * page))] {
        put(header, 1, 4);
        let fields = [(8, offset), (16, address), (32, page), (40, page), (48, 8 * page)];
        fields.into_iter().for_each(|(at, value)| put(header + at, value, 8));
    }
    let folder = std::env::temp_dir();
    let [outer, inner] =
        ["outer", "inner"].map(|name| folder.join(format!("fencepost-{name}-{}", std::process::id())));
    std::fs::write(&outer, &image).unwrap();
    std::fs::write(&inner, &image).unwrap();
    let base = Host.reserve(9 * page, page).unwrap();
    let map = |path: &Path, pages: usize, part: usize, protection: i32| {
        let file = std::fs::File::open(path).unwrap();
        let flags = libc::MAP_PRIVATE | libc::MAP_FIXED;
        let at = (base + pages * page) as *mut libc::c_void;
        // SAFETY: the pages are ours, and nothing uses them.
        let got = unsafe { libc::mmap(at, page, protection, flags, file.as_raw_fd(), (part * page) as i64) };
        assert_eq!(got, at);
    };
    map(&outer, 0, 0, libc::PROT_READ | libc::PROT_EXEC);
    map(&inner, 3, 0, libc::PROT_READ | libc::PROT_EXEC);
    map(&outer, 8, 1, libc::PROT_READ | libc::PROT_WRITE);
    let mut found = Vec::new();
    let own = |module: &Module| (base as u64..(base + 9 * page) as u64).contains(&module.start);
    Host.each_module(&mut |module| found.extend(own(module).then_some(*module)));
    let at = |pages: usize| (base + pages * page) as u64;
    let name = |path: &Path| path.display().to_string();
    let seen: Vec<_> = found.iter().map(|m| (m.path.as_str().to_owned(), m.start, m.bias)).collect();
    let wanted = [(name(&outer), at(0), at(0)), (name(&inner), at(3), at(3)), (name(&outer), at(8), at(0))];
    assert_eq!(seen, wanted);
    assert!(found[0].end == at(3) && found[1].end <= at(8) && found[2].end == at(9), "{found:?}");
    // SAFETY: the range is ours.
    unsafe { Host.release(Range { start: base, len: 9 * page }).unwrap() };
    for path in [outer, inner] {
        std::fs::remove_file(path).unwrap();
    }
}
