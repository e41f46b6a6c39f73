//! `tests/c/limits.c`: programs that limit their own memory have what they allow themselves, and see its end.

use super::{built, preloaded};
use crate::harness::{Ran, Run, everywhere, fail_on};

const RESOURCES: [&str; 2] = ["addresses", "data"];

/// Complaints of a run that must come through. What it took is told in lines that begin with `figure:`.
fn through(ran: &Ran) -> Vec<String> {
    let mut wrong = ran.silent(0);
    if ran.stdout != "done\n" {
        wrong.extend(ran.complain(vec!["it did not get through".into()]));
    }
    wrong
}

fn unharmed(what: &str) {
    let Some(program) = built("limits.c") else { return };
    for resource in RESOURCES {
        let arguments = format!("{what} {resource}");
        // The program is right: it comes through without a guard.
        fail_on(through(&Run::new(program, &arguments).seconds(120).run()));
        everywhere(&["right"], |_, options| {
            through(&preloaded(program, &arguments).options(options).seconds(300).run())
        });
    }
}

#[test]
fn a_program_that_limits_its_memory_starts_threads_and_allocates_until_there_is_none() {
    unharmed("goes_on");
}

/// Most of them are not guarded: a page each would be more than there is.
#[test]
fn a_program_of_small_blocks_has_all_of_them() {
    let Some(program) = built("limits.c") else { return };
    for resource in RESOURCES {
        fail_on(through(&preloaded(program, &format!("small {resource}")).seconds(300).run()));
    }
}

#[test]
fn a_limit_is_refused_as_without_a_guard_and_told_as_it_was_set() {
    unharmed("refused");
}

#[test]
fn a_program_that_is_started_has_the_limit_and_one_that_is_not_there_costs_nothing() {
    unharmed("starts");
}

#[test]
fn other_settings_change_nothing_about_it() {
    let Some(program) = built("limits.c") else { return };
    let mut wrong = Vec::new();
    for options in ["mode=off", "mode=sample,sample_rate=10", "max_memory=64M", "defer=100"] {
        for resource in RESOURCES {
            let arguments = format!("goes_on {resource}");
            wrong.extend(through(&preloaded(program, &arguments).options(options).seconds(300).run()));
        }
    }
    fail_on(wrong);
}
