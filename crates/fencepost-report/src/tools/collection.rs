//! What any number of report files hold, as one list of findings.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use fencepost_record::Text;
use serde_json::Value;

use super::offline::Modules;
use super::restore;
use super::suppress::Suppression;
use crate::parse::{self, Document, Hex, Line, ParseError, SitesDocument, StartDocument, SummaryDocument};
use crate::{Resolved, render_json};

/// The parts of a report that names change, as JSON pointers.
const NAMED_PARTS: [&str; 6] = [
    "/fault/frames",
    "/block/allocated/frames",
    "/block/freed/frames",
    "/seal/sealer/frames",
    "/source",
    "/fingerprint",
];

/// How a finding is judged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Status {
    /// It counts.
    #[default]
    New,
    /// The baseline has it.
    Known,
    /// A suppression fits it; its reason.
    Suppressed(String),
}

/// One bug, as often as it was seen.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The first report of it.
    pub document: Document,
    /// That report as JSON, with the keys that this version does not know.
    pub json: Value,
    /// How many reports say the same.
    pub times: u64,
    /// The test in which it first showed, where that is known.
    pub test: Option<String>,
    /// How it is judged.
    pub status: Status,
}

impl Finding {
    /// Whether it makes a run fail.
    pub fn counts(&self) -> bool {
        self.status == Status::New
    }

    /// Notes the test that it happened in. Where the system kept the beginning of the test's name as the thread's, the
    /// thread gets the whole name, as it has inside the process.
    pub fn set_test(&mut self, test: Option<String>) {
        let thread = &mut self.document.fault.thread.name;
        let cut = thread.as_deref().unwrap_or("");
        if let Some(test) = test.as_deref().filter(|test| cut.len() == 15 && test.starts_with(cut)) {
            *thread = Some(test.to_owned());
            if let Some(name) = self.json.pointer_mut("/fault/thread/name") {
                *name = test.into();
            }
        }
        self.test = test;
    }

    /// Takes `options` for those of the program, and makes the line that replays it anew: what a tool added for itself
    /// is of no use to people. `preload` is the library that the program needs for it, if it needs one.
    pub fn set_options(&mut self, options: &str, preload: Option<&str>) {
        options.clone_into(&mut self.document.options);
        let mut record = restore::record(&self.document);
        record.process.preload = Text::new(preload.unwrap_or("").as_bytes());
        let mut replay = String::new();
        let known = fencepost_record::replay::write(&record, &mut replay);
        self.document.replay = known.unwrap_or(false).then_some(replay);
        let mut only = String::new();
        let known = fencepost_record::replay::write_only(&restore::record(&self.document), &mut only);
        self.document.only_site = known.unwrap_or(false).then_some(only);
        if let Value::Object(map) = &mut self.json {
            map.insert("options".to_owned(), self.document.options.clone().into());
            map.insert("replay".to_owned(), self.document.replay.clone().into());
            map.insert("only_site".to_owned(), self.document.only_site.clone().into());
        }
    }

    /// The report as one JSON object on one line, with `times`, `test` and `status` added.
    pub fn to_json(&self) -> String {
        let mut json = self.json.clone();
        if let Value::Object(map) = &mut json {
            map.insert("times".to_owned(), self.times.into());
            map.insert("test".to_owned(), self.test.clone().into());
            let (status, reason) = match &self.status {
                Status::New => ("new", None),
                Status::Known => ("known", None),
                Status::Suppressed(reason) => ("suppressed", Some(reason.as_str())),
            };
            map.insert("status".to_owned(), status.into());
            map.insert("suppressed_because".to_owned(), reason.into());
        }
        json.to_string()
    }
}

/// A line that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file, or whatever the text came from.
    pub source: String,
    /// What is wrong.
    pub error: ParseError,
    /// The line as it stands there.
    pub line: String,
    /// It is the last line and has no end: the process was ended while it wrote.
    pub unfinished: bool,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.source, self.error)?;
        if self.unfinished {
            f.write_str(" (the file ends in the middle of this line: the process was ended while it wrote)")?;
        }
        Ok(())
    }
}

/// What report files hold.
#[derive(Clone, Debug, Default)]
pub struct Collection {
    /// The findings; one a report until [`Collection::merge`].
    pub findings: Vec<Finding>,
    /// The accounts of coverage.
    pub summaries: Vec<SummaryDocument>,
    /// The processes that had a guard.
    pub starts: Vec<StartDocument>,
    /// Where blocks came from, in processes that left most of them out.
    pub sites: Vec<SitesDocument>,
    /// The lines that could not be read.
    pub problems: Vec<Problem>,
}

impl Collection {
    /// An empty one.
    pub fn new() -> Collection {
        Collection::default()
    }

    /// Takes in the text of a file; `source` is what to call it when a line cannot be read.
    pub fn read(&mut self, source: &str, text: &str) {
        let last = text.lines().count();
        // A process that tried in vain to become another program wrote an account before it did: the latest stands.
        // Two runtimes in a process have an account each, and seeds of their own.
        let mut accounts: BTreeMap<(u32, Hex), usize> = BTreeMap::new();
        for (index, line) in text.split('\n').enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let number = index.saturating_add(1);
            match parse::parse_line(line, number) {
                Ok(Line::Report(document)) => self.add(*document, line),
                Ok(Line::Summary(summary)) => {
                    let place = *accounts.entry((summary.pid, summary.seed)).or_insert(self.summaries.len());
                    match self.summaries.get_mut(place) {
                        Some(earlier) => *earlier = summary,
                        None => self.summaries.push(summary),
                    }
                }
                Ok(Line::Start(start)) => {
                    accounts.retain(|(pid, _), _| *pid != start.pid);
                    self.starts.push(start);
                }
                Ok(Line::Sites(sites)) => self.sites.push(sites),
                Err(error) => {
                    let unfinished = number == last && !text.ends_with('\n');
                    self.problems.push(Problem {
                        source: source.to_owned(),
                        error,
                        line: line.to_owned(),
                        unfinished,
                    });
                }
            }
        }
    }

    fn add(&mut self, document: Document, line: &str) {
        let json: Value = serde_json::from_str(line).unwrap_or_default();
        // A merged file says how often; a test may be named there too.
        let times = json.get("times").and_then(Value::as_u64).unwrap_or(1).max(1);
        let test = json.get("test").and_then(Value::as_str).map(str::to_owned);
        self.findings.push(Finding { document, json, times, test, status: Status::New });
    }

    /// Gives names to the findings that have none, from the files of their modules.
    pub fn resolve(&mut self, modules: &mut Modules) {
        for finding in self.findings.iter_mut().filter(|finding| is_raw(&finding.document)) {
            let record = restore::record(&finding.document);
            let resolved = Resolved::new(&record, &mut modules.of(&record), None);
            let named =
                render_json(&record, &resolved).ok().and_then(|json| serde_json::from_str(&json).ok());
            let Some(named) = named else { continue };
            let mut json = finding.json.clone();
            take_over(&mut json, &named);
            // The parts come from our own writer, so this reads back.
            if let Ok(document) = serde_json::from_value(json.clone()) {
                finding.json = json;
                finding.document = document;
            }
        }
    }

    /// Makes one finding of all reports with one fingerprint, in the order in which each was first seen.
    pub fn merge(&mut self) {
        let mut places: BTreeMap<(Hex, &'static str), usize> = BTreeMap::new();
        let mut merged: Vec<Finding> = Vec::new();
        for finding in self.findings.drain(..) {
            let key = (finding.document.fingerprint, finding.document.kind.name());
            match places.get(&key).and_then(|place| merged.get_mut(*place)) {
                Some(first) => {
                    first.times = first.times.saturating_add(finding.times);
                    first.test = first.test.take().or(finding.test);
                }
                None => {
                    places.insert(key, merged.len());
                    merged.push(finding);
                }
            }
        }
        self.findings = merged;
    }

    /// Sets aside the findings that a suppression fits, and says which suppressions fitted nothing.
    pub fn suppress<'s>(&mut self, suppressions: &'s [Suppression]) -> Vec<&'s Suppression> {
        let mut unused: Vec<&Suppression> = suppressions.iter().collect();
        for finding in &mut self.findings {
            let fits: Vec<&Suppression> =
                suppressions.iter().filter(|rule| rule.fits(&finding.document)).collect();
            unused.retain(|rule| !fits.iter().any(|fit| std::ptr::eq(*fit, *rule)));
            if let Some(rule) = fits.first() {
                finding.status = Status::Suppressed(rule.reason.clone());
            }
        }
        unused
    }

    /// Sets aside the findings whose fingerprint is in the baseline.
    pub fn compare(&mut self, baseline: &BTreeSet<Hex>) {
        let known = |finding: &&mut Finding| baseline.contains(&finding.document.fingerprint);
        for finding in self.findings.iter_mut().filter(|finding| finding.counts()).filter(known) {
            finding.status = Status::Known;
        }
    }

    /// The findings that make a run fail.
    pub fn failures(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.counts())
    }

    /// Blocks guarded and blocks asked for, in all processes that left an account.
    pub fn coverage(&self) -> (u64, u64) {
        self.summaries.iter().fold((0, 0), |(guarded, total), summary| {
            (guarded.saturating_add(summary.guarded), total.saturating_add(summary.total))
        })
    }

    /// The fingerprints of all findings: a baseline.
    pub fn fingerprints(&self) -> BTreeSet<Hex> {
        self.findings.iter().map(|finding| finding.document.fingerprint).collect()
    }
}

/// Whether names are still to be found: there are places in modules, and not one name.
fn is_raw(document: &Document) -> bool {
    let mut frames = restore::all_frames(document);
    let mut places = false;
    let named = frames.any(|frame| {
        places |= frame.module.is_some();
        frame.function.is_some()
    });
    places && !named
}

/// Puts the parts of `named` that names change into `json`; all else stays.
fn take_over(json: &mut Value, named: &Value) {
    for part in NAMED_PARTS {
        if let (Some(old), Some(new)) = (json.pointer_mut(part), named.pointer(part)) {
            *old = new.clone();
        }
    }
}
