//! Blocks that nothing reaches at the end of the process, and those that something does.

use crate::expected::passes_through;
use crate::harness::{Ran, clean, engines, everywhere, fail_on, victim};

fn lost(ran: &Ran, wanted: &[(u64, [u64; 4], &str)]) -> Vec<String> {
    let mut wrong = Vec::new();
    if ran.reports.len() != wanted.len() {
        wrong.push(format!("{} reports, not {}", ran.reports.len(), wanted.len()));
    }
    for (report, (size, counts, place)) in ran.reports.iter().zip(wanted) {
        let leak = &report["leak"];
        let is = ["blocks", "bytes", "through_blocks", "through_bytes"].map(|key| leak[key].as_u64());
        if report["kind"] != "leak" || report["block"]["size"] != *size || is != counts.map(Some) {
            wrong.push(format!("{}: {} {leak}", report["kind"], report["block"]["size"]));
        }
        if !passes_through(&report["block"]["allocated"], place) {
            wrong.push(format!("must be allocated in {place}"));
        }
        if !report["fault"]["frames"].as_array().is_some_and(Vec::is_empty) {
            wrong.push("no stack but the allocation's".into());
        }
    }
    ran.complain(wrong)
}

#[test]
fn lost_blocks_are_told_once_for_each_place() {
    everywhere(&["right", "left"], |_, options| {
        let options = format!("{options},leaks=on");
        let mut wrong = Vec::new();
        for (size, count) in [(24, 1), (24, 5), (5000, 2), (300_000, 2)] {
            let ran = victim(&format!("lose block {size} {count}")).options(&options).run();
            wrong.extend(lost(&ran, &[(size, [count, size * count, 0, 0], "victim_loses")]));
        }
        // Two blocks that hold each other, and a vector in each.
        let ran = victim("lose ring").options(&options).run();
        let all: Vec<u64> =
            ran.reports.iter().filter_map(|report| report["leak"]["through_blocks"].as_u64()).collect();
        if ran.reports.len() != 1 || all != vec![3] {
            wrong.extend(ran.complain(vec![format!("one report with three blocks more, not {all:?}")]));
        }
        wrong
    });
}

#[test]
fn what_something_reaches_is_no_leak() {
    everywhere(&["right", "left"], |_, options| {
        let ran = victim("keep").options(options).options("leaks=on").run();
        if ran.reports.is_empty() { vec![] } else { ran.complain(vec!["nothing is lost".into()]) }
    });
}

#[test]
fn healthy_programs_lose_nothing() {
    let mut wrong = Vec::new();
    for engine in engines() {
        for program in ["work", "sizes", "thread-churn 4", "panics", "exit 7"] {
            let ran = clean(program).options(&format!("engine={engine},leaks=on")).run();
            if !ran.reports.is_empty() {
                wrong.extend(ran.complain(vec!["nothing is lost".into()]));
            }
        }
    }
    fail_on(wrong);
}
