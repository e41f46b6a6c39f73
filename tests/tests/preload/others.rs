//! Who else allocates in a program, and what every process leaves behind.

use std::path::Path;
use std::process::Command;

use super::{built, built_with, library, preloaded};
use crate::harness::fail_on;

#[test]
fn a_program_with_a_malloc_of_its_own_is_left_alone() {
    let Some(program) = built_with("own_malloc.c", "", &["-rdynamic"]) else { return };
    let ran = preloaded(program, "").options("summary=on").run();
    assert_eq!(ran.stdout, "served by the program's own\n");
    assert_eq!(ran.status.code(), Some(0), "{}", ran.stderr);
    assert!(
        ran.stderr.contains("nothing is guarded here: malloc is bound to an allocator of the program's own")
    );
    assert!(ran.summaries.is_empty(), "nothing was guarded, so there is nothing to sum up");
}

/// Such a program has an address for `malloc` of its own, which only leads to the library's.
#[test]
fn a_program_that_keeps_pointers_to_malloc_is_guarded() {
    let Some(program) = built_with("pointers.c", "fixed", &["-no-pie", "-fno-pie"]) else { return };
    let ran = preloaded(program, "15").run();
    assert_eq!(ran.stdout, "end\n");
    assert!(ran.summaries.iter().any(|summary| summary["guarded"].as_u64() > Some(0)), "{}", ran.stderr);
    fail_on(ran.silent(0));
    let ran = preloaded(program, "16").run();
    assert_eq!(ran.reports.len(), 1, "{}", ran.stderr);
    assert_eq!(ran.reports[0]["kind"], "heap-buffer-overflow");
}

#[test]
fn a_library_with_operators_of_its_own_mixes_the_families() {
    let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join("libmixed.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("c/mixed.cpp");
    let mut build = Command::new("c++");
    build.args(["-DLIBRARY", "-shared", "-fPIC", "-fno-builtin", "-Wl,-Bsymbolic", "-o"]);
    match build.args([&library, &source]).status() {
        Ok(status) => assert!(status.success(), "the library builds"),
        Err(error) => return println!("skipped: no C++ compiler: {error}"),
    }
    let library = library.to_str().expect("UTF-8");
    let Some(program) = built_with("mixed.cpp", "", &[library]) else { return };
    let ran = preloaded(program, "").run();
    assert_eq!(ran.stdout, "40\n");
    fail_on(ran.silent(0));
}

#[test]
fn every_process_leaves_its_account() {
    let Some(program) = built("process.c") else { return };
    let ran = preloaded(program, "execs 5").run();
    assert_eq!(ran.summaries.len(), 6, "one for each program of the process: {}", ran.stderr);
    for summary in &ran.summaries {
        // Each asks for 50 blocks and what its output takes, and nothing that the library asks for itself is in it.
        assert!(matches!(summary["total"].as_u64(), Some(50..=60)), "{summary}");
        assert_eq!(summary["total"], summary["guarded"], "{summary}");
    }
    let ran = preloaded(program, "forks 10").run();
    let total = |summary: &serde_json::Value| summary["total"].as_u64().expect("a number");
    assert_eq!(ran.summaries.len(), 11, "ten children that leave by _exit, and their parent");
    for child in &ran.summaries[..10] {
        assert!((1..=12).contains(&total(child)), "a child counts what it allocated itself: {child}");
    }
}

#[test]
fn a_program_that_asks_for_nothing_has_an_empty_account() {
    let Some(program) = built_with("nothing.c", "", &[]) else { return };
    let ran = preloaded(program, "").options("summary=on").run();
    assert_eq!(ran.summaries.len(), 1, "{}", ran.stderr);
    assert_eq!(ran.summaries[0]["total"], 0, "{}", ran.summaries[0]);
    assert!(ran.stderr.contains("nothing was guarded: no block was asked for"), "{}", ran.stderr);
}

/// A C++ program with a `malloc` of its own: a library's constructor has asked `operator new` for a block before that is seen.
#[test]
fn what_began_and_then_stood_back_says_so_and_counts() {
    let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join("libearly.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("c/early.cpp");
    let mut build = Command::new("c++");
    build.args(["-DLIBRARY", "-shared", "-fPIC", "-fno-builtin", "-o"]).args([&library, &source]);
    match build.status() {
        Ok(status) => assert!(status.success(), "the library builds"),
        Err(error) => return println!("skipped: no C++ compiler: {error}"),
    }
    let library = library.to_str().expect("UTF-8");
    let Some(program) = built_with("early.cpp", "", &["-rdynamic", library]) else { return };
    let ran = preloaded(program, "").options("summary=on").run();
    assert_eq!(
        (ran.stdout.as_str(), ran.status.code()),
        ("11 served by the program's own\n", Some(0)),
        "{}",
        ran.stderr
    );
    let said = "from here on nothing is guarded here: malloc is bound to an allocator of the program's own";
    assert!(ran.stderr.contains(said), "{}", ran.stderr);
    let summary = &ran.summaries[0];
    assert_eq!(
        (&summary["guarded"], &summary["unguarded"]["stood-back"]),
        (&1.into(), &10.into()),
        "{summary}"
    );
}

#[test]
fn the_replay_line_brings_the_error_back() {
    let Some(program) = built("cwe.c") else { return };
    let ran = preloaded(program, "cwe122_memcpy bad").options("place=right").run();
    let line = ran.reports[0]["replay"].as_str().expect("a line");
    assert!(line.starts_with("LD_PRELOAD='/"), "{line}");
    let again = Command::new("sh").args(["-c", line]).output().expect("there is a shell");
    let said = String::from_utf8_lossy(&again.stderr);
    assert!(said.contains("fencepost: ERROR: heap-buffer-overflow: write of"), "{line}\n{said}");
}

/// Its thread-local storage finds a place in a program that has begun, and two heaps are not mixed.
#[test]
fn a_library_that_is_loaded_late_or_as_an_auditor_leaves_the_program_alone() {
    let Some(program) = built("late.c") else { return };
    let mut late = Command::new(program);
    late.arg(library()).env("FENCEPOST_OPTIONS", "summary=on");
    let late = late.output().expect("the program starts");
    let said = String::from_utf8_lossy(&late.stderr);
    assert_eq!(String::from_utf8_lossy(&late.stdout), "both heaps serve\n", "{said}");
    assert_eq!(late.status.code(), Some(0), "{said}");
    assert!(said.contains("nothing is guarded here"), "{said}");
    let audited = Command::new(program).env("LD_AUDIT", library()).output().expect("the program starts");
    let said = String::from_utf8_lossy(&audited.stderr);
    assert_eq!(String::from_utf8_lossy(&audited.stdout), "both heaps serve\n", "{said}");
    assert_eq!(audited.status.code(), Some(0), "{said}");
}
