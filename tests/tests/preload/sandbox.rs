//! `tests/c/sandbox.c`: programs that forbid themselves calls, or hold SIGSEGV back, go on and are still guarded.

use super::{built, preloaded};
use crate::harness::{everywhere, fail_on};

#[test]
fn a_filter_that_comes_later_kills_nothing_and_errors_are_still_found() {
    let Some(program) = built("sandbox.c") else { return };
    everywhere(&["right"], |_, options| {
        let mut wrong = Vec::new();
        for how in ["prctl", "seccomp"] {
            let ran = preloaded(program, how).options(options).run();
            wrong.extend(ran.silent(0));
            let ran = preloaded(program, &format!("{how} bad")).options(options).run();
            let found = ran.headlines().iter().filter(|line| line.contains("heap-buffer-overflow")).count();
            if found != 1 || ran.stdout != "armed\n" {
                wrong.extend(ran.complain(vec![format!("{found} overflows reported, not 1")]));
            }
        }
        wrong
    });
}

#[test]
fn a_program_that_holds_every_signal_back_is_reported_all_the_same() {
    let Some(program) = built("sandbox.c") else { return };
    everywhere(&["right"], |_, options| {
        let mut wrong = preloaded(program, "blocked").options(options).run().silent(0);
        let ran = preloaded(program, "blocked bad").options(options).run();
        let found = ran.reports.iter().filter(|report| report["kind"] == "heap-buffer-overflow").count();
        if found != 1 || !ran.died_by(libc::SIGSEGV) {
            wrong.extend(ran.complain(vec![format!("{found} overflows reported, not 1 and its end by it")]));
        }
        wrong
    });
    // Without a guard such a program is right, or at least says nothing.
    fail_on(crate::harness::Run::new(program, "blocked").run().silent(0));
}
