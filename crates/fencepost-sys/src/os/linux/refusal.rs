//! Which limit a refused memory call ran into.
//!
//! The kernel answers `ENOMEM` for nearly all of them. So after a refusal the limits are read one by one, and the first that
//! leaves less than was asked for is named. Sources: mmap(2) and mprotect(2), "ENOMEM"; the kernel's
//! `admin-guide/sysctl/vm.rst`.

use super::limits::{self, field, read_file, resource};
use super::maps::decimal;
use super::{pages, probe};
use crate::{Limit, Wish};

/// What a 64-bit process can have without asking for more: 47 bits on x86_64, 48 on aarch64.
const ADDRESSES: u64 = if cfg!(target_arch = "aarch64") { 1 << 48 } else { 1 << 47 };

pub(super) fn why(wish: Wish, len: u64) -> Limit {
    let found = match wish {
        Wish::Reserve => addresses(len).or_else(|| address_space(len)).or_else(|| locked(len)),
        Wish::Commit => data(len).or_else(|| overcommit(len)).or_else(|| memory(len)).or_else(|| locked(len)),
        Wish::HugePages(page) => huge(page, len),
        Wish::Change => None,
    };
    found.or_else(mappings).unwrap_or(Limit::Unknown)
}

fn addresses(len: u64) -> Option<Limit> {
    (len >= ADDRESSES).then_some(Limit::Addresses { limit: ADDRESSES })
}

fn address_space(len: u64) -> Option<Limit> {
    let limit = resource(libc::RLIMIT_AS)?;
    let used = pages_of(0)?;
    (len > limit.saturating_sub(used)).then_some(Limit::AddressSpace { limit, used })
}

fn data(len: u64) -> Option<Limit> {
    let limit = resource(libc::RLIMIT_DATA)?;
    let used = pages_of(5)?;
    (len > limit.saturating_sub(used)).then_some(Limit::Data { limit, used })
}

/// A field of `statm` (of the whole, resident, shared, code, always zero, data and stack), in bytes.
fn pages_of(index: usize) -> Option<u64> {
    let mut buffer = [0; 128];
    let text = read_file(c"/proc/self/statm", &mut buffer)?;
    let pages = text.split(|byte| *byte == b' ').nth(index).and_then(decimal)?;
    Some(pages.saturating_mul(probe::page_size() as u64))
}

fn overcommit(len: u64) -> Option<Limit> {
    let mut buffer = [0; 16];
    if decimal(read_file(c"/proc/sys/vm/overcommit_memory", &mut buffer)?)? != 2 {
        return None;
    }
    let mut buffer = [0; 4096];
    let text = read_file(c"/proc/meminfo", &mut buffer)?;
    let bytes = |label: &[u8]| Some(field(text, label)?.saturating_mul(1024));
    let (limit, used) = (bytes(b"CommitLimit:")?, bytes(b"Committed_AS:")?);
    (len > limit.saturating_sub(used)).then_some(Limit::Overcommit { limit, used })
}

/// Of a process that locks its memory: after `mlockall(MCL_FUTURE)` addresses count as well.
fn locked(len: u64) -> Option<Limit> {
    let limit = resource(libc::RLIMIT_MEMLOCK)?;
    let mut buffer = [0; 4096];
    let text = read_file(c"/proc/self/status", &mut buffer)?;
    let used = field(text, b"VmLck:").filter(|kib| *kib > 0)?.saturating_mul(1024);
    (len > limit.saturating_sub(used)).then_some(Limit::Locked { limit, used })
}

fn memory(len: u64) -> Option<Limit> {
    limits::available().filter(|available| len > *available).map(|available| Limit::Memory { available })
}

fn huge(page: usize, len: u64) -> Option<Limit> {
    let free = pages::pool_free(page).unwrap_or(0);
    (len > free.saturating_mul(page as u64)).then_some(Limit::HugePages { page, free })
}

/// The limit on mappings, if it is as good as reached: a call may need two more.
fn mappings() -> Option<Limit> {
    let limit = limits::mappings_max()?;
    let used = limits::mappings_now();
    (used.saturating_add(2) >= limit).then_some(Limit::Mappings { limit, used })
}
