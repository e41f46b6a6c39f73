//! Names found offline, on this very test program: a raw report about a function here gets its name and line.

use super::*;

use fencepost_report::tools::{Modules, NoNames};

#[inline(never)]
fn a_function_with_a_name() -> u32 {
    std::hint::black_box(line!())
}

/// This program's path, its build id, and where it is loaded.
fn this_program() -> (String, String, u64) {
    use object::Object;
    let path = std::env::current_exe().expect("a path").to_string_lossy().into_owned();
    let bytes = std::fs::read(&path).expect("the program");
    let file = object::File::parse(bytes.as_slice()).expect("ELF");
    let id = file.build_id().expect("readable").unwrap_or_default();
    let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    let maps = std::fs::read_to_string("/proc/self/maps").expect("the mappings");
    let first = maps.lines().find(|line| line.ends_with(&path)).expect("a mapping");
    let start = first.split('-').next().expect("a start");
    (path, id, u64::from_str_radix(start, 16).expect("hex"))
}

/// A raw report whose fault lies in the function.
fn raw_line(path: &str, id: &str, base: u64) -> String {
    let (_, line, _) = cases().into_iter().find(|(name, ..)| name == "heap-buffer-overflow").expect("a case");
    let mut json: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    let address = a_function_with_a_name as fn() -> u32 as usize as u64;
    assert!(a_function_with_a_name() > 0);
    let id = if id.is_empty() { serde_json::Value::Null } else { id.into() };
    let frame = serde_json::json!({
        "address": format!("{address:#x}"), "module": path, "build_id": id,
        "offset": format!("{:#x}", address - base), "function": null, "file": null, "line": null,
        "column": null, "inlined": false,
    });
    json["fault"]["frames"] = serde_json::json!([frame]);
    json["block"]["allocated"]["frames"] = serde_json::json!([]);
    json["source"] = serde_json::Value::Null;
    json.to_string()
}

#[test]
fn a_raw_report_gets_its_names() {
    let (path, id, base) = this_program();
    let mut collection = Collection::new();
    collection.read("raw", &raw_line(&path, &id, base));
    let before = collection.findings[0].document.fingerprint;
    let mut modules = Modules::new();
    collection.resolve(&mut modules);
    assert_eq!(modules.failures().count(), 0);
    let document = &collection.findings[0].document;
    let frame = &document.fault.frames[0];
    assert_eq!(frame.function.as_deref(), Some("tools::naming::a_function_with_a_name"));
    assert!(frame.file.as_deref().is_some_and(|file| file.ends_with("tests/tools/naming.rs")), "{frame:?}");
    assert_ne!(document.fingerprint, before, "made of names now");
    assert!(rendered(&collection, Format::Json).contains("a_function_with_a_name"));
}

#[test]
fn another_build_gives_no_names() {
    let (path, id, base) = this_program();
    if id.is_empty() {
        eprintln!("skipped: this program was linked without a build id");
        return;
    }
    let mut collection = Collection::new();
    collection.read("raw", &raw_line(&path, &"ab".repeat(20), base));
    let mut modules = Modules::new();
    collection.resolve(&mut modules);
    assert!(collection.findings[0].document.fault.frames[0].function.is_none());
    let failures: Vec<_> = modules.failures().collect();
    assert_eq!(failures, [(path.as_str(), &NoNames::Rebuilt)]);
}
