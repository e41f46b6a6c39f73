//! `tests/c/cwe.c` and `cwe.cpp`: every class of heap error that page guards can see, and twins without it.

use serde_json::Value;

use super::{built, preloaded};
use crate::expected::functions;
use crate::harness::{Ran, everywhere, fail_on};

/// What has to be found, by placement.
#[derive(Clone, Copy)]
enum Found {
    /// A kind and an access, wherever the block lies.
    Always(&'static str, &'static str),
    /// What lies past the end: at the access with `place=right`, at free with `place=left`.
    PastEnd,
    /// What lies before the start: the other way round.
    BeforeStart,
    /// In the slack of alignment, or where nothing is freed: by a check.
    ByCheck,
    /// A read past the end: `place=left` has no trace of it.
    ReadPastEnd,
    /// A read before the start: `place=right` has no trace of it.
    ReadBeforeStart,
}

use Found::{Always, BeforeStart, ByCheck, PastEnd, ReadBeforeStart, ReadPastEnd};

const C: &[(&str, Found)] = &[
    ("cwe122_loop", PastEnd),
    ("cwe122_memcpy", PastEnd),
    ("cwe122_strcpy", PastEnd),
    ("cwe122_strncat", PastEnd),
    ("cwe122_snprintf", PastEnd),
    ("cwe122_wide", PastEnd),
    ("cwe122_memset_calloc", PastEnd),
    ("cwe122_after_realloc", PastEnd),
    ("cwe122_sizeof_pointer", ByCheck),
    ("cwe122_off_by_one", ByCheck),
    // A whole number of pages lies against guard pages with both ends.
    ("cwe122_large", Always("heap-buffer-overflow", "write")),
    ("cwe122_leaked", ByCheck),
    ("cwe124_index", BeforeStart),
    ("cwe124_memcpy", BeforeStart),
    ("cwe124_loop_down", BeforeStart),
    ("cwe126_loop", ReadPastEnd),
    ("cwe126_memcpy", ReadPastEnd),
    // It runs to the end of the page on whichever side.
    ("cwe126_unterminated", Always("heap-buffer-overflow", "read")),
    ("cwe126_memcmp", ReadPastEnd),
    ("cwe126_print", ReadPastEnd),
    ("cwe127_index", ReadBeforeStart),
    ("cwe127_memcpy", ReadBeforeStart),
    ("cwe415_twice", Always("double-free", "free")),
    ("cwe415_two_owners", Always("double-free", "free")),
    ("cwe415_realloc_to_nothing", Always("double-free", "free")),
    ("cwe415_by_thread", Always("double-free", "free")),
    ("cwe416_read", Always("use-after-free", "read")),
    ("cwe416_write", Always("use-after-free", "write")),
    ("cwe416_returned", Always("use-after-free", "read")),
    ("cwe416_callback", Always("use-after-free", "read")),
    ("cwe416_after_realloc", Always("use-after-free", "read")),
    ("cwe416_other_thread", Always("use-after-free", "read")),
    ("cwe590_stack", Always("invalid-free", "free")),
    ("cwe590_alloca", Always("invalid-free", "free")),
    ("cwe590_static", Always("invalid-free", "free")),
    ("cwe590_literal", Always("invalid-free", "free")),
    ("cwe590_mapping", Always("invalid-free", "free")),
    ("cwe761_search", Always("invalid-free", "free")),
    ("cwe761_increment", Always("invalid-free", "free")),
    ("cwe761_realloc", Always("invalid-free", "realloc")),
];

const CPP: &[(&str, Found)] = &[
    ("cwe762_new_free", Always("alloc-dealloc-mismatch", "free")),
    ("cwe762_malloc_delete", Always("alloc-dealloc-mismatch", "free")),
    ("cwe762_array_delete", Always("alloc-dealloc-mismatch", "free")),
    ("cwe762_delete_array", Always("alloc-dealloc-mismatch", "free")),
    ("cwe762_strdup_delete", Always("alloc-dealloc-mismatch", "free")),
    ("cwe762_new_realloc", Always("alloc-dealloc-mismatch", "realloc")),
    ("cwe762_unique_ptr", Always("alloc-dealloc-mismatch", "free")),
    ("cwe762_wrong_size", Always("layout-mismatch", "free")),
    ("cwe122_array_new", PastEnd),
    ("cwe122_vector_data", PastEnd),
    ("cwe122_downcast", PastEnd),
    ("cwe415_two_owners", Always("double-free", "free")),
    ("cwe416_iterator", Always("use-after-free", "read")),
    ("cwe416_c_str", Always("use-after-free", "read")),
    ("cwe416_virtual", Always("use-after-free", "read")),
    ("cwe416_erased", Always("use-after-free", "read")),
    ("cwe590_local", Always("invalid-free", "free")),
    ("cwe761_middle", Always("invalid-free", "free")),
];

/// The kind and the access that have to be reported; `None` where nothing can be.
fn wanted(found: Found, place: &str) -> Option<(&'static str, &'static str)> {
    const CHECKED: (&str, &str) = ("redzone-corruption", "none");
    match (found, place) {
        (Always(kind, access), _) => Some((kind, access)),
        (PastEnd, "right") => Some(("heap-buffer-overflow", "write")),
        (BeforeStart, "left") => Some(("heap-buffer-underflow", "write")),
        (ReadPastEnd, "right") => Some(("heap-buffer-overflow", "read")),
        (ReadBeforeStart, "left") => Some(("heap-buffer-underflow", "read")),
        (ReadPastEnd | ReadBeforeStart, _) => None,
        (PastEnd | BeforeStart | ByCheck, _) => Some(CHECKED),
    }
}

fn fits(report: &Value, kind: &str, access: &str) -> bool {
    let is = report["access"]["type"].as_str().unwrap_or_default();
    // What a check finds has no access of its own, but for the free that made it.
    report["kind"] == kind && (is == access || (access == "none" && is == "free"))
}

/// What is wrong with a run of a case with its error.
fn caught(ran: &Ran, case: &str, wanted: Option<(&str, &str)>) -> Vec<String> {
    let Some((kind, access)) = wanted else {
        let missed = ran.reports.is_empty() && ran.stdout.ends_with("survived\n");
        return if missed { vec![] } else { ran.complain(vec!["documented as missed, and is not".into()]) };
    };
    let mut wrong = Vec::new();
    match &ran.reports[..] {
        [report] => {
            if !fits(report, kind, access) {
                wrong.push(format!("{kind} by {access} is wanted: {} {}", report["kind"], report["access"]));
            }
            let stacks = [&report["fault"], &report["block"]["allocated"]];
            let by_exit = report["message"].as_str().is_some_and(|text| text.ends_with("found by a check"));
            let named = stacks.iter().any(|stack| functions(stack).iter().any(|name| name.contains(case)));
            if !named {
                wrong.push(format!("no stack names {case}: {stacks:?}"));
            }
            if !by_exit && functions(&report["fault"]).iter().any(|name| name.contains("fencepost")) {
                wrong.push(format!("frames of the guard: {:?}", functions(&report["fault"])));
            }
            if ["use-after-free", "double-free"].contains(&kind) && report["block"]["freed"].is_null() {
                wrong.push("who freed it must be told".into());
            }
        }
        reports => wrong.push(format!("{} reports", reports.len())),
    }
    let signal = std::os::unix::process::ExitStatusExt::signal(&ran.status);
    if !ran.stdout.starts_with("armed\n") || signal.is_none() {
        wrong.push("must print armed and die by a signal".into());
    }
    ran.complain(wrong)
}

fn every_case(source: &str, cases: &[(&str, Found)]) {
    let Some(program) = built(source) else { return };
    let run = |place: &str, options: &str| {
        let mut wrong = Vec::new();
        for (case, found) in cases {
            let ran = preloaded(program, &format!("{case} bad")).options(options).run();
            wrong.extend(caught(&ran, case, wanted(*found, place)));
            let ran = preloaded(program, &format!("{case} good")).options(options).run();
            wrong.extend(ran.silent(0));
        }
        wrong
    };
    everywhere(&["right"], run);
    fail_on(run("left", "place=left"));
}

#[test]
fn every_class_of_error_in_c_and_no_twin() {
    every_case("cwe.c", C);
}

#[test]
fn every_class_of_error_in_cpp_and_no_twin() {
    every_case("cwe.cpp", CPP);
}

#[test]
fn the_list_holds_every_case_of_the_sources() {
    let mut wrong = Vec::new();
    for (source, cases) in [("cwe.c", C), ("cwe.cpp", CPP)] {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("c").join(source);
        let text = std::fs::read_to_string(path).expect("the source");
        let named = text.split("X(cwe").skip(1).filter_map(|rest| rest.split(')').next());
        let named: Vec<String> = named.map(|rest| format!("cwe{rest}")).collect();
        let listed: Vec<&str> = cases.iter().map(|(case, _)| *case).collect();
        if named != listed {
            wrong.push(format!("{source} has {named:?}, and the test {listed:?}"));
        }
    }
    fail_on(wrong);
}
