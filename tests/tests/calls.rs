//! Stacks with C in them, faults on two threads at once, children, and core files.

use crate::expected::{Expected, functions, headline, passes_through};
use crate::harness::{VICTIM, everywhere, fail_on, victim};
use std::process::Command;

const OVERRUN: Expected<'static> = Expected { kind: "heap-buffer-overflow", ..Expected::FAULT };

#[test]
fn a_fault_in_c_shows_who_called_it() {
    everywhere(&["right"], |_, options| {
        let ran = victim("memcpy").options(options).run();
        let mut wrong = Vec::new();
        let [report] = &ran.reports[..] else {
            return ran.complain(vec![format!("{} reports", ran.reports.len())]);
        };
        let expected = Expected { access: "read", block: Some((1000, 1)), ..OVERRUN };
        // The innermost frame is the C library's.
        wrong.extend(
            expected.verify_report(report).into_iter().filter(|line| !line.starts_with("fault stack")),
        );
        if !passes_through(&report["fault"], "victim_copies")
            || !passes_through(&report["fault"], "memcpy_overrun")
        {
            wrong.push(format!(
                "the stack must lead through memcpy to its callers: {:?}",
                functions(&report["fault"])
            ));
        }
        if !ran.died_by(libc::SIGSEGV) {
            wrong.push(ran.ending());
        }
        ran.complain(wrong)
    });
}

#[test]
fn stacks_lead_through_c_to_rust() {
    everywhere(&["right"], |_, options| {
        let ran = victim("qsort").options(options).run();
        let mut wrong =
            Expected { access: "read", beside: Some(("after", 0)), block: Some((24, 1)), ..OVERRUN }
                .verify(&ran);
        for report in &ran.reports {
            for stack in [&report["fault"], &report["block"]["allocated"]] {
                for name in ["victim_compares", "victim_sorts", "qsort_overrun"] {
                    if !passes_through(stack, name) {
                        wrong.push(format!("{options}: no {name} in {:?}", functions(stack)));
                    }
                }
            }
        }
        wrong
    });
}

/// The second may be reported too, or be cut off by the death of the first; neither may garble the other.
#[test]
fn two_threads_that_fault_at_once() {
    everywhere(&["right"], |_, options| {
        let mut wrong = Vec::new();
        for _ in 0..10 {
            let ran = victim("two-threads").options(options).run();
            let mut here = Vec::new();
            if !ran.died_by(libc::SIGSEGV) {
                here.push(ran.ending());
            }
            if !(1..=2).contains(&ran.reports.len()) || ran.headlines().len() > ran.reports.len() {
                here.push(format!("{} reports, {} texts", ran.reports.len(), ran.headlines().len()));
            }
            for report in &ran.reports {
                let size = report["block"]["size"].as_u64().unwrap_or_default();
                if size != 100 && size != 200 {
                    here.push(format!("a block of {size} bytes"));
                }
                let expected = Expected {
                    access: "write",
                    beside: Some(("after", 0)),
                    block: Some((size, 1)),
                    ..OVERRUN
                };
                // The one that came second may have been cut short before its names were known.
                let unnamed = report["fault"]["frames"][0]["function"].is_null();
                let complaints = expected.verify_report(report).into_iter();
                here.extend(complaints.filter(|line| !(unnamed && line.contains(" stack begins "))));
            }
            wrong.extend(ran.complain(here));
        }
        wrong
    });
}

#[test]
fn a_forked_child_is_guarded_and_reports_under_its_own_number() {
    everywhere(&["right"], |_, options| {
        let ran = victim("fork").options(options).run();
        let [report] = &ran.reports[..] else {
            return ran.complain(vec![format!("{} reports", ran.reports.len())]);
        };
        let expected =
            Expected { access: "write", beside: Some(("after", 0)), block: Some((40, 1)), ..OVERRUN };
        let mut wrong = expected.verify_report(report);
        let child = report["process"]["pid"].as_u64().unwrap_or_default();
        let signal = if options.contains("engine=move") { libc::SIGBUS } else { libc::SIGSEGV };
        if ran.stdout != format!("armed\nchild {child} ended by signal {signal}\nsurvived\n") {
            wrong.push("the child must die by its fault, and the parent live".into());
        }
        if ran.headlines() != [headline(report)] || ran.status.code() != Some(0) {
            wrong.push(ran.ending());
        }
        ran.complain(wrong)
    });
}

#[test]
fn a_core_file_shows_the_true_place_and_stays_small() {
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    if pattern.contains('|') || pattern.contains('/') || pattern.trim().is_empty() {
        println!("skipped: core files go elsewhere: {}", pattern.trim());
        return;
    }
    if Command::new("gdb").arg("--version").output().is_err() {
        println!("skipped: gdb is not installed");
        return;
    }
    let mut wrong = Vec::new();
    for engine in crate::harness::engines() {
        let run = victim("overrun write end 24 1").options(&format!("engine={engine}"));
        let ran = run.limit(libc::RLIMIT_CORE, libc::RLIM_INFINITY).run();
        let files: Vec<_> = std::fs::read_dir(&ran.folder.0).expect("the run's folder").flatten().collect();
        let Some(core) = files.iter().find(|file| file.file_name().to_string_lossy().starts_with("core"))
        else {
            println!("skipped: {engine}: no core file was written (ended {})", ran.ending());
            continue;
        };
        let bytes = std::os::unix::fs::MetadataExt::blocks(&core.metadata().expect("a file")) * 512;
        println!("figure: {engine}: a core file of {bytes} bytes in {:?}", ran.took);
        if bytes > 256 << 20 {
            wrong.push(format!("{engine}: a core file of {bytes} bytes"));
        }
        let gdb =
            Command::new("gdb").args(["-nx", "-batch", "-ex", "bt 8", VICTIM]).arg(core.path()).output();
        let text = String::from_utf8_lossy(&gdb.expect("gdb runs").stdout).into_owned();
        // In a debug build the volatile write is a function of std's, and gdb shows it even where it was inlined.
        let own = text.lines().find(|line| line.starts_with('#') && !line.contains("core::ptr::"));
        if !own.is_some_and(|frame| frame.contains("victim_touches")) {
            wrong.push(format!("{engine}: the core's stack is\n{text}"));
        }
    }
    fail_on(wrong);
}
