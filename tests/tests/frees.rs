//! Wrong frees, and accesses after a free.

use crate::expected::{Expected, passes_through};
use crate::harness::{PLACES, everywhere, victim};

fn dead(access: &'static str, size: u64, offset: u64) -> Expected<'static> {
    Expected {
        kind: "use-after-free",
        access,
        beside: Some(("inside", offset)),
        block: Some((size, 8)),
        state: Some("freed"),
        freed: "victim_frees",
        ..Expected::FAULT
    }
}

#[test]
fn a_freed_block_traps_at_once() {
    everywhere(&PLACES, |_, options| {
        let mut wrong = Vec::new();
        for (size, offset) in
            [(24, 0), (24, 23), (4096, 4000), (5000, 4999), (1 << 20, 123), (100 << 20, 99 << 20)]
        {
            for touch in ["read", "write"] {
                let ran = victim(&format!("use-after-free {touch} {size} {offset} 0")).options(options).run();
                wrong.extend(dead(touch, size, offset).verify(&ran));
            }
        }
        wrong
    });
}

#[test]
fn a_freed_block_still_traps_after_a_million_other_blocks() {
    everywhere(&["right"], |_, options| {
        let run = victim("use-after-free read 24 8 1000000").options(options).seconds(300);
        let ran = run.run();
        println!("figure: {options}: a million pairs in {:?}", ran.took);
        dead("read", 24, 8).verify(&ran)
    });
}

#[test]
fn a_write_to_a_block_that_waits_to_be_closed_is_found() {
    everywhere(&PLACES, |_, options| {
        let found = Expected {
            kind: "write-after-free",
            access: "none",
            block: Some((24, 8)),
            beside: Some(("inside", 5)),
            signal: libc::SIGABRT,
            ..dead("none", 24, 5)
        };
        let options = format!("{options},defer=64");
        let ran = victim("write-after-free 24 5 100").options(&options).run();
        let mut wrong = Expected { fault: "victim_frees", ..found }.verify(&ran);
        // At the end of the process, found where it ends.
        let ran = victim("write-after-free 24 5 0").options(&options).run();
        let [report] = &ran.reports[..] else { return ran.complain(vec!["one report".into()]) };
        if report["kind"] != "write-after-free" || report["block"]["distance"] != 5 {
            wrong.extend(ran.complain(vec![format!("at exit: {report}")]));
        }
        // Without the option the write itself traps.
        let ran = victim("write-after-free 24 5 100").options(&options.replace("defer=64", "defer=0")).run();
        wrong.extend(dead("write", 24, 5).verify(&ran));
        wrong
    });
}

#[test]
fn the_old_place_of_a_resized_block_is_dead() {
    everywhere(&PLACES, |_, options| {
        let ran = victim("use-after-realloc").options(options).run();
        Expected { freed: "victim_resizes", ..dead("read", 24, 3) }.verify(&ran)
    });
}

#[test]
fn the_old_place_of_a_block_whose_pages_moved_is_dead() {
    everywhere(&PLACES, |_, options| {
        let mut wrong = Vec::new();
        for (old, new) in [(409_600, 819_200), (409_600, 204_800), (409_600, 409_700)] {
            for denied in ["", "mremap"] {
                let words = format!("use-after-growth {old} {new} 200000");
                let ran = victim(&words).options(options).environment("FENCEPOST_DENY", denied).run();
                wrong.extend(
                    Expected { freed: "victim_resizes_large", ..dead("read", old, 200_000) }.verify(&ran),
                );
            }
        }
        wrong
    });
}

#[test]
fn calling_into_a_freed_block() {
    everywhere(&["right"], |_, options| {
        let ran = victim("execute-freed").options(options).run();
        let wanted = Expected { block: Some((64, 16)), fault: "victim_calls", ..dead("execute", 64, 0) };
        // The innermost frame is the address that was called, which has no name: look past it.
        let complaints = ran.reports.iter().flat_map(|report| wanted.verify_report(report));
        let mut wrong: Vec<String> = complaints.filter(|line| !line.starts_with("fault stack")).collect();
        if ran.reports.len() != 1
            || !ran.reports.iter().all(|report| passes_through(&report["fault"], "victim_calls"))
        {
            wrong.push("one report, whose stack shows who called".into());
        }
        ran.complain(wrong)
    });
}

fn freed_twice() -> Expected<'static> {
    Expected {
        kind: "double-free",
        access: "free",
        fault: "victim_frees_again",
        signal: libc::SIGABRT,
        ..dead("free", 24, 0)
    }
}

#[test]
fn double_free_on_one_thread() {
    everywhere(&PLACES, |_, options| freed_twice().verify(&victim("double-free").options(options).run()));
}

#[test]
fn double_free_on_two_threads_names_all_three() {
    everywhere(&PLACES, |_, options| {
        let ran = victim("double-free-threads").options(options).run();
        let mut wrong = freed_twice().verify(&ran);
        for report in &ran.reports {
            let threads = [&report["block"]["allocated"], &report["block"]["freed"], &report["fault"]]
                .map(|stack| stack["thread"]["name"].as_str().unwrap_or("unknown"));
            if threads[1..] != ["first", "second"] || threads[0] != "victim" && threads[0] != "main" {
                wrong.push(format!("threads {threads:?}"));
            }
        }
        wrong
    });
}

#[test]
fn resizing_a_freed_block() {
    everywhere(&PLACES, |_, options| {
        let ran = victim("realloc-stale").options(options).run();
        Expected { access: "realloc", fault: "victim_resizes", ..freed_twice() }.verify(&ran)
    });
}

#[test]
fn a_layout_that_is_not_the_blocks() {
    everywhere(&["right"], |_, options| {
        let mut wrong = Vec::new();
        for (how, access) in [("dealloc", "free"), ("realloc", "realloc")] {
            for (size, align) in [(16, 8), (25, 8), (24, 4), (24, 16), (4096, 1)] {
                let ran = victim(&format!("layout-mismatch {how} {size} {align}")).options(options).run();
                let expected = Expected {
                    kind: "layout-mismatch",
                    access,
                    block: Some((24, 8)),
                    fault: "victim_mismatches",
                    ..Expected::FOUND
                };
                wrong.extend(expected.verify(&ran));
                let said = format!("as size {size}, align {align}, allocated as size 24, align 8");
                if !ran.headlines().iter().all(|line| line.ends_with(&said)) {
                    wrong.extend(ran.complain(vec![format!("the first line must end in {said:?}")]));
                }
            }
        }
        wrong
    });
}
