//! How much this process may still use: memory, control groups, resource limits, mappings.
//!
//! Each source is optional: what cannot be read does not limit. Files are read into small buffers on the stack.
//! Sources: proc(5), the kernel's `admin-guide/cgroup-v2.rst` and `admin-guide/cgroup-v1/memory.rst`.

use core::ffi::CStr;

use super::maps::{Maps, decimal};
use super::probe::{Feature, denied, page_size};
use super::raw::{File, syscall};

/// Enough for the files read whole here; of a longer one the beginning counts.
const FILE_MAX: usize = 4096;
/// From here on a limit of the first version of control groups is none: it says so by the largest multiple of a page.
const UNLIMITED: u64 = 1 << 62;
/// The longest path of a control group that is looked at.
const PATH_MAX: usize = 1024;

/// The most mappings a process may have.
pub(super) fn mappings_max() -> Option<usize> {
    let mut buffer = [0; 32];
    decimal(read_file(c"/proc/sys/vm/max_map_count", &mut buffer)?).map(|max| max as usize)
}

/// Mappings there are now; 0 where the system does not tell.
pub(super) fn mappings_now() -> usize {
    let mut count = 0usize;
    if let Some(maps) = Maps::open() {
        maps.each(|_| {
            count = count.saturating_add(1);
            true
        });
    }
    count
}

/// The least of free memory, control-group limits and resource limits, in bytes.
pub(super) fn available() -> Option<u64> {
    [free_memory(), control_groups(), resources()].into_iter().flatten().min()
}

fn free_memory() -> Option<u64> {
    let mut buffer = [0; FILE_MAX];
    let told = read_file(c"/proc/meminfo", &mut buffer).and_then(|text| field(text, b"MemAvailable:"));
    told.map(|kilobytes| kilobytes.saturating_mul(1024)).or_else(free_pages)
}

/// What the kernel calls free, without what it could take back: less than there is, but never too much.
fn free_pages() -> Option<u64> {
    // SAFETY: all-zero is a valid value of a structure of integers.
    let mut info: libc::sysinfo = unsafe { core::mem::zeroed() };
    // SAFETY: sysinfo writes one such structure.
    unsafe { syscall!(libc::SYS_sysinfo, &raw mut info) }.ok()?;
    Some(info.freeram.saturating_mul(u64::from(info.mem_unit.max(1))))
}

/// What the process's control group and those above it leave, in both versions of control groups.
fn control_groups() -> Option<u64> {
    let mut buffer = [0; FILE_MAX];
    let groups = read_file(c"/proc/self/cgroup", &mut buffer)?;
    let mut least = None;
    for line in groups.split(|byte| *byte == b'\n') {
        let mut fields = line.splitn(3, |byte| *byte == b':');
        let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let left = if controllers.is_empty() {
            [b"/sys/fs/cgroup".as_slice(), b"/sys/fs/cgroup/unified"]
                .into_iter()
                .filter_map(|mount| walk_up(mount, path, &V2))
                .min()
        } else if controllers.split(|byte| *byte == b',').any(|name| name == b"memory") {
            walk_up(b"/sys/fs/cgroup/memory", path, &V1)
        } else {
            None
        };
        least = least.into_iter().chain(left).min();
    }
    least
}

/// The names of a control group's files.
struct Names {
    limits: &'static [&'static [u8]],
    used: &'static [u8],
    /// The line of `memory.stat` that says how much of what is used are file pages that can be had back at once.
    cached: &'static [u8],
}

const V2: Names = Names {
    limits: &[b"/memory.max", b"/memory.high"],
    used: b"/memory.current",
    cached: b"\ninactive_file ",
};
const V1: Names = Names {
    limits: &[b"/memory.limit_in_bytes"],
    used: b"/memory.usage_in_bytes",
    cached: b"\ntotal_inactive_file ",
};

/// The least that a group and the groups above it leave. In a container the path may be the host's and lead
/// nowhere; the way up ends at the mount, which then is the container's own group.
fn walk_up(mount: &[u8], path: &[u8], names: &Names) -> Option<u64> {
    let mut group = path;
    let mut least = None;
    loop {
        group = group.strip_suffix(b"/").unwrap_or(group);
        least = least.into_iter().chain(group_left(mount, group, names)).min();
        match group.iter().rposition(|byte| *byte == b'/') {
            Some(parent) => group = group.get(..parent)?,
            None => return least,
        }
    }
}

fn group_left(mount: &[u8], group: &[u8], names: &Names) -> Option<u64> {
    let number = |name: &[u8]| {
        let mut buffer = [0; 32];
        decimal(read_joined(&[mount, group, name], &mut buffer)?)
    };
    let limit =
        names.limits.iter().filter_map(|name| number(name)).min().filter(|limit| *limit < UNLIMITED)?;
    let used = number(names.used)?;
    let mut buffer = [0; FILE_MAX];
    let cached = read_joined(&[mount, group, b"/memory.stat"], &mut buffer)
        .and_then(|text| field(text, names.cached))
        .unwrap_or(0);
    Some(limit.saturating_sub(used.saturating_sub(cached)))
}

/// What `ulimit -v` and `ulimit -d` leave.
fn resources() -> Option<u64> {
    let space = resource(libc::RLIMIT_AS);
    let data = resource(libc::RLIMIT_DATA);
    if space.is_none() && data.is_none() {
        return None;
    }
    let mut buffer = [0; 128];
    // Pages: of the whole, resident, shared, code, always zero, data and stack.
    let text = read_file(c"/proc/self/statm", &mut buffer)?;
    let pages = |index| text.split(|byte| *byte == b' ').nth(index).and_then(decimal);
    let left = |limit: Option<u64>, index| {
        let used = pages(index)?.saturating_mul(page_size() as u64);
        Some(limit?.saturating_sub(used))
    };
    [left(space, 0), left(data, 5)].into_iter().flatten().min()
}

/// The type of a resource's number, which glibc and musl see differently.
#[cfg(target_env = "gnu")]
type Resource = libc::__rlimit_resource_t;
#[cfg(not(target_env = "gnu"))]
type Resource = libc::c_int;

/// A resource limit in force, in bytes; `None` where there is none.
pub(super) fn resource(which: Resource) -> Option<u64> {
    let mut limit = libc::rlimit64 { rlim_cur: libc::RLIM64_INFINITY, rlim_max: libc::RLIM64_INFINITY };
    // SAFETY: prlimit64 on this process writes one such structure.
    unsafe { syscall!(libc::SYS_prlimit64, 0, which, 0, &raw mut limit) }.ok()?;
    Some(limit.rlim_cur).filter(|limit| *limit != libc::RLIM64_INFINITY)
}

/// The number after a label.
pub(super) fn field(text: &[u8], label: &[u8]) -> Option<u64> {
    let at = text.windows(label.len()).position(|window| window == label)?;
    decimal(text.get(at.checked_add(label.len())?..)?.trim_ascii_start())
}

/// Reads the beginning of a file of the system's.
pub(super) fn read_file<'a>(path: &CStr, into: &'a mut [u8]) -> Option<&'a [u8]> {
    if denied(Feature::Proc) {
        return None;
    }
    File::open(path).ok()?.read_all(into).ok()
}

/// Reads the file whose path is the parts put together.
fn read_joined<'a>(parts: &[&[u8]], into: &'a mut [u8]) -> Option<&'a [u8]> {
    let mut path = [0; PATH_MAX];
    let mut len = 0usize;
    for part in parts {
        let end = len.checked_add(part.len())?;
        path.get_mut(len..end)?.copy_from_slice(part);
        len = end;
    }
    let path = CStr::from_bytes_until_nul(&path).ok()?;
    read_file(path, into)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::disallowed_types, clippy::disallowed_macros, clippy::disallowed_methods)]
mod tests {
    use std::fs;

    use super::*;

    fn group(root: &std::path::Path, path: &str, files: &[(&str, &str)]) {
        let folder = root.join(path.trim_start_matches('/'));
        fs::create_dir_all(&folder).unwrap();
        for (name, content) in files {
            fs::write(folder.join(name), content).unwrap();
        }
    }

    #[test]
    fn the_tightest_group_on_the_way_up_counts() {
        let root = std::env::temp_dir().join(std::format!("fencepost-groups-{}", std::process::id()));
        group(&root, "/", &[("memory.max", "max\n"), ("memory.current", "1\n")]);
        group(&root, "/a", &[("memory.max", "1000000\n"), ("memory.current", "900000\n")]);
        let stat = "anon 5\ninactive_file 50000\nactive_file 7\n";
        group(
            &root,
            "/a/b",
            &[("memory.max", "600000\n"), ("memory.current", "400000\n"), ("memory.stat", stat)],
        );
        let mount = root.to_str().unwrap().as_bytes();
        assert_eq!(walk_up(mount, b"/a/b", &V2), Some(100_000), "the outer group is nearly full");
        group(&root, "/a", &[("memory.current", "100000\n")]);
        assert_eq!(walk_up(mount, b"/a/b", &V2), Some(250_000), "file pages can be had back");
        group(&root, "/a/b", &[("memory.high", "500000\n")]);
        assert_eq!(walk_up(mount, b"/a/b", &V2), Some(150_000), "throttling counts as a limit");
        assert_eq!(walk_up(mount, b"/nowhere/to/be/found", &V2), None);
        let v1 = [("memory.limit_in_bytes", "4096\n"), ("memory.usage_in_bytes", "96\n")];
        group(&root, "/", &v1);
        assert_eq!(
            walk_up(mount, b"/docker/0123", &V1),
            Some(4000),
            "a container sees its own group at the mount"
        );
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn labels_are_found_whole() {
        assert_eq!(field(b"MemFree: 5 kB\nMemAvailable:   123 kB\n", b"MemAvailable:"), Some(123));
        assert_eq!(field(b"MemFree: 5 kB\n", b"MemAvailable:"), None);
        assert_eq!(field(b"a 1\ntotal_inactive_file 9\n", V2.cached), None);
    }

    #[test]
    fn a_number_ends_where_its_digits_end() {
        assert_eq!(decimal(b"65530\n"), Some(65530));
        assert_eq!(decimal(b"max\n"), None);
        assert_eq!(decimal(b""), None);
    }
}
