//! The demo project: what a user of GitHub copies, run step by step, and what `test` and `run` say of it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard};

use serde_json::Value;

use crate::harness::{COMMAND, products, root};

/// One at a time: they share the folder of its build products.
static DEMO: Mutex<()> = Mutex::new(());

struct Demo {
    _alone: MutexGuard<'static, ()>,
    folder: tempfile::TempDir,
}

fn demo() -> Demo {
    let alone = DEMO.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    Demo { _alone: alone, folder: tempfile::tempdir().expect("a folder") }
}

fn project() -> PathBuf {
    root().join("tests/demo")
}

impl Demo {
    /// A command in the project, with everything it writes elsewhere.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let bin = Path::new(COMMAND).parent().expect("a folder");
        let path = std::env::var("PATH").expect("a PATH");
        command.current_dir(project()).env("PATH", format!("{}:{path}", bin.display()));
        command.env("CARGO_TARGET_DIR", bin.join("demo")).env("TMPDIR", self.folder.path());
        command.env("FENCEPOST_PRELOAD", products().join("libfencepost_preload.so"));
        command.env("CARGO_TERM_COLOR", "never").stdin(Stdio::null());
        for name in ["FENCEPOST_OPTIONS", "RUSTFLAGS", "CARGO_BUILD_TARGET", "RUST_TEST_THREADS"] {
            command.env_remove(name);
        }
        command
    }

    fn out(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }
}

#[test]
fn each_error_is_in_its_test_and_none_stops_the_others() {
    let demo = demo();
    let json = demo.out("a.jsonl");
    let output =
        demo.command(COMMAND).args(["fencepost", "test", "--json", &json]).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(100), "{said}");
    let text = std::fs::read_to_string(&json).expect("findings");
    let findings: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let mut tests: Vec<&str> = findings.iter().filter_map(|finding| finding["test"].as_str()).collect();
    tests.sort_unstable();
    assert_eq!(tests, ["a_full_ring_is_not", "tests::a_ring_wraps_around"], "{said}");
    for finding in &findings {
        assert_eq!(finding["kind"], "heap-buffer-overflow");
        assert_eq!(finding["source"]["file"], project().join("src/lib.rs").display().to_string());
        assert_eq!(finding["fault"]["thread"]["name"], finding["test"], "the whole name");
    }
    assert!(said.contains("1 program by the allocator built in, 2 programs by preload"), "{said}");
    assert!(said.contains("written by thread "), "{said}");
    assert!(said.contains("its other tests with it: --on-error continue goes on"), "{said}");
}

/// Each test is a process of its own there.
#[test]
fn nextest_names_the_tests_too() {
    let demo = demo();
    if demo.command("cargo-nextest").arg("--version").output().is_err() {
        return println!("skipped: cargo-nextest is not installed");
    }
    let json = demo.out("a.jsonl");
    let words = ["fencepost", "nextest", "--json", &json, "run", "--no-fail-fast"];
    let output = demo.command(COMMAND).args(words).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(100), "{said}");
    let text = std::fs::read_to_string(&json).expect("findings");
    let findings: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let mut tests: Vec<&str> = findings.iter().filter_map(|finding| finding["test"].as_str()).collect();
    tests.sort_unstable();
    assert_eq!(tests, ["a_full_ring_is_not", "tests::a_ring_wraps_around"], "{said}");
    assert!(said.contains("4 tests run: 2 passed, 2 failed"), "{said}");
    assert!(!said.contains("its other tests"), "{said}");
    assert!(said.contains("2 programs by the allocator built in, 2 programs by preload"), "{said}");
}

#[test]
fn run_is_the_program_with_its_input_and_status() {
    let demo = demo();
    let words = ["fencepost", "run", "--quiet", "--summary", "on", "--", "7"];
    let output = demo.command(COMMAND).args(words).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(7), "{said}");
    assert!(said.contains("fencepost: no error"), "{said}");
    let output =
        demo.command(COMMAND).args(["fencepost", "run", "--quiet", "--", "17"]).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(100), "{said}");
    assert!(said.contains("0 bytes after a 16-byte block"), "{said}");
    // What does not build is cargo's to tell.
    let output =
        demo.command(COMMAND).args(["fencepost", "run", "--bin", "no-such"]).output().expect("it runs");
    assert_eq!(output.status.code(), Some(101), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_steps_of_the_workflow_run() {
    let demo = demo();
    let workflow =
        std::fs::read_to_string(project().join(".github/workflows/memory.yml")).expect("a workflow");
    let steps: Vec<&str> = workflow.lines().filter_map(|line| line.trim().strip_prefix("run: ")).collect();
    assert_eq!(steps.len(), 4, "{steps:?}");
    assert_eq!(steps[0], "cargo install --locked cargo-fencepost", "what is built here stands in for it");
    let work = demo.folder.path().join("checkout");
    copy(&project(), &work);
    // A folder of its own: to cargo the copy is the same package, and its debug information names other files.
    let built = Path::new(COMMAND).parent().expect("a folder").join("demo-checkout");
    for (step, wanted) in steps[1..].iter().zip([0, 100, 0]) {
        let output = demo
            .command("sh")
            .args(["-e", "-c", step])
            .current_dir(&work)
            .env("CARGO_TARGET_DIR", &built)
            .output();
        let output = output.expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(wanted), "{step}\n{said}");
    }
    for name in ["fencepost.sarif", "fencepost.xml", "fencepost.jsonl", "fencepost.html"] {
        assert!(workflow.contains(name) && work.join(name).is_file(), "{name}");
    }
    let sarif: Value =
        serde_json::from_str(&std::fs::read_to_string(work.join("fencepost.sarif")).expect("text"))
            .expect("JSON");
    let place = &sarif["runs"][0]["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"];
    assert_eq!(place["uri"], "src/lib.rs", "as the viewer wants it: below the checkout");
}

/// The project's sources, with the way to fencepost made absolute.
fn copy(from: &Path, to: &Path) {
    for file in ["Cargo.toml", "src/lib.rs", "src/main.rs", "tests/plain.rs"] {
        let target = to.join(file);
        std::fs::create_dir_all(target.parent().expect("a folder")).expect("a folder");
        let text = std::fs::read_to_string(from.join(file)).expect("text");
        let crates = root().join("crates").display().to_string();
        std::fs::write(target, text.replace("../../crates", &crates)).expect("written");
    }
}
