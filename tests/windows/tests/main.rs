//! What a Windows program does with exceptions, exits and the loader stays as it is, and errors beside that are reported.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

struct Ran {
    what: String,
    output: Output,
    stdout: String,
    stderr: String,
    reports: Vec<Value>,
    summaries: usize,
}

fn run(what: &str, options: &str) -> Ran {
    run_with(what, options, &[])
}

fn run_with(what: &str, options: &str, variables: &[(&str, &str)]) -> Ran {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let report: PathBuf =
        std::env::temp_dir().join(format!("fencepost-windows-{}-{number}.jsonl", std::process::id()));
    let mut command = Command::new(env!("CARGO_BIN_EXE_behaves"));
    command.args(what.split(' ')).env_remove("RUST_BACKTRACE");
    command.env("FENCEPOST_OPTIONS", format!("report={},summary=off,{options}", report.display()));
    command.envs(variables.iter().copied());
    let output = command.output().expect("the program starts");
    let text = std::fs::read_to_string(&report).unwrap_or_default();
    // A report that is not read is not there.
    let _ = std::fs::remove_file(&report);
    let documents: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let of =
        |schema: &str| documents.iter().filter(|one| one["schema"] == schema).cloned().collect::<Vec<_>>();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace("\r\n", "\n");
    Ran {
        what: format!("{what} ({options})"),
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
        output,
        reports: of("fencepost-report/1"),
        summaries: of("fencepost-summary/1").len(),
    }
}

/// The statuses of `winnt.h`, as exit codes.
const ACCESS_VIOLATION: i32 = 0xc000_0005_u32 as i32;
const STACK_BUFFER_OVERRUN: i32 = 0xc000_0409_u32 as i32;
const FAIL_FAST: i32 = 0xc000_0602_u32 as i32;

impl Ran {
    /// What is not as it must be: the status, what is printed, and the kinds of all reports.
    fn wrong(&self, status: i32, stdout: &str, kinds: &[&str]) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.output.status.code() != Some(status) {
            wrong.push(format!("must end with status {status:#x}"));
        }
        if self.stdout != stdout {
            wrong.push(format!("must print {stdout:?}"));
        }
        let is: Vec<&str> = self.reports.iter().filter_map(|report| report["kind"].as_str()).collect();
        if is != kinds {
            wrong.push(format!("reports {is:?}, not {kinds:?}"));
        }
        let Ran { what, output, stdout, stderr, .. } = self;
        let around = |words| format!("{what}: {words}\n{:?}\n{stdout}{stderr}", output.status);
        wrong.into_iter().map(around).collect()
    }
}

fn fail_on(wrong: Vec<String>) {
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

const OVERRUN: [&str; 1] = ["heap-buffer-overflow"];

#[test]
fn the_last_error_is_left_alone() {
    let lines = [
        "allocations true",
        "frees true",
        "large blocks true",
        "growth true",
        "questions true",
        "armed",
        "an error true",
        "a violation true",
        "the end of a seal true",
        "a thread's first true",
        "survived\n",
    ];
    let ran = run("last-error", "on_error=continue");
    fail_on(ran.wrong(100, &lines.join("\n"), &["heap-buffer-overflow", "seal-violation"]));
}

#[test]
fn handlers_of_the_program_get_what_is_not_ours() {
    let mut wrong = Vec::new();
    for order in ["first", "last"] {
        wrong.extend(run(&format!("handler {order} null"), "").wrong(42, "armed\nown handler\n", &[]));
    }
    wrong.extend(run("handler last heap", "").wrong(ACCESS_VIOLATION, "armed\n", &OVERRUN));
    wrong.extend(run("frame null", "").wrong(0, "armed\nread 0\nsurvived\n", &[]));
    wrong.extend(run("frame heap", "").wrong(ACCESS_VIOLATION, "armed\n", &OVERRUN));
    // A handler that the program has put in front since takes it all: docs/platforms.md.
    wrong.extend(run("handler first heap", "").wrong(42, "armed\nown handler\n", &[]));
    fail_on(wrong);
}

#[test]
fn guard_pages_and_steps_of_the_program_are_its_own() {
    let lines = [
        "own 1 tripped false",
        "own 1 tripped false",
        "armed",
        "own 1 tripped true",
        "own 1 tripped true",
        "survived\n",
    ];
    let mut wrong = run("own-guard", "").wrong(0, &lines.join("\n"), &["tripwire"; 2]);
    let ran = run("own-steps", "on_error=continue");
    wrong.extend(ran.wrong(100, "armed\nown steps 3\nsurvived\n", &OVERRUN));
    let ran = run("divide", "on_error=continue");
    wrong.extend(ran.wrong(100, "armed\nleft 2\nsurvived\n", &OVERRUN));
    fail_on(wrong);
}

#[test]
fn panics_unwind_past_all_handlers() {
    fail_on(run("panic-in-handler", "").wrong(0, "caught 20, seen true\nsurvived\n", &[]));
}

#[test]
fn closed_buffers_are_refused_by_the_system() {
    fail_on(run("kernel", "").wrong(0, "done 0 written 0 error true\nsurvived\n", &[]));
}

#[test]
fn a_process_ends_as_it_wants_to() {
    let mut wrong = Vec::new();
    let ends = [
        ("return", 0, 1),
        ("exit", 7, 1),
        ("exit-process", 7, 1),
        ("terminate", 8, 0),
        ("abort", STACK_BUFFER_OVERRUN, 0),
        ("fail-fast", FAIL_FAST, 0),
    ];
    for (how, status, summaries) in ends {
        let ran = run(&format!("end {how}"), "");
        let rest = if how == "return" { "survived\n" } else { "" };
        wrong.extend(ran.wrong(status, &format!("ends by {how}\n{rest}"), &[]));
        if ran.summaries != summaries {
            wrong.push(format!("{how}: {} accounts, not {summaries}", ran.summaries));
        }
    }
    fail_on(wrong);
}

/// While other threads are at work in the runtime: they are ended there, and the account is made or given up, not waited for.
#[test]
fn a_crowded_process_ends_as_it_wants_to() {
    let mut wrong = Vec::new();
    for _ in 0..6 {
        let ran = run("end crowd", "");
        wrong.extend(ran.wrong(7, "ends by crowd\n", &[]));
        if ran.summaries != 1 && !ran.stderr.contains("there is no account") {
            wrong.push(format!("no account, and no word of why: {}", ran.stderr));
        }
    }
    fail_on(wrong);
}

/// Names included: nothing that a report needs waits for the loader.
#[test]
fn reports_come_whoever_holds_the_loaders_lock() {
    let mut wrong = Vec::new();
    for what in ["loader-lock", "callback"] {
        let ran = run(what, "");
        wrong.extend(ran.wrong(ACCESS_VIOLATION, "armed\n", &OVERRUN));
        let first = ran.reports.first().map(|report| report["fault"]["frames"][0]["function"].clone());
        if !first.is_some_and(|name| name.as_str().is_some_and(|name| name.ends_with("victim_reads"))) {
            wrong.push(format!("{what}: the function must be named: {:?}", ran.reports));
        }
    }
    let ran = run("loading", "on_error=continue");
    wrong.extend(ran.wrong(100, "armed\nloaded true\nsurvived\n", &OVERRUN));
    fail_on(wrong);
}

#[test]
fn threads_modules_and_the_program_are_named() {
    let ran = run("named", "symbolize=off");
    let mut wrong = ran.wrong(ACCESS_VIOLATION, "armed\n", &OVERRUN);
    let report = ran.reports.first().cloned().unwrap_or_default();
    let is = |name: &str, right: bool| (!right).then(|| format!("{name} is wrong in {report}"));
    let frame = &report["fault"]["frames"][0];
    let ends = |value: &Value, end: &str| value.as_str().is_some_and(|text| text.ends_with(end));
    wrong.extend(is("the thread", report["fault"]["thread"]["name"] == "arbeiter-ü"));
    wrong.extend(is("the module", ends(&frame["module"], "behaves.exe")));
    wrong.extend(is("the offset", frame["offset"].is_string() && frame["function"].is_null()));
    wrong.extend(is("the program", ends(&report["process"]["exe"], "behaves.exe")));
    wrong.extend(is("an argument", report["process"]["args"][1] == "named"));
    fail_on(wrong);
}

/// Resolving names waits for what never comes, faults or panics: that costs the names and nothing else.
#[test]
fn reports_come_without_names_where_these_cannot_be_had() {
    let mut wrong = Vec::new();
    for how in ["wait", "fault", "panic"] {
        let begun = std::time::Instant::now();
        let ran = run_with("overrun", "", &[("FENCEPOST_TEST_BREAK_SYMBOLIZE", how)]);
        wrong.extend(ran.wrong(ACCESS_VIOLATION, "armed\n", &OVERRUN));
        let frame =
            ran.reports.first().map(|report| report["fault"]["frames"][0].clone()).unwrap_or_default();
        if !(frame["function"].is_null() && frame["offset"].is_string() && ran.stderr.contains("behaves.exe"))
        {
            wrong.push(format!("{how}: places without names in both forms: {frame}\n{}", ran.stderr));
        }
        if how == "wait" && begun.elapsed().as_secs() < 29 {
            wrong.push("the watchdog did not wait for its time".to_owned());
        }
    }
    fail_on(wrong);
}

#[test]
fn memory_is_watched_by_debug_registers() {
    let print = |what: &str, deny: &str| {
        run_with(&format!("watch {what}"), "on_error=continue,exitcode=0", &[("FENCEPOST_DENY", deny)])
    };
    let hot = "1 -> 5 by \"main\"\ncount 1 lost 0\nsurvived\n";
    if !print("hot", "").stdout.starts_with("by watchpoints\n") {
        println!("skipped: no watchpoints here (`cargo fencepost doctor` says why)");
        return;
    }
    let mut wrong = print("hot", "").wrong(0, &format!("by watchpoints\narmed\nstepped 0\n{hot}"), &[]);
    wrong.extend(print("hot", "watchpoints").wrong(0, &format!("by pages\narmed\nstepped 2001\n{hot}"), &[]));
    let threads = "armed\n1 -> 2 by \"old\"\n2 -> 3 by \"child\"\n3 -> 4 by \"new\"\n4 -> 5 by \"main\"\ncount 4 lost 0\nsurvived\n";
    for deny in ["", "watchpoints"] {
        wrong.extend(print("threads", deny).wrong(0, threads, &[]));
    }
    let ways = r#"["watchpoints", "watchpoints", "watchpoints", "watchpoints", "pages", "pages"]"#;
    let many = format!("{ways}\narmed\n[1, 1, 1, 1, 1, 1]\nwide by watchpoints\nsurvived\n");
    wrong.extend(print("many", "").wrong(0, &many, &[]));
    wrong.extend(print("raced", "").wrong(0, "armed\nby watchpoints noted 400 counted 400\nsurvived\n", &[]));
    let traps = "armed\nown steps 3\n1 -> 2 by \"main\"\n2 -> 3 by \"main\"\ncount 2 lost 0\nsurvived\n";
    wrong.extend(print("traps", "").wrong(0, traps, &["heap-buffer-overflow"; 2]));
    wrong.extend(print("churn", "").wrong(0, "armed\nchurned true\nsurvived\n", &OVERRUN));
    fail_on(wrong);
}

/// The host beneath Wine counts mappings; past them a program could not even have memory of its own.
#[test]
fn a_program_has_more_blocks_than_can_be_guarded() {
    fail_on(run("blocks", "").wrong(0, "sum 799980000, last 7\nsurvived\n", &[]));
}
