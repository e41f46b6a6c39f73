//! Runs the traveller and holds its reports against what they have to say, on whatever system this was built for.
//!
//! `FENCEPOST_TEST_RUNNER` is put before the program where it cannot be started by itself (`qemu-aarch64 -L ROOT`), and
//! `FENCEPOST_TEST_OPTIONS` after each run's options (`quarantine=64M`, where reserved addresses cost memory).

use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

struct Ran {
    what: String,
    output: Output,
    reports: Vec<Value>,
}

fn run(what: &str, options: &str) -> Ran {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let report: PathBuf =
        std::env::temp_dir().join(format!("fencepost-elsewhere-{}-{number}.jsonl", std::process::id()));
    let runner = std::env::var("FENCEPOST_TEST_RUNNER").unwrap_or_default();
    let mut words = runner.split_whitespace().chain([env!("CARGO_BIN_EXE_traveller")]);
    let mut command = Command::new(words.next().expect("a program"));
    command.args(words).args(what.split_whitespace());
    let more = std::env::var("FENCEPOST_TEST_OPTIONS").unwrap_or_default();
    command.env("FENCEPOST_OPTIONS", format!("report={},summary=off,{options},{more}", report.display()));
    let output = command.output().expect("the program starts");
    let text = std::fs::read_to_string(&report).unwrap_or_default();
    // A report that is not read is not there.
    let _ = std::fs::remove_file(&report);
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let reports = lines.filter(|line| line["schema"] == "fencepost-report/1").collect();
    Ran { what: format!("{what} ({options})"), output, reports }
}

impl Ran {
    fn complain(&self, what: String) -> String {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let Output { status, stdout, stderr } = &self.output;
        format!("{}: {what}\n{status:?}\n{}{}", self.what, text(stdout), text(stderr))
    }

    /// The one report that there must be, of a program that has died.
    fn report(&self) -> Result<&Value, String> {
        let stdout = String::from_utf8_lossy(&self.output.stdout);
        let [report] = &self.reports[..] else {
            return Err(self.complain(format!("{} reports", self.reports.len())));
        };
        if !stdout.contains("armed") || stdout.contains("survived") || self.output.status.success() {
            return Err(self.complain("it must be armed and die".into()));
        }
        Ok(report)
    }
}

/// What a report must say: kind, access, where and how far, state, and the functions of the three stacks (empty: none).
#[derive(Clone, Copy)]
struct Expected {
    kind: &'static str,
    access: &'static str,
    beside: Option<(&'static str, u64)>,
    state: Option<&'static str>,
    stacks: [&'static str; 3],
}

const FAULT: Expected = Expected {
    kind: "",
    access: "",
    beside: None,
    state: Some("live"),
    stacks: ["victim_touches", "victim_allocates", ""],
};

/// The name of the first function of a stack that is not the standard library's.
fn first(stack: &Value) -> String {
    let frames = stack["frames"].as_array().cloned().unwrap_or_default();
    let mut names = frames.iter().map(|frame| frame["function"].as_str().unwrap_or("?").to_owned());
    let is_std = |name: &String| {
        let name = name.trim_start_matches('<');
        ["core::", "alloc::", "std::"].iter().any(|library| name.starts_with(library))
    };
    names.find(|name| !is_std(name)).unwrap_or_default()
}

fn verify(what: &str, options: &str, expected: &Expected) -> Vec<String> {
    let ran = run(what, options);
    let report = match ran.report() {
        Ok(report) => report,
        Err(wrong) => return vec![wrong],
    };
    let mut wrong = Vec::new();
    let mut same = |name: &str, is: &Value, wanted: Value| {
        if *is != wanted {
            wrong.push(ran.complain(format!("{name} is {is}, not {wanted}")));
        }
    };
    same("kind", &report["kind"], expected.kind.into());
    same("access", &report["access"]["type"], expected.access.into());
    let block = &report["block"];
    if let Some((place, distance)) = expected.beside {
        same("where", &block["where"], place.into());
        same("distance", &block["distance"], distance.into());
    }
    if let Some(state) = expected.state {
        same("state", &block["state"], state.into());
    }
    let stacks = [&report["fault"], &block["allocated"], &block["freed"]];
    for ((name, stack), wanted) in ["fault", "allocated", "freed"].iter().zip(stacks).zip(expected.stacks) {
        let is = first(stack);
        if wanted.is_empty() != stack.is_null() || !wanted.is_empty() && !is.ends_with(wanted) {
            wrong.push(ran.complain(format!("the {name} stack begins in {is:?}, not {wanted:?}: {stack}")));
        }
    }
    wrong
}

fn all(cases: impl IntoIterator<Item = (String, &'static str, Expected)>) {
    let cases = cases.into_iter();
    let wrong: Vec<String> =
        cases.flat_map(|(what, options, expected)| verify(&what, options, &expected)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn overruns_trap_at_the_byte() {
    let over = || Expected { kind: "heap-buffer-overflow", beside: Some(("after", 0)), ..FAULT };
    let cases = [16, 24, 4096, 5000, 1 << 20].into_iter().flat_map(|size| {
        ["read", "write"].map(|access| {
            (format!("overrun {access} end {size} 8"), "place=right", Expected { access, ..over() })
        })
    });
    all(cases);
}

#[test]
fn underruns_trap_at_the_byte() {
    let under = || Expected { kind: "heap-buffer-underflow", beside: Some(("before", 0)), ..FAULT };
    let cases = ["read", "write"]
        .map(|access| (format!("overrun {access} start 24 8"), "place=left", Expected { access, ..under() }));
    all(cases);
}

#[test]
fn a_write_on_the_other_side_is_found_at_free() {
    let stacks = ["victim_frees", "victim_allocates", ""];
    let found = Expected { kind: "redzone-corruption", access: "free", stacks, ..FAULT };
    all([("overrun write start 24 8".to_owned(), "place=right", found)]);
}

fn dead(access: &'static str, offset: u64) -> Expected {
    Expected {
        kind: "use-after-free",
        access,
        beside: Some(("inside", offset)),
        state: Some("freed"),
        stacks: ["victim_touches", "victim_allocates", "victim_frees"],
    }
}

#[test]
fn uses_after_free_trap_at_once_and_later() {
    all([
        ("use-after-free read 24 8 0".to_owned(), "", dead("read", 8)),
        ("use-after-free write 5000 4999 0".to_owned(), "", dead("write", 4999)),
        ("use-after-free read 24 8 2000".to_owned(), "", dead("read", 8)),
        ("use-after-free write 1048576 123 0".to_owned(), "", dead("write", 123)),
    ]);
}

#[test]
fn wrong_frees_are_found_at_the_call() {
    let twice = |function| Expected {
        kind: "double-free",
        stacks: [function, "victim_allocates", "victim_frees"],
        ..dead("free", 0)
    };
    let mismatch = Expected {
        kind: "layout-mismatch",
        access: "free",
        stacks: ["victim_mismatches", "victim_allocates", ""],
        ..FAULT
    };
    let invalid = Expected {
        kind: "invalid-free",
        access: "free",
        state: None,
        stacks: ["victim_frees", "", ""],
        ..FAULT
    };
    all([
        ("double-free".to_owned(), "", twice("victim_frees_again")),
        ("double-free-threads".to_owned(), "", twice("victim_frees_again")),
        ("realloc-stale".to_owned(), "", Expected { access: "realloc", ..twice("victim_resizes") }),
        ("layout-mismatch dealloc 23 8".to_owned(), "", mismatch),
        ("invalid-free global".to_owned(), "", invalid),
    ]);
}

#[test]
fn writes_to_sealed_memory_trap() {
    let violation = Expected { kind: "seal-violation", access: "write", ..FAULT };
    let foreign = || Expected {
        kind: "seal-violation",
        access: "write",
        state: None,
        stacks: ["victim_touches", "", ""],
        ..FAULT
    };
    all([
        ("seal block".to_owned(), "", violation),
        ("seal static".to_owned(), "", foreign()),
        ("seal mapping".to_owned(), "", foreign()),
    ]);
    let ran = run("seal unsealed", "");
    assert!(ran.output.status.success() && ran.reports.is_empty(), "{}", ran.complain("must live".into()));
}

#[test]
fn wild_pointers_are_described() {
    let wild =
        |kind, access| Expected { kind, access, state: None, stacks: ["victim_touches", "", ""], ..FAULT };
    all([
        ("null".to_owned(), "", wild("null-dereference", "read")),
        ("wild".to_owned(), "", wild("wild-access", "write")),
    ]);
}

#[test]
fn growing_allocators_are_guarded() {
    let region =
        |kind, access| Expected { kind, access, state: None, stacks: ["victim_touches", "", ""], ..FAULT };
    all([
        ("growing arena-past".to_owned(), "", region("heap-buffer-overflow", "write")),
        ("growing arena-end".to_owned(), "", region("heap-buffer-overflow", "write")),
        ("growing arena-rewound".to_owned(), "", region("use-after-free", "write")),
        ("growing pool-freed".to_owned(), "", region("use-after-free", "read")),
        ("growing vec-cut".to_owned(), "", region("use-after-free", "read")),
    ]);
}

#[test]
fn the_overflow_of_a_growing_stack_is_described() {
    let stacks = ["victim_recurses", "", ""];
    let overflow = Expected { kind: "stack-overflow", access: "write", state: None, stacks, ..FAULT };
    all([("growing call-stack".to_owned(), "", overflow)]);
}

#[test]
fn errors_on_coroutines_are_reported() {
    let stacks = ["victim_touches", "victim_allocates", ""];
    let overrun = Expected { kind: "heap-buffer-overflow", access: "write", stacks, ..FAULT };
    let stacks = ["victim_descends", "", ""];
    let overflow = Expected { kind: "stack-overflow", access: "write", state: None, stacks, ..FAULT };
    all([
        ("coroutine overrun above".to_owned(), "", overrun),
        ("coroutine overrun below".to_owned(), "", overrun),
        ("coroutine overflow".to_owned(), "", overflow),
    ]);
}

#[test]
fn a_program_without_a_bug_is_left_alone() {
    for program in ["clean", "coroutines"] {
        let ran = run(program, "");
        let stdout = String::from_utf8_lossy(&ran.output.stdout);
        assert!(
            ran.output.status.success() && ran.reports.is_empty() && stdout.contains("survived"),
            "{}",
            ran.complain("must live in silence".into())
        );
        println!("engine:{}", stdout.rsplit("survived").next().unwrap_or_default());
    }
}

#[test]
fn a_program_goes_on_where_it_is_told_to() {
    let ran = run("overrun write end 24 8", "on_error=continue");
    let stdout = String::from_utf8_lossy(&ran.output.stdout);
    assert!(
        ran.output.status.code() == Some(100) && ran.reports.len() == 1 && stdout.contains("survived"),
        "{}",
        ran.complain("must report and live".into())
    );
}
