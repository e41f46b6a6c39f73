//! Where a finding is shown: one line of the user's own source, as far as there is one.

use std::path::Path;

use fencepost_record::Which;

use super::super::restore;
use super::Setting;
use crate::name;
use crate::parse::{Document, Frame};

/// The frame to point at: the one whose source is shown, else the first of the user's own, else the first with a
/// file.
pub(super) fn primary(document: &Document) -> Option<&Frame> {
    if let Some((which, index)) = restore::source_frame(document) {
        return restore::stack_of(document, which).get(index);
    }
    primary_of(restore::telling_frames(document)).or_else(|| primary_of(&document.fault.frames))
}

/// The same for one stack.
pub(super) fn primary_of(frames: &[Frame]) -> Option<&Frame> {
    let own =
        |frame: &&Frame| frame.file.as_deref().is_some_and(|file| name::Place::of(file) == name::Place::Own);
    let with_line = || frames.iter().filter(|frame| frame.file.is_some() && frame.line.is_some());
    with_line().find(own).or_else(|| with_line().next())
}

/// A path as it stands below the root, with forward slashes; or the whole path.
pub(super) fn relative(file: &str, setting: &Setting) -> (String, bool) {
    let below = setting.root.as_deref().and_then(|root| Path::new(file).strip_prefix(root).ok());
    match below {
        Some(path) => (path.to_string_lossy().replace('\\', "/"), true),
        None => (file.replace('\\', "/"), !file.starts_with('/') && !file.contains(':')),
    }
}

/// `function`, or the module and offset, or the bare address.
pub(super) fn function(frame: &Frame) -> String {
    match (&frame.function, &frame.module, frame.offset) {
        (Some(function), ..) => function.clone(),
        (None, Some(module), Some(offset)) => format!("{module}+{:#x}", offset.0),
        _ => format!("{:#x}", frame.address.0),
    }
}

/// `file:line:column`, as far as it is known.
pub(super) fn position(frame: &Frame, setting: &Setting) -> Option<String> {
    let mut text = relative(frame.file.as_deref()?, setting).0;
    for number in [frame.line, frame.column].into_iter().map_while(|number| number) {
        text.push(':');
        text.push_str(&number.to_string());
    }
    Some(text)
}

/// The stacks of a document that hold frames, in the order of time, each with what happened there.
pub(super) fn history(document: &Document) -> Vec<(Which, String)> {
    let mut stacks = Vec::new();
    let by = |thread: &crate::parse::Thread| match (&thread.name, thread.id) {
        (Some(name), _) => format!(" by thread '{name}'"),
        (None, Some(id)) => format!(" by thread {id}"),
        (None, None) => String::new(),
    };
    if let Some(block) = &document.block {
        if !block.allocated.frames.is_empty() {
            stacks.push((
                Which::Allocated,
                format!("{} bytes allocated{}", block.size, by(&block.allocated.thread)),
            ));
        }
        if let Some(freed) = block.freed.as_ref().filter(|freed| !freed.frames.is_empty()) {
            stacks.push((Which::Freed, format!("freed{}", by(&freed.thread))));
        }
    }
    if let Some(seal) = document.seal.as_ref().filter(|seal| !seal.sealer.frames.is_empty()) {
        stacks.push((Which::Sealed, format!("sealed{}", by(&seal.sealer.thread))));
    }
    if !document.fault.frames.is_empty() {
        let what = format!("{}: {}{}", document.kind.name(), document.message, by(&document.fault.thread));
        stacks.push((Which::Fault, what));
    }
    stacks
}

/// What a kind means, in a sentence.
pub(super) fn meaning(kind: fencepost_record::ErrorKind) -> &'static str {
    use fencepost_record::ErrorKind::*;
    match kind {
        HeapBufferOverflow => "Memory past the end of a heap block was accessed.",
        HeapBufferUnderflow => "Memory before the start of a heap block was accessed.",
        UseAfterFree => "A heap block was accessed after it had been freed.",
        DoubleFree => "A heap block was freed twice.",
        InvalidFree => "An address that no allocation returned was freed.",
        LayoutMismatch => {
            "A block was freed or resized with another size or alignment than it was allocated with."
        }
        AllocDeallocMismatch => {
            "A block was freed by a function that does not belong to the one that allocated it."
        }
        RedzoneCorruption => "Bytes beside a heap block were found changed.",
        WriteAfterFree => "A freed heap block was found changed.",
        SealViolation => "Memory that was sealed against writing was written to.",
        Tripwire => "Memory under a tripwire was accessed.",
        NullDereference => "Memory at or near the null address was accessed.",
        StackOverflow => "A thread ran past the end of its stack.",
        WildAccess => "Memory that belongs to nothing known was accessed.",
        Leak => "A heap block is reached by nothing any more.",
    }
}
