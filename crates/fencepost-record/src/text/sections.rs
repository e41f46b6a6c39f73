//! The parts of a report's text that tell of threads, stacks and blocks.

use core::fmt;

use super::Page;
use crate::wording::{Age, Clean, Count, Grouped};
use crate::{
    AccessType, BlockState, ErrorKind, FrameView, Neighbour, Note, Record, SealInfo, Stack, ThreadInfo,
    Where, Which,
};

/// Words around a thread: `written by thread 4242 'main':`.
struct Deed {
    before: &'static str,
    after: &'static str,
}

/// What the thread of the fault stack did, in the words of the kind.
const fn deed(record: &Record) -> Deed {
    let (before, after) = match (record.kind, record.access.kind) {
        (ErrorKind::RedzoneCorruption | ErrorKind::WriteAfterFree, AccessType::Free) => {
            ("found when ", " freed the block")
        }
        (ErrorKind::RedzoneCorruption | ErrorKind::WriteAfterFree, AccessType::Realloc) => {
            ("found when ", " resized the block")
        }
        (ErrorKind::RedzoneCorruption | ErrorKind::WriteAfterFree | ErrorKind::Leak, _) => {
            ("found by a check on ", "")
        }
        (ErrorKind::StackOverflow, _) => ("the stack of ", ""),
        (ErrorKind::DoubleFree, AccessType::Free) => ("freed again by ", ""),
        (_, AccessType::Free) => ("freed by ", ""),
        (_, AccessType::Realloc) => ("resized by ", ""),
        (_, AccessType::Read) => ("read by ", ""),
        (_, AccessType::Write) => ("written by ", ""),
        (_, AccessType::Execute) => ("executed by ", ""),
        (_, AccessType::None) => ("touched by ", ""),
    };
    Deed { before, after }
}

impl Page<'_> {
    /// What happened at the marked line of source: the words before `here`.
    pub(super) fn excerpt_label(&self, stack: Which) -> &'static str {
        match (stack, self.record.kind, self.record.access.kind) {
            (Which::Allocated, ..) => "allocated ",
            (Which::Freed, ..) => "freed ",
            (Which::Sealed, ErrorKind::Tripwire, _) => "set ",
            (Which::Sealed, ..) => "sealed ",
            (_, ErrorKind::StackOverflow, _) => "overflowed ",
            (_, ErrorKind::RedzoneCorruption | ErrorKind::WriteAfterFree | ErrorKind::Leak, _) => "found ",
            (_, ErrorKind::DoubleFree, AccessType::Free) => "freed again ",
            (_, _, AccessType::Free) => "freed ",
            (_, _, AccessType::Realloc) => "resized ",
            (_, _, AccessType::Read) => "read ",
            (_, _, AccessType::Write) => "written ",
            (_, _, AccessType::Execute) => "executed ",
            (_, _, AccessType::None) => "",
        }
    }

    /// The faulting thread and its stack.
    pub(super) fn fault(&mut self) -> fmt::Result {
        let record = self.record;
        if record.kind == ErrorKind::Leak && !record.fault.is_known() {
            return Ok(());
        }
        let thread = &record.fault.thread;
        let name = self.frames.fault_thread_name().unwrap_or(thread.name.as_str());
        let words = deed(record);
        self.open_heading()?;
        write!(self.out, "{}{}{}:", words.before, Thread(thread.id, name), words.after)?;
        self.close_heading()?;
        self.stack(Which::Fault)
    }

    /// The copy that the access was part of.
    pub(super) fn copy(&mut self) -> fmt::Result {
        let Some(copy) = &self.record.copy else { return Ok(()) };
        self.open_heading()?;
        write!(self.out, "the copy:")?;
        self.close_space()?;
        copy.say(self.record, self.out)?;
        writeln!(self.out)
    }

    /// The damaged bytes.
    pub(super) fn damage(&mut self) -> fmt::Result {
        let Some((address, count)) = self.record.damage else { return Ok(()) };
        self.open_heading()?;
        write!(self.out, "the damage:")?;
        self.close_space()?;
        let place = if count == 1 { "at" } else { "the first at" };
        writeln!(self.out, "{} changed, {place} {address:#x}", Count(count, "byte"))?;
        if self.record.notes.has(Note::FoundLater) {
            return Ok(());
        }
        writeln!(self.out, "  who wrote there, and when, is not known: no guard page lies under these bytes")
    }

    /// The layout given beside the one that was asked for.
    pub(super) fn given_layout(&mut self) -> fmt::Result {
        let (Some((size, align)), Some(block)) = (self.record.given_layout, &self.record.block) else {
            return Ok(());
        };
        self.open_heading()?;
        write!(self.out, "the layouts:")?;
        self.close_heading()?;
        writeln!(self.out, "  allocated as  size {}, alignment {}", block.size, block.align)?;
        let verb =
            if self.record.access.kind == AccessType::Realloc { "resized as  " } else { "freed as    " };
        writeln!(self.out, "  {verb}  size {size}, alignment {align}")
    }

    /// Who sealed the memory or set the tripwire, when, and what the access changed.
    pub(super) fn seal(&mut self) -> fmt::Result {
        let Some(seal) = &self.record.seal else { return Ok(()) };
        let (what, done) = match self.record.kind {
            ErrorKind::Tripwire => ("the memory under the tripwire:", "set"),
            _ => ("the sealed memory:", "sealed"),
        };
        self.open_heading()?;
        write!(self.out, "{what}")?;
        self.close_space()?;
        let end = seal.address.saturating_add(seal.size);
        write!(self.out, "{} from {:#x} up to {end:#x}", Count(seal.size, "byte"), seal.address)?;
        let (start, size) = seal.pages;
        if (start, size) != (seal.address, seal.size) && size != 0 {
            let end = start.saturating_add(size);
            write!(self.out, ", by closing the pages from {start:#x} up to {end:#x}")?;
        }
        writeln!(self.out)?;
        self.change(seal)?;
        self.event(done, &seal.sealer, Which::Sealed)
    }

    /// The accessed bytes before and after.
    fn change(&mut self, seal: &SealInfo) -> fmt::Result {
        if seal.old.is_empty() {
            return Ok(());
        }
        if let Some(offset) = self.record.access.address.and_then(|at| at.checked_sub(seal.address)) {
            write!(self.out, "at offset {offset}: ")?;
        }
        match (seal.new.is_empty(), seal.new == seal.old) {
            (true, _) => writeln!(self.out, "{:#} until then", seal.old),
            (_, true) => writeln!(self.out, "{:#} before and after", seal.old),
            _ => writeln!(self.out, "{:#} before, {:#} after", seal.old, seal.new),
        }
    }

    /// The region of the program's own, and how much of it is used.
    pub(super) fn region(&mut self) -> fmt::Result {
        let Some(region) = &self.record.region else { return Ok(()) };
        self.open_heading()?;
        write!(self.out, "the region:")?;
        self.close_space()?;
        let end = region.address.saturating_add(region.reserved);
        write!(self.out, "{region} from {:#x} up to {end:#x}, ", region.address)?;
        if let Some(used) = region.used {
            write!(self.out, "{} used, ", Count(used, "byte"))?;
        }
        let committed = Count(region.committed, "byte");
        writeln!(self.out, "{committed} committed of {} reserved", Grouped(region.reserved))
    }

    /// How much is lost at this place of the program.
    pub(super) fn leak(&mut self) -> fmt::Result {
        let Some(leak) = &self.record.leak else { return Ok(()) };
        self.open_heading()?;
        write!(self.out, "the leak:")?;
        self.close_space()?;
        write!(self.out, "{} of {} in all", Count(leak.blocks, "block"), Count(leak.bytes, "byte"))?;
        if leak.through_blocks != 0 {
            let (blocks, bytes) = (Count(leak.through_blocks, "block"), Count(leak.through_bytes, "byte"));
            write!(self.out, ", and {blocks} of {bytes} reached through them alone")?;
        }
        writeln!(self.out)
    }

    /// The block, where it came from and where it went.
    pub(super) fn block(&mut self) -> fmt::Result {
        let Some(block) = &self.record.block else { return Ok(()) };
        self.open_heading()?;
        write!(self.out, "the block:")?;
        self.close_space()?;
        write!(self.out, "{} ", Count(block.size, "byte"))?;
        match block.size {
            0 => write!(self.out, "at {:#x}", block.address)?,
            _ => write!(
                self.out,
                "from {:#x} up to {:#x}",
                block.address,
                block.address.saturating_add(block.size)
            )?,
        }
        write!(self.out, ", alignment {}", block.align)?;
        match block.slack {
            0 => write!(self.out, ", no slack")?,
            slack => write!(self.out, ", {} of slack before the guard page", Count(slack, "byte"))?,
        }
        match (block.state, &block.freed) {
            (BlockState::Live, _) => {
                write!(self.out, ", alive")?;
                if block.allocated.is_known() {
                    write!(self.out, " for {}", Age(block.allocated.age_ms))?;
                }
            }
            (BlockState::Freed, Some(freed)) if freed.is_known() && block.allocated.is_known() => {
                let lived = block.allocated.age_ms.saturating_sub(freed.age_ms);
                write!(self.out, ", freed after {}", Age(lived))?;
            }
            (BlockState::Freed, _) => write!(self.out, ", freed")?,
            (BlockState::Unknown, _) => write!(self.out, ", alive or freed is not known")?,
        }
        writeln!(self.out)?;
        self.event("allocated", &block.allocated, Which::Allocated)?;
        match (&block.freed, block.state) {
            (_, BlockState::Live) | (None, BlockState::Unknown) => Ok(()),
            (Some(freed), _) => self.event("freed", freed, Which::Freed),
            (None, BlockState::Freed) => self.event("freed", &Stack::default(), Which::Freed),
        }
    }

    /// The nearest blocks, when the address belongs to none.
    pub(super) fn neighbours(&mut self) -> fmt::Result {
        let record = self.record;
        if record.block.is_some() || record.region.is_some() {
            return Ok(());
        }
        if record.neighbours.iter().all(Option::is_none) {
            // For these the heap was never in question.
            if matches!(
                record.kind,
                ErrorKind::NullDereference | ErrorKind::StackOverflow | ErrorKind::SealViolation
            ) {
                return Ok(());
            }
            self.open_heading()?;
            write!(self.out, "the block:")?;
            self.close_space()?;
            return writeln!(self.out, "not known, and no block near the address is known");
        }
        self.open_heading()?;
        write!(self.out, "the block:")?;
        self.close_space()?;
        writeln!(self.out, "not known; the nearest are")?;
        let [below, above] = &record.neighbours;
        self.neighbour(below.as_ref(), Where::Before)?;
        self.neighbour(above.as_ref(), Where::After)
    }

    fn neighbour(&mut self, neighbour: Option<&Neighbour>, place: Where) -> fmt::Result {
        let (below, name) =
            (place == Where::Before, if place == Where::Before { "below:" } else { "above:" });
        let Some(Neighbour { address, size, state, distance }) = neighbour else {
            return writeln!(self.out, "  {name} none");
        };
        let state = match state {
            BlockState::Live => "alive",
            BlockState::Freed => "freed",
            BlockState::Unknown => "alive or freed is not known",
        };
        let rest = if below { "its end lies" } else { "its start lies" };
        let (size, distance) = (Count(*size, "byte"), Count(*distance, "byte"));
        writeln!(
            self.out,
            "  {name} {size} at {address:#x}, {state}; {rest} {distance} {}",
            match below {
                true => "below the address",
                false => "above the address",
            }
        )
    }

    /// `allocated 1.2 s before by thread 4242 'main':` and the stack.
    fn event(&mut self, verb: &str, stack: &Stack, which: Which) -> fmt::Result {
        self.open_heading()?;
        if !stack.is_known() {
            write!(self.out, "{verb}:")?;
            self.close_space()?;
            return writeln!(self.out, "when and by whom is not known");
        }
        let ThreadInfo { id, name } = &stack.thread;
        write!(self.out, "{verb} {} before by {}:", Age(stack.age_ms), Thread(*id, name.as_str()))?;
        self.close_heading()?;
        self.stack(which)
    }

    /// The frames of a stack, a line each.
    fn stack(&mut self, which: Which) -> fmt::Result {
        let (frames, mut index, mut result) = (self.frames, 0_u32, Ok(()));
        frames.each(which, &mut |frame| {
            if result.is_ok() {
                result = self.frame(index, frame);
            }
            index = index.saturating_add(1);
        });
        result?;
        if index == 0 { writeln!(self.out, "  this stack is not known") } else { Ok(()) }
    }

    /// `  #0 0x55… in demo::fill  src/main.rs:12:9`, or `  #0 0x55… (demo+0x1234)` without a name.
    fn frame(&mut self, index: u32, frame: &FrameView<'_>) -> fmt::Result {
        let (faint, end) = (self.paint.faint(), self.paint.end());
        let pad = if index < 10 { " " } else { "" };
        write!(self.out, " {pad}#{index} {faint}{:#014x}{end}", frame.address)?;
        let module = frame.module.and_then(|path| path.rsplit('/').next());
        let Some(function) = frame.function else {
            self.nameless |= module.is_some();
            return match (module, frame.offset) {
                (Some(module), Some(offset)) => writeln!(self.out, " ({}+{offset:#x})", Clean(module)),
                _ => writeln!(self.out, " (in no module that is known)"),
            };
        };
        write!(self.out, " in {}", Clean(function))?;
        if frame.inlined {
            write!(self.out, " {faint}(inlined){end}")?;
        }
        match (frame.file, module) {
            (Some(file), _) => {
                write!(self.out, "  {}", Clean(file))?;
                if let Some(line) = frame.line {
                    write!(self.out, ":{line}")?;
                    if let Some(column) = frame.column {
                        write!(self.out, ":{column}")?;
                    }
                }
            }
            (None, Some(module)) => {
                write!(self.out, "  ({}", Clean(module))?;
                if let Some(offset) = frame.offset {
                    write!(self.out, "+{offset:#x}")?;
                }
                write!(self.out, ")")?;
            }
            (None, None) => {}
        }
        writeln!(self.out)
    }

    fn open_heading(&mut self) -> fmt::Result {
        write!(self.out, "\n{}", self.paint.heading())
    }

    fn close_heading(&mut self) -> fmt::Result {
        writeln!(self.out, "{}", self.paint.end())
    }

    /// As `close_heading`, where the text goes on in the same line.
    fn close_space(&mut self) -> fmt::Result {
        write!(self.out, "{} ", self.paint.end())
    }
}

/// `thread 4242 'main'`, or what of it is known.
struct Thread<'a>(u32, &'a str);

impl fmt::Display for Thread<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0, self.1) {
            (0, "") => f.write_str("a thread that is no longer known"),
            (0, name) => write!(f, "thread '{}'", Clean(name)),
            (id, "") => write!(f, "thread {id}"),
            (id, name) => write!(f, "thread {id} '{}'", Clean(name)),
        }
    }
}
