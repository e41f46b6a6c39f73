//! docs/report-format.md says what the code does: its samples are the golden files, and it names every key.

use std::collections::BTreeSet;
use std::path::Path;

use fencepost_record::{ErrorKind, Unguarded};
use serde_json::Value;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every key that the schema describes, at any depth.
fn keys(schema: &Value, into: &mut BTreeSet<String>) {
    match schema {
        Value::Object(map) => {
            for (name, value) in map {
                if name == "properties" {
                    into.extend(value.as_object().unwrap().keys().cloned());
                }
                keys(value, into);
            }
        }
        Value::Array(list) => list.iter().for_each(|value| keys(value, into)),
        _ => {}
    }
}

#[test]
fn the_samples_are_the_golden_files() {
    let page = read("../../docs/report-format.md");
    assert!(
        page.contains(&read("tests/golden/heap-buffer-overflow.txt")),
        "the sample report is out of date"
    );
    let summary = read("tests/golden/summary.txt");
    let first = summary.split("\n\n").next().unwrap();
    for line in first.lines().chain(summary.lines().last()) {
        assert!(page.contains(line), "out of date: {line}");
    }
}

#[test]
fn every_key_is_explained() {
    let page = read("../../docs/report-format.md");
    let schema: Value = serde_json::from_str(&read("../../docs/report.schema.json")).unwrap();
    let mut all = BTreeSet::new();
    keys(&schema, &mut all);
    assert!(all.len() > 40, "{all:?}");
    let summary = read("tests/golden/summary.txt");
    let line = summary.lines().find(|line| line.starts_with('{')).unwrap();
    let summary: Value = serde_json::from_str(line).unwrap();
    all.extend(summary.as_object().unwrap().keys().cloned());
    for key in all {
        let named = [format!("`{key}`"), format!("`.{key}`"), format!(".{key}`")]
            .iter()
            .any(|form| page.contains(form));
        assert!(named, "{key} is not in docs/report-format.md");
    }
    for name in ErrorKind::ALL.map(ErrorKind::name).iter().chain(&Unguarded::ALL.map(Unguarded::name)) {
        assert!(page.contains(&format!("`{name}`")), "{name} is not in docs/report-format.md");
    }
}
