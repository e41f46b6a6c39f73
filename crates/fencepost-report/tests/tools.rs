//! Reports after the fact: merging, judging and every form of output, on the invented reports of `fencepost-record`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use fencepost_record::Summary;
use fencepost_report::parse::Hex;
use fencepost_report::tools::render::{Format, Setting, render};
use fencepost_report::tools::{Collection, Status, Suppression};

#[path = "tools/forms.rs"]
mod forms;
#[path = "tools/naming.rs"]
mod naming;
#[path = "tools/schemas.rs"]
mod schemas;

/// The folder of the invented reports.
fn invented() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fencepost-record/tests/golden")
}

/// Every invented report: its name, its line, and its text.
fn cases() -> Vec<(String, String, String)> {
    let mut cases = Vec::new();
    for entry in std::fs::read_dir(invented()).expect("goldens") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|ending| ending == "json") {
            let read = |path: &Path| std::fs::read_to_string(path).expect("text");
            let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
            cases.push((name, read(&path), read(&path.with_extension("txt"))));
        }
    }
    assert!(cases.len() > 20, "{}", cases.len());
    cases.sort();
    cases
}

/// The lines of these invented reports, each with a fingerprint of its own.
fn collection(names: &[&str]) -> Collection {
    let mut collection = Collection::new();
    for (index, name) in names.iter().enumerate() {
        let (_, line, _) = cases().into_iter().find(|(case, ..)| case == name).expect("a case");
        let line = line.replace("0x0123456789abcdef", &format!("{:#018x}", 0xf00d_u64 + index as u64));
        collection.read(name, &line);
    }
    assert_eq!(collection.findings.len(), names.len());
    collection
}

fn rendered(collection: &Collection, format: Format) -> String {
    let mut out = String::new();
    let setting = Setting { root: Some("/home/user/demo".into()), color: false };
    render(collection, format, &setting, &mut out).expect("a String grows");
    out
}

/// A text whose marks below the source stand at the line's start: the invented reports put them where no column of
/// theirs is.
fn without_marks(text: &str) -> String {
    // The invented leak shows a line that no frame of its stacks has, so that its column is not known.
    let text = text.replace("ring.rs:41:9\n   |", "ring.rs:41\n   |");
    let line = |line: &str| match line.split_once("| ") {
        Some((gutter, mark)) if mark.trim_start().starts_with('^') => {
            format!("{gutter}| {}", mark.trim_start())
        }
        _ => line.to_owned(),
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_text_is_the_one_the_process_writes() {
    for (name, line, text) in cases() {
        let mut collection = Collection::new();
        collection.read(&name, &line);
        assert!(collection.problems.is_empty(), "{name}: {:?}", collection.problems);
        let again = rendered(&collection, Format::Text);
        let (report, closing) = again.rsplit_once("\n\n").expect("a closing line");
        assert_eq!(without_marks(report), without_marks(&text), "{name}");
        assert_eq!(closing, "fencepost: 1 error\n", "{name}");
    }
}

#[test]
fn shards_are_merged_by_fingerprint() {
    let (_, line, _) = cases().remove(0);
    let mut collection = Collection::new();
    collection.read("a.jsonl", &line);
    collection.read("b.jsonl", &line.replace("\"number\":1", "\"number\":2"));
    collection.read("c.jsonl", &line.replace("0x0123456789abcdef", "0x0000000000000001"));
    collection.merge();
    let times: Vec<u64> = collection.findings.iter().map(|finding| finding.times).collect();
    assert_eq!(times, [2, 1]);
    // What was merged once can be merged again, with nothing counted anew.
    let mut again = Collection::new();
    again.read("merged", &rendered(&collection, Format::Json));
    again.read("c.jsonl", &line);
    again.merge();
    let times: Vec<u64> = again.findings.iter().map(|finding| finding.times).collect();
    assert_eq!(times, [3, 1]);
}

#[test]
fn keys_of_a_later_version_pass_through() {
    let (_, line, _) = cases().remove(0);
    let line = line.replacen('{', "{\"of_tomorrow\":[1,2],", 1);
    let mut collection = Collection::new();
    collection.read("a", &line);
    assert!(rendered(&collection, Format::Json).starts_with("{\"of_tomorrow\":[1,2],"));
}

#[test]
fn what_cannot_be_read_is_said_and_costs_only_itself() {
    let (_, line, _) = cases().remove(0);
    let mut collection = Collection::new();
    collection.read("a.jsonl", &format!("not json\n{line}{}", &line[..line.len() / 2]));
    assert_eq!(collection.findings.len(), 1);
    let problems: Vec<String> = collection.problems.iter().map(ToString::to_string).collect();
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].starts_with("a.jsonl, line 1"), "{}", problems[0]);
    assert!(problems[1].starts_with("a.jsonl, line 3"), "{}", problems[1]);
    assert!(
        problems[1]
            .ends_with("(the file ends in the middle of this line: the process was ended while it wrote)")
    );
    assert!(!collection.problems[0].unfinished);
}

fn rule(kind: Option<&str>, function: Option<&str>, module: Option<&str>) -> Suppression {
    Suppression {
        kind: kind.map(str::to_owned),
        function: function.map(str::to_owned),
        module: module.map(str::to_owned),
        fingerprint: None,
        reason: "an old friend".to_owned(),
    }
}

#[test]
fn suppressions_set_aside_what_fits_and_nothing_else() {
    let names = ["heap-buffer-overflow", "use-after-free"];
    for (rule, fits) in [
        (rule(Some("heap-*"), None, None), [true, false]),
        (rule(None, Some("demo::ring::*"), None), [true, true]),
        (rule(Some("use-after-free"), Some("demo::ring::Ring::push"), None), [false, true]),
        (rule(None, Some("demo::worker::run"), None), [false, false]),
        (rule(None, None, Some("demo")), [true, true]),
        (rule(None, None, Some("*/debug/demo")), [true, true]),
        (rule(None, Some("demo::main"), Some("libc.so*")), [false, false]),
    ] {
        let mut collection = collection(&names);
        let rules = [rule];
        let unused = collection.suppress(&rules);
        assert_eq!(unused.is_empty(), fits.contains(&true), "{}", rules[0]);
        let set_aside = [0, 1].map(|at| matches!(collection.findings[at].status, Status::Suppressed(_)));
        assert_eq!(set_aside, fits, "{}", rules[0]);
    }
    assert!(rule(None, None, None).fault().is_some(), "a rule that fits everything is refused");
    assert!(Suppression { reason: " ".into(), ..rule(Some("leak"), None, None) }.fault().is_some());
}

#[test]
fn a_baseline_leaves_only_what_is_new() {
    let mut collection = collection(&["heap-buffer-overflow", "use-after-free"]);
    let first = collection.findings[0].document.fingerprint;
    collection.compare(&BTreeSet::from([first, Hex(7)]));
    assert_eq!(collection.failures().count(), 1);
    assert_eq!(collection.findings[0].status, Status::Known);
    assert!(rendered(&collection, Format::Text).ends_with("fencepost: 1 error, 1 known from the baseline\n"));
}

#[test]
fn of_each_runtime_in_a_process_the_latest_account_stands() {
    let account = |seed: u64, blocks: u64| {
        let summary = Summary { pid: 7, seed, total: blocks, guarded: blocks, ..Summary::default() };
        let mut line = String::new();
        fencepost_record::json::summary(&summary, &mut line).expect("text");
        line + "\n"
    };
    let mut collection = Collection::new();
    collection.read("a", &[account(1, 5), account(2, 0), account(1, 9)].concat());
    assert!(collection.problems.is_empty());
    assert_eq!(collection.coverage(), (9, 9));
}
