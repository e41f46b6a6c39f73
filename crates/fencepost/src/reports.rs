//! Reports as values and as `tracing` events.

use fencepost_record::{ErrorKind, Message, Record};

use crate::runtime::GUARD;

/// One error that was reported, for programs that go on after errors.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// What went wrong.
    pub kind: ErrorKind,
    /// The first line of the report, without the kind.
    pub message: String,
    /// The address of the access, where it is known.
    pub address: Option<usize>,
    /// First byte and size in bytes of the block it concerns.
    pub block: Option<(usize, usize)>,
    /// Name of the thread that it showed in; empty when it had none.
    pub thread: String,
    /// The whole report as text.
    pub text: String,
    /// The whole report as one JSON document.
    pub json: String,
}

impl Report {
    fn of(record: &Record) -> Report {
        let (text, json) = rendered(record);
        Report {
            kind: record.kind,
            message: Message(record).to_string(),
            address: record.access.address.and_then(|address| usize::try_from(address).ok()),
            block: record.block.and_then(|block| {
                Some((usize::try_from(block.address).ok()?, usize::try_from(block.size).ok()?))
            }),
            thread: record.fault.thread.name.as_str().to_owned(),
            text,
            json,
        }
    }
}

#[cfg(feature = "symbolize")]
fn rendered(record: &Record) -> (String, String) {
    crate::symbolize::rendered(record)
}

#[cfg(not(feature = "symbolize"))]
fn rendered(record: &Record) -> (String, String) {
    use fencepost_record::{RawFrames, json, text};
    let (mut as_text, mut as_json) = (String::new(), String::new());
    let style = text::Style { color: false, resolved: false };
    // Writing to a String does not fail.
    let written = text::report(record, &RawFrames(record), style, &mut as_text)
        .and_then(|()| json::report(record, &RawFrames(record), &mut as_json));
    debug_assert!(written.is_ok());
    (as_text, as_json)
}

/// Every report since the last call, oldest first. The last 16 are kept: call it often enough.
pub fn drain_reports() -> Vec<Report> {
    let mut reports = Vec::new();
    GUARD.drain(&mut |record| reports.push(Report::of(record)));
    reports
}

/// Sends every report since the last call as a `tracing` event at level `ERROR`, and says how many there were. To be
/// called outside the allocator and the fault handler: from the program's own loop, or at its end.
#[cfg(feature = "tracing")]
pub fn emit_tracing() -> usize {
    let reports = drain_reports();
    for report in &reports {
        tracing::error!(
            target: "fencepost",
            kind = report.kind.name(),
            address = report.address,
            block_address = report.block.map(|(address, _)| address),
            block_size = report.block.map(|(_, size)| size),
            thread = report.thread.as_str(),
            report = report.json.as_str(),
            "{}",
            report.message
        );
    }
    reports.len()
}
