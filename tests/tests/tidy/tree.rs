//! The rules, over the real tree.

use std::os::unix::fs::PermissionsExt;

use super::*;

fn fail_on(wrong: Complaints) {
    assert!(wrong.is_empty(), "{} complaints:\n{}", wrong.len(), wrong.join("\n"));
}

fn over(paths: Vec<String>, rule: impl Fn(&str, &str) -> Complaints) {
    assert!(!paths.is_empty(), "nothing to look at");
    fail_on(paths.iter().flat_map(|path| rule(path, &read(&root().join(path)))).collect());
}

/// Rust files of the crates, build products and tests left out.
fn sources() -> Vec<String> {
    files("crates", ".rs").into_iter().filter(|path| path.contains("/src/")).collect()
}

#[test]
fn the_dependency_table_is_the_truth() {
    let table = edges_of_table(&read(&root().join("docs/architecture.md")));
    assert!(!table.is_empty(), "no table under `## Dependencies`");
    fail_on(compare_edges(&table, &edges_of_metadata(&metadata())));
}

#[test]
fn crate_roots_forbid_what_they_promise_to() {
    let look = |name: &str, must: &[&str], must_not: &[&str]| {
        let path = format!("crates/{name}/src/lib.rs");
        crate_root(&path, &read(&root().join(&path)), must, must_not)
    };
    let mut wrong = look("fencepost-record", &["#![no_std]", "#![forbid(unsafe_code)]"], &[]);
    wrong.extend(look("fencepost-report", &["#![forbid(unsafe_code)]"], &[]));
    wrong.extend(look("fencepost-guard", &["#![no_std]"], &[]));
    let path = "crates/cargo-fencepost/src/main.rs";
    wrong.extend(crate_root(path, &read(&root().join(path)), &["#![forbid(unsafe_code)]"], &[]));
    for path in sources() {
        if path.starts_with("crates/fencepost-record/") || path.starts_with("crates/fencepost-guard/") {
            wrong.extend(crate_root(&path, &read(&root().join(&path)), &[], &["extern crate alloc"]));
        }
    }
    fail_on(wrong);
}

#[test]
fn only_one_crate_knows_the_system() {
    // A test may need a tool that only some systems have.
    let code = files("crates", ".rs").into_iter().filter(|path| !path.contains("/tests/"));
    over(code.collect(), system_conditions);
}

#[test]
fn the_allocator_type_leaves_the_runtime_to_its_own_crate() {
    over(vec!["crates/fencepost/src/alloc.rs".to_owned()], compiled_with_the_program);
}

#[test]
fn files_are_short() {
    over(sources(), too_long);
}

#[test]
fn names_say_something() {
    over(sources(), |path, _| empty_names(path));
}

#[test]
fn documents_say_who_they_are_for() {
    over(files("docs", ".md"), first_paragraph);
}

#[test]
fn links_lead_somewhere() {
    let mut documents = files("docs", ".md");
    documents.push("README.md".to_owned());
    over(documents, |path, text| {
        broken_links(path, text, &|target| {
            let target = root().join(target);
            if target.is_dir() { Some(String::new()) } else { std::fs::read_to_string(target).ok() }
        })
    });
}

#[test]
fn nothing_names_this_machine() {
    let mut wrong = Complaints::new();
    // Lock files name the package index by their format.
    for path in tracked().into_iter().filter(|path| !path.ends_with("Cargo.lock")) {
        // What is no text names nothing.
        if let Ok(text) = std::fs::read_to_string(root().join(&path)) {
            wrong.extend(names_a_machine(&path, &text));
        }
    }
    fail_on(wrong);
}

#[test]
fn scripts_run() {
    let mut wrong = Complaints::new();
    let scripts = tracked().into_iter().filter(|path| path.starts_with("scripts/") || path == ".ci/run");
    for path in scripts {
        let file = root().join(&path);
        let mode = std::fs::metadata(&file).expect("a script").permissions().mode();
        wrong.extend(not_runnable(&path, &std::fs::read(&file).expect("a script"), mode));
    }
    fail_on(wrong);
}
