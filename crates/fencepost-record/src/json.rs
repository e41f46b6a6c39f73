//! Reports and summaries as JSON, one object a line.
//!
//! Every key is always there; what does not apply or is not known is `null`. Addresses, offsets and the seed are
//! strings in hex, because JSON numbers lose digits past 2^53. A line never holds a character that any reader
//! takes for the end of a line. `docs/report-format.md` explains every key.

use core::fmt::{self, Write};

use crate::{
    Block, BlockState, CopyInfo, Coverage, FrameView, Frames, Message, Neighbour, Note, REFUSAL_NAMES,
    Record, Stack, Summary, ThreadInfo, Unguarded, Which, replay,
};

mod sites;
mod writer;

pub use sites::{Call, Calls, SITES_PER_RUN, SITES_SCHEMA, Site, Sites, sites, write_command};
use writer::Json;

/// The name and version of a report's format.
pub const REPORT_SCHEMA: &str = "fencepost-report/1";
/// The name and version of a summary's format.
pub const SUMMARY_SCHEMA: &str = "fencepost-summary/1";
/// The name and version of the format of the line that a process begins with.
pub const START_SCHEMA: &str = "fencepost-start/1";

/// Writes a report as one JSON object, without the line's end.
///
/// # Errors
/// Those of `out`.
pub fn report(record: &Record, frames: &dyn Frames, out: &mut dyn Write) -> fmt::Result {
    let mut json = Json::new(out);
    json.open('{')?;
    json.field("schema")?.string(REPORT_SCHEMA)?;
    json.field("number")?.number(u64::from(record.number))?;
    json.field("kind")?.string(record.kind.name())?;
    json.field("message")?.display(&Message(record))?;
    access(record, &mut json)?;
    block(record, frames, &mut json)?;
    given_and_damage(record, &mut json)?;
    copy(record, &mut json)?;
    neighbours(record, &mut json)?;
    seal(record, frames, &mut json)?;
    region(record, &mut json)?;
    leak(record, &mut json)?;
    json.field("fault")?.open('{')?;
    thread(&record.fault.thread, frames.fault_thread_name(), &mut json)?;
    stack_frames(Which::Fault, frames, &mut json)?;
    json.close('}')?;
    source(frames, &mut json)?;
    registers(record, &mut json)?;
    json.field("signal")?.known(record.signal != 0, u64::from(record.signal))?;
    process(record, &mut json)?;
    json.field("options")?.string(record.options.as_str())?;
    json.field("engine")?.text(record.engine)?;
    coverage(&record.coverage, &mut json)?;
    json.field("seed")?.hex(record.seed)?;
    json.field("replay")?;
    if !json.quoted(|out| replay::write(record, out))? {
        json.null()?;
    }
    json.field("only_site")?;
    if !json.quoted(|out| replay::write_only(record, out))? {
        json.null()?;
    }
    json.field("confidence")?.string(record.confidence.name())?;
    notes("reasons", record, Note::is_evidence, &mut json)?;
    notes("notes", record, |_| true, &mut json)?;
    json.field("fingerprint")?.hex_padded(frames.fingerprint())?;
    json.close('}')
}

/// Writes a summary as one JSON object, without the line's end.
///
/// # Errors
/// Those of `out`.
pub fn summary(summary: &Summary, out: &mut dyn Write) -> fmt::Result {
    let mut json = Json::new(out);
    json.open('{')?;
    json.field("schema")?.string(SUMMARY_SCHEMA)?;
    json.field("pid")?.number(u64::from(summary.pid))?;
    json.field("engine")?.text(summary.engine)?;
    json.field("mode")?.text(summary.mode)?;
    json.field("seed")?.hex(summary.seed)?;
    json.field("total")?.number(summary.total)?;
    json.field("guarded")?.number(summary.guarded)?;
    json.field("percent")?.percent(summary.guarded, summary.total)?;
    json.field("unguarded")?.open('{')?;
    for (reason, count) in Unguarded::ALL.iter().zip(summary.unguarded) {
        json.field(reason.name())?.number(count)?;
    }
    json.close('}')?;
    json.field("contexts")?.number(summary.contexts)?;
    json.field("contexts_guarded")?.number(summary.contexts_guarded)?;
    json.field("contexts_confused")?.number(summary.contexts_confused)?;
    json.field("guarding_us")?.number(summary.guarding_us)?;
    json.field("live")?.number(summary.live)?;
    json.field("live_max")?.number(summary.live_max)?;
    json.field("quarantined_bytes")?.number(summary.quarantined_bytes)?;
    json.field("held_bytes")?.number(summary.held_bytes)?;
    json.field("syscalls")?.number(summary.syscalls)?;
    json.field("fallbacks")?.number(summary.fallbacks)?;
    json.field("refused")?.open('{')?;
    for (name, count) in REFUSAL_NAMES.iter().zip(summary.refused) {
        json.field(name)?.number(count)?;
    }
    json.close('}')?;
    json.field("reports")?.number(summary.reports)?;
    json.field("reports_lost")?.number(summary.reports_lost)?;
    json.field("stacks_lost")?.number(summary.stacks_lost)?;
    json.field("regions")?.number(summary.regions)?;
    json.field("regions_reserved")?.number(summary.regions_reserved)?;
    json.field("regions_committed")?.number(summary.regions_committed)?;
    json.close('}')
}

/// What a process begins with. Empty texts are not known, or do not apply.
#[derive(Clone, Copy, Debug)]
pub struct Start<'a> {
    /// The process.
    pub pid: u32,
    /// The engine's name.
    pub engine: &'a str,
    /// The mode's name.
    pub mode: &'a str,
    /// Path of the executable.
    pub exe: &'a str,
    /// Why nothing is guarded, where nothing is.
    pub why_not: &'a str,
}

/// Writes the line that a process begins with, without its end: proof that the guard is in place, which a process
/// that is killed leaves behind as well.
///
/// # Errors
/// Those of `out`.
pub fn start(start: &Start<'_>, out: &mut dyn Write) -> fmt::Result {
    let Start { pid, engine, mode, exe, why_not } = *start;
    let mut json = Json::new(out);
    json.open('{')?;
    json.field("schema")?.string(START_SCHEMA)?;
    json.field("pid")?.number(u64::from(pid))?;
    json.field("engine")?.text(engine)?;
    json.field("mode")?.text(mode)?;
    json.field("exe")?.text(exe)?;
    json.field("why_not")?.text(why_not)?;
    json.close('}')
}

fn access(record: &Record, json: &mut Json<'_>) -> fmt::Result {
    json.field("access")?.open('{')?;
    json.field("type")?.string(record.access.kind.name())?;
    json.field("address")?.hex_or_null(record.access.address)?;
    json.field("size")?.number_or_null(record.access.size.map(u64::from))?;
    json.close('}')
}

fn block(record: &Record, frames: &dyn Frames, json: &mut Json<'_>) -> fmt::Result {
    json.field("block")?;
    let Some(Block { address, size, align, slack, site, place, distance, state, allocated, freed }) =
        &record.block
    else {
        return json.null();
    };
    json.open('{')?;
    json.field("address")?.hex(*address)?;
    json.field("size")?.number(*size)?;
    json.field("align")?.number(*align)?;
    json.field("slack")?.number(*slack)?;
    json.field("site")?.hex_or_null(*site)?;
    json.field("where")?.string(place.name())?;
    json.field("distance")?.number(*distance)?;
    json.field("state")?.string(state.name())?;
    json.field("allocated")?;
    stack(allocated, Which::Allocated, frames, json)?;
    json.field("freed")?;
    match freed {
        Some(freed) if *state != BlockState::Live => stack(freed, Which::Freed, frames, json)?,
        _ => json.null()?,
    }
    json.close('}')
}

fn given_and_damage(record: &Record, json: &mut Json<'_>) -> fmt::Result {
    json.field("given_layout")?;
    match record.given_layout {
        Some((size, align)) => {
            json.open('{')?;
            json.field("size")?.number(size)?;
            json.field("align")?.number(align)?;
            json.close('}')?;
        }
        None => json.null()?,
    }
    json.field("damage")?;
    match record.damage {
        Some((address, size)) => {
            json.open('{')?;
            json.field("address")?.hex(address)?;
            json.field("size")?.number(size)?;
            json.close('}')
        }
        None => json.null(),
    }
}

fn copy(record: &Record, json: &mut Json<'_>) -> fmt::Result {
    json.field("copy")?;
    let Some(CopyInfo { function, to, from, size, left }) = record.copy else { return json.null() };
    json.open('{')?;
    json.field("function")?.text(function)?;
    json.field("to")?.hex(to)?;
    json.field("from")?.hex_or_null(from)?;
    json.field("size")?.number_or_null(size)?;
    json.field("left")?.number_or_null(left)?;
    json.close('}')
}

fn neighbours(record: &Record, json: &mut Json<'_>) -> fmt::Result {
    json.field("neighbours")?.open('[')?;
    for neighbour in &record.neighbours {
        match neighbour {
            Some(Neighbour { address, size, state, distance }) => {
                json.open('{')?;
                json.field("address")?.hex(*address)?;
                json.field("size")?.number(*size)?;
                json.field("state")?.string(state.name())?;
                json.field("distance")?.number(*distance)?;
                json.close('}')?;
            }
            None => json.null()?,
        }
    }
    json.close(']')
}

fn seal(record: &Record, frames: &dyn Frames, json: &mut Json<'_>) -> fmt::Result {
    json.field("seal")?;
    let Some(seal) = &record.seal else { return json.null() };
    json.open('{')?;
    json.field("address")?.hex(seal.address)?;
    json.field("size")?.number(seal.size)?;
    json.field("pages")?.open('{')?;
    json.field("address")?.hex(seal.pages.0)?;
    json.field("size")?.number(seal.pages.1)?;
    json.close('}')?;
    for (key, bytes) in [("old", seal.old), ("new", seal.new)] {
        json.field(key)?;
        if bytes.is_empty() { json.null()? } else { json.display(&bytes)? }
    }
    json.field("sealer")?;
    stack(&seal.sealer, Which::Sealed, frames, json)?;
    json.close('}')
}

fn leak(record: &Record, json: &mut Json<'_>) -> fmt::Result {
    json.field("leak")?;
    let Some(leak) = &record.leak else { return json.null() };
    json.open('{')?;
    json.field("blocks")?.number(leak.blocks)?;
    json.field("bytes")?.number(leak.bytes)?;
    json.field("through_blocks")?.number(leak.through_blocks)?;
    json.field("through_bytes")?.number(leak.through_bytes)?;
    json.close('}')
}

fn region(record: &Record, json: &mut Json<'_>) -> fmt::Result {
    json.field("region")?;
    let Some(region) = &record.region else { return json.null() };
    json.open('{')?;
    json.field("kind")?.string(region.kind.as_str())?;
    json.field("name")?.text(region.name.as_str())?;
    json.field("address")?.hex(region.address)?;
    json.field("reserved")?.number(region.reserved)?;
    json.field("committed")?.number(region.committed)?;
    json.field("used")?.number_or_null(region.used)?;
    json.field("where")?.string(region.place.name())?;
    json.field("distance")?.number(region.distance)?;
    json.field("slot")?.number_or_null(region.slot)?;
    json.close('}')
}

/// A thread, what it did and how long before the report.
fn stack(stack: &Stack, which: Which, frames: &dyn Frames, json: &mut Json<'_>) -> fmt::Result {
    json.open('{')?;
    thread(&stack.thread, None, json)?;
    stack_frames(which, frames, json)?;
    json.field("age_ms")?.known(stack.is_known(), stack.age_ms)?;
    json.close('}')
}

fn thread(thread: &ThreadInfo, better_name: Option<&str>, json: &mut Json<'_>) -> fmt::Result {
    json.field("thread")?.open('{')?;
    json.field("id")?.known(thread.id != 0, u64::from(thread.id))?;
    json.field("name")?.text(better_name.unwrap_or(thread.name.as_str()))?;
    json.close('}')
}

fn stack_frames(which: Which, frames: &dyn Frames, json: &mut Json<'_>) -> fmt::Result {
    json.field("frames")?.open('[')?;
    let mut result = Ok(());
    frames.each(which, &mut |view| {
        if result.is_ok() {
            result = frame(view, json);
        }
    });
    result?;
    json.close(']')
}

fn frame(view: &FrameView<'_>, json: &mut Json<'_>) -> fmt::Result {
    json.open('{')?;
    json.field("address")?.hex(view.address)?;
    json.field("module")?.text(view.module.unwrap_or(""))?;
    json.field("build_id")?;
    match view.build_id {
        Some(id) => json.quoted(|out| {
            id.iter().try_for_each(|byte| write!(out, "{byte:02x}"))?;
            Ok(true)
        })?,
        None => json.null().map(|()| true)?,
    };
    json.field("offset")?.hex_or_null(view.offset)?;
    json.field("function")?.text(view.function.unwrap_or(""))?;
    json.field("file")?.text(view.file.unwrap_or(""))?;
    json.field("line")?.number_or_null(view.line.map(u64::from))?;
    json.field("column")?.number_or_null(view.column.map(u64::from))?;
    json.field("inlined")?.boolean(view.inlined)?;
    json.close('}')
}

fn source(frames: &dyn Frames, json: &mut Json<'_>) -> fmt::Result {
    json.field("source")?;
    let mut result = Ok(());
    let mut any = false;
    frames.excerpt(&mut |line| {
        if result.is_err() {
            return;
        }
        result = (|| {
            if !any {
                any = true;
                json.open('{')?;
                json.field("file")?.string(line.file)?;
                json.field("lines")?.open('[')?;
            }
            json.open('{')?;
            json.field("number")?.number(u64::from(line.number))?;
            json.field("text")?.string(line.text)?;
            json.field("hit")?.boolean(line.hit)?;
            json.close('}')
        })();
    });
    result?;
    if !any {
        return json.null();
    }
    json.close(']')?;
    json.close('}')
}

fn registers(record: &Record, json: &mut Json<'_>) -> fmt::Result {
    json.field("registers")?;
    let values = record.registers.values();
    if values.is_empty() {
        return json.null();
    }
    json.open('{')?;
    for (name, value) in values {
        json.field(name)?.hex(*value)?;
    }
    json.close('}')
}

fn process(record: &Record, json: &mut Json<'_>) -> fmt::Result {
    json.field("process")?.open('{')?;
    json.field("pid")?.number(u64::from(record.process.pid))?;
    json.field("exe")?.text(record.process.exe.as_str())?;
    json.field("args")?.open('[')?;
    for argument in record.process.args.as_str().split_terminator('\0') {
        json.string(argument)?;
    }
    json.close(']')?;
    json.close('}')
}

fn coverage(coverage: &Coverage, json: &mut Json<'_>) -> fmt::Result {
    json.field("coverage")?.open('{')?;
    json.field("guarded")?.number(coverage.guarded)?;
    json.field("total")?.number(coverage.total)?;
    json.field("percent")?.percent(coverage.guarded, coverage.total)?;
    json.close('}')
}

fn notes(key: &str, record: &Record, keep: impl Fn(Note) -> bool, json: &mut Json<'_>) -> fmt::Result {
    json.field(key)?.open('[')?;
    for note in record.notes.iter().filter(|note| keep(*note)) {
        json.string(note.text())?;
    }
    json.close(']')
}
