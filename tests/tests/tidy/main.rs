//! Rules about the tree itself that no compiler checks. Each rule is a function from text to complaints, so that a
//! test beside it can show that it complains; one test at the end runs all of them over the real tree.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

type Complaints = Vec<String>;

fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("tests/ lies in the root").to_path_buf()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every file below a folder whose name ends as asked, in a fixed order, as paths from the root.
fn files(folder: &str, ending: &str) -> Vec<String> {
    let (mut found, mut folders) = (Vec::new(), vec![root().join(folder)]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            let path = entry.expect("an entry").path();
            if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                found.push(from_root(&path));
            }
        }
    }
    found.sort();
    found
}

fn from_root(path: &Path) -> String {
    path.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned()
}

/// Every file that git knows or would add.
fn tracked() -> Vec<String> {
    let mut git = Command::new("git");
    git.args(["ls-files", "--cached", "--others", "--exclude-standard"]).current_dir(root());
    let output = git.output().expect("git runs");
    assert!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr));
    let list = String::from_utf8(output.stdout).expect("paths are UTF-8");
    list.lines().filter(|path| root().join(path).is_file()).map(str::to_owned).collect()
}

// Dependencies: crate, and what it may depend on.

type Edge = (String, String);

/// The edges that the table under `## Dependencies` allows: the names in backticks of its second and third column.
fn edges_of_table(text: &str) -> BTreeSet<Edge> {
    let section = text.split("\n## Dependencies").nth(1).unwrap_or_default();
    let section = section.split("\n## ").next().unwrap_or_default();
    let mut edges = BTreeSet::new();
    for row in section.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').collect();
        let names =
            |cell: &str| -> Vec<String> { cell.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
        for from in cells.first().map(|cell| names(cell)).unwrap_or_default() {
            for to in cells.iter().skip(1).flat_map(|cell| names(cell)) {
                edges.insert((from.clone(), to));
            }
        }
    }
    edges
}

/// The edges that the manifests have, development dependencies left out.
fn edges_of_metadata(metadata: &Value) -> BTreeSet<Edge> {
    let mut edges = BTreeSet::new();
    for package in metadata["packages"].as_array().expect("packages") {
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            if dependency["kind"] != "dev" {
                let name = |value: &Value| value["name"].as_str().expect("a name").to_owned();
                edges.insert((name(package), name(dependency)));
            }
        }
    }
    edges
}

fn compare_edges(table: &BTreeSet<Edge>, real: &BTreeSet<Edge>) -> Complaints {
    let line = |(from, to): &Edge, what: &str| format!("docs/architecture.md: {from} -> {to} {what}");
    let extra = real.difference(table).map(|edge| line(edge, "is in a manifest and not in the table"));
    let stale = table.difference(real).map(|edge| line(edge, "is in the table and in no manifest"));
    extra.chain(stale).collect()
}

fn metadata() -> Value {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["metadata", "--no-deps", "--format-version", "1"]).current_dir(root());
    let output = command.output().expect("cargo runs");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

// What a crate's root file must and must not say.

fn crate_root(path: &str, text: &str, must: &[&str], must_not: &[&str]) -> Complaints {
    let code = |wanted: &str| text.lines().any(|line| line.trim_start().starts_with(wanted));
    let missing = must.iter().filter(|wanted| !code(wanted)).map(|wanted| format!("{path}: no {wanted}"));
    let banned = must_not.iter().filter(|banned| code(banned)).map(|banned| format!("{path}: has {banned}"));
    missing.chain(banned).collect()
}

/// Where the command line chooses how programs are started and ended: it may not hold unsafe code, and the crate below may
/// not use the heap.
const COMMAND_SYSTEM: &str = "crates/cargo-fencepost/src/system/mod.rs";

/// Conditions on the operating system belong to one crate.
fn system_conditions(path: &str, text: &str) -> Complaints {
    if path.starts_with("crates/fencepost-sys/") || path == COMMAND_SYSTEM {
        return Vec::new();
    }
    const WORDS: [&str; 5] = ["target_os", "target_family", "target_vendor", "windows", "unix"];
    let mut wrong = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let condition = line.split_once("cfg").filter(|_| !line.trim_start().starts_with("//"));
        let Some((_, condition)) = condition else { continue };
        let mut words = condition.split(|c: char| !c.is_alphanumeric() && c != '_');
        if words.any(|word| WORDS.contains(&word)) {
            wrong.push(format!(
                "{path}:{}: only fencepost-sys knows the system: {}",
                number + 1,
                line.trim()
            ));
        }
    }
    wrong
}

const LINES_MAX: usize = 430;

fn too_long(path: &str, text: &str) -> Complaints {
    let lines = text.lines().count();
    if lines > LINES_MAX { vec![format!("{path}: {lines} lines, at most {LINES_MAX}")] } else { Vec::new() }
}

/// What the allocator type may ask of the runtime itself: each of them is a few instructions, and inlined in every build. All
/// else of it would be compiled with the program, whatever the profile says of packages.
const ASKED_IN_PLACE: &[&str] =
    &["passes_at_once", "is_foreign", "is_exported", "is_off", "call_inner", "inner_block"];

fn compiled_with_the_program(path: &str, text: &str) -> Complaints {
    let asked = text.split("GUARD.").skip(1).filter_map(|rest| rest.split('(').next());
    let wrong = asked.filter(|name| !ASKED_IN_PLACE.contains(name));
    wrong.map(|name| format!("{path}: asks GUARD.{name}: that belongs in entry.rs")).collect()
}

/// Names that say nothing about what is inside.
fn empty_names(path: &str) -> Complaints {
    let empty = ["util", "utils", "common", "helper", "helpers", "manager"];
    let parts = Path::new(path).iter().filter_map(|part| Path::new(part).file_stem()?.to_str());
    parts.filter(|part| empty.contains(part)).map(|part| format!("{path}: `{part}` names nothing")).collect()
}

// Documents.

/// The first paragraph says who should read on.
fn first_paragraph(path: &str, text: &str) -> Complaints {
    let mut paragraphs = text.split("\n\n").map(str::trim).filter(|part| !part.is_empty());
    let first = paragraphs.find(|part| !part.starts_with('#')).unwrap_or_default();
    let says = ["Read this if", "For everybody", "For people", "For whoever", "For anyone"];
    if says.iter().any(|words| first.starts_with(words)) {
        return Vec::new();
    }
    vec![format!("{path}: the first paragraph must say who should read it ({})", says.join(", "))]
}

/// Targets of the links of a document, outside of code.
fn links(text: &str) -> Vec<String> {
    let mut targets = Vec::new();
    for (index, part) in text.split("```").enumerate() {
        if index % 2 == 0 {
            let prose: String =
                part.split('`').enumerate().map(|(i, p)| if i % 2 == 0 { p } else { "x" }).collect();
            let after = prose.split("](").skip(1).filter_map(|rest| rest.split(')').next());
            targets.extend(after.map(str::to_owned));
        }
    }
    targets
}

/// What a heading is called in a link, as GitHub does it.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn broken_links(path: &str, text: &str, document: &dyn Fn(&str) -> Option<String>) -> Complaints {
    let folder = Path::new(path).parent().unwrap_or(Path::new(""));
    let mut wrong = Vec::new();
    for target in links(text) {
        if target.contains("://") {
            continue;
        }
        let (file, fragment) = target.split_once('#').unwrap_or((&target, ""));
        let there =
            if file.is_empty() { Some(text.to_owned()) } else { document(&clean(&folder.join(file))) };
        let Some(there) = there else {
            wrong.push(format!("{path}: no such file: {target}"));
            continue;
        };
        let headings = there.lines().filter(|line| line.starts_with('#'));
        let mut anchors = headings.map(|line| anchor(line.trim_start_matches('#').trim()));
        if !fragment.is_empty() && !anchors.any(|known| known == fragment) {
            wrong.push(format!("{path}: no such heading: {target}"));
        }
    }
    wrong
}

/// A path without `.` and `..`.
fn clean(path: &Path) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.iter().filter_map(|part| part.to_str()) {
        match part {
            "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Nothing names the machine it was written on, or where packages come from. Put together here, so that this file
/// does not name them either.
fn names_a_machine(path: &str, text: &str) -> Complaints {
    let places = [
        ["/wo", "rk/"],
        ["/ro", "ot/"],
        ["/tmp/", "target"],
        ["crates", ".io"],
        ["py", "pi.org"],
        ["npm", "js"],
    ];
    let places = places.map(|parts| parts.concat());
    let mut wrong = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for place in places.iter().filter(|place| line.contains(place.as_str())) {
            wrong.push(format!("{path}:{}: names {place}", number + 1));
        }
    }
    wrong
}

/// A script starts with `#!` and may be run.
fn not_runnable(path: &str, first: &[u8], mode: u32) -> Complaints {
    let mut wrong = Vec::new();
    if !first.starts_with(b"#!") {
        wrong.push(format!("{path}: does not say what runs it"));
    }
    if mode & 0o111 != 0o111 {
        wrong.push(format!("{path}: is not executable"));
    }
    wrong
}

mod self_checks;
mod tree;
