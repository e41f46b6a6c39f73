//! `tests/c/rules.c`: what programs may count on from malloc.

use super::{built, preloaded};
use crate::harness::{everywhere, fail_on};

/// Complaints of a run that must end with no rule broken, and without a report.
fn kept(ran: &crate::harness::Ran) -> Vec<String> {
    let mut wrong = ran.silent(0);
    if ran.stdout != "0 broken\n" {
        wrong.extend(ran.complain(vec!["rules are broken".into()]));
    }
    wrong
}

#[test]
fn malloc_and_its_relatives_keep_their_rules() {
    let Some(program) = built("rules.c") else { return };
    everywhere(&["right", "left", "alternate"], |_, options| {
        kept(&preloaded(program, "").options(options).seconds(120).run())
    });
}

#[test]
fn so_they_do_in_every_mode_and_alignment() {
    let Some(program) = built("rules.c") else { return };
    let mut wrong = Vec::new();
    // An argument leaves out what needs blocks aligned to 16.
    for (arguments, options) in [
        ("unaligned", "align=exact"),
        ("unaligned", "align=4"),
        ("", "align=64"),
        ("", "mode=sample,sample_rate=3"),
        ("", "mode=off"),
        ("", "fill=off"),
        ("", "max_memory=16M"),
        ("", "quarantine=64M"),
        ("", "stack_depth=0"),
    ] {
        wrong.extend(kept(&preloaded(program, arguments).options(options).seconds(120).run()));
    }
    fail_on(wrong);
}

#[test]
fn and_with_each_feature_of_the_system_taken_away() {
    let Some(program) = built("rules.c") else { return };
    let mut wrong = Vec::new();
    for denied in ["markers", "vectored", "process_vm_readv", "proc"] {
        let run = preloaded(program, "").environment("FENCEPOST_DENY", denied).seconds(120);
        wrong.extend(kept(&run.run()));
    }
    fail_on(wrong);
}
