//! Who holds memory closed, what a watch hands out, and system calls under `export_libc!`.

use crate::harness::{Ran, Run, everywhere, fail_on, victim};

fn prints(ran: &Ran, stdout: &str, reports: usize) -> Vec<String> {
    let mut wrong = Vec::new();
    let code = if reports == 0 { 0 } else { 100 };
    if ran.stdout != stdout || ran.status.code() != Some(code) {
        wrong.push(format!("{}, prints {:?}, not {stdout:?}", ran.ending(), ran.stdout));
    }
    if ran.reports.len() != reports {
        wrong.push(format!("{} reports, not {reports}", ran.reports.len()));
    }
    ran.complain(wrong)
}

/// The same line writes each time: every block's error is written once, and the rest is counted.
#[test]
fn seals_nest_overlap_and_are_dropped_by_any_thread() {
    everywhere(&["right", "left"], |_, options| {
        let ran = victim("race held").options(options).options("on_error=continue").run();
        let stdout = "armed\nfour kinds [1, 1, 1, 1]\nopen again [0, 0, 0, 0]\nall three [1, 1, 1]\n\
                      without the whole [1, 1, 0]\nthe middle alone [0, 1, 0]\nnone [0, 0, 0]\nsurvived\n";
        prints(&ran, stdout, ran.reports.len().max(4))
    });
}

#[test]
fn a_watch_hands_out_what_was_asked_for_and_counts_what_it_lost() {
    for without in ["", "keys"] {
        let ran = victim("race filters").environment("FENCEPOST_DENY", without).run();
        // Of 4,500 notes of the three watches 4,096 are kept.
        let lines: Vec<&str> = ran.stdout.lines().collect();
        let mut wrong = Vec::new();
        if lines.get(1) != Some(&"all 3 changes 1 named 1") {
            wrong.push(format!("the filters are not right: {lines:?}"));
        }
        let numbers: Vec<u64> = lines
            .get(2)
            .into_iter()
            .flat_map(|line| line.split(' '))
            .filter_map(|word| word.parse().ok())
            .collect();
        let [noted, lost, counted] = numbers[..] else { panic!("{lines:?}") };
        if !(1365..=1366).contains(&noted) || lost != 4500 - 4096 || counted != 1503 {
            wrong.push(format!("{noted} noted, {lost} lost, {counted} counted"));
        }
        fail_on(ran.complain(wrong));
    }
}

#[test]
fn a_violation_says_when_and_by_whom_the_memory_was_sealed() {
    let ran = victim("race config").options("on_error=continue").run();
    let said = regex::Regex::new(r"sealed \d+ (ms|s|min) before by thread \d+ 'main'").expect("a pattern");
    let wrong = if said.is_match(&ran.stderr) { vec![] } else { vec!["no time of the seal".into()] };
    fail_on(ran.complain(wrong));
}

const EXPORTED: &str = env!("CARGO_BIN_EXE_exported");

#[test]
fn system_calls_are_looked_at_where_the_program_exports_the_c_library() {
    const COVERED: &str = "system calls: covered where they go through functions of the C library";
    for without in ["", "keys"] {
        let mut wrong = Vec::new();
        for (what, kind, stdout) in [
            ("seal", "seal-violation", format!("read 8 violations 1\n{COVERED}\nfirst 97\n")),
            ("tripwire", "tripwire", format!("read 8 tripped true\n{COVERED}\nfirst 97\n")),
            ("watch", "", format!("read 8 noted 1\n{COVERED}\nfirst 97\n")),
            (
                "value",
                "seal-violation",
                "read 8 [97, 98] violations 0\nread 8 violations 1\nfirst 0\n".into(),
            ),
            ("lock", "", "waited true sum 150 noted true\nfirst 0\n".into()),
        ] {
            let ran = Run::new(EXPORTED, what)
                .options("on_error=continue")
                .environment("FENCEPOST_DENY", without)
                .run();
            wrong.extend(prints(&ran, &stdout, usize::from(!kind.is_empty())));
            if ran.reports.iter().any(|report| report["kind"] != kind) {
                wrong.extend(ran.complain(vec![format!("not a {kind}")]));
            }
        }
        fail_on(wrong);
    }
}
