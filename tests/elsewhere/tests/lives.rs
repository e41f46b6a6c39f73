//! Programs that outlive their errors, lose memory, run out of stack, or have no error at all, built for any system that
//! runs single instructions and tells what it has mapped.

mod harness;

use harness::{Ran, run, run_without};
use serde_json::Value;

/// What a kind of step prints, and how many different errors it makes; 0 where that is left open.
const STEPS: [(&str, usize, &str); 9] = [
    ("plain", 4, "read back 0x5a\nbeside it 0x0\nfreed 0x5a\n"),
    ("twice", 2, "first\n"),
    ("rep", 3, "last 0x77\ncopied 200\n"),
    ("straddle", 2, "read back 0x807060504030201\n"),
    ("two-blocks", 2, "done\n"),
    ("locked", 4, "old 42 swapped 1\n"),
    ("vector", 0, "same true\ngathered 0x605\n"),
    ("loop", 2, "sum 1800000\n"),
    ("threads 50", 0, "counted true\n"),
];
/// What every processor can run; the others are instructions of one.
const ANYWHERE: [&str; 4] = ["plain", "twice", "loop", "threads 50"];
/// Elsewhere pages are opened instead of single instructions being run.
const STEPS_HERE: bool = cfg!(target_arch = "x86_64");

fn is_noted(report: &Value, words: &str) -> bool {
    let notes = report["notes"].as_array().map(Vec::as_slice).unwrap_or_default();
    notes.iter().any(|note| note.as_str().is_some_and(|note| note.contains(words)))
}

/// What is wrong with a program that had to live to its end, print this, and report so many errors of a kind.
fn lives(ran: &Ran, status: i32, stdout: &str, kind: &str, errors: Option<usize>) -> Vec<String> {
    let mut wrong = Vec::new();
    if ran.output.status.code() != Some(status) {
        wrong.push(format!("must end with status {status}"));
    }
    let is = String::from_utf8_lossy(&ran.output.stdout).replace("\r\n", "\n");
    let before = is.split("survived").next().unwrap_or_default();
    if before != stdout || !is.contains("survived") {
        wrong.push(format!("must print {stdout:?} and survive"));
    }
    if errors.is_some_and(|errors| ran.reports.len() != errors) {
        wrong.push(format!("{} reports, not {errors:?}", ran.reports.len()));
    }
    if !kind.is_empty() && ran.reports.iter().any(|report| report["kind"] != kind) {
        wrong.push(format!("reports of other kinds than {kind}"));
    }
    wrong.into_iter().map(|words| ran.complain(words)).collect()
}

fn fail_on(wrong: Vec<String>) {
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn a_program_goes_on_where_it_is_told_to() {
    let mut wrong = Vec::new();
    for denied in ["", "steps"] {
        let steps = STEPS_HERE && denied.is_empty();
        for (kind, errors, stdout) in STEPS {
            if !STEPS_HERE && !ANYWHERE.contains(&kind) {
                continue;
            }
            let ran = run_without(denied, &format!("step {kind}"), "on_error=continue");
            // A page that was opened for good tells of its first error only.
            let errors = (steps && errors != 0).then_some(errors);
            wrong.extend(lives(&ran, 100, &format!("armed\n{stdout}"), "", errors));
            let opened = ran.reports.iter().filter(|report| is_noted(report, "was opened")).count();
            if ran.reports.is_empty() || (opened != 0) == steps {
                wrong.push(ran.complain(format!("{opened} pages were opened")));
            }
        }
    }
    fail_on(wrong);
}

/// What is treated as missing, and whether instructions are then run by themselves.
fn ways() -> &'static [(&'static str, bool)] {
    match (STEPS_HERE, cfg!(unix)) {
        (true, true) => &[("", true), ("steps,watchpoints", false)],
        (true, false) => &[("", true)],
        (false, _) => &[("", false)],
    }
}

#[test]
fn stray_writes_are_found_and_their_neighbours_left_alone() {
    let mut wrong = Vec::new();
    for (denied, steps) in ways() {
        // A page that was opened for a neighbour's sake has no more to tell.
        let part = match steps {
            true => ("part", 100, "armed\nsilent true\nviolations 1\nwritten 1743\n", 1),
            false => ("part", 0, "armed\nsilent true\nviolations 0\nwritten 1743\n", 0),
        };
        let violations: [(&str, i32, &str, usize); 6] = [
            ("config", 100, "armed\nviolations 1 sum 9600000 timeout 5000\n", 1),
            ("arc", 0, "armed\ncounted 101\ncounted 1 violations 0\n", 0),
            part,
            ("readers", 0, "armed\nsums true\nviolations 0\n", 0),
            ("sealed", 100, "sum 24\narmed\nsum 32\n", 1),
            ("sealed-panic", 100, "armed\nkept Sealed([1])\n", 1),
        ];
        for (race, status, stdout, errors) in violations {
            let ran = run_without(denied, &format!("race {race}"), "on_error=continue");
            wrong.extend(lives(&ran, status, stdout, "seal-violation", Some(errors)));
        }
        let ran = run_without(denied, "race stray 20", "on_error=continue");
        let stdout = String::from_utf8_lossy(&ran.output.stdout);
        // Without protection keys a write is let through while the other thread's is.
        let caught = stdout.lines().find_map(|line| line.strip_prefix("caught ")?.strip_suffix(" of 40"));
        let number: u32 = caught.and_then(|number| number.parse().ok()).unwrap_or_default();
        println!("{number} of 40 stray writes caught, steps: {steps}");
        let alone = String::from_utf8_lossy(&ran.output.stderr).contains("thread alone");
        if number == 0 || (alone && number != 40) || !stdout.contains("last 19 19") {
            wrong.push(ran.complain("writes must be caught, and each have its effect".into()));
        }
    }
    fail_on(wrong);
}

#[test]
fn watches_note_every_write() {
    let bytes = |first: u8| format!("[{first}, 0, 0, 0, 0, 0, 0, 0]");
    let first = format!("armed\n{} -> ", bytes(10));
    let every = format!(
        "{first}{} by counter with 3 frames\n{} -> {} by main with 3 frames\ncount 3 lost 0\nvalues [10, 42, 11, 10]\n",
        bytes(11),
        bytes(11),
        bytes(42)
    );
    // The first write opens the page, and what it wrote is not known.
    let opened = format!("{first}[] by counter with 3 frames\ncount 1 lost 0\nvalues [10, 42, 11, 10]\n");
    let mut wrong = Vec::new();
    let help = run("race watch", "help=1").output.stderr;
    if String::from_utf8_lossy(&help).contains("hardware watchpoints: four") {
        // Without steps, nothing but a watchpoint sees the second write.
        wrong.extend(lives(&run_without("steps", "race watch", ""), 0, &every, "", Some(0)));
    } else {
        println!("skipped: watchpoints of the processor: there are none here");
    }
    for (denied, steps) in ways() {
        let stdout = if *steps { &every } else { &opened }.clone();
        wrong.extend(lives(&run_without(denied, "race watch", ""), 0, &stdout, "", Some(0)));
        let size = 4 * fencepost::memory::page_size();
        let page = |number| format!("page {number} of block Some({size}): 1 writes, unseen false\n");
        let stdout = format!("armed\n{}{}result 7 lost 0\n", page(1), page(2));
        wrong.extend(lives(&run_without(denied, "race audit", ""), 0, &stdout, "", Some(0)));
    }
    fail_on(wrong);
}

/// By the system's own one-shot guard pages where it has them, and without.
#[test]
fn a_tripwire_tells_once_and_can_be_set_again() {
    let mut wrong = Vec::new();
    for (missing, steps) in ways() {
        for more in ["", "guard-pages"] {
            let denied = format!("{missing},{more}");
            let ran = run_without(&denied, "race tripwire", "");
            // The access beside the wire opens the page, where there is no other way to let it through.
            let (tripped, errors) = if *steps { (true, 2) } else { (false, 1) };
            let stdout = format!("tripped false\narmed\nread 0x5a tripped {tripped}\nagain true\n");
            wrong.extend(lives(&ran, 0, &stdout, "tripwire", Some(errors)));
            let ran = run_without(&denied, "race alarm", "");
            wrong.extend(lives(&ran, 0, "armed\nalarm true\n", "tripwire", Some(1)));
        }
    }
    fail_on(wrong);
}

fn passes_through(stack: &Value, function: &str) -> bool {
    let frames = stack["frames"].as_array().cloned().unwrap_or_default();
    frames.iter().any(|frame| frame["function"].as_str().is_some_and(|name| name.contains(function)))
}

#[test]
fn what_nothing_reaches_is_told_at_the_end() {
    let mut wrong = Vec::new();
    for (size, count) in [(24, 1), (24, 5), (5000, 2), (300_000, 2)] {
        let ran = run(&format!("lose block {size} {count}"), "leaks=on");
        let is_right = |report: &Value| {
            report["kind"] == "leak"
                && report["leak"]["blocks"] == count
                && report["leak"]["bytes"] == count * size
                && passes_through(&report["block"]["allocated"], "victim_loses")
        };
        if !matches!(&ran.reports[..], [report] if is_right(report)) {
            wrong.push(ran.complain(format!("one report of {count} blocks")));
        }
    }
    let ran = run("lose ring", "leaks=on");
    if !matches!(&ran.reports[..], [report] if report["leak"]["through_blocks"] == 3) {
        wrong.push(ran.complain("one report with three blocks more".into()));
    }
    let ran = run("keep", "leaks=on");
    if !ran.reports.is_empty() || !ran.output.status.success() {
        wrong.push(ran.complain("nothing is lost".into()));
    }
    fail_on(wrong);
}

#[test]
fn overflows_of_stacks_are_described() {
    let mut wrong = Vec::new();
    for (stack, thread) in [("thread", "deep"), ("main", "main")] {
        let ran = run(&format!("stack-overflow {stack}"), "");
        match ran.report() {
            Ok(report) => {
                // The last call may be one of C's that fills the frame.
                let named = report["kind"] == "stack-overflow"
                    && report["fault"]["thread"]["name"] == thread
                    && passes_through(&report["fault"], "victim_recurses");
                if !named {
                    wrong.push(ran.complain(format!("must be the overflow of {thread}'s stack: {report}")));
                }
            }
            Err(why) => wrong.push(why),
        }
    }
    fail_on(wrong);
}

#[test]
fn of_two_errors_at_once_one_is_reported() {
    let ran = run("two-threads", "");
    let wrong = match ran.report() {
        Ok(report) if report["kind"] == "heap-buffer-overflow" => vec![],
        Ok(report) => vec![ran.complain(format!("{} is no overflow", report["kind"]))],
        Err(wrong) => vec![wrong],
    };
    fail_on(wrong);
}

/// Programs without an error: silent, whatever is looked for, and the same as without a guard.
#[test]
fn healthy_programs_are_left_alone() {
    const HEALTHY: [&str; 11] = [
        "work",
        "realloc-growth",
        "over-aligned",
        "zero-size",
        "sizes",
        "thread-churn 4",
        "exchange 1",
        "tls-destructors 20",
        "panics",
        "api",
        "clean",
    ];
    let mut wrong = Vec::new();
    let before_engine = |ran: &Ran| {
        let stdout = String::from_utf8_lossy(&ran.output.stdout).into_owned();
        stdout.split("survived").next().unwrap_or_default().to_owned()
    };
    for program in HEALTHY {
        let plain = (program != "api").then(|| run(program, "mode=off"));
        for options in ["leaks=on", "place=left", "defer=16"] {
            // This one leaves its allocators to the end of the process on purpose.
            if program == "clean" && options == "leaks=on" {
                continue;
            }
            let ran = run(program, options);
            let is_same = plain.as_ref().is_none_or(|plain| before_engine(plain) == before_engine(&ran));
            if !ran.output.status.success() || !ran.reports.is_empty() || !is_same {
                wrong.push(ran.complain("must live in silence, as without a guard".into()));
            }
        }
    }
    println!("healthy: {} programs", HEALTHY.len());
    fail_on(wrong);
}
