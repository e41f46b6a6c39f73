//! `tests/c/copies.c`: functions that copy run over an end, and the report knows the whole of the call.

use serde_json::{Value, json};

use super::{built, preloaded};
use crate::harness::fail_on;

/// Each way through the C library's functions has sizes of its own: small ones, vectors, loops, a repeated instruction, past
/// the caches.
const SIZES: [u64; 9] = [17, 33, 64, 100, 200, 1_000, 5_000, 100_000, 1_000_000];

const COPY: [&str; 6] = ["memcpy", "memmove", "mempcpy", "bcopy", "__memcpy_chk", "__mempcpy_chk"];
const FILL: [&str; 3] = ["memset", "bzero", "__memset_chk"];
const TEXT: [&str; 8] = [
    "strcpy",
    "stpcpy",
    "strncpy",
    "stpncpy",
    "__strcpy_chk",
    "__stpcpy_chk",
    "__strncpy_chk",
    "__stpncpy_chk",
];

/// Sizes of wide characters, of which each has four bytes.
const WIDE_SIZES: [u64; 8] = [20, 64, 100, 200, 1_000, 5_000, 100_000, 1_000_000];

/// They add to a text of three characters.
const ADD: [&str; 4] = ["strcat", "strncat", "__strcat_chk", "__strncat_chk"];
const WIDE: [&str; 20] = [
    "wmemcpy",
    "wmemmove",
    "wmempcpy",
    "wmemset",
    "wcscpy",
    "wcpcpy",
    "wcsncpy",
    "wcpncpy",
    "wcscat",
    "wcsncat",
    "__wmemcpy_chk",
    "__wmemmove_chk",
    "__wmempcpy_chk",
    "__wmemset_chk",
    "__wcscpy_chk",
    "__wcpcpy_chk",
    "__wcsncpy_chk",
    "__wcpncpy_chk",
    "__wcscat_chk",
    "__wcsncat_chk",
];

/// The one report of a run over the end of a block of 16 bytes.
fn report(program: &'static str, function: &str, size: u64) -> Value {
    let ran = preloaded(program, &format!("{function} {size} 16")).run();
    assert_eq!((ran.reports.len(), ran.stdout.as_str()), (1, "armed\n"), "{function} {size}: {}", ran.stderr);
    assert_eq!(ran.reports[0]["kind"], "heap-buffer-overflow", "{function} {size}");
    ran.reports[0].clone()
}

fn address(of: &Value) -> u64 {
    let digits = of.as_str().and_then(|text| text.strip_prefix("0x")).unwrap_or("0");
    u64::from_str_radix(digits, 16).expect("hex")
}

fn size_is_known(functions_called: &[&str], sizes: &[u64]) {
    let Some(program) = built("copies.c") else { return };
    if cfg!(not(target_arch = "x86_64")) {
        return println!("skipped: the calls are kept on x86_64 only");
    }
    let mut wrong = Vec::new();
    for function in functions_called {
        let before = if function.contains("cat") { 3 } else { 0 };
        let before = if function.contains('w') { 4 * before } else { before };
        let fills = function.contains("set") || *function == "bzero";
        // It writes the zero at the end first: of a long text far beyond the block, where it is nobody's.
        let most = if function.contains("wcsncat") { 1_000 } else { u64::MAX };
        for &size in sizes.iter().filter(|size| **size <= most) {
            let report = report(program, function, size);
            let (copy, block) = (&report["copy"], address(&report["block"]["address"]));
            let to = address(&copy["to"]) == block + before;
            let whole = copy["function"] == *function && copy["size"] == size && to;
            let tail = format!(", in {function} of {size} bytes");
            let said = report["message"].as_str().is_some_and(|message| message.ends_with(&tail));
            let frames = report["fault"]["frames"].as_array().expect("a list");
            let is_ours =
                |frame: &Value| frame["module"].as_str().is_some_and(|name| name.contains("fencepost"));
            let ours = frames.iter().any(is_ours);
            if !whole || copy["from"].is_null() != fills || !said || ours {
                wrong.push(format!("{function} {size}: {copy} {}", report["message"]));
            }
        }
    }
    fail_on(wrong);
}

#[test]
fn the_whole_of_a_copy_is_known() {
    size_is_known(&COPY, &SIZES);
}

#[test]
fn the_whole_of_a_filling_is_known() {
    size_is_known(&FILL, &SIZES);
}

#[test]
fn the_whole_of_a_text_is_known() {
    size_is_known(&TEXT, &SIZES);
}

#[test]
fn the_whole_of_a_text_that_is_added_is_known() {
    size_is_known(&ADD, &SIZES);
}

#[test]
fn the_whole_of_wide_characters_is_known() {
    size_is_known(&WIDE, &WIDE_SIZES);
}

#[test]
fn a_copy_that_reads_past_an_end_is_known_too() {
    let Some(program) = built("copies.c") else { return };
    if cfg!(not(target_arch = "x86_64")) {
        return println!("skipped: the calls are kept on x86_64 only");
    }
    let report = report(program, "<memcpy", 5_000);
    assert_eq!(report["access"]["type"], "read");
    assert_eq!(
        (&report["copy"]["size"], &report["copy"]["from"]),
        (&json!(5_000), &report["block"]["address"])
    );
    // A text without an end has no size, and the copy of it none.
    let ran = preloaded(program, "<strcpy 5000 16").run();
    assert_eq!(ran.reports.len(), 1, "{}", ran.stderr);
    assert_eq!(ran.reports[0]["copy"], Value::Null);
}

#[test]
fn what_is_left_of_a_repeated_instruction_is_known() {
    let Some(program) = built("copies.c") else { return };
    if cfg!(not(target_arch = "x86_64")) {
        return println!("skipped: x86_64 has such instructions");
    }
    for (name, copies) in [("movsb", true), ("stosb", false)] {
        let report = report(program, name, 500);
        let copy = &report["copy"];
        assert_eq!(
            (&copy["function"], &copy["size"], &copy["left"]),
            (&Value::Null, &Value::Null, &json!(484)),
            "{copy}"
        );
        assert_eq!((&copy["to"], copy["from"].is_null()), (&report["access"]["address"], !copies), "{copy}");
    }
}

#[test]
fn functions_that_copy_do_what_the_c_librarys_do() {
    let Some(program) = built("copies.c") else { return };
    for options in ["", "engine=mprotect", "mode=off"] {
        let ran = preloaded(program, "right").options(options).run();
        assert_eq!(ran.stdout, "right\n");
        fail_on(ran.silent(0));
    }
}
