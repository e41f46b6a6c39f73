//! Pointers that came from no allocation, and stacks that overflow.

use crate::expected::{Expected, passes_through};
use crate::harness::{everywhere, victim};
use std::os::unix::process::ExitStatusExt;

/// No block is named.
const NOWHERE: Expected<'static> = Expected { block: None, state: None, allocated: "", ..Expected::FAULT };

#[test]
fn freeing_what_nobody_allocated() {
    everywhere(&["right"], |_, options| {
        let mut wrong = Vec::new();
        for pointer in ["stack", "global", "wild", "non-canonical"] {
            let ran = victim(&format!("invalid-free {pointer}")).options(options).run();
            let expected = Expected {
                kind: "invalid-free",
                access: "free",
                fault: "victim_frees",
                signal: libc::SIGABRT,
                ..NOWHERE
            };
            wrong.extend(expected.verify(&ran));
        }
        wrong
    });
}

#[test]
fn freeing_the_middle_of_a_block_names_the_block() {
    everywhere(&["right", "left"], |_, options| {
        let ran = victim("invalid-free interior").options(options).run();
        let expected = Expected {
            kind: "invalid-free",
            beside: Some(("inside", 16)),
            block: Some((64, 8)),
            ..Expected::FOUND
        };
        expected.verify(&ran)
    });
}

#[test]
fn an_address_that_is_none() {
    everywhere(&["right"], |_, options| {
        let ran = victim("non-canonical").options(options).run();
        let mut wrong = Expected { kind: "wild-access", access: "read", ..NOWHERE }.verify(&ran);
        let address =
            ran.reports.first().map(|report| report["access"]["address"].clone()).unwrap_or_default();
        if !(address == "0x4141414141414141" || address.is_null()) {
            wrong.extend(
                ran.complain(vec![format!("the address is {address}: right or not known, never wrong")]),
            );
        }
        if !ran.stderr.contains("non-canonical") {
            wrong.extend(ran.complain(vec!["the text must say that the address is non-canonical".into()]));
        }
        wrong
    });
}

#[test]
fn a_field_of_nothing() {
    everywhere(&["right"], |_, options| {
        let ran = victim("null").options(options).run();
        let mut wrong = Expected { kind: "null-dereference", access: "read", ..NOWHERE }.verify(&ran);
        if ran.reports.iter().any(|report| report["access"]["address"] != "0x18") {
            wrong.extend(ran.complain(vec!["the address is 0x18".into()]));
        }
        wrong
    });
}

#[test]
fn memory_that_is_not_there() {
    everywhere(&["right"], |_, options| {
        let ran = victim("wild").options(options).run();
        Expected { kind: "wild-access", access: "write", ..NOWHERE }.verify(&ran)
    });
}

#[test]
fn a_pointer_that_was_never_written_shows_the_fill_pattern() {
    everywhere(&["right"], |_, options| {
        let ran = victim("fill-pattern").options(options).run();
        let mut wrong = Expected { kind: "wild-access", access: "read", ..NOWHERE }.verify(&ran);
        let named = |reason: &serde_json::Value| reason.as_str().is_some_and(|text| text.contains("pattern"));
        let names = |report: &serde_json::Value| {
            report["reasons"].as_array().is_some_and(|all| all.iter().any(named))
        };
        if !ran.reports.iter().all(names) {
            wrong.extend(ran.complain(vec!["the report must name the pattern".into()]));
        }
        wrong
    });
}

/// Rust tells of an overflow on threads of its own; we do on all others. Nobody may be told twice, or nothing.
#[test]
fn an_overflowed_stack_still_says_so() {
    everywhere(&["right"], |_, options| {
        let mut wrong = Vec::new();
        for stack in ["main", "thread", "pthread"] {
            let ran = victim(&format!("stack-overflow {stack}")).options(options).run();
            let mut here = Vec::new();
            if ran.stderr.matches("has overflowed its stack").count() != 1 {
                here.push("it must be said once that the stack has overflowed".into());
            }
            if !matches!(ran.status.signal(), Some(libc::SIGSEGV | libc::SIGABRT)) || ran.timed_out {
                here.push(ran.ending());
            }
            if ran.stdout != "armed\n" || ran.reports.len() > 1 {
                here.push(format!("{} reports", ran.reports.len()));
            }
            if stack == "pthread" && ran.reports.is_empty() {
                here.push("Rust does not know this thread, so the report must be ours".into());
            }
            for report in &ran.reports {
                if report["kind"] != "stack-overflow" || !passes_through(&report["fault"], "victim_recurses")
                {
                    here.push(format!("{}: {}", report["kind"], report["message"]));
                }
            }
            wrong.extend(ran.complain(here));
        }
        wrong
    });
}
