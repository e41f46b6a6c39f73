//! Runs that left most blocks out and found nothing: both commands say how to guard the rest, and that finds it.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::harness::{fencepost, root, victim};

const SAID: &str = "fewest blocks were guarded of these sites; only these, and whole: ";
/// One block of very many is misused.
const NEEDLE: [&str; 3] = ["overrun-once", "20000", "15000"];

/// What stands behind the words in what was said.
fn told(said: &str) -> String {
    let line = said.lines().find_map(|line| line.split_once(SAID)).expect(said).1;
    line.to_owned()
}

#[test]
fn exec_says_which_sites_to_guard_next_and_so_the_error_is_found() {
    let run = |flags: &str| fencepost(&format!("exec {flags} --")).then([victim()]).then(NEEDLE).run();
    let found_nothing = |seed: u32| {
        let ran = run(&format!("--mode sample --sample-rate 1000 --seed {seed}"));
        (ran.status == Some(0)).then_some(ran)
    };
    let ran = (1..10).find_map(found_nothing).expect("one of these runs does not guard that block");
    // The library that is preloaded besides has no part in it, and no account of its own.
    let ran = ran.says(" of 20009 blocks guarded").says("by the allocator built in");
    let flags = told(&ran.stderr);
    assert!(flags.starts_with("--mode=strict --only-site=0x"), "{flags}");
    run(&flags).ends_with(100).says("fencepost: ERROR: heap-buffer-overflow: ");
}

/// A process's own report file.
fn recorded(folder: &Path, options: &str) -> String {
    let report = folder.join("raw.jsonl");
    // Some runs do guard that block.
    for seed in 1..10 {
        drop(std::fs::remove_file(&report));
        let mut program = Command::new(victim());
        program.args(NEEDLE).stdout(Stdio::null()).stderr(Stdio::null());
        program.env("FENCEPOST_OPTIONS", format!("{options},seed={seed},report={}", report.display()));
        if program.status().expect("it runs").success() {
            return std::fs::read_to_string(&report).expect("a report");
        }
    }
    panic!("one of these runs does not guard that block");
}

#[test]
fn report_gives_the_command_of_recorded_sites_and_so_the_error_is_found() {
    let folder = tempfile::tempdir().expect("a folder");
    let raw = recorded(folder.path(), "mode=sample,sample_rate=1000");
    let ran = fencepost("report raw.jsonl").file("raw.jsonl", &raw).run().ends_with(0);
    assert!(ran.stdout.starts_with("fencepost: no error; "), "{}", ran.stdout);
    let line = told(&ran.stderr);
    let again = Command::new("sh").args(["-c", &line]).output().expect("there is a shell");
    let again = String::from_utf8_lossy(&again.stderr);
    assert!(again.contains("fencepost: ERROR: heap-buffer-overflow: "), "{line}\n{again}");
    // Where something was found, that is what counts.
    let found =
        fencepost("exec --json a.jsonl --").then([&victim(), "use-after-free", "write", "24", "0", "0"]);
    let found = found.run().ends_with(100).file("a.jsonl");
    let both = fencepost("report raw.jsonl a.jsonl").file("raw.jsonl", &raw).file("a.jsonl", &found);
    both.run().ends_with(100).says_nothing_of(SAID);
}

#[test]
fn every_line_that_a_process_writes_is_valid_by_our_schema() {
    let schema = std::fs::read_to_string(root().join("docs/report.schema.json")).expect("text");
    let mut compiler = boon::Compiler::new();
    let schema = serde_json::from_str(&schema).expect("JSON");
    compiler.add_resource("urn:schema", schema).expect("a schema");
    let mut schemas = boon::Schemas::new();
    let compiled = compiler.compile("urn:schema", &mut schemas).expect("a schema");
    let folder = tempfile::tempdir().expect("a folder");
    let mut lines = recorded(folder.path(), "mode=sample,sample_rate=1000");
    lines.push_str(&recorded(folder.path(), "mode=budget,budget=1"));
    let report = folder.path().join("report.jsonl");
    let mut program = Command::new(victim());
    program.args(["use-after-free", "write", "24", "0", "0"]).stdout(Stdio::null()).stderr(Stdio::null());
    program.env("FENCEPOST_OPTIONS", format!("on_error=continue,report={}", report.display()));
    assert!(!program.status().expect("it runs").success());
    lines.push_str(&std::fs::read_to_string(&report).expect("a report"));
    let mut names: Vec<String> = Vec::new();
    for line in lines.lines() {
        let document: Value = serde_json::from_str(line).expect("JSON");
        if let Err(error) = schemas.validate(&document, compiled) {
            panic!("{error:#}\n{line}");
        }
        names.push(document["schema"].as_str().expect("a name").to_owned());
    }
    for wanted in ["report", "summary", "sites", "start"] {
        assert!(names.contains(&format!("fencepost-{wanted}/1")), "{wanted}: {names:?}");
    }
}
