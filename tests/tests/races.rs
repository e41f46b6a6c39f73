//! Sealing, watching and tripwires, with and without protection keys.

use crate::expected::{functions, passes_through};
use crate::harness::{Ran, everywhere, fail_on, victim};

/// Complains unless a run ends with a status, prints just that, and reports so many errors of a kind.
fn ends(ran: &Ran, code: i32, stdout: &str, kind: &str, errors: usize) -> Vec<String> {
    let mut wrong = Vec::new();
    if ran.status.code() != Some(code) {
        wrong.push(format!("{}, not with status {code}", ran.ending()));
    }
    if ran.stdout != stdout {
        wrong.push(format!("prints {:?}, not {stdout:?}", ran.stdout));
    }
    if ran.reports.len() != errors || ran.reports.iter().any(|report| report["kind"] != kind) {
        let kinds: Vec<_> = ran.reports.iter().map(|report| report["kind"].to_string()).collect();
        wrong.push(format!("reports {kinds:?}, not {errors} of {kind}"));
    }
    ran.complain(wrong)
}

#[test]
fn stray_writes_of_two_threads_at_once_are_caught() {
    for without in ["", "keys"] {
        let ran = victim("race stray 2000")
            .options("on_error=continue,summary=on")
            .environment("FENCEPOST_DENY", without)
            .run();
        let caught = ran.stdout.lines().find_map(|line| line.strip_prefix("caught ")).unwrap_or_default();
        let number: u64 = caught.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or_default();
        let alone = ran.reports.iter().any(|report| report["notes"].to_string().contains("thread alone"));
        println!("{caught} stray writes caught, {} protection keys", if alone { "with" } else { "without" });
        let mut wrong = Vec::new();
        if number == 0 || (alone && number != 4000) {
            wrong.push(format!("{number} of 4000 stray writes"));
        }
        if !ran.stdout.ends_with("last 207 207\nsurvived\n") || ran.status.code() != Some(100) {
            wrong.push(format!("the writes must have their effect: {:?}, {}", ran.stdout, ran.ending()));
        }
        if ran.reports.iter().any(|report| !passes_through(&report["fault"], "victim_strays")) {
            wrong.push("the writer must be named".into());
        }
        let summary = ran.summary();
        let told = summary["reports"].as_u64().unwrap_or(0) + summary["reports_lost"].as_u64().unwrap_or(0);
        if told != number {
            wrong.push(format!("{told} told or counted"));
        }
        fail_on(ran.complain(wrong));
    }
}

#[test]
fn the_thread_that_writes_to_a_shared_configuration_is_named() {
    everywhere(&["right", "left"], |_, options| {
        let ran = victim("race config").options(options).options("on_error=continue").run();
        let stdout = "armed\nviolations 1 sum 9600000 timeout 5000\nsurvived\n";
        let mut wrong = ends(&ran, 100, stdout, "seal-violation", 1);
        if let [report] = &ran.reports[..] {
            let seal = &report["seal"];
            let facts = [
                ("writer", report["fault"]["thread"]["name"] == "reader-5"),
                (
                    "function",
                    functions(&report["fault"])
                        .first()
                        .is_some_and(|name| name.ends_with("victim_changes_a_field")),
                ),
                ("old bytes", seal["old"] == "e803000000000000"),
                ("new bytes", seal["new"] == "8813000000000000"),
                (
                    "sealer",
                    seal["sealer"]["thread"]["name"] == "main" && passes_through(&seal["sealer"], "config"),
                ),
                ("allocation", passes_through(&report["block"]["allocated"], "config")),
                (
                    "offset",
                    ran.stderr.contains(
                        "at offset 48: e8 03 00 00 00 00 00 00 before, 88 13 00 00 00 00 00 00 after",
                    ),
                ),
            ];
            for (fact, _) in facts.iter().filter(|(_, right)| !right) {
                wrong.extend(ran.complain(vec![format!("{fact} is wrong in {seal}")]));
            }
        }
        wrong
    });
}

#[test]
fn what_lies_beside_sealed_bytes_is_written_to_in_silence() {
    everywhere(&["right"], |_, options| {
        let run =
            |what: &str| victim(&format!("race {what}")).options(options).options("on_error=continue").run();
        let counts = "armed\ncounted 101\ncounted 1 violations 0\nsurvived\n";
        let mut wrong = ends(&run("arc"), 0, counts, "", 0);
        let part = "armed\nsilent true\nviolations 1\nwritten 1743\nsurvived\n";
        wrong.extend(ends(&run("part"), 100, part, "seal-violation", 1));
        let readers = "armed\nsums true\nviolations 0\nsurvived\n";
        wrong.extend(ends(&run("readers"), 0, readers, "", 0));
        wrong
    });
}

#[test]
fn a_sealed_value_is_changed_by_its_owner_only() {
    everywhere(&["right"], |_, options| {
        let run =
            |what: &str| victim(&format!("race {what}")).options(options).options("on_error=continue").run();
        let mut wrong = ends(&run("sealed"), 100, "sum 24\narmed\nsum 32\nsurvived\n", "seal-violation", 1);
        wrong.extend(ends(
            &run("sealed-panic"),
            100,
            "armed\nkept Sealed([1])\nsurvived\n",
            "seal-violation",
            1,
        ));
        let ran = victim("race sealed").options(options).run();
        if ran.stdout != "sum 24\narmed\n" || ran.reports.len() != 1 {
            wrong.extend(ran.complain(vec!["must die of it by default".into()]));
        }
        wrong
    });
}

/// What `race key` prints, with protection keys and without.
fn keyed_prints(alone: bool, calls: &str) -> String {
    let (caught, set_right) = if alone { (1, 5) } else { (0, 0) };
    format!(
        "armed\nalone {alone} calls {calls}\nwhile open caught {caught} written 5\nhandler read 1000 and 1000\n\
         older read 1000\nborn inside caught 1 written 6\nnested caught 2\nkernel read Some(16) wrote Some(64)\n\
         child 9 caught 1\nparent 1\nsealed true set right {set_right}\nsurvived\n"
    )
}

/// A thousand changes: no system call with keys, else a pair each. `scripts/with-keys` runs the same where there are keys.
#[test]
fn a_sealed_value_opens_to_one_thread_where_there_are_keys() {
    for without in ["", "keys"] {
        let ran =
            victim("race key").options("on_error=continue").environment("FENCEPOST_DENY", without).run();
        let alone = ran.stdout.contains("\nalone true ");
        let calls =
            ran.stdout.split("calls ").nth(1).and_then(|rest| rest.lines().next()).unwrap_or_default();
        println!(
            "a thousand changes take {calls} memory calls, {} keys",
            if alone { "with" } else { "without" }
        );
        let mut wrong =
            ends(&ran, 100, &keyed_prints(alone, calls), "seal-violation", if alone { 5 } else { 4 });
        let number: u64 = calls.parse().unwrap_or(u64::MAX);
        let right = if alone { number == 0 } else { (2000..2100).contains(&number) };
        if !right || (alone && without == "keys") {
            wrong.extend(ran.complain(vec!["so many calls are not right".into()]));
        }
        fail_on(wrong);
    }
}

#[test]
fn a_watch_notes_every_write() {
    for without in ["", "keys"] {
        let ran = victim("race watch").environment("FENCEPOST_DENY", without).run();
        let bytes = |first: u8| format!("[{first}, 0, 0, 0, 0, 0, 0, 0]");
        let stdout = format!(
            "armed\n{} -> {} by counter with 3 frames\n{} -> {} by main with 3 frames\ncount 3 lost 0\nvalues [10, 42, 11, 10]\nsurvived\n",
            bytes(10),
            bytes(11),
            bytes(11),
            bytes(42)
        );
        fail_on(ends(&ran, 0, &stdout, "", 0));
    }
}

#[test]
fn an_audit_lists_the_pages_that_were_written() {
    everywhere(&["right"], |_, options| {
        let page = |number| format!("page {number} of block Some(16384): 1 writes, unseen false\n");
        let stdout = format!("armed\n{}{}result 7 lost 0\nsurvived\n", page(1), page(2));
        ends(&victim("race audit").options(options).run(), 0, &stdout, "", 0)
    });
}

#[test]
fn a_tripwire_tells_once_and_can_be_set_again() {
    everywhere(&["right"], |_, options| {
        let ran = victim("race tripwire").options(options).run();
        let stdout = "tripped false\narmed\nread 0x5a tripped true\nagain true\nsurvived\n";
        let mut wrong = ends(&ran, 0, stdout, "tripwire", 2);
        let ran = victim("race alarm").options(options).run();
        wrong.extend(ends(&ran, 0, "armed\nalarm true\nsurvived\n", "tripwire", 1));
        wrong
    });
}
