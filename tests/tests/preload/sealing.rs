//! `fencepost.h`: sealing from C, and system calls on memory that is sealed.

use super::{built, built_with, library, preloaded};
use crate::expected::functions;
use crate::harness::{Ran, fail_on};

fn complain(ran: &Ran, code: i32, stdout: &str, kinds: &[&str]) -> Vec<String> {
    let mut wrong = Vec::new();
    if ran.status.code() != Some(code) || ran.stdout != stdout {
        wrong.push(format!("{}, prints {:?}, not {code} and {stdout:?}", ran.ending(), ran.stdout));
    }
    let found: Vec<&str> = ran.reports.iter().filter_map(|report| report["kind"].as_str()).collect();
    if found != kinds {
        wrong.push(format!("reports {found:?}, not {kinds:?}"));
    }
    ran.complain(wrong)
}

#[test]
fn c_programs_ask_about_their_blocks() {
    let Some(program) = built("sealing.c") else { return };
    let ran = preloaded(program, "ask").run();
    fail_on(complain(&ran, 0, "1 1 64 8 1\n2 0\n1 1 0\n", &[]));
    assert!(ran.stderr.contains("is 0 bytes inside a freed block of 64 bytes"), "{}", ran.stderr);
    let alone = crate::harness::Run::new(program, "ask").run();
    assert_eq!(alone.stdout, "no guard\n", "without the guard the functions are not there");
}

#[test]
fn live_blocks_are_listed_by_site() {
    let Some(program) = built("sealing.c") else { return };
    let ran = preloaded(program, "sites").run();
    fail_on(complain(&ran, 0, "", &[]));
    let (first, rest) = ran.stderr.split_once('\n').unwrap_or_default();
    assert!(first.starts_with("fencepost: ") && first.ends_with(" places"), "{first}");
    assert!(rest.starts_with("  70000 bytes in 7 blocks: 0x"), "the most bytes come first: {rest}");
    assert_eq!(rest.matches("  64 bytes in 1 blocks: 0x").count(), 1, "{rest}");
}

#[test]
fn system_calls_on_closed_memory_are_reported_and_have_their_effect() {
    let Some(program) = built("sealing.c") else { return };
    let mut wrong = Vec::new();
    for (what, code, middle, kinds) in [
        ("write", 100, "hits 1 aaaxaaaaaaaaaaaaaaaaaaaa\n", &["seal-violation"][..]),
        ("read", 100, "read 4\nhits 1 aaaaaaaa0123aaaaaaaaaaaa\n", &["seal-violation"]),
        ("beside", 0, "read 4\nhits 0 aaaaaaaaaaaaaaaa0123aaaa\n", &[]),
        ("recv", 100, "recv 4\nhits 1 aaaa0123aaaaaaaaaaaaaaaa\n", &["seal-violation"]),
        // The program's own writes around the calls are violations as well.
        ("futex", 100, "lock 0 1\nhits 4 aaaaaaaaaaaaaaaaaaaaaaaa\n", &["seal-violation"; 4]),
        ("wait", 100, "wait -1 1\nhits 1 aaaaaaaaaaaaaaaaaaaaaaaa\n", &["tripwire"]),
        ("wire", 100, "written 4\nagain 4\nhits 1 aaaaaaaaaaaaaaaaaaaaaaaa\n", &["tripwire"]),
    ] {
        let ran = preloaded(program, what).options("on_error=continue").run();
        wrong.extend(complain(&ran, code, &format!("1 1\n{middle}end\n"), kinds));
    }
    fail_on(wrong);
}

#[test]
fn a_write_that_must_not_be_is_named_whether_it_is_a_data_race_or_not() {
    let Some(program) = built("race.c") else { return };
    let mut wrong = Vec::new();
    for (words, code, kinds) in
        [("seal", 100, &["seal-violation"][..]), ("locked seal", 100, &["seal-violation"]), ("", 0, &[])]
    {
        let ran = preloaded(program, words).options("on_error=continue").run();
        let sealed = i32::from(!kinds.is_empty());
        wrong.extend(complain(&ran, code, &format!("sealed {sealed} timeout 5000\n"), kinds));
        if ran.reports.iter().any(|report| functions(&report["fault"]).first() != Some(&"reader")) {
            wrong.extend(ran.complain(vec!["the writer must be named".into()]));
        }
    }
    fail_on(wrong);
}

/// What gdb says of a run of `sealing.c` that stops before the line with `at`; `None`, said, where there is no gdb.
fn in_gdb(what: &str, at: &str, commands: &[&str]) -> Option<String> {
    if std::process::Command::new("gdb").arg("--version").output().is_err() {
        println!("skipped: gdb is not installed");
        return None;
    }
    let program = built_with("sealing.c", "_gdb", &["-O0"])?;
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let source = std::fs::read_to_string(format!("{root}/tests/c/sealing.c")).expect("the source");
    let line = source.lines().position(|line| line.contains(at)).expect("the line") + 1;
    let script = format!("source {root}/crates/fencepost-preload/gdb/fencepost.py");
    let (stop, run) = (format!("break sealing.c:{line}"), format!("run {what}"));
    let preload = format!("set environment LD_PRELOAD {}", library());
    let options = "set environment FENCEPOST_OPTIONS on_error=continue,log=/dev/null,color=never";
    let signals = "handle SIGSEGV SIGBUS nostop noprint pass";
    let mut gdb = std::process::Command::new("gdb");
    gdb.args(["-nx", "-batch", "-iex", "set startup-with-shell off"]);
    for command in
        [&preload, options, signals, &stop, &run, &script].into_iter().chain(commands.iter().copied())
    {
        gdb.args(["-ex", command]);
    }
    let output = gdb.arg(program).output().expect("gdb runs");
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    Some(said.concat())
}

#[test]
fn gdb_prints_the_block_of_an_address_and_the_last_reports() {
    let commands =
        ["fencepost-block block + 8", "fencepost-check", "fencepost-frames 0x1", "fencepost-sites 1"];
    let Some(said) = in_gdb("ask", "free(block);", &commands) else { return };
    if !said.contains("Breakpoint 1, main") {
        println!("skipped: gdb cannot run a program here: {said}");
        return;
    }
    for wanted in ["is 8 bytes inside a live block of 64 bytes at", "  allocated ", "No symbol matches 0x1"] {
        assert!(said.contains(wanted), "no {wanted:?} in {said}");
    }
    assert!(!said.contains("Error"), "{said}");
    let sites = said.split("live guarded blocks of").nth(1).unwrap_or_default();
    assert!(sites.contains(" places\n") && sites.contains(" bytes in "), "{said}");
    assert_eq!(sites.matches(" bytes in ").count(), 1, "one place was asked for: {said}");
    let said = in_gdb("write", "printf(\"hits", &["fencepost-reports"]).expect("gdb, as before");
    assert_eq!(said.matches("fencepost: ERROR: seal-violation: write of 1 byte at").count(), 1, "{said}");
}
