//! Each rule, on an invented input that breaks it and on one that does not: a rule that cannot complain is none.

use super::*;

fn table(rows: &str) -> BTreeSet<Edge> {
    edges_of_table(&format!(
        "# A\n\n| `x` | `y` | |\n\n## Dependencies\n\n| crate | may use | |\n|---|---|---|\n{rows}\n\n## B\n\n| `z` | `y` | |\n"
    ))
}

fn manifests(kind: &str) -> BTreeSet<Edge> {
    let text = format!(
        r#"{{"packages":[{{"name":"upper","dependencies":[{{"name":"lower","kind":null}},{{"name":"cc","kind":{kind}}}]}}]}}"#
    );
    edges_of_metadata(&serde_json::from_str(&text).expect("JSON"))
}

#[test]
fn a_missing_and_an_extra_dependency_are_seen() {
    let good = "| `upper` | `lower` | - |\n| `lower` | - | - |";
    assert_eq!(compare_edges(&table(good), &manifests("\"dev\"")), Complaints::new());
    assert_eq!(compare_edges(&table(good), &manifests("\"build\"")).len(), 1, "a new edge");
    assert_eq!(
        compare_edges(&table("| `upper` | `lower` | `cc`, `libc` |"), &manifests("null")).len(),
        1,
        "a stale one"
    );
}

#[test]
fn a_missing_attribute_and_a_banned_line_are_seen() {
    let rule = |text: &str| crate_root("lib.rs", text, &["#![no_std]"], &["extern crate alloc"]).len();
    assert_eq!(rule("#![no_std]\n"), 0);
    assert_eq!(rule("// #![no_std]\n"), 1);
    assert_eq!(rule("#![no_std]\n    extern crate alloc;\n"), 1);
}

#[test]
fn a_condition_on_the_system_is_seen() {
    let rule = |line: &str| system_conditions("crates/fencepost/src/lib.rs", line).len();
    for line in [
        "#[cfg(target_os = \"linux\")]",
        "#[cfg(unix)]",
        "#[cfg_attr(windows, path = \"w.rs\")]",
        "if cfg!(target_family = \"unix\") {",
        "#[cfg(not(any(test, target_os = \"macos\")))]",
    ] {
        assert_eq!(rule(line), 1, "{line}");
        assert!(system_conditions("crates/fencepost-sys/src/os/mod.rs", line).is_empty());
    }
    for line in ["#[cfg(test)]", "#[cfg(feature = \"sim\")]", "// cfg(unix)", "let unix = 1;"] {
        assert_eq!(rule(line), 0, "{line}");
    }
}

#[test]
fn a_call_that_the_program_would_compile_is_seen() {
    let text = "if GUARD.is_foreign(address) { entry::free() } else { GUARD.free(block, layout) }";
    assert_eq!(compiled_with_the_program("alloc.rs", text).len(), 1);
}

#[test]
fn a_long_file_is_seen() {
    assert!(too_long("a.rs", &"x\n".repeat(LINES_MAX)).is_empty());
    assert_eq!(too_long("a.rs", &"x\n".repeat(LINES_MAX + 1)).len(), 1);
}

#[test]
fn an_empty_name_is_seen() {
    for path in ["crates/a/src/util.rs", "crates/a/src/helpers/mod.rs", "crates/a/src/heap/common.rs"] {
        assert_eq!(empty_names(path).len(), 1, "{path}");
    }
    assert!(empty_names("crates/a/src/utility_belt.rs").is_empty());
}

#[test]
fn a_document_for_nobody_is_seen() {
    assert!(first_paragraph("a.md", "# A\n\nRead this if you port.\n").is_empty());
    assert_eq!(
        first_paragraph("a.md", "# A\n\nThis document describes.\n\nRead this if you port.\n").len(),
        1
    );
    assert_eq!(first_paragraph("a.md", "# A\n").len(), 1);
}

#[test]
fn a_broken_link_is_seen() {
    let document = |path: &str| (path == "docs/b.md").then(|| "# B\n\n## What is missed\n".to_owned());
    let rule = |text: &str| broken_links("docs/a.md", text, &document).len();
    assert_eq!(rule("[b](b.md) [b](b.md#what-is-missed) [b](../docs/b.md) [w](https://example.org)"), 0);
    assert_eq!(rule("[c](c.md)"), 1);
    assert_eq!(rule("[b](b.md#gone)"), 1);
    assert_eq!(rule("# Here\n\n[h](#here) [t](#there)"), 1);
    assert_eq!(rule("```\n[c](c.md)\n```\n`[c](c.md)`"), 0, "code is no link");
}

#[test]
fn a_place_on_this_machine_is_seen() {
    for place in ["/wo_rk/main", "/ro_ot/.cargo", "/tmp/tar_get-x", "index.crates_.io"] {
        assert_eq!(names_a_machine("a.md", &format!("see {}", place.replace('_', ""))).len(), 1, "{place}");
    }
    assert!(names_a_machine("a.md", "framework/ and the root/ of a temporary /tmp/x").is_empty());
}

#[test]
fn a_script_that_cannot_run_is_seen() {
    assert!(not_runnable("scripts/a", b"#!/bin/sh\n", 0o755).is_empty());
    assert_eq!(not_runnable("scripts/a", b"#!/bin/sh\n", 0o644).len(), 1);
    assert_eq!(not_runnable("scripts/a", b"echo\n", 0o755).len(), 1);
}
