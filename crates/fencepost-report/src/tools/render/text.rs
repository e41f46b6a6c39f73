//! For people: each report as the process itself would have written it, and a count at the end.

use std::fmt::{self, Write};

use fencepost_record::text::{self, Style};

use super::super::restore::{self, DocumentFrames};
use super::super::{Collection, Finding, Status};
use super::Setting;

pub(super) fn write(collection: &Collection, setting: &Setting, out: &mut dyn Write) -> fmt::Result {
    for finding in collection.failures() {
        out.write_str(&self::finding(finding, setting.color))?;
        out.write_str("\n")?;
    }
    closing(collection, out)
}

/// One finding as text: the report, and what merging and tests add to it.
pub fn finding(finding: &Finding, color: bool) -> String {
    let document = &finding.document;
    let record = restore::record(document);
    let named = restore::all_frames(document).any(|frame| frame.function.is_some());
    let style = Style { color, resolved: named };
    let mut out = String::new();
    // Writing to a String fails only if a writer of ours invents an error; a short report then says so.
    if text::report(&record, &DocumentFrames::new(document), style, &mut out).is_err() {
        out.push_str("fencepost: this report could not be written in full\n");
    }
    if let Some(test) = &finding.test {
        out.push_str(&format!("test: {test}\n"));
    }
    if finding.times > 1 {
        out.push_str(&format!("seen: {} times\n", finding.times));
    }
    out
}

/// What there was in all, and what was set aside.
fn closing(collection: &Collection, out: &mut dyn Write) -> fmt::Result {
    let failures = collection.failures().count();
    let reports: u64 = collection.failures().map(|finding| finding.times).sum();
    match failures {
        0 => write!(out, "fencepost: no error")?,
        1 => write!(out, "fencepost: 1 error")?,
        more => write!(out, "fencepost: {more} different errors")?,
    }
    if reports > failures as u64 {
        write!(out, " in {reports} reports")?;
    }
    let known = collection.findings.iter().filter(|finding| finding.status == Status::Known).count();
    let suppressed =
        collection.findings.iter().filter(|finding| matches!(finding.status, Status::Suppressed(_))).count();
    if known > 0 {
        write!(out, ", {known} known from the baseline")?;
    }
    if suppressed > 0 {
        write!(out, ", {suppressed} suppressed")?;
    }
    let (guarded, total) = collection.coverage();
    if total > 0 {
        let processes = collection.summaries.len();
        let percent = percent(guarded, total);
        write!(out, "; {guarded} of {total} blocks guarded ({percent}%) in {processes} ")?;
        out.write_str(if processes == 1 { "process" } else { "processes" })?;
    }
    out.write_str("\n")
}

/// Hundredths of a percent, cut: 100 only if it is all of them.
pub(super) fn percent(part: u64, whole: u64) -> String {
    let hundredths = u128::from(part) * 10_000 / u128::from(whole.max(1));
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}
