//! Outputs held against the schemas that are published for them, by a validator that is not ours.

use super::*;

use std::process::Command;

use serde_json::Value;

/// A file of a package that is named in the manifest and never built: texts that are not ours to keep here.
fn published(name: &str, file: &str) -> Option<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--manifest-path"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
        .output()
        .expect("cargo runs");
    if !output.status.success() {
        println!("skipped: no metadata: {}", String::from_utf8_lossy(&output.stderr));
        return None;
    }
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let package = packages.iter().find(|package| package["name"] == name).expect("the package");
    let manifest = package["manifest_path"].as_str().expect("a path");
    Some(Path::new(manifest).with_file_name(file))
}

/// The schema of SARIF 2.1.0 as OASIS publishes it.
fn sarif_schema() -> Option<Value> {
    let schema = std::fs::read_to_string(published("serde-sarif", "src/schema.json")?);
    Some(serde_json::from_str(&schema.expect("the schema")).expect("JSON"))
}

/// By the schema that Jenkins published for it (junit-4.xsd) and by libxml2.
#[test]
fn junit_is_valid_by_a_published_schema() {
    let Some(schema) = published("junit-report", "tests/JUnit.xsd") else { return };
    let folder = std::env::temp_dir().join(format!("fencepost-junit-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let file = folder.join("sample.xml");
    let names: Vec<String> = cases().into_iter().map(|(name, ..)| name).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut judged = collection(&names);
    judged.suppress(&[rule(Some("double-free"), None, None)]);
    judged.findings[0].status = Status::Known;
    judged.findings[1].test = Some("ring::tests::wraps".to_owned());
    let whole = rendered(&judged, Format::Junit);
    assert!(whole.contains("<skipped>suppressed: ") && whole.contains("<skipped>known"), "{whole}");
    let broken = whole.replace("<failure type=", "<failure kind=");
    for (text, valid) in [(whole, true), (rendered(&collection(&[]), Format::Junit), true), (broken, false)] {
        std::fs::write(&file, text).expect("written");
        let output = Command::new("xmllint").args(["--noout", "--schema"]).args([&schema, &file]).output();
        let Ok(output) = output else {
            println!("skipped: no xmllint");
            break;
        };
        assert_eq!(output.status.success(), valid, "{}", String::from_utf8_lossy(&output.stderr));
    }
    std::fs::remove_dir_all(&folder).expect("it is ours");
}

/// What is wrong with `instance` by `schema`.
fn complaints(schema: Value, instance: &Value) -> Option<String> {
    let mut compiler = boon::Compiler::new();
    compiler.add_resource("urn:schema", schema).expect("a schema");
    let mut schemas = boon::Schemas::new();
    let compiled = compiler.compile("urn:schema", &mut schemas).expect("a schema");
    schemas.validate(instance, compiled).err().map(|error| format!("{error:#}"))
}

#[test]
fn sarif_is_valid_by_the_published_schema() {
    let Some(mut schema) = sarif_schema() else { return };
    assert!(
        schema["$id"].as_str().is_some_and(|id| id.ends_with("/sarif-schema-2.1.0.json")),
        "{}",
        schema["$id"]
    );
    schema["$id"] = "urn:schema".into();
    let names: Vec<String> = cases().into_iter().map(|(name, ..)| name).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for chosen in [&names[..], &["heap-buffer-overflow", "use-after-free"][..], &[]] {
        let log: Value = serde_json::from_str(&rendered(&collection(chosen), Format::Sarif)).expect("JSON");
        assert_eq!(complaints(schema.clone(), &log), None, "{chosen:?}");
    }
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/sample.sarif");
    let mut log: Value = serde_json::from_str(&std::fs::read_to_string(golden).expect("text")).expect("JSON");
    assert_eq!(complaints(schema.clone(), &log), None);
    // The validator does look.
    log["runs"][0]["results"][0]["level"] = "fatal".into();
    assert!(complaints(schema, &log).is_some());
}

/// The schema of a report file's lines.
fn our_schema() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/report.schema.json");
    let mut schema: Value =
        serde_json::from_str(&std::fs::read_to_string(path).expect("text")).expect("JSON");
    schema["$id"] = "urn:schema".into();
    schema
}

#[test]
fn reports_are_valid_by_our_schema() {
    let schema = our_schema();
    for (name, line, _) in cases() {
        let mut report: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(report["schema"], "fencepost-report/1", "{name}");
        assert_eq!(complaints(schema.clone(), &report), None, "{name}");
        report["confidence"] = "middling".into();
        assert!(complaints(schema.clone(), &report).is_some(), "{name}");
    }
    let findings = rendered(&collection(&["heap-buffer-overflow", "use-after-free"]), Format::Json);
    for line in findings.lines() {
        assert_eq!(complaints(schema.clone(), &serde_json::from_str(line).expect("JSON")), None);
    }
}

/// What the page about the format shows are such lines too: the summary, the sites and the start.
#[test]
fn the_other_lines_are_valid_by_our_schema() {
    let schema = our_schema();
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/report-format.md");
    let page = std::fs::read_to_string(page).expect("text");
    let mut seen = BTreeSet::new();
    for line in page.lines().filter(|line| line.starts_with("{\"schema\":")) {
        let mut shown: Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(complaints(schema.clone(), &shown), None, "{line}");
        seen.insert(shown["schema"].as_str().expect("a name").to_owned());
        shown.as_object_mut().expect("an object").remove("mode");
        assert!(complaints(schema.clone(), &shown).is_some(), "{line}");
    }
    let wanted = ["fencepost-sites/1", "fencepost-start/1", "fencepost-summary/1"].map(str::to_owned);
    assert!(seen.is_superset(&BTreeSet::from(wanted)), "{seen:?}");
}
