//! What the options change, and what is said about those that are wrong.

use crate::expected::{Expected, headline};
use crate::harness::{Ran, clean, engines, everywhere, fail_on, victim};
use std::process::Command;

/// Complains unless `good`.
fn unless(good: bool, what: &str) -> Vec<String> {
    if good { vec![] } else { vec![what.to_owned()] }
}

fn overrun_report(ran: &Ran) -> Vec<String> {
    let expected = Expected {
        kind: "heap-buffer-overflow",
        access: "write",
        beside: Some(("after", 0)),
        block: Some((24, 1)),
        ..Expected::FAULT
    };
    match &ran.reports[..] {
        [report] => expected.verify_report(report),
        reports => vec![format!("{} reports", reports.len())],
    }
}

#[test]
fn on_error_exit_ends_with_the_status_that_was_asked_for() {
    everywhere(&["right"], |_, options| {
        let mut wrong = Vec::new();
        for (extra, code) in [("on_error=exit", 100), ("on_error=exit,exitcode=7", 7)] {
            let ran = victim("overrun write end 24 1").options(options).options(extra).run();
            let mut here = overrun_report(&ran);
            here.extend(unless(ran.status.code() == Some(code), &format!("must end with status {code}")));
            here.extend(unless(ran.stdout == "armed\n", "must not go on"));
            wrong.extend(ran.complain(here));
        }
        wrong
    });
}

#[test]
fn on_error_continue_reports_each_error_once_and_says_so_at_the_end() {
    everywhere(&["right"], |_, options| {
        let mut wrong = Vec::new();
        for (extra, code) in [("on_error=continue", 100), ("on_error=continue,exitcode=9", 9)] {
            let ran = victim("overrun-twice").options(options).options(extra).run();
            let mut here = unless(ran.status.code() == Some(code), &format!("must end with status {code}"));
            here.extend(unless(
                ran.stdout == "armed\ndrained 2\nsurvived\n",
                "must go on, and hand out two reports",
            ));
            let said: Vec<String> = ran.reports.iter().map(headline).collect();
            here.extend(unless(ran.headlines() == said, "each report must be in the text, too"));
            let blocks: Vec<_> = ran.reports.iter().map(|report| report["block"]["size"].as_u64()).collect();
            here.extend(unless(blocks == [Some(24), Some(40)], &format!("blocks of {blocks:?} bytes")));
            wrong.extend(ran.complain(here));
        }
        wrong
    });
}

#[test]
fn a_wrong_option_is_one_clear_line_and_changes_nothing_else() {
    let mut wrong = Vec::new();
    for (option, words) in [
        ("plaec=left", &["plaec", "left", "did you mean", "place"][..]),
        ("place=rigth", &["place", "rigth", "right", "left", "alternate"]),
        ("stack_depth=many", &["stack_depth", "many", "0", "128"]),
        ("exitcode=256", &["exitcode", "256", "255"]),
        ("engine=teleport", &["engine", "teleport", "marker", "mprotect"]),
        ("nonsense", &["nonsense", "="]),
    ] {
        let ran = clean("work").options(option).run();
        let mut here = unless(ran.status.code() == Some(0), "must go on");
        let lines: Vec<&str> = ran.stderr.lines().collect();
        match lines[..] {
            [line] => {
                here.extend(unless(line.starts_with("fencepost: "), "the line must say who speaks"));
                let missing = words.iter().filter(|word| !line.contains(*word));
                here.extend(missing.map(|word| format!("the line must hold {word:?}")));
            }
            _ => here.push(format!("{} lines", lines.len())),
        }
        wrong.extend(ran.complain(here));

        let ran = victim("overrun write end 24 1").options(option).run();
        wrong.extend(ran.complain(overrun_report(&ran)));
    }
    fail_on(wrong);
}

#[test]
fn help_prints_every_key_and_the_program_runs() {
    let ran = clean("work").options("help=1,place=left").run();
    let keys =
        ["mode", "engine", "place", "quarantine", "on_error", "report", "symbolize", "max_memory", "seed"];
    let mut wrong =
        unless(ran.status.code() == Some(0) && ran.stdout.contains("words"), "must run the program");
    let table = |key: &&&str| !ran.stderr.lines().any(|line| line.trim_start().starts_with(**key));
    wrong.extend(keys.iter().filter(table).map(|key| format!("no line for {key}")));
    fail_on(ran.complain(wrong));
}

#[test]
fn paths_hold_the_process_number() {
    let ran = victim("overrun write end 24 1").options("log={dir}/log-%p").run();
    let log = std::fs::read_to_string(ran.folder.0.join(format!("log-{}", ran.pid))).unwrap_or_default();
    let mut wrong = unless(ran.stderr.is_empty(), "the text goes to the log, not to standard error");
    wrong.extend(unless(
        log.starts_with("fencepost: ERROR: heap-buffer-overflow: "),
        "the log must hold the report",
    ));
    wrong.extend(overrun_report(&ran));
    fail_on(ran.complain(wrong));
}

#[test]
fn the_summary_tells_what_was_guarded() {
    let mut wrong = Vec::new();
    for engine in engines() {
        let ran = clean("work").options(&format!("engine={engine},summary=on")).run();
        let summary = ran.summary();
        let mut here = unless(summary["guarded"].as_u64() > Some(1000), "a thousand blocks must be guarded");
        here.extend(unless(summary["engine"] == *engine, "the engine must be named"));
        here.extend(unless(summary["percent"].as_f64() > Some(99.0), "nearly all blocks must be guarded"));
        here.extend(unless(
            ran.stderr.contains(engine) && ran.stderr.contains("guarded"),
            "the text must say so",
        ));
        wrong.extend(ran.complain(here));
        let quiet = clean("work").options(&format!("engine={engine}")).run();
        wrong.extend(quiet.silent(0));
    }
    fail_on(wrong);
}

#[test]
fn what_is_not_guarded_is_counted_with_its_reason() {
    let mut wrong = Vec::new();
    for (options, reason, at_least) in [
        ("mode=off", "mode-off", 0.99),
        ("mode=sample,sample_rate=100", "sample", 0.95),
        ("mode=budget,budget=1", "budget", 0.0),
        ("only_size=100000-200000", "filter", 0.9),
        ("skip_size=1-64", "filter", 0.1),
    ] {
        let ran = clean("work").options(options).run();
        let summary = ran.summary();
        let number = |value: &serde_json::Value| value.as_f64().unwrap_or(0.0);
        let (total, unguarded) = (number(&summary["total"]), number(&summary["unguarded"][reason]));
        let mut here = unless(
            total > 0.0 && unguarded / total >= at_least,
            &format!("{unguarded} of {total}: {reason}"),
        );
        let all: f64 = summary["unguarded"].as_object().map_or(0.0, |map| map.values().map(number).sum());
        here.extend(unless(
            number(&summary["guarded"]) + all == total,
            "guarded and unguarded must make up the total",
        ));
        here.extend(ran.silent(0));
        wrong.extend(ran.complain(here));
    }
    fail_on(wrong);
}

#[test]
fn mode_off_lets_the_bug_pass() {
    let ran = victim("overrun write end 24 16").options("mode=off").run();
    fail_on(ran.silent(0));
}

#[test]
fn what_a_program_does_first_is_guarded_within_a_budget() {
    let mut wrong = Vec::new();
    for arguments in ["overrun write end 24 1", "use-after-free read 24 8 0"] {
        let ran = victim(arguments).options("mode=budget").run();
        let died = ran.died_by(libc::SIGSEGV) && ran.reports.len() == 1;
        wrong.extend(ran.complain(unless(died, "must be caught")));
    }
    let ran = clean("work").options("mode=budget,summary=on").run();
    let number = |key: &str| ran.summary()[key].as_f64().unwrap_or(0.0);
    let mut here = unless(number("contexts") >= 10.0, "contexts must be told apart");
    here.extend(unless(
        number("contexts_guarded") >= 0.9 * number("contexts"),
        "nearly every context must have had a guarded block",
    ));
    here.extend(unless(ran.stderr.contains(" calling contexts ("), "the text must say so"));
    wrong.extend(ran.complain(here));
    fail_on(wrong);
}

#[test]
fn a_sampled_block_is_caught_and_others_are_not() {
    let caught = (0..40)
        .filter(|seed| {
            let options = format!("mode=sample,sample_rate=4,seed={seed}");
            let ran = victim("overrun read end 24 1").options(&options).run();
            if ran.reports.is_empty() {
                assert_eq!(ran.stdout, "armed\nsurvived\n", "{}", ran.stderr);
            } else {
                fail_on(ran.complain(unless(ran.died_by(libc::SIGSEGV), "must die")));
            }
            !ran.reports.is_empty()
        })
        .count();
    // Of 40 draws at one in four, none or all has a chance of 1 in 100,000 and less.
    assert!((1..40).contains(&caught), "{caught} of 40");
}

#[test]
fn filters_by_function_module_and_thread_choose_real_blocks() {
    let mut wrong = Vec::new();
    for (options, caught) in [
        ("only_fn=*victim_allocates", true),
        ("skip_fn=*victim_allocates", false),
        ("only_fn=*nobody_is_called_so", false),
        ("only_module=victim", true),
        ("skip_module=vic*", false),
        ("only_thread=main", true),
        ("skip_thread='main,x'", false),
    ] {
        let ran = victim("overrun write end 24 1").options(options).run();
        wrong.extend(ran.complain(unless(
            ran.reports.len() == usize::from(caught),
            &format!("{options}: {} reports", ran.reports.len()),
        )));
    }
    fail_on(wrong);
}

#[test]
fn the_printed_site_guards_its_blocks_alone() {
    let ran = victim("overrun write end 24 1").run();
    let report = ran.reports.first().expect("it is caught");
    let site = report["block"]["site"].as_str().expect("the site is told").to_owned();
    let line = report["only_site"].as_str().expect("the line is told").to_owned();
    assert!(ran.stderr.contains(&format!("only this site: {line}")), "the text must hold {line}");
    let output = Command::new("sh").arg("-c").arg(&line).output().expect("a shell");
    let again = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(again.contains("fencepost: ERROR: heap-buffer-overflow: "), "{line}\n{again}");
    assert!(again.contains(&format!("only_site={site}")), "another run has the same site:\n{again}");
    let ran = victim("overrun write end 24 1").options(&format!("skip_site={site}")).run();
    fail_on(ran.silent(0));
}

#[test]
fn a_run_that_found_nothing_says_how_to_guard_the_sites_that_it_says_least_about() {
    // One block of very many is misused: a run that leaves most out hardly finds it, and the next one surely.
    for (options, blocks) in [("mode=budget,budget=1", 400_000), ("mode=sample,sample_rate=1000", 20_000)] {
        let arguments = format!("overrun-once {blocks} {}", blocks / 4 * 3);
        let found_nothing = |seed: u32| {
            let ran = victim(&arguments).options(&format!("{options},summary=on,seed={seed}")).run();
            ran.reports.is_empty().then_some(ran)
        };
        let ran = (1..10).find_map(found_nothing).expect("one of these runs does not guard that block");
        fail_on(ran.complain(unless(ran.status.success(), "it goes through")));
        let [told] = ran.sites.as_slice() else { panic!("one line of sites: {:?}", ran.sites) };
        let line = told["only_site"].as_str().expect("the line is told");
        assert!(ran.stderr.contains(line), "the text must hold {line}:\n{}", ran.stderr);
        let sites = told["sites"].as_array().expect("a list");
        let calls = |site: &serde_json::Value| site["calls"].to_string();
        let place = sites.iter().position(|site| calls(site).contains("victim_allocates"));
        assert!(place.is_some_and(|place| place < 8), "it must be among the first: {sites:?}");
        let output = Command::new("sh").arg("-c").arg(line).output().expect("a shell");
        let again = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(again.contains("fencepost: ERROR: heap-buffer-overflow: "), "{line}\n{again}");
    }
    let ran = victim("overrun read end 24 1").options("mode=off").run();
    assert!(ran.sites.is_empty(), "with nothing left out by chance there is nothing to say: {:?}", ran.sites);
}

#[test]
fn the_replay_line_repeats_the_report() {
    let ran = victim("overrun write end 24 1").options("place=alternate").run();
    let line = ran.reports.first().and_then(|report| report["replay"].as_str()).unwrap_or("false").to_owned();
    assert!(ran.stderr.lines().any(|text| text.contains(&line)), "the text must hold {line}\n{}", ran.stderr);
    let output = Command::new("sh").arg("-c").arg(&line).output().expect("a shell");
    let again = String::from_utf8_lossy(&output.stderr).into_owned();
    let said = again.lines().find(|line| line.starts_with("fencepost: ERROR: ")).unwrap_or("nothing");
    let kind = ran.reports[0]["kind"].as_str().unwrap_or("?");
    assert!(said.starts_with(&format!("fencepost: ERROR: {kind}: ")), "{line}\n{said}");
}

#[test]
fn fingerprints_stay_and_differ() {
    let of = |arguments: &str| {
        let ran = victim(arguments).run();
        ran.reports.first().map(|report| report["fingerprint"].clone())
    };
    let first = of("overrun write end 24 1");
    assert!(first.is_some());
    assert_eq!(first, of("overrun write end 24 1"), "the same bug in two runs");
    assert_ne!(first, of("use-after-free read 24 8 0"), "another bug");
}
