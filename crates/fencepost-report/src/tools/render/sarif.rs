//! SARIF 2.1.0 (OASIS, "Static Analysis Results Interchange Format"), as code-scanning viewers read it.
//!
//! A kind is a rule. A finding's place is the user's own line; allocation, free and access are the steps of its code
//! flow, in the order in which they happened, and its stacks in full. Suppressed and known findings are there too,
//! marked as such, because that is how viewers learn that they are not new.

use std::fmt::{self, Write};

use fencepost_record::{ErrorKind, Which};
use serde_json::{Map, Value, json};

use super::super::{Collection, Finding, Status, restore};
use super::{Setting, place, text};
use crate::parse::{Document, Frame};

const SCHEMA: &str = "https://json.schemastore.org/sarif-2.1.0.json";
/// The name that paths below the checkout are relative to; viewers know it.
const ROOT: &str = "%SRCROOT%";

pub(super) fn write(collection: &Collection, setting: &Setting, out: &mut dyn Write) -> fmt::Result {
    let results: Vec<Value> = collection.findings.iter().map(|finding| result(finding, setting)).collect();
    let mut run = json!({
        "tool": { "driver": {
            "name": "fencepost",
            "version": env!("CARGO_PKG_VERSION"),
            "rules": ErrorKind::ALL.map(rule),
        }},
        "columnKind": "utf16CodeUnits",
        "results": results,
    });
    if let (Some(root), Value::Object(run)) = (&setting.root, &mut run) {
        let mut uri = format!("file://{}", uri(&root.to_string_lossy()));
        if !uri.ends_with('/') {
            uri.push('/');
        }
        run.insert("originalUriBaseIds".to_owned(), json!({ ROOT: { "uri": uri } }));
    }
    let log = json!({ "$schema": SCHEMA, "version": "2.1.0", "runs": [run] });
    let text = serde_json::to_string_pretty(&log).map_err(|_| fmt::Error)?;
    writeln!(out, "{text}")
}

fn rule(kind: ErrorKind) -> Value {
    json!({
        "id": kind.name(),
        "name": camel(kind.name()),
        "shortDescription": { "text": place::meaning(kind) },
        "fullDescription": { "text": place::meaning(kind) },
        "defaultConfiguration": { "level": "error" },
        "properties": { "tags": ["security", "memory"], "precision": "very-high", "security-severity": severity(kind) },
    })
}

/// What viewers sort by: how bad this usually is, from 0.0 to 10.0.
fn severity(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Leak => "3.0",
        ErrorKind::NullDereference | ErrorKind::StackOverflow | ErrorKind::Tripwire => "5.0",
        ErrorKind::LayoutMismatch | ErrorKind::AllocDeallocMismatch => "6.0",
        _ => "8.5",
    }
}

fn camel(name: &str) -> String {
    let mut out = String::new();
    for word in name.split('-') {
        let mut letters = word.chars();
        out.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        out.push_str(letters.as_str());
    }
    out
}

fn result(finding: &Finding, setting: &Setting) -> Value {
    let document = &finding.document;
    let index = ErrorKind::ALL.iter().position(|kind| *kind == document.kind).unwrap_or(0);
    let primary = place::primary(document).map(|frame| location(frame, None, setting));
    let related: Vec<Value> = place::history(document)
        .iter()
        .filter(|(which, _)| *which != Which::Fault)
        .filter_map(|(which, what)| {
            place::primary_of(restore::stack_of(document, *which))
                .map(|frame| location(frame, Some(what), setting))
        })
        .collect();
    let mut result = json!({
        "ruleId": document.kind.name(),
        "ruleIndex": index,
        "kind": "fail",
        "level": "error",
        "message": { "text": message(finding) },
        "locations": Vec::from_iter(primary),
        "relatedLocations": related,
        "stacks": stacks(document, setting),
        "partialFingerprints": { "fencepost/v1": format!("{:016x}", document.fingerprint.0) },
        "occurrenceCount": finding.times,
        "baselineState": if finding.status == Status::Known { "unchanged" } else { "new" },
        "properties": { "report": text::finding(finding, false), "confidence": finding.json.get("confidence") },
    });
    let flow = flow(document, setting);
    if let Value::Object(map) = &mut result {
        if !flow.is_empty() {
            let flows = json!([{ "threadFlows": [{ "locations": flow }] }]);
            map.insert("codeFlows".to_owned(), flows);
        }
        if let Status::Suppressed(reason) = &finding.status {
            let suppressions = json!([{ "kind": "external", "justification": reason }]);
            map.insert("suppressions".to_owned(), suppressions);
        }
    }
    result
}

fn message(finding: &Finding) -> String {
    let mut text = format!("{}: {}", finding.document.kind.name(), finding.document.message);
    if let Some(test) = &finding.test {
        text.push_str(&format!(" (in test {test})"));
    }
    text
}

/// Allocation, free and access as steps, outermost call first within each: the way the program went.
fn flow(document: &Document, setting: &Setting) -> Vec<Value> {
    let mut steps = Vec::new();
    for (which, what) in place::history(document) {
        let frames = restore::stack_of(document, which);
        let shown: Vec<&Frame> =
            frames.iter().filter(|frame| frame.file.is_some() && frame.line.is_some()).collect();
        for (depth, frame) in shown.iter().enumerate().rev() {
            // The last step of each stack says what happened there; those before it are how it got there.
            let text =
                if depth == 0 { what.clone() } else { format!("calls, in {}", place::function(frame)) };
            let importance = if depth == 0 { "essential" } else { "unimportant" };
            steps.push(json!({
                "location": location(frame, Some(&text), setting),
                "importance": importance,
                "executionOrder": steps.len() + 1,
                "nestingLevel": shown.len() - 1 - depth,
            }));
        }
    }
    steps
}

fn stacks(document: &Document, setting: &Setting) -> Vec<Value> {
    let stack = |(which, what): &(Which, String)| {
        let frames: Vec<Value> =
            restore::stack_of(document, *which).iter().map(|found| frame(found, setting)).collect();
        json!({ "message": { "text": what }, "frames": frames })
    };
    place::history(document).iter().rev().map(stack).collect()
}

fn frame(frame: &Frame, setting: &Setting) -> Value {
    let mut map = Map::new();
    map.insert("location".to_owned(), location(frame, None, setting));
    if let Some(module) = &frame.module {
        map.insert("module".to_owned(), module.rsplit('/').next().unwrap_or(module).into());
    }
    Value::Object(map)
}

fn location(frame: &Frame, message: Option<&str>, setting: &Setting) -> Value {
    let mut map = Map::new();
    if let (Some(file), Some(line)) = (&frame.file, frame.line) {
        let (path, relative) = place::relative(file, setting);
        let mut artifact = Map::new();
        let scheme = if relative { "" } else { "file://" };
        artifact.insert("uri".to_owned(), format!("{scheme}{}", uri(&path)).into());
        if relative && setting.root.is_some() {
            artifact.insert("uriBaseId".to_owned(), ROOT.into());
        }
        let mut region = json!({ "startLine": line });
        if let (Some(column), Value::Object(region)) = (frame.column, &mut region) {
            region.insert("startColumn".to_owned(), column.into());
        }
        map.insert("physicalLocation".to_owned(), json!({ "artifactLocation": artifact, "region": region }));
    } else {
        map.insert(
            "physicalLocation".to_owned(),
            json!({ "address": { "absoluteAddress": frame.address.0 & (i64::MAX as u64) } }),
        );
    }
    if let Some(function) = &frame.function {
        let logical = json!([{ "fullyQualifiedName": function, "kind": "function" }]);
        map.insert("logicalLocations".to_owned(), logical);
    }
    if let Some(message) = message {
        map.insert("message".to_owned(), json!({ "text": message }));
    }
    Value::Object(map)
}

/// A path as the path of a URI (RFC 3986): all but unreserved characters and slashes in percents.
fn uri(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn paths_become_uris() {
        assert_eq!(super::uri("/a b/ä#.rs"), "/a%20b/%C3%A4%23.rs");
        assert_eq!(super::camel("use-after-free"), "UseAfterFree");
    }
}
