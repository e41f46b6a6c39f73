//! Memory that was made read-only.

use crate::expected::{Expected, passes_through};
use crate::harness::{Ran, engines, everywhere, fail_on, victim};

fn sealer_is_named(ran: &Ran) -> Vec<String> {
    let named = |report: &serde_json::Value| passes_through(&report["seal"]["sealer"], "victim_seals");
    if ran.reports.iter().all(named) {
        vec![]
    } else {
        ran.complain(vec!["the sealer's stack must be shown".into()])
    }
}

/// The byte before the write of `victim_touches`, and the one after; "" for not known.
fn bytes_are_shown(ran: &Ran, new: &str) -> Vec<String> {
    let after = if new.is_empty() { serde_json::Value::Null } else { new.into() };
    let shown = |report: &serde_json::Value| report["seal"]["old"] == "21" && report["seal"]["new"] == after;
    if ran.reports.iter().all(shown) {
        vec![]
    } else {
        ran.complain(vec![format!("the bytes must be 21 before, and after {after}")])
    }
}

/// What `seal block` does.
const WRITTEN: Expected = Expected {
    kind: "seal-violation",
    access: "write",
    beside: Some(("inside", 7)),
    block: Some((100, 4)),
    ..Expected::FAULT
};

#[test]
fn writing_to_a_sealed_block() {
    everywhere(&["right", "left"], |_, options| {
        let ran = victim("seal block").options(options).run();
        let mut wrong = WRITTEN.verify(&ran);
        wrong.extend(sealer_is_named(&ran));
        wrong.extend(bytes_are_shown(&ran, "5a"));
        wrong
    });
}

#[test]
fn where_no_instruction_runs_by_itself_a_violation_does_not_know_what_it_would_have_written() {
    everywhere(&["right"], |_, options| {
        let ran = victim("seal block").options(options).environment("FENCEPOST_DENY", "steps").run();
        let mut wrong = WRITTEN.verify(&ran);
        wrong.extend(bytes_are_shown(&ran, ""));
        wrong
    });
}

#[test]
fn writing_to_sealed_memory_that_the_heap_does_not_own() {
    everywhere(&["right"], |_, options| {
        let mut wrong = Vec::new();
        for what in ["static", "mapping"] {
            let ran = victim(&format!("seal {what}")).options(options).run();
            let expected = Expected {
                kind: "seal-violation",
                access: "write",
                block: None,
                state: None,
                allocated: "",
                ..Expected::FAULT
            };
            wrong.extend(expected.verify(&ran));
            wrong.extend(sealer_is_named(&ran));
            wrong.extend(bytes_are_shown(&ran, "5a"));
        }
        wrong
    });
}

#[test]
fn freeing_a_sealed_block() {
    everywhere(&["right"], |_, options| {
        let ran = victim("seal free").options(options).run();
        let expected = Expected { kind: "seal-violation", block: Some((100, 4)), ..Expected::FOUND };
        let mut wrong = expected.verify(&ran);
        wrong.extend(sealer_is_named(&ran));
        wrong
    });
}

#[test]
fn a_dropped_seal_is_gone() {
    everywhere(&["right"], |_, options| {
        let ran = victim("seal unsealed").options(options).run();
        let mut wrong = ran.silent(0);
        if ran.stdout != "survived\n" {
            wrong.extend(ran.complain(vec!["must write again and live".into()]));
        }
        wrong
    });
}

/// The figure that a run printed behind a word.
fn figure(ran: &Ran, name: &str) -> Option<i64> {
    ran.stdout.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

#[test]
fn two_thousand_sealed_pages_make_no_mapping_where_the_engine_has_its_pages_registered() {
    for engine in engines() {
        for deny in ["", "write-protect"] {
            let ran = victim("seal-many")
                .options(&format!("engine={engine},on_error=continue,exitcode=0"))
                .environment("FENCEPOST_DENY", deny)
                .run();
            let mut wrong = Vec::new();
            let more = figure(&ran, "more mappings");
            println!("{engine}, denied {deny:?}: {more:?} mappings more");
            if figure(&ran, "violations") != Some(2) || !ran.stdout.contains("written 0x5a") {
                wrong.push("both writes must be seen and have their effect".into());
            }
            // Between pages that are closed by their mapping, as engine mprotect's are, a seal makes none either.
            let right = match (*engine, deny) {
                ("move", "") => more == Some(0),
                ("move", _) => more.is_some_and(|more| more >= 1000),
                _ => more.is_some(),
            };
            // The report itself maps files.
            let later =
                |name: &str, base| figure(&ran, name).is_some_and(|now| (base..base + 32).contains(&now));
            if !right || !later("and after a step", more.unwrap_or(0)) || !later("left over", 0) {
                wrong.push("that many mappings are not right".into());
            }
            // Two lines write.
            if ran.reports.len() != 2 || ran.reports.iter().any(|report| report["kind"] != "seal-violation") {
                wrong.push(format!("{} reports", ran.reports.len()));
            }
            fail_on(ran.complain(wrong));
        }
    }
}

#[test]
fn a_seal_holds_in_a_child() {
    everywhere(&["right"], |_, options| {
        let ran = victim("seal-forked").options(options).options("on_error=continue").run();
        let mut wrong = Vec::new();
        if ran.stdout != "armed\nchild 1\nparent 1\nsurvived\n" {
            wrong.push("each process must see its own write".into());
        }
        ran.complain(wrong)
    });
}
