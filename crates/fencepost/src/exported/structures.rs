//! Functions that hand the kernel a structure to fill, or a path to read.
//!
//! As with buffers, the kernel answers a page that traps by `EFAULT`, and a program that does not look goes on with a
//! structure that nobody filled. Of a path only the first byte is looked at: a path in a freed block is found, and one
//! without an end is the kernel's to refuse.
#![allow(clippy::missing_safety_doc, reason = "each has the rules of the C function of its name")]
#![allow(missing_docs, reason = "documented by POSIX and the Linux manual pages")]

use core::ffi::{c_int, c_void};

use fencepost_sys::Next;

use super::buffers::{Missing, filled, looked_at, named, read_from};
use crate::runtime::here;

type Bytes = *mut c_void;

/// Bytes of `struct stat`, `struct statx`, `struct statfs`, `struct utsname` and `struct rusage`, as
/// glibc has them on 64-bit Linux.
const STAT: usize = if cfg!(target_arch = "x86_64") { 144 } else { 128 };
const STATX: usize = 256;
const STATFS: usize = 120;
const NAMES: usize = 390;
const USAGE: usize = 144;

/// Looks at a path that the kernel will read.
fn path(path: Bytes, anchor: usize) {
    read_from(path, 1, anchor);
}

/// Looks at the sets of `select`, of which the kernel reads and writes whole words.
fn sets(count: c_int, sets: [Bytes; 3], anchor: usize) {
    const WORD_BITS: usize = 64;
    let words = usize::try_from(count).unwrap_or(0).div_ceil(WORD_BITS);
    for set in sets {
        filled(set, words.saturating_mul(WORD_BITS / 8), anchor);
    }
}

looked_at! {
    stat(name: Bytes, to: Bytes) -> c_int { |anchor| path(name, anchor); filled(to, STAT, anchor) }
    stat64(name: Bytes, to: Bytes) -> c_int { |anchor| path(name, anchor); filled(to, STAT, anchor) }
    lstat(name: Bytes, to: Bytes) -> c_int { |anchor| path(name, anchor); filled(to, STAT, anchor) }
    lstat64(name: Bytes, to: Bytes) -> c_int { |anchor| path(name, anchor); filled(to, STAT, anchor) }
    fstat(file: c_int, to: Bytes) -> c_int { |anchor| filled(to, STAT, anchor) }
    fstat64(file: c_int, to: Bytes) -> c_int { |anchor| filled(to, STAT, anchor) }
    fstatat(folder: c_int, name: Bytes, to: Bytes, flags: c_int) -> c_int { |anchor| path(name, anchor); filled(to, STAT, anchor) }
    fstatat64(folder: c_int, name: Bytes, to: Bytes, flags: c_int) -> c_int { |anchor| path(name, anchor); filled(to, STAT, anchor) }
    statx(folder: c_int, name: Bytes, flags: c_int, mask: u32, to: Bytes) -> c_int { |anchor| path(name, anchor); filled(to, STATX, anchor) }
    statfs(name: Bytes, to: Bytes) -> c_int { |anchor| path(name, anchor); filled(to, STATFS, anchor) }
    statfs64(name: Bytes, to: Bytes) -> c_int { |anchor| path(name, anchor); filled(to, STATFS, anchor) }
    fstatfs(file: c_int, to: Bytes) -> c_int { |anchor| filled(to, STATFS, anchor) }
    fstatfs64(file: c_int, to: Bytes) -> c_int { |anchor| filled(to, STATFS, anchor) }
    uname(to: Bytes) -> c_int { |anchor| filled(to, NAMES, anchor) }
    getrusage(who: c_int, to: Bytes) -> c_int { |anchor| filled(to, USAGE, anchor) }
    select(count: c_int, reads: Bytes, writes: Bytes, errors: Bytes, timeout: Bytes) -> c_int { |anchor| sets(count, [reads, writes, errors], anchor) }
    pselect(count: c_int, reads: Bytes, writes: Bytes, errors: Bytes, timeout: Bytes, mask: Bytes) -> c_int { |anchor| sets(count, [reads, writes, errors], anchor) }
    open(name: Bytes, flags: c_int, mode: u32) -> c_int { |anchor| path(name, anchor) }
    open64(name: Bytes, flags: c_int, mode: u32) -> c_int { |anchor| path(name, anchor) }
    openat(folder: c_int, name: Bytes, flags: c_int, mode: u32) -> c_int { |anchor| path(name, anchor) }
    openat64(folder: c_int, name: Bytes, flags: c_int, mode: u32) -> c_int { |anchor| path(name, anchor) }
    creat(name: Bytes, mode: u32) -> c_int { |anchor| path(name, anchor) }
    creat64(name: Bytes, mode: u32) -> c_int { |anchor| path(name, anchor) }
    access(name: Bytes, mode: c_int) -> c_int { |anchor| path(name, anchor) }
    faccessat(folder: c_int, name: Bytes, mode: c_int, flags: c_int) -> c_int { |anchor| path(name, anchor) }
    unlink(name: Bytes) -> c_int { |anchor| path(name, anchor) }
    unlinkat(folder: c_int, name: Bytes, flags: c_int) -> c_int { |anchor| path(name, anchor) }
    mkdir(name: Bytes, mode: u32) -> c_int { |anchor| path(name, anchor) }
    rmdir(name: Bytes) -> c_int { |anchor| path(name, anchor) }
    chdir(name: Bytes) -> c_int { |anchor| path(name, anchor) }
    rename(from: Bytes, to: Bytes) -> c_int { |anchor| path(from, anchor); path(to, anchor) }
    renameat(from_folder: c_int, from: Bytes, to_folder: c_int, to: Bytes) -> c_int { |anchor| path(from, anchor); path(to, anchor) }
    link(from: Bytes, to: Bytes) -> c_int { |anchor| path(from, anchor); path(to, anchor) }
    symlink(target: Bytes, name: Bytes) -> c_int { |anchor| path(target, anchor); path(name, anchor) }
    chmod(name: Bytes, mode: u32) -> c_int { |anchor| path(name, anchor) }
    chown(name: Bytes, user: u32, group: u32) -> c_int { |anchor| path(name, anchor) }
    truncate(name: Bytes, len: i64) -> c_int { |anchor| path(name, anchor) }
    fopen(name: Bytes, how: Bytes) -> Bytes { |anchor| path(name, anchor) }
    fopen64(name: Bytes, how: Bytes) -> Bytes { |anchor| path(name, anchor) }
    opendir(name: Bytes) -> Bytes { |anchor| path(name, anchor) }
    __open_2(name: Bytes, flags: c_int) -> c_int { |anchor| path(name, anchor) }
    __open64_2(name: Bytes, flags: c_int) -> c_int { |anchor| path(name, anchor) }
    __openat_2(folder: c_int, name: Bytes, flags: c_int) -> c_int { |anchor| path(name, anchor) }
    __openat64_2(folder: c_int, name: Bytes, flags: c_int) -> c_int { |anchor| path(name, anchor) }
    __xstat(version: c_int, name: Bytes, to: Bytes) -> c_int { |anchor| path(name, anchor); filled(to, STAT, anchor) }
    __xstat64(version: c_int, name: Bytes, to: Bytes) -> c_int { |anchor| path(name, anchor); filled(to, STAT, anchor) }
    __lxstat(version: c_int, name: Bytes, to: Bytes) -> c_int { |anchor| path(name, anchor); filled(to, STAT, anchor) }
    __lxstat64(version: c_int, name: Bytes, to: Bytes) -> c_int { |anchor| path(name, anchor); filled(to, STAT, anchor) }
    __fxstat(version: c_int, file: c_int, to: Bytes) -> c_int { |anchor| filled(to, STAT, anchor) }
    __fxstat64(version: c_int, file: c_int, to: Bytes) -> c_int { |anchor| filled(to, STAT, anchor) }
    __fxstatat(version: c_int, folder: c_int, name: Bytes, to: Bytes, flags: c_int) -> c_int { |anchor| path(name, anchor); filled(to, STAT, anchor) }
    __fxstatat64(version: c_int, folder: c_int, name: Bytes, to: Bytes, flags: c_int) -> c_int { |anchor| path(name, anchor); filled(to, STAT, anchor) }
}
