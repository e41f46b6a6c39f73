//! The one sentence that says what happened: what follows the kind on a report's first line.

use core::fmt;

use crate::wording::{Bytes, Clean, article};
use crate::{AccessType, Block, BlockState, ErrorKind, Note, Record, Where};

/// A record's message, without the `fencepost: ERROR: <kind>: ` in front of it and on one line.
///
/// Programs match it, so numbers carry no separators here.
pub struct Message<'a>(pub &'a Record);

impl fmt::Display for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.say(f)?;
        self.0.copy.map_or(Ok(()), |copy| copy.say_tail(f))
    }
}

impl Message<'_> {
    fn say(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let record = self.0;
        if let Some(region) = &record.region {
            return match record.kind {
                ErrorKind::StackOverflow => {
                    stack(record, f)?;
                    write!(f, ", {region}")
                }
                _ => {
                    touch(record, f)?;
                    region.say_place(f)
                }
            };
        }
        match record.kind {
            ErrorKind::HeapBufferOverflow | ErrorKind::HeapBufferUnderflow => overrun(record, f),
            ErrorKind::UseAfterFree => {
                touch(record, f)?;
                beside(record, f, "", ", in memory that was freed")
            }
            ErrorKind::DoubleFree => {
                release(record, f)?;
                match &record.block {
                    Some(block) if block.place == Where::Inside && block.distance == 0 => {
                        write!(f, ", {} {}-byte block freed before", article(block.size), block.size)
                    }
                    _ => beside(record, f, "", ", freed before"),
                }
            }
            ErrorKind::InvalidFree => {
                release(record, f)?;
                beside(record, f, "", ", an address that no allocation returned")
            }
            ErrorKind::AllocDeallocMismatch => families(record, f),
            ErrorKind::LayoutMismatch => layouts(record, f),
            ErrorKind::RedzoneCorruption | ErrorKind::WriteAfterFree => damage(record, f),
            ErrorKind::SealViolation => {
                touch(record, f)?;
                beside(record, f, "sealed ", ", in sealed memory")
            }
            ErrorKind::Tripwire => {
                touch(record, f)?;
                beside(record, f, "", "")?;
                f.write_str(", under a tripwire")
            }
            ErrorKind::NullDereference => null(record, f),
            ErrorKind::StackOverflow => stack(record, f),
            ErrorKind::WildAccess => {
                touch(record, f)?;
                let unknown =
                    if record.access.address.is_some() { ", in no block that is known" } else { "" };
                beside(record, f, "", unknown)
            }
            ErrorKind::Leak => leak(record, f),
        }
    }
}

/// `write of 1 byte at 0x…`, `write at 0x…`, `free of 0x…`.
fn touch(record: &Record, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let access = &record.access;
    if matches!(access.kind, AccessType::Free | AccessType::Realloc) {
        return match access.address {
            Some(address) => write!(f, "{} of {address:#x}", access.kind.name()),
            None => write!(f, "{} of an unknown address", access.kind.name()),
        };
    }
    f.write_str(if access.kind == AccessType::None { "access" } else { access.kind.name() })?;
    if let Some(size) = access.size {
        write!(f, " of {}", Bytes(u64::from(size)))?;
    }
    match access.address {
        Some(address) => write!(f, " at {address:#x}"),
        None if record.notes.has(Note::NonCanonical) => f.write_str(" at a non-canonical address"),
        None => f.write_str(" at an unknown address"),
    }
}

/// `, 0 bytes after a 24-byte block`, or `unknown` when the block is not known.
fn beside(record: &Record, f: &mut fmt::Formatter<'_>, adjective: &str, unknown: &str) -> fmt::Result {
    let Some(block) = &record.block else { return f.write_str(unknown) };
    let whole = matches!(record.access.kind, AccessType::Free | AccessType::Realloc)
        && block.place == Where::Inside
        && block.distance == 0;
    f.write_str(", ")?;
    if !whole {
        write!(f, "{} {} ", Bytes(block.distance), block.place.name())?;
    }
    named(block, adjective, f)
}

/// `a 24-byte block`, `a freed 24-byte block`, `a sealed 8-byte block`.
fn named(block: &Block, adjective: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let freed = if block.state == BlockState::Freed { "freed " } else { "" };
    let article = if adjective.is_empty() && freed.is_empty() { article(block.size) } else { "a" };
    write!(f, "{article} {adjective}{freed}{}-byte block", block.size)
}

/// An access past an end, with the part of it that still lay inside if it straddles the end.
fn overrun(record: &Record, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    touch(record, f)?;
    beside(record, f, "", ", beside a block that is not known")?;
    let (Some(block), Some(address)) = (&record.block, record.access.address) else { return Ok(()) };
    let end = block.address.saturating_add(block.size);
    let size = u64::from(record.access.size.unwrap_or(0));
    match block.place {
        Where::Inside => {
            let past = address.saturating_add(size).saturating_sub(end);
            if past > 0 {
                write!(f, ", running {} past its end", Bytes(past))?;
            }
        }
        Where::After if (block.address..end).contains(&address) => {
            write!(f, ", begun {} before its end", Bytes(end.saturating_sub(address)))?;
        }
        Where::Before => {
            let into = address.saturating_add(size).min(end).saturating_sub(block.address);
            if into > 0 {
                write!(f, ", running {} into it", Bytes(into))?;
            }
        }
        Where::After => {}
    }
    Ok(())
}

/// `double-free of 0x…`, `invalid-free of 0x… by realloc`.
fn release(record: &Record, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match record.access.address.or(record.block.as_ref().map(|block| block.address)) {
        Some(address) => write!(f, "{} of {address:#x}", record.kind.name())?,
        None => write!(f, "{} of an unknown address", record.kind.name())?,
    }
    if record.access.kind == AccessType::Realloc {
        f.write_str(" by realloc")?;
    }
    Ok(())
}

/// `operator delete of 0x…, a 24-byte block of operator new[]`, as far as the families are known.
fn families(record: &Record, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let known = |names: &[(Note, &'static str)]| {
        names.iter().find(|(note, _)| record.notes.has(*note)).map(|(_, name)| *name)
    };
    let freed = known(&[
        (Note::FreedByRust, "Rust's dealloc"),
        (Note::FreedByDelete, "operator delete"),
        (Note::FreedByDeleteArray, "operator delete[]"),
    ]);
    f.write_str(freed.unwrap_or(record.access.kind.name()))?;
    match record.access.address.or(record.block.as_ref().map(|block| block.address)) {
        Some(address) => write!(f, " of {address:#x}")?,
        None => f.write_str(" of an unknown address")?,
    }
    let Some(block) = &record.block else { return Ok(()) };
    write!(f, ", {} {}-byte block", article(block.size), block.size)?;
    let allocated = known(&[
        (Note::AllocatedByRust, "Rust's allocator"),
        (Note::AllocatedByMalloc, "malloc"),
        (Note::AllocatedByNew, "operator new"),
        (Note::AllocatedByNewArray, "operator new[]"),
    ]);
    allocated.map_or(Ok(()), |name| write!(f, " of {name}"))
}

/// `0x… freed as size 64, align 1, allocated as size 128, align 1`.
fn layouts(record: &Record, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if let Some(address) = record.access.address.or(record.block.as_ref().map(|block| block.address)) {
        write!(f, "{address:#x} ")?;
    }
    f.write_str(if record.access.kind == AccessType::Realloc { "resized" } else { "freed" })?;
    match record.given_layout {
        Some((size, align)) => write!(f, " as size {size}, align {align}")?,
        None => f.write_str(" as another layout")?,
    }
    match &record.block {
        Some(block) => write!(f, ", allocated as size {}, align {}", block.size, block.align),
        None => f.write_str(", allocated as a layout that is not known"),
    }
}

/// `3 damaged bytes from 0x…, 0 bytes after a 13-byte block, found at free`.
fn damage(record: &Record, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match record.damage {
        Some((address, 1)) => write!(f, "1 damaged byte at {address:#x}")?,
        Some((address, count)) => write!(f, "{count} damaged bytes from {address:#x}")?,
        None => f.write_str("damaged bytes")?,
    }
    if let Some(block) = &record.block {
        write!(f, ", {} {} ", Bytes(block.distance), block.place.name())?;
        named(block, "", f)?;
    }
    f.write_str(match record.access.kind {
        AccessType::Free => ", found at free",
        AccessType::Realloc => ", found at realloc",
        _ => ", found by a check",
    })
}

/// `read at 0x0`, `read of 8 bytes at 0x10, 16 bytes past null`.
fn null(record: &Record, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    touch(record, f)?;
    match record.access.address {
        None | Some(0) => Ok(()),
        Some(address) => write!(f, ", {} past null", Bytes(address)),
    }
}

/// In the words of Rust's own message, which people and scripts look for.
fn stack(record: &Record, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let name = record.fault.thread.name.as_str();
    let name = if name.is_empty() { "<unnamed>" } else { name };
    write!(f, "thread '{}' has overflowed its stack", Clean(name))?;
    match record.access.address {
        Some(address) => write!(f, ", at {address:#x}"),
        None => Ok(()),
    }
}

fn leak(record: &Record, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match &record.block {
        Some(block) => {
            named(block, "", f)?;
            write!(f, " at {:#x}, reached by nothing", block.address)?;
            match &record.leak {
                Some(leak) if leak.blocks > 1 => {
                    let others = leak.blocks.saturating_sub(1);
                    let plural = if others == 1 { "" } else { "s" };
                    write!(
                        f,
                        ", and {others} other{plural} from the same place: {} in all",
                        Bytes(leak.bytes)
                    )
                }
                _ => Ok(()),
            }
        }
        None => f.write_str("a block that nothing reaches"),
    }
}
