//! Programs without a bug: silent, and with the same output as without the guard.

use crate::harness::{ENGINES, HEALTHY, PLACES, Ran, Run, clean, engines, everywhere, fail_on, victim};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Tests that take gigabytes or all processors take turns.
fn heavy() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A release build does the full number, a debug build a part: the guard is compiled like the program.
fn count(full: usize) -> usize {
    if cfg!(debug_assertions) { full / 10 } else { full }
}

/// Silent, and the same standard output as a run that guards nothing.
fn same_as_off(run: &dyn Fn() -> Run, options: &str) -> Vec<String> {
    let off = run().options("mode=off").run();
    let strict = run().options("mode=strict").options(options).run();
    let mut wrong = off.silent(0);
    wrong.extend(strict.silent(0));
    if off.stdout != strict.stdout || off.stdout.is_empty() {
        wrong.extend(strict.complain(vec![format!("without the guard it prints {:?}", off.stdout)]));
    }
    let summary = strict.summary();
    if summary["guarded"].as_u64() == Some(0) || summary["guarded"].is_null() {
        wrong.extend(strict.complain(vec!["nothing was guarded".into()]));
    }
    wrong
}

fn quiet_everywhere(arguments: &str) {
    let _turn = heavy();
    everywhere(&["right", "left", "alternate"], |_, options| same_as_off(&|| clean(arguments), options));
}

#[test]
fn what_programs_do_all_day() {
    quiet_everywhere("work");
}

#[test]
fn frees_that_wait_change_nothing() {
    let _turn = heavy();
    let mut wrong = Vec::new();
    for engine in engines() {
        for program in ["work", "sizes", "thread-churn 6", "fork 10", "exchange 2"] {
            wrong.extend(same_as_off(&|| clean(program), &format!("engine={engine},defer=200")));
        }
    }
    fail_on(wrong);
}

#[test]
fn blocks_of_every_size() {
    quiet_everywhere("sizes");
}

#[test]
fn growing_by_realloc() {
    quiet_everywhere("realloc-growth");
}

#[test]
fn growing_large_vectors_while_others_map_memory() {
    quiet_everywhere("large-growth");
}

#[test]
fn alignments_up_to_two_megabytes() {
    quiet_everywhere("over-aligned");
}

#[test]
fn values_without_a_size() {
    quiet_everywhere("zero-size");
}

#[test]
fn threads_that_inherit_blocks() {
    quiet_everywhere("thread-churn 12");
}

#[test]
fn destructors_that_allocate_at_the_end_of_a_thread() {
    quiet_everywhere("tls-destructors 100");
}

#[test]
fn panics_pass_through() {
    quiet_everywhere("panics");
}

#[test]
fn forks_while_threads_allocate() {
    quiet_everywhere("fork 40");
}

#[test]
fn forks_in_signal_handlers() {
    let _turn = heavy();
    everywhere(&["right"], |_, options| clean("fork-in-handlers 200").options(options).run().silent(0));
    fail_on(clean("fork-in-handlers 200").options("defer=50").run().silent(0));
}

#[test]
fn a_child_keeps_its_status() {
    for code in [0, 3, 100] {
        fail_on(clean(&format!("exit {code}")).run().silent(code));
    }
}

#[test]
fn what_the_guard_answers_about_healthy_blocks() {
    everywhere(&PLACES, |_, options| clean("api").options(options).run().silent(0));
}

#[test]
fn real_crates_print_the_same() {
    let _turn = heavy();
    for name in ["regex", "serde_json", "rayon", "tokio"] {
        everywhere(&PLACES, |_, options| same_as_off(&|| Run::new(HEALTHY, name), options));
    }
}

/// `FENCEPOST_TEST_SECONDS` sets how long; the full measure is 60.
#[test]
fn four_threads_free_each_others_blocks() {
    let _turn = heavy();
    let seconds: u64 =
        std::env::var("FENCEPOST_TEST_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(5);
    everywhere(&["right", "alternate"], |_, options| {
        let ran = clean(&format!("exchange {seconds}")).options(options).seconds(seconds + 60).run();
        print!("{options}: {}", ran.stderr);
        ran.silent(0)
    });
}

#[test]
fn short_threads_leave_nothing_behind() {
    let _turn = heavy();
    everywhere(&["right"], |_, options| {
        let mut wrong = Vec::new();
        // By default the records of freed blocks are kept, up to a bound; with a short quarantine nothing is.
        for (quarantine, records_kib) in [("8T", 128 << 10), ("64M", 0)] {
            let program = format!("short-threads {} {records_kib}", count(100_000));
            let ran =
                clean(&program).options(&format!("{options},quarantine={quarantine}")).seconds(600).run();
            println!("{options}: {:?}\n{}", ran.took, ran.stderr);
            wrong.extend(ran.silent(0));
        }
        wrong
    });
}

/// Bytes of memory that the machine can still give.
fn available() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|number| number.parse::<u64>().ok()).unwrap_or(0) * 1024
}

#[test]
fn a_million_live_blocks_under_marker() {
    let _turn = heavy();
    let blocks = count(1_000_000) as u64;
    if !engines().contains(&ENGINES[0]) {
        println!("skipped: engine marker does not work here");
        return;
    }
    if available() < blocks * 4096 * 2 {
        println!(
            "skipped: {} MiB of memory are free, and twice {blocks} pages are wanted",
            available() >> 20
        );
        return;
    }
    let ran = clean(&format!("live-blocks {blocks}")).options("engine=marker").seconds(300).run();
    print!("{:?}\n{}", ran.took, ran.stderr);
    let mut wrong = ran.silent(0);
    if ran.summary()["live_max"].as_u64() < Some(blocks) {
        wrong.extend(ran.complain(vec![format!(
            "no more than {} blocks were guarded at once",
            ran.summary()["live_max"]
        )]));
    }
    fail_on(wrong);
}

fn lives_past_the_mapping_limit(ran: &Ran) -> Vec<String> {
    let summary = ran.summary();
    let mut wrong = ran.silent(0);
    let (live, left) = (summary["live_max"].as_u64(), summary["unguarded"]["mapping-limit"].as_u64());
    println!("figure: {live:?} guarded at once, {left:?} left out for the limit on mappings");
    if left.is_none_or(|left| left == 0) || live < Some(10_000) {
        wrong.extend(
            ran.complain(vec!["must guard as many as there are mappings for, and count the rest".into()]),
        );
    }
    wrong
}

#[test]
fn a_hundred_thousand_live_blocks_under_mprotect() {
    let _turn = heavy();
    let limit = std::fs::read_to_string("/proc/sys/vm/max_map_count").unwrap_or_default();
    if limit.trim().parse::<u64>().is_ok_and(|limit| limit > 150_000) {
        println!("skipped: this machine allows {} mappings, which 100,000 blocks do not reach", limit.trim());
        return;
    }
    let ran = clean("many-live 100000").options("engine=mprotect,summary=off").seconds(300).run();
    fail_on(lives_past_the_mapping_limit(&ran));
    // And the summary for people says it, too.
    let ran = clean("many-live 100000").options("engine=mprotect,summary=on").seconds(300).run();
    assert!(ran.stderr.contains("mapping"), "{}", ran.stderr);
}

/// A test of the tests: a program that does report is not taken for a silent one.
#[test]
fn a_run_with_a_report_is_not_silent() {
    let ran = victim("overrun-twice").options("on_error=continue").run();
    assert!(!ran.silent(0).is_empty());
    assert!(!ran.silent(100).is_empty());
}
