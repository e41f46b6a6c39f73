//! Outputs of a run, and `report` on files.

use serde_json::Value;

use crate::harness::{Ran, fencepost, victim};

fn run(flags: &str) -> Ran {
    fencepost(&format!("exec {flags} --")).then([&victim(), "use-after-free", "write", "24", "0", "0"]).run()
}

#[test]
fn every_output_is_written() {
    let ran = run("--json a.jsonl --sarif a.sarif --junit a.xml --html a.html --asan a.txt --github")
        .ends_with(100);
    let json: Value =
        serde_json::from_str(ran.file("a.jsonl").lines().next().expect("a line")).expect("JSON");
    assert_eq!(json["kind"], "use-after-free");
    assert_eq!(json["status"], "new");
    let frames = json["fault"]["frames"].as_array().expect("frames");
    assert!(
        frames.iter().any(|frame| frame["function"].as_str().is_some_and(|name| name.contains("victim")))
    );
    assert_eq!(json["replay"].as_str().map(|line| line.contains("report=")), Some(false), "{json}");
    let sarif: Value = serde_json::from_str(&ran.file("a.sarif")).expect("JSON");
    assert_eq!(sarif["runs"][0]["results"][0]["ruleId"], "use-after-free");
    assert!(ran.file("a.xml").contains("<failure type=\"use-after-free\""));
    assert!(ran.file("a.html").contains("<h1>fencepost: 1 memory error</h1>"));
    assert!(ran.file("a.txt").contains("ERROR: AddressSanitizer: heap-use-after-free"));
    assert!(ran.stdout.contains("::error file="), "{}", ran.stdout);
}

#[test]
fn files_are_merged_and_rendered_again() {
    let first = run("--json a.jsonl").ends_with(100).file("a.jsonl");
    let again = fencepost("report a.jsonl b.jsonl --format json -o c.jsonl");
    let again = again.file("a.jsonl", &first).file("b.jsonl", &first).run().ends_with(100);
    let merged = again.file("c.jsonl");
    assert_eq!(merged.lines().count(), 1);
    let merged: Value = serde_json::from_str(&merged).expect("JSON");
    assert_eq!(merged["times"], 2);
    let text = fencepost("report a.jsonl").file("a.jsonl", &first).run().ends_with(100).stdout;
    assert!(text.starts_with("fencepost: ERROR: use-after-free: "), "{text}");
    assert!(text.ends_with("fencepost: 1 error\n"), "{text}");
}

#[test]
fn raw_reports_get_their_names_later() {
    let folder = tempfile::tempdir().expect("a folder");
    let report = folder.path().join("raw.jsonl");
    let mut program = std::process::Command::new(victim());
    program.args(["use-after-free", "write", "24", "0", "0"]).stderr(std::process::Stdio::null());
    program.stdout(std::process::Stdio::null());
    program.env("FENCEPOST_OPTIONS", format!("symbolize=off,report={},log=/dev/null", report.display()));
    assert!(!program.status().expect("it runs").success());
    let raw = std::fs::read_to_string(&report).expect("a report");
    assert!(!raw.contains("victim_touches"), "{raw}");
    let text = fencepost("report raw.jsonl").file("raw.jsonl", &raw).run().ends_with(100).stdout;
    assert!(text.contains(" in victim::touches::victim_touches"), "{text}");
    let text = fencepost("report --no-resolve raw.jsonl").file("raw.jsonl", &raw).run().ends_with(100).stdout;
    assert!(!text.contains("victim_touches"), "{text}");
}

#[test]
fn a_broken_file_is_said_and_costs_nothing_else() {
    let good = run("--json a.jsonl").file("a.jsonl");
    let half = &good[..good.len() / 2];
    let ran =
        fencepost("report a.jsonl").file("a.jsonl", &format!("{good}garbage\n{half}")).run().ends_with(100);
    assert!(ran.stdout.contains("fencepost: ERROR: use-after-free"));
    let ran = ran.says("cannot read a.jsonl, line 2").says("cannot read a.jsonl, line 3");
    ran.says("the process was ended while it wrote");
    fencepost("report a.jsonl").file("a.jsonl", "garbage").run().ends_with(2).says("line 1");
    fencepost("report none.jsonl").run().ends_with(2).says("cannot read none.jsonl");
    let ran = fencepost("report empty.jsonl").file("empty.jsonl", "").run().ends_with(0);
    assert_eq!(ran.stdout, "fencepost: no error\n");
}

#[test]
fn accepted_findings_do_not_fail_a_run() {
    let baseline = run("--json a.jsonl").file("a.jsonl");
    let line = |flags: &str| {
        fencepost(&format!("exec {flags} --")).then([&victim(), "use-after-free", "write", "24", "0", "0"])
    };
    let ran = line("--baseline base.jsonl").file("base.jsonl", &baseline).run();
    ran.ends_with(0).says("fencepost: no error, 1 known from the baseline").says_nothing_of("ERROR");
    let rules = "[[suppression]]\nkind = \"use-*\"\nfunction = \"victim::*\"\nreason = \"on purpose\"\n\n\
                 [[suppression]]\nkind = \"leak\"\nreason = \"long gone\"\n";
    let ran = line("--suppress rules.toml").file("rules.toml", rules).run();
    let ran = ran.ends_with(0).says("1 suppressed").says_nothing_of("ERROR");
    ran.says("this suppression fits nothing (any more): kind = \"leak\" (reason: long gone)");
    let other = rules.replace("use-*", "double-free");
    line("--suppress rules.toml").file("rules.toml", &other).run().ends_with(100);
    let ran = line("--baseline base.jsonl").file("base.jsonl", "half a li").run();
    ran.ends_with(2).says("the baseline cannot be used");
}
