//! `fencepost.h`: sealing from C, and system calls on memory that is sealed.

use super::{built, preloaded};
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
fn system_calls_on_closed_memory_are_reported_and_have_their_effect() {
    let Some(program) = built("sealing.c") else { return };
    let mut wrong = Vec::new();
    for (what, code, middle, kinds) in [
        ("write", 100, "hits 1 aaaxaaaaaaaaaaaaaaaaaaaa\n", &["seal-violation"][..]),
        ("read", 100, "read 4\nhits 1 aaaaaaaa0123aaaaaaaaaaaa\n", &["seal-violation"]),
        ("beside", 0, "read 4\nhits 0 aaaaaaaaaaaaaaaa0123aaaa\n", &[]),
        ("wire", 100, "written 4\nagain 4\nhits 1 aaaaaaaaaaaaaaaaaaaaaaaa\n", &["tripwire"]),
    ] {
        let ran = preloaded(program, what).options("on_error=continue").run();
        wrong.extend(complain(&ran, code, &format!("1 1\n{middle}end\n"), kinds));
    }
    fail_on(wrong);
}
