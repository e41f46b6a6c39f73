//! The built command on Windows: programs with the allocator in them, files of reports, the machine. On other systems there
//! is nothing here.
#![cfg(windows)]

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The command, where cargo puts it. (The variable that tells has a hyphen in its name, and does not outlive a shell that
/// starts the compiler.)
fn command() -> PathBuf {
    let this = std::env::current_exe().expect("a path");
    let folder = this.parent().and_then(Path::parent).expect("a folder");
    folder.join("cargo-fencepost.exe")
}

/// The victims of `tests/elsewhere`, built into the same folder; `None`, said, where they are not.
fn victims() -> Option<PathBuf> {
    let program = command().with_file_name("traveller.exe");
    if !program.is_file() {
        println!("skipped: no {}: cargo build -p fencepost-elsewhere", program.display());
    }
    program.is_file().then_some(program)
}

struct Ran {
    status: Option<i32>,
    stdout: String,
    stderr: String,
    folder: tempfile::TempDir,
}

/// Runs the command in a folder of its own, with temporary files there as well, of which none may be left.
fn fencepost(arguments: &[&str], prepare: impl FnOnce(&mut Command, &Path)) -> Ran {
    let folder = tempfile::tempdir().expect("a folder");
    let temporary = folder.path().join("tmp");
    std::fs::create_dir(&temporary).expect("a folder");
    let mut command = Command::new(command());
    command.arg("fencepost").args(arguments).current_dir(folder.path());
    command.env("TMP", &temporary).env("TEMP", &temporary);
    for name in ["FENCEPOST_OPTIONS", "FENCEPOST_DENY", "RUST_BACKTRACE"] {
        command.env_remove(name);
    }
    prepare(&mut command, folder.path());
    let output = command.output().expect("it starts");
    let left: Vec<_> = std::fs::read_dir(&temporary).expect("a folder").collect();
    assert!(left.is_empty(), "left behind: {left:?}");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace("\r\n", "\n");
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    Ran { status: output.status.code(), stdout, stderr, folder }
}

fn exec(flags: &[&str], program: &Path, words: &[&str]) -> Ran {
    let program = program.display().to_string();
    let mut arguments = vec!["exec"];
    arguments.extend(flags);
    arguments.extend(["--", &program]);
    arguments.extend(words);
    fencepost(&arguments, |_, _| ())
}

impl Ran {
    #[track_caller]
    fn ends_with(self, status: i32) -> Ran {
        assert_eq!(self.status, Some(status), "{}\n{}", self.stdout, self.stderr);
        self
    }

    #[track_caller]
    fn says(self, words: &[&str]) -> Ran {
        for word in words {
            assert!(self.stderr.contains(word), "`{word}` is not in:\n{}", self.stderr);
        }
        self
    }

    fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(name)).expect(name)
    }
}

const OVERRUN: [&str; 5] = ["overrun", "write", "end", "24", "8"];

/// Names come from the program's file, when it has ended.
#[test]
fn an_error_is_reported_with_names_in_every_form() {
    let Some(victims) = victims() else { return };
    let forms = ["--json", "a.jsonl", "--sarif", "a.sarif", "--junit", "a.xml"];
    let said = [
        "heap-buffer-overflow: write of 1 byte",
        "victim_",
        "1 error",
        "by the allocator built in",
        "engine commit",
    ];
    let ran = exec(&forms, &victims, &OVERRUN).ends_with(100).says(&said);
    let json: Value =
        serde_json::from_str(ran.file("a.jsonl").lines().next().expect("a line")).expect("JSON");
    let first = &json["fault"]["frames"][0];
    assert!(first["function"].as_str().is_some_and(|name| name.contains("victim_")), "{json}");
    assert!(
        first["file"].as_str().is_some_and(|file| file.ends_with(".rs")) && first["line"].is_u64(),
        "{json}"
    );
    assert!(json["block"]["allocated"]["frames"][0]["function"].is_string(), "{json}");
    let sarif: Value = serde_json::from_str(&ran.file("a.sarif")).expect("JSON");
    assert_eq!(sarif["runs"][0]["results"][0]["ruleId"], "heap-buffer-overflow");
    let file = ran.folder.path().join("a.jsonl").display().to_string();
    let again =
        fencepost(&["report", &file, &file, "--format", "junit", "-o", "b.xml"], |_, _| ()).ends_with(100);
    assert!(again.file("b.xml").contains("<failure type=\"heap-buffer-overflow\""));
}

#[test]
fn a_program_without_an_error_ends_as_it_wants_to() {
    let Some(victims) = victims() else { return };
    exec(&["--both-sides"], &victims, &["work"])
        .ends_with(0)
        .says(&["no error", "2 programs by the allocator built in"]);
    exec(&[], &victims, &["no", "such", "thing"]).ends_with(101);
    // Dead by an exception that is nobody's report: its number is the status.
    exec(&["--mode", "off"], &victims, &["null"]).ends_with(0xc000_0005_u32 as i32);
}

#[test]
fn what_cannot_be_guarded_is_said_with_status_3() {
    exec(&[], Path::new("cmd"), &["/c", "ver"])
        .ends_with(3)
        .says(&["nothing is preloaded into programs on Windows"]);
    exec(&[], Path::new("no-such-program"), &[]).ends_with(2).says(&["cannot run no-such-program"]);
}

/// With a cargo that only does what cargo does with a runner.
#[test]
fn cargo_starts_each_program_through_this_one() {
    let Some(victims) = victims() else { return };
    for (words, status, said) in
        [("keep", 0, "no error"), ("overrun write end 24 8", 100, "heap-buffer-overflow: write")]
    {
        let arguments = ["test", "--target", "x86_64-pc-windows-gnu"];
        let ran = fencepost(&arguments, |command, folder| {
            let script = folder.join("cargo.bat");
            let victims = victims.display();
            let text = format!("@%CARGO_TARGET_X86_64_PC_WINDOWS_GNU_RUNNER% {victims} {words}\r\n");
            std::fs::write(&script, text).expect("written");
            command.env("CARGO", script);
        });
        ran.ends_with(status).says(&[said, "1 program by the allocator built in"]);
    }
}

#[test]
fn the_doctor_says_what_this_machine_can_do() {
    let ran = fencepost(&["doctor"], |_, _| ()).ends_with(0);
    for line in [
        "engine commit          works",
        "preload                absent",
        "large pages ",
        "pages                  4096",
    ] {
        assert!(ran.stdout.contains(line), "`{line}` is not in:\n{}", ran.stdout);
    }
    println!("{}", ran.stdout);
}
