//! Engine move in programs that take from it what it works with: descriptors, processes, locked memory, filters.

use crate::expected::Expected;
use crate::harness::{Ran, clean, engines, fail_on, victim};
use std::os::unix::process::ExitStatusExt;

/// The line that the guard writes when the program has closed its descriptor.
const CLOSED: &str =
    "fencepost: the program closed the descriptor that guards its memory: it was opened again";

fn has_move() -> bool {
    let has = engines().contains(&"move");
    if !has {
        println!("skipped: engine move does not work here");
    }
    has
}

fn refused(ran: &Ran, reason: &str) -> u64 {
    ran.summaries.iter().filter_map(|summary| summary["refused"][reason].as_u64()).sum()
}

/// Runs a healthy program under every engine. Its output must be the same everywhere.
fn same_everywhere(program: &str, look: impl Fn(&Ran, &str) -> Vec<String>) {
    let mut wrong = Vec::new();
    let plain = clean(program).options("engine=mprotect").run().stdout;
    for engine in engines() {
        let ran = clean(program).options(&format!("engine={engine}")).run();
        let mut here = look(&ran, engine);
        if ran.timed_out || ran.status.code() != Some(0) || ran.stdout != plain {
            here.push(format!("{}, and printed {:?}, not {plain:?}", ran.ending(), ran.stdout));
        }
        if !ran.reports.is_empty() {
            here.push(format!("{} reports", ran.reports.len()));
        }
        wrong.extend(ran.complain(here));
    }
    fail_on(wrong);
}

fn said_nothing(ran: &Ran) -> Vec<String> {
    let words = ran.stderr.lines().filter(|line| !line.starts_with("figure:"));
    words.map(|line| format!("said: {line}")).collect()
}

#[test]
fn a_program_that_closes_all_descriptors_is_guarded_again_and_told_once() {
    same_everywhere("close-all", |ran, engine| {
        let told = ran.stderr.matches(CLOSED).count();
        let lost = refused(ran, "lost");
        match engine {
            "move" if told == 1 && lost >= 2 => Vec::new(),
            "move" => vec![format!("told {told} times, lost {lost} times")],
            _ => said_nothing(ran),
        }
    });
}

#[test]
fn a_child_by_a_bare_system_call_leaves_its_parents_memory_alone() {
    same_everywhere("raw-clone", |ran, engine| {
        let mut wrong = said_nothing(ran);
        if engine == "move" && refused(ran, "shared") == 0 {
            wrong.push("pages that are shared with a child did not refuse to move".into());
        }
        wrong
    });
}

#[test]
fn a_child_in_borrowed_memory_changes_nothing_for_its_parent() {
    same_everywhere("borrowed-memory", |ran, engine| {
        let mut wrong = said_nothing(ran);
        if engine == "move" && (refused(ran, "borrowed") == 0 || refused(ran, "lost") != 0) {
            wrong.push(format!("refused: {}", ran.summary()["refused"]));
        }
        wrong
    });
}

#[test]
fn locked_memory_is_guarded_all_the_same() {
    same_everywhere("lock-memory", |ran, engine| {
        let mut wrong = said_nothing(ran);
        // Locked memory takes no markers.
        let refuses = engine != "mprotect" && ran.stderr.contains("locked with 1: true");
        if refuses && ran.summary()["fallbacks"].as_u64() < Some(10) {
            wrong.push(format!("{} refusals counted", ran.summary()["fallbacks"]));
        }
        if ran.summary()["guarded"] != ran.summary()["total"] {
            wrong.push(format!("not all was guarded: {}", ran.summary()["unguarded"]));
        }
        wrong
    });
}

#[test]
fn pages_that_a_program_drops_are_zero() {
    same_everywhere("drop-own-pages", |ran, _| said_nothing(ran));
}

#[test]
fn a_filter_that_comes_later_makes_way_for_the_next_engine() {
    same_everywhere("forbid-ioctl", |ran, engine| match engine {
        "move" if refused(ran, "denied") > 0 && ran.stderr.contains("engine=move has stopped") => Vec::new(),
        "move" => vec![format!("refused: {}", ran.summary()["refused"])],
        _ => said_nothing(ran),
    });
}

#[test]
fn what_userfaultfd_does_not_give_is_served_by_the_next_way() {
    if !has_move() {
        return;
    }
    let mut wrong = Vec::new();
    for (denied, engine) in [
        ("userfaultfd", "marker"),
        ("userfaultfd,markers", "mprotect"),
        ("move", "move"),
        ("markers", "move"),
    ] {
        let run = || clean("work").options("engine=move").environment("FENCEPOST_DENY", denied);
        let ran = run().run();
        let got = ran.summary()["engine"].as_str().unwrap_or_default().to_owned();
        let mut here = Vec::new();
        // On a machine without markers the next engine is another.
        if got != engine && (engine != "marker" || engines().contains(&"marker")) {
            here.push(format!("engine {got}, not {engine}"));
        }
        if ran.stderr.contains("engine=move does not work here") != (engine != "move") {
            here.push("the engine is replaced and that is said".into());
        }
        if ran.status.code() != Some(0) || ran.summary()["guarded"] != ran.summary()["total"] {
            here.push(format!("{}, {}", ran.ending(), ran.summary()["unguarded"]));
        }
        wrong.extend(ran.complain(here));
        let ran = victim("overrun write end 24 1")
            .options("engine=move")
            .environment("FENCEPOST_DENY", denied)
            .run();
        let signal = if engine == "move" { libc::SIGBUS } else { libc::SIGSEGV };
        if ran.status.signal() != Some(signal) || ran.reports.len() != 1 {
            wrong.extend(ran.complain(vec![format!("{}, not by signal {signal}", ran.ending())]));
        }
    }
    fail_on(wrong);
}

#[test]
fn small_blocks_trap_by_their_own_signal() {
    if !has_move() {
        return;
    }
    let mut wrong = Vec::new();
    for (what, signal) in [
        ("overrun write end 24 1", libc::SIGBUS),
        ("overrun read end 65536 1", libc::SIGBUS),
        ("overrun write end 65537 1", libc::SIGSEGV),
    ] {
        let ran = victim(what).options("engine=move").run();
        if ran.status.signal() != Some(signal) {
            wrong.extend(ran.complain(vec![format!("{}, not by signal {signal}", ran.ending())]));
        }
    }
    fail_on(wrong);
}

#[test]
fn a_lost_descriptor_is_taken_again_with_the_next_call() {
    if !has_move() {
        return;
    }
    let ran = victim("close-all").options("engine=move").run();
    let expected = Expected {
        kind: "heap-buffer-overflow",
        access: "write",
        beside: Some(("after", 0)),
        block: Some((24, 1)),
        ..Expected::FAULT
    };
    fail_on(expected.verify(&ran));
}

#[test]
fn a_child_by_a_bare_system_call_is_guarded_from_its_first_call() {
    if !has_move() {
        return;
    }
    let ran = victim("raw-clone").options("engine=move").run();
    let mut wrong = Vec::new();
    let kinds: Vec<_> = ran.reports.iter().map(|report| report["kind"].clone()).collect();
    if kinds != ["use-after-free"] {
        wrong.push(format!("reports: {kinds:?}"));
    }
    let ended = format!("armed\nchild ended by signal {}\nsurvived\n", libc::SIGBUS);
    if ran.status.code() != Some(0) || ran.stdout != ended {
        wrong.push(format!("{}, and printed {:?}", ran.ending(), ran.stdout));
    }
    fail_on(ran.complain(wrong));
}
