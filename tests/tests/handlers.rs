//! Whose fault handlers are in force, and who gets which fault.

use crate::harness::{HANDLERS, Ran, Run, engines, fail_on};
use std::os::unix::process::ExitStatusExt;

fn run(arguments: &str) -> Ran {
    Run::new(HANDLERS, arguments).run()
}

#[test]
fn ours_are_in_force_in_main_for_both_signals() {
    let ran = run("in-force");
    let lines: Vec<&str> = ran.stdout.lines().collect();
    let ours = |line: &&str| line.contains(": fencepost") && line.ends_with(" on the alternate stack");
    if lines.len() != 2 || !lines.iter().all(ours) {
        fail_on(ran.complain(vec![format!("in force are {lines:?}")]));
    }
}

#[test]
fn without_the_guard_they_are_not() {
    let ran = Run::new(HANDLERS, "in-force").options("mode=off").run();
    println!("in force with mode=off: {:?}", ran.stdout);
    fail_on(ran.silent(0));
}

#[test]
fn a_program_with_its_own_handler_gets_the_faults_that_are_not_ours() {
    let mut wrong = Vec::new();
    for when in ["before", "after"] {
        for (what, signal) in [("null", "SIGSEGV"), ("sent", "SIGSEGV"), ("file", "SIGBUS")] {
            let ran = run(&format!("{when} {what}"));
            let mut here = Vec::new();
            if ran.stdout != format!("armed\nown handler: {signal}\n") || ran.status.code() != Some(42) {
                here.push("its own handler must be the one that answers".into());
            }
            if !ran.reports.is_empty() || !ran.stderr.is_empty() {
                here.push("nothing is ours to report".into());
            }
            wrong.extend(ran.complain(here));
        }
    }
    fail_on(wrong);
}

#[test]
fn faults_of_the_heap_are_ours_whoever_else_has_a_handler() {
    let mut wrong = Vec::new();
    for engine in engines() {
        for when in ["before", "after", "none"] {
            let ran = Run::new(HANDLERS, &format!("{when} heap")).options(&format!("engine={engine}")).run();
            let mut here = Vec::new();
            match &ran.reports[..] {
                [report] if report["kind"] == "heap-buffer-overflow" && report["block"]["size"] == 4096 => {}
                reports => here.push(format!("reports: {reports:?}")),
            }
            if ran.stdout != "armed\n" || !ran.died_by(libc::SIGSEGV) {
                here.push("must die by the signal of its fault".into());
            }
            wrong.extend(ran.complain(here));
        }
    }
    fail_on(wrong);
}

#[test]
fn faults_that_nobody_handles_end_as_they_would_without_us() {
    let mut wrong = Vec::new();
    for (what, signal) in [("null", libc::SIGSEGV), ("sent", libc::SIGSEGV), ("file", libc::SIGBUS)] {
        let ran = run(&format!("none {what}"));
        let mut here = Vec::new();
        let died = ran.status.signal() == Some(signal) && ran.stdout == "armed\n";
        // Where the language's own handler is in force, a signal that somebody sends only takes that handler away.
        let lived = what == "sent" && ran.status.code() == Some(0) && ran.stdout == "armed\nsurvived\n";
        if ran.timed_out || !(died || lived) {
            here.push(format!("must die by signal {signal}"));
        }
        if ran.reports.len() > 1 || ran.reports.iter().any(|report| !report["block"].is_null()) {
            here.push("no block of the heap has a part in it".into());
        }
        if what == "sent" && !ran.reports.is_empty() {
            here.push("a signal that was sent is no access".into());
        }
        wrong.extend(ran.complain(here));
    }
    fail_on(wrong);
}
