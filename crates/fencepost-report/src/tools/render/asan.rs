//! Text in the shape of AddressSanitizer's, for tools that parse that: crash collectors, fuzzers, bug trackers.
//!
//! The kinds are those that such tools know; what has no counterpart keeps its own name. Nothing is invented: a stack
//! that is not known is left out.

use std::fmt::{self, Write};

use fencepost_record::ErrorKind;

use super::super::Collection;
use super::super::restore;
use super::place;
use crate::parse::{AccessType, Block, BlockState, Document, Event, Frame, Thread, Where};

pub(super) fn write(collection: &Collection, out: &mut dyn Write) -> fmt::Result {
    collection.failures().try_for_each(|finding| report(&finding.document, out))
}

/// The name that such tools know a kind by.
fn kind(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::HeapBufferUnderflow => "heap-buffer-overflow",
        ErrorKind::UseAfterFree | ErrorKind::WriteAfterFree => "heap-use-after-free",
        ErrorKind::InvalidFree => "bad-free",
        ErrorKind::NullDereference | ErrorKind::WildAccess => "SEGV",
        other => other.name(),
    }
}

fn report(document: &Document, out: &mut dyn Write) -> fmt::Result {
    let pid = document.process.pid;
    writeln!(out, "{}", "=".repeat(65))?;
    write!(out, "=={pid}==ERROR: AddressSanitizer: ")?;
    headline(document, out)?;
    access(document, out)?;
    frames(&document.fault.frames, out)?;
    if let Some(block) = &document.block {
        region(document, block, out)?;
    }
    let name = kind(document.kind);
    write!(out, "SUMMARY: AddressSanitizer: {name}")?;
    match place::primary(document).or(restore::telling_frames(document).first()) {
        Some(frame) => {
            if let Some(position) = place::position(frame, &super::Setting::default()) {
                write!(out, " {position}")?;
            }
            writeln!(out, " in {}", place::function(frame))?;
        }
        None => out.write_str("\n")?,
    }
    writeln!(out, "=={pid}==ABORTING")
}

fn headline(document: &Document, out: &mut dyn Write) -> fmt::Result {
    let address = document.access.address.or(document.block.as_ref().map(|block| block.address));
    let address =
        address.map_or_else(|| "an unknown address".to_owned(), |address| format!("{:#018x}", address.0));
    match document.kind {
        ErrorKind::DoubleFree => write!(out, "attempting double-free on {address}")?,
        ErrorKind::InvalidFree => {
            write!(out, "attempting free on address which was not malloc()-ed: {address}")?;
        }
        ErrorKind::NullDereference | ErrorKind::WildAccess => {
            write!(out, "SEGV on unknown address {address}")?;
        }
        ErrorKind::AllocDeallocMismatch | ErrorKind::LayoutMismatch | ErrorKind::Leak => {
            write!(out, "{} on {address}", kind(document.kind))?;
        }
        _ => write!(out, "{} on address {address}", kind(document.kind))?,
    }
    let registers = document.registers.iter().flatten();
    let find = |names: [&str; 2]| {
        let mut values = registers.clone().filter(|(name, _)| names.contains(&name.as_str()));
        values.next().map(|(_, value)| value.0)
    };
    let pc = document.fault.frames.first().map(|frame| frame.address.0);
    if let (Some(pc), Some(bp), Some(sp)) = (pc, find(["rbp", "x29"]), find(["rsp", "sp"])) {
        write!(out, " at pc {pc:#018x} bp {bp:#018x} sp {sp:#018x}")?;
    }
    out.write_str("\n")
}

fn access(document: &Document, out: &mut dyn Write) -> fmt::Result {
    let word = match document.access.kind {
        AccessType::Read => "READ",
        AccessType::Write => "WRITE",
        _ => return Ok(()),
    };
    let Some(address) = document.access.address else { return Ok(()) };
    let thread = thread(&document.fault.thread, document);
    match document.access.size {
        Some(size) => writeln!(out, "{word} of size {size} at {:#018x} thread {thread}", address.0),
        None => writeln!(out, "{word} at {:#018x} thread {thread}", address.0),
    }
}

/// Such tools number threads from 0 for the first; the first has the process's id.
fn thread(thread: &Thread, document: &Document) -> String {
    match (thread.id, &thread.name) {
        (Some(id), _) if id == document.process.pid => "T0".to_owned(),
        (Some(id), Some(name)) => format!("T{id} ({name})"),
        (Some(id), None) => format!("T{id}"),
        (None, _) => "T?".to_owned(),
    }
}

fn frames(frames: &[Frame], out: &mut dyn Write) -> fmt::Result {
    for (number, frame) in frames.iter().enumerate() {
        write!(out, "    #{number} {:#x}", frame.address.0)?;
        if let Some(function) = &frame.function {
            write!(out, " in {function}")?;
        }
        match (place::position(frame, &super::Setting::default()), &frame.module, frame.offset) {
            (Some(position), ..) => write!(out, " {position}")?,
            (None, Some(module), Some(offset)) => write!(out, " ({module}+{:#x})", offset.0)?,
            _ => {}
        }
        if let Some(id) = frame.build_id.as_ref().filter(|_| frame.file.is_none()) {
            write!(out, " (BuildId: {id})")?;
        }
        out.write_str("\n")?;
    }
    out.write_str("\n")
}

fn region(document: &Document, block: &Block, out: &mut dyn Write) -> fmt::Result {
    let (start, size) = (block.address.0, block.size);
    let end = start.saturating_add(size);
    if let Some(address) = document.access.address {
        let place = match block.place {
            Where::Before => "before",
            Where::Inside => "inside of",
            Where::After => "after",
        };
        writeln!(
            out,
            "{:#018x} is located {} bytes {place} {size}-byte region [{start:#018x},{end:#018x})",
            address.0, block.distance
        )?;
    }
    if let Some(freed) = block.freed.as_ref().filter(|_| block.state == BlockState::Freed) {
        event("freed", freed, document, out)?;
        return event("previously allocated", &block.allocated, document, out);
    }
    event("allocated", &block.allocated, document, out)
}

fn event(what: &str, event: &Event, document: &Document, out: &mut dyn Write) -> fmt::Result {
    if event.frames.is_empty() {
        return Ok(());
    }
    writeln!(out, "{what} by thread {} here:", thread(&event.thread, document))?;
    frames(&event.frames, out)
}
