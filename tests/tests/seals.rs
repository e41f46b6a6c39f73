//! Memory that was made read-only.

use crate::expected::{Expected, passes_through};
use crate::harness::{Ran, everywhere, victim};

fn sealer_is_named(ran: &Ran) -> Vec<String> {
    let named = |report: &serde_json::Value| passes_through(&report["seal"]["sealer"], "victim_seals");
    if ran.reports.iter().all(named) {
        vec![]
    } else {
        ran.complain(vec!["the sealer's stack must be shown".into()])
    }
}

#[test]
fn writing_to_a_sealed_block() {
    everywhere(&["right", "left"], |_, options| {
        let ran = victim("seal block").options(options).run();
        let expected = Expected {
            kind: "seal-violation",
            access: "write",
            beside: Some(("inside", 7)),
            block: Some((100, 4)),
            ..Expected::FAULT
        };
        let mut wrong = expected.verify(&ran);
        wrong.extend(sealer_is_named(&ran));
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
