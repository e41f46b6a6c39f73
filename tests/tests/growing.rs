//! The program's own arenas, pools and stacks: their errors are reported with their names.

use crate::expected::{Expected, functions, passes_through};
use crate::harness::{CLEAN, Run, everywhere, victim};

const OVERRUN: Expected<'static> =
    Expected { kind: "heap-buffer-overflow", access: "write", state: None, allocated: "", ..Expected::FAULT };

/// A victim, what is expected of its report, and of the region in it: kind, name, used, place, distance, slot.
type Case<'a> = (&'a str, Expected<'a>, (&'a str, &'a str, Option<u64>, &'a str, u64, Option<u64>));

const CASES: [Case<'static>; 8] = [
    ("arena-past", OVERRUN, ("arena", "frames", Some(5096), "past", 3096, None)),
    ("arena-end", OVERRUN, ("arena", "frames", Some(5096), "past", (1 << 20) - 5096, None)),
    (
        "arena-before",
        Expected { kind: "heap-buffer-underflow", access: "read", ..OVERRUN },
        ("arena", "frames", Some(5096), "before", 0, None),
    ),
    (
        "arena-rewound",
        Expected { kind: "use-after-free", ..OVERRUN },
        ("arena", "frames", Some(0), "given-back", 10, None),
    ),
    (
        "pool-freed",
        Expected { kind: "use-after-free", access: "read", ..OVERRUN },
        ("pool", "sessions", Some(16384), "freed-slot", 4, Some(1)),
    ),
    ("pool-past", OVERRUN, ("pool", "sessions", Some(16384), "past", 0, Some(1))),
    (
        "vec-cut",
        Expected { kind: "use-after-free", access: "read", ..OVERRUN },
        ("vector", "numbers", Some(4096), "given-back", 1999 * 8 - 4096, None),
    ),
    (
        "reservation",
        Expected { kind: "wild-access", ..OVERRUN },
        ("reservation", "table", None, "inside", 100, None),
    ),
];

#[test]
fn the_errors_of_growing_allocators_are_reported_with_their_names() {
    everywhere(&["right"], |_, options| {
        let mut wrong = Vec::new();
        for (what, expected, (kind, name, used, place, distance, slot)) in CASES {
            let ran = victim(&format!("growing {what}")).options(options).run();
            wrong.extend(expected.verify(&ran));
            let region =
                &ran.reports.first().map_or(serde_json::Value::Null, |report| report["region"].clone());
            let told = (
                region["kind"].as_str(),
                region["name"].as_str(),
                region["used"].as_u64(),
                region["where"].as_str(),
                region["distance"].as_u64(),
                region["slot"].as_u64(),
            );
            let truth = (Some(kind), Some(name), used, Some(place), Some(distance), slot);
            if told != truth {
                wrong.extend(ran.complain(vec![format!("the region is {region}, not {truth:?}")]));
            }
            if !ran.stderr.contains(&format!("the region: {kind} '{name}' from 0x")) {
                wrong.extend(ran.complain(vec!["the text must name the region".into()]));
            }
        }
        wrong
    });
}

#[test]
fn the_overflow_of_a_call_stack_is_described() {
    everywhere(&["right"], |_, options| {
        let ran = victim("growing call-stack").options(options).run();
        let expected = Expected {
            kind: "stack-overflow",
            access: "write",
            state: None,
            allocated: "",
            fault: "victim_recurses",
            ..Expected::FAULT
        };
        let mut wrong = expected.verify(&ran);
        let region = ran.reports.first().map(|report| report["region"]["name"] == "fiber");
        if region != Some(true) || !ran.stderr.contains("has overflowed its stack") {
            wrong.extend(ran.complain(vec!["the stack must be named".into()]));
        }
        wrong
    });
}

#[test]
fn a_program_goes_on_after_an_overrun_of_an_arena() {
    everywhere(&["right"], |_, options| {
        let ran = victim("growing arena-past").options(options).options("on_error=continue").run();
        let mut wrong = Vec::new();
        if ran.status.code() != Some(100) || ran.reports.len() != 1 || !ran.stdout.ends_with("survived\n") {
            wrong.push(format!("{}, {} reports", ran.ending(), ran.reports.len()));
        }
        ran.complain(wrong)
    });
}

#[test]
fn growing_allocators_used_well_are_silent() {
    everywhere(&["right"], |_, options| {
        let ran = Run::new(CLEAN, "growing").options(options).options("summary=on").run();
        let mut wrong = Vec::new();
        if ran.status.code() != Some(0) || !ran.reports.is_empty() {
            wrong.extend(ran.complain(vec![ran.ending()]));
        }
        if !ran.stderr.contains("regions of the program's own: ") {
            wrong.extend(ran.complain(vec!["the summary must count the regions".into()]));
        }
        if ran.summaries.first().is_none_or(|summary| summary["regions"].as_u64() < Some(4)) {
            wrong.extend(ran.complain(vec!["so must its JSON form".into()]));
        }
        wrong
    });
}

/// The functions of the victim that a stack goes through from one coroutine to the other and on to the thread's own stack.
const THROUGH: [&str; 3] = ["victim_works", "victim_resumes_inner", "misuse"];

fn goes_through(what: &str, stack: &serde_json::Value) -> Vec<String> {
    let missing = |name: &&&str| !passes_through(stack, name);
    let missing: Vec<_> = THROUGH.iter().filter(missing).collect();
    if missing.is_empty() {
        return vec![];
    }
    vec![format!("the stack of {what} lacks {missing:?}: {:?}", functions(stack))]
}

#[test]
fn an_error_on_a_coroutine_is_reported_with_stacks_through_all_who_resumed_it() {
    everywhere(&["right"], |_, options| {
        let mut wrong = Vec::new();
        // The stack of the one that is resumed lies above the resumer's, or below.
        for other in ["above", "below"] {
            let overrun = Expected {
                kind: "heap-buffer-overflow",
                access: "write",
                access_size: Some(1),
                beside: Some(("after", 0)),
                block: Some((24, 8)),
                ..Expected::FAULT
            };
            let ran = victim(&format!("coroutine overrun {other}")).options(options).run();
            wrong.extend(overrun.verify(&ran));
            if let Some(report) = ran.reports.first() {
                wrong.extend(goes_through("the access", &report["fault"]));
                wrong.extend(goes_through("the allocation", &report["block"]["allocated"]));
            }
            let freed = Expected {
                kind: "use-after-free",
                access: "read",
                beside: Some(("inside", 3)),
                state: Some("freed"),
                freed: "victim_frees",
                ..overrun
            };
            let ran = victim(&format!("coroutine freed {other}")).options(options).run();
            wrong.extend(freed.verify(&ran));
            if let Some(report) = ran.reports.first() {
                wrong.extend(goes_through("the allocation", &report["block"]["allocated"]));
                wrong.extend(goes_through("the free", &report["block"]["freed"]));
            }
        }
        wrong
    });
}

#[test]
fn the_overflow_of_a_coroutine_is_described_with_the_name_of_its_stack() {
    everywhere(&["right"], |_, options| {
        let ran = victim("coroutine overflow").options(options).run();
        let expected = Expected {
            kind: "stack-overflow",
            access: "write",
            state: None,
            allocated: "",
            fault: "victim_descends",
            ..Expected::FAULT
        };
        let mut wrong = expected.verify(&ran);
        let region = ran.reports.first().map(|report| &report["region"]);
        let told = region.map(|region| (region["kind"].as_str(), region["name"].as_str()));
        if told != Some((Some("call stack"), Some("walk"))) {
            wrong.extend(ran.complain(vec![format!("the stack must be named, not {region:?}")]));
        }
        wrong
    });
}

/// Blocks that only a suspended coroutine's stack reaches are no leaks, and one more that is dropped half-way loses nothing.
#[test]
fn coroutines_used_well_are_silent_and_lose_nothing() {
    everywhere(&["right", "left"], |_, options| {
        let ran = Run::new(CLEAN, "coroutines").options(options).options("leaks=on").run();
        if ran.status.code() == Some(0) && ran.reports.is_empty() {
            vec![]
        } else {
            ran.complain(vec![ran.ending()])
        }
    });
}
