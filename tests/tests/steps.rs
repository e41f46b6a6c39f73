//! Going on after an error: the instruction runs, the page closes again, and the program's results are what they were.

use crate::harness::{Ran, everywhere, fail_on, victim};

/// What a kind of step prints, and how many different errors it makes.
const KINDS: [(&str, usize, &str); 15] = [
    ("plain", 4, "read back 0x5a\nbeside it 0x0\nfreed 0x5a\n"),
    ("twice", 2, "first\n"),
    ("rep", 3, "last 0x77\ncopied 200\n"),
    ("straddle", 2, "read back 0x807060504030201\n"),
    ("two-blocks", 2, "done\n"),
    ("locked", 4, "old 42 swapped 1\n"),
    ("vector", 0, "same true\ngathered 0x605\n"),
    ("scatter", 0, "scattered 7 7\n"),
    ("divide", 1, "left 2\n"),
    ("signal", 1, "signals true\nheld back 0\n"),
    ("libc", 0, "length 6096\nlast 0x41\n"),
    ("loop", 2, "sum 1800000\n"),
    ("threads", 0, "counted true\n"),
    ("fork", 4, "child 0x5a\nparent 0x0\n"),
    ("handlers", 1, "traps 6\n"),
];

/// What keeps a machine from doing it the best way.
const WITHOUT: [&str; 4] = ["", "keys", "steps", "markers"];

fn is_x86(kind: &str) -> bool {
    ["rep", "straddle", "two-blocks", "locked", "vector", "scatter", "divide"].contains(&kind)
}

/// What is wrong with a run that had to live on.
fn lives_on(ran: &Ran, errors: usize, stdout: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if ran.status.code() != Some(100) {
        wrong.push(format!("{}, not with status 100", ran.ending()));
    }
    let expected = format!("armed\n{stdout}survived\n");
    if ran.stdout != expected {
        wrong.push(format!("prints {:?}, not {expected:?}", ran.stdout));
    }
    if ran.reports.is_empty() || (errors != 0 && ran.reports.len() != errors) {
        wrong.push(format!("{} reports, not {errors}", ran.reports.len()));
    }
    if ran.reports.len() != ran.headlines().len() {
        wrong.push(format!("{} in text", ran.headlines().len()));
    }
    ran.complain(wrong)
}

#[test]
fn every_kind_of_instruction_is_stepped_over() {
    for without in WITHOUT {
        let mut wrong = Vec::new();
        for (kind, errors, stdout) in KINDS {
            // aarch64 has no single steps, and none of these instructions.
            if cfg!(not(target_arch = "x86_64")) && is_x86(kind) {
                println!("skipped: {kind} is an instruction of x86_64");
                continue;
            }
            let stepped = without != "steps" && cfg!(target_arch = "x86_64");
            // A page that was opened for good tells of its first error only.
            let errors = if stepped { errors } else { 0 };
            let ran = victim(&format!("step {kind}"))
                .options("on_error=continue")
                .environment("FENCEPOST_DENY", without)
                .run();
            wrong.extend(lives_on(&ran, errors, stdout));
            let opened = ran.reports.iter().filter(|report| is_noted(report, "was opened")).count();
            if (opened == 0) != stepped {
                wrong.extend(ran.complain(vec![format!("{opened} pages were opened")]));
            }
        }
        fail_on(wrong);
    }
}

fn is_noted(report: &serde_json::Value, words: &str) -> bool {
    let notes = report["notes"].as_array().map(Vec::as_slice).unwrap_or_default();
    notes.iter().any(|note| note.as_str().is_some_and(|note| note.contains(words)))
}

#[test]
fn steps_work_on_every_engine_and_placement() {
    everywhere(&["right", "left"], |place, options| {
        let mut wrong = Vec::new();
        for (kind, errors, stdout) in KINDS {
            if cfg!(not(target_arch = "x86_64")) && is_x86(kind) {
                continue;
            }
            // Blocks of one page have a guard on either side, whatever their placement.
            let errors = if place == "right" { errors } else { 0 };
            let ran = victim(&format!("step {kind}")).options(options).options("on_error=continue").run();
            wrong.extend(lives_on(&ran, errors, stdout));
        }
        wrong
    });
}

/// Every one of 40,000 wrong accesses is noticed: written, or counted.
#[test]
fn errors_that_come_again_are_counted() {
    let ran = victim("step loop").options("on_error=continue,summary=on").run();
    let summary = ran.summary();
    let number = |key: &str| summary[key].as_u64().unwrap_or_default();
    let wrong = if cfg!(not(target_arch = "x86_64")) || number("reports") + number("reports_lost") == 40_000 {
        vec![]
    } else {
        vec![format!("{} reported and {} counted", number("reports"), number("reports_lost"))]
    };
    fail_on(ran.complain(wrong));
}

/// What gdb prints of a victim that it runs by these commands; `None`, said, where it cannot.
fn in_gdb(kind: &str, commands: &[&str]) -> Option<String> {
    if std::process::Command::new("gdb").arg("--version").output().is_err() {
        println!("skipped: gdb is not installed");
        return None;
    }
    let mut gdb = std::process::Command::new("gdb");
    gdb.args(["-nx", "-batch", "-iex", "set startup-with-shell off", "-iex", "set confirm off"]);
    let options = "set environment FENCEPOST_OPTIONS on_error=continue,color=never,symbolize=off";
    let run = format!("run step {kind}");
    for command in [options, "handle SIGSEGV SIGBUS nostop noprint pass"].iter().chain(commands) {
        gdb.args(["-ex", if *command == "run" { &run } else { command }]);
    }
    let output = gdb.arg(crate::harness::VICTIM).output().expect("gdb runs");
    let said =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    if !said.contains("armed\n") {
        println!("skipped: gdb cannot run a program here: {said}");
        return None;
    }
    Some(said)
}

/// A debugger takes the news of a step for itself: pages open for good, also under a user who steps over the access.
#[test]
fn under_a_debugger_the_program_goes_on_with_its_pages_open() {
    let stepping = [
        "break victim::touches::victim_touches",
        "run",
        "next",
        "next",
        "next",
        "stepi 40",
        "delete",
        "continue",
    ];
    for commands in [&["run"][..], &stepping] {
        let Some(said) = in_gdb("plain", commands) else { return };
        assert!(said.contains("read back 0x5a\n") && said.contains("\nsurvived\n"), "{said}");
        let reports = said.matches("fencepost: ERROR: ").count();
        // The overrun, and the use of the freed block; later errors on an open page are not seen.
        assert_eq!(reports, 2, "{said}");
        assert_eq!(said.matches("the page was opened").count(), reports, "{said}");
        assert!(!said.contains("SIGTRAP"), "{said}");
    }
}
