//! Runs the traveller and holds its reports against what they have to say.
//!
//! `FENCEPOST_TEST_RUNNER` is put before the program where it cannot be started by itself (`qemu-aarch64 -L ROOT`), and
//! `FENCEPOST_TEST_OPTIONS` after each run's options (`quarantine=64M`, where reserved addresses cost memory).

use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

pub struct Ran {
    what: String,
    pub output: Output,
    pub reports: Vec<Value>,
}

pub fn run(what: &str, options: &str) -> Ran {
    run_without("", what, options)
}

/// The same, with features treated as missing.
pub fn run_without(denied: &str, what: &str, options: &str) -> Ran {
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
    command.env("FENCEPOST_DENY", denied).env_remove("RUST_BACKTRACE");
    let output = command.output().expect("the program starts");
    let text = std::fs::read_to_string(&report).unwrap_or_default();
    // A report that is not read is not there.
    let _ = std::fs::remove_file(&report);
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let reports = lines.filter(|line| line["schema"] == "fencepost-report/1").collect();
    Ran { what: format!("{what} ({options}, without {denied:?})"), output, reports }
}

impl Ran {
    pub fn complain(&self, what: String) -> String {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let Output { status, stdout, stderr } = &self.output;
        format!("{}: {what}\n{status:?}\n{}{}", self.what, text(stdout), text(stderr))
    }

    /// The one report that there must be, of a program that has died.
    pub fn report(&self) -> Result<&Value, String> {
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
