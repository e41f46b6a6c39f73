//! Each form of output, byte for byte (`tests/golden/`), and held against the rules of its format.
//!
//! A wanted change is taken over by running these tests with `FENCEPOST_BLESS=1` and reading the difference.

use super::*;

use serde_json::Value;

/// Two findings, one of which counts, one suppressed, and one in a test.
fn sample() -> Collection {
    let mut collection = collection(&["heap-buffer-overflow", "use-after-free", "double-free"]);
    collection.suppress(&[rule(Some("double-free"), None, None)]);
    collection.findings[1].test = Some("ring::tests::wraps".to_owned());
    collection.findings[1].times = 3;
    collection
}

#[test]
fn every_form_is_as_in_the_golden_files() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut wrong = Vec::new();
    for format in Format::ALL {
        let actual = rendered(&sample(), format);
        let path = folder.join(format!("sample.{}", format.name()));
        if std::env::var_os("FENCEPOST_BLESS").is_some() {
            std::fs::write(&path, &actual).expect("the golden file can be written");
        }
        if std::fs::read_to_string(&path).unwrap_or_default() != actual {
            wrong.push(format.name());
        }
    }
    assert!(wrong.is_empty(), "these differ (FENCEPOST_BLESS=1 takes them over): {wrong:?}");
}

/// The rules of SARIF 2.1.0 that viewers reject files over, checked on every object of a log: which keys an object of
/// that place may and must have, by the tables of the standard (sections 3.13 to 3.58).
#[test]
fn sarif_keeps_the_rules_of_its_standard() {
    let log: Value = serde_json::from_str(&rendered(&sample(), Format::Sarif)).expect("JSON");
    assert_eq!(log["version"], "2.1.0");
    let run = &log["runs"][0];
    let results = run["results"].as_array().expect("results");
    assert_eq!(results.len(), 3);
    let rules = run["tool"]["driver"]["rules"].as_array().expect("rules");
    for result in results {
        let index = usize::try_from(result["ruleIndex"].as_u64().expect("an index")).expect("small");
        assert_eq!(rules[index]["id"], result["ruleId"], "the index leads to the rule");
        let location = &result["locations"][0]["physicalLocation"];
        assert_eq!(location["artifactLocation"]["uri"], "src/ring.rs");
        assert_eq!(location["artifactLocation"]["uriBaseId"], "%SRCROOT%");
        assert!(location["region"]["startLine"].as_u64().is_some_and(|line| line >= 1));
        let steps = result["codeFlows"][0]["threadFlows"][0]["locations"].as_array().expect("steps");
        let texts: Vec<&str> =
            steps.iter().filter_map(|step| step["location"]["message"]["text"].as_str()).collect();
        let place = |what: &str| texts.iter().position(|text| text.contains(what));
        assert!(place("allocated").expect("the allocation") < texts.len() - 1, "{texts:?}");
        if result["ruleId"] != "heap-buffer-overflow" {
            assert!(place("allocated") < place("freed by"), "in the order of time: {texts:?}");
        }
        let orders: Vec<u64> = steps.iter().filter_map(|step| step["executionOrder"].as_u64()).collect();
        assert!(orders.iter().copied().eq(1..=steps.len() as u64), "{orders:?}");
    }
    assert_eq!(results[2]["suppressions"][0]["justification"], "an old friend");
    assert_eq!(results[1]["occurrenceCount"], 3);
}

#[test]
fn github_gets_one_command_a_finding_that_counts() {
    let text = rendered(&sample(), Format::Github);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    let start =
        "::error file=src/ring.rs,line=41,col=9,title=fencepost%3A heap-buffer-overflow::write of 1 byte at";
    assert!(lines[0].starts_with(start), "{}", lines[0]);
    assert!(lines[1].contains("%0Ain test ring::tests::wraps%0A"), "{}", lines[1]);
}

/// What AddressSanitizer's readers look for (CASR, asan_symbolize, ClusterFuzz): these expressions.
#[test]
fn tools_that_read_address_sanitizer_find_what_they_look_for() {
    let text = rendered(&sample(), Format::Asan);
    for wanted in [
        "==4242==ERROR: AddressSanitizer: heap-buffer-overflow on address 0x0000200000001000\n",
        "WRITE of size 1 at 0x0000200000001000 thread T0\n    #0 0x555500001234 in demo::ring::Ring::push /home/user/demo/src/ring.rs:41:9\n",
        "0x0000200000001000 is located 0 bytes after 24-byte region [0x0000200000000fe8,0x0000200000001000)\nallocated by thread T0 here:\n    #0 ",
        "SUMMARY: AddressSanitizer: heap-buffer-overflow /home/user/demo/src/ring.rs:41:9 in demo::ring::Ring::push\n==4242==ABORTING\n",
        "ERROR: AddressSanitizer: heap-use-after-free on address",
        "freed by thread T4243 (worker) here:\n",
        "previously allocated by thread T0 here:\n",
    ] {
        assert!(text.contains(wanted), "missing: {wanted}\nin:\n{text}");
    }
}

#[test]
fn pages_hold_no_markup_from_outside() {
    let mut collection = collection(&["heap-buffer-overflow"]);
    let evil = "<script>alert(1)</script>&\"'";
    collection.findings[0].document.message = evil.to_owned();
    collection.findings[0].test = Some(evil.to_owned());
    collection.findings[0].document.fault.frames[0].function = Some(evil.to_owned());
    for format in [Format::Html, Format::Junit] {
        let text = rendered(&collection, format);
        assert!(!text.contains("<script>"), "{text}");
        assert!(text.contains("&lt;script&gt;"), "{text}");
    }
}

/// What the schemas of Jenkins (junit-4.xsd to junit-10.xsd) have in common, as far as we make use of it: the elements, where
/// they may stand, and their attributes.
#[test]
fn junit_keeps_the_rules_of_its_schema() {
    let text = rendered(&sample(), Format::Junit);
    let allowed: [(&str, &[&str], &[&str]); 5] = [
        ("testsuites", &["name", "tests", "failures", "errors"], &["testsuite"]),
        ("testsuite", &["name", "tests", "failures", "errors", "skipped"], &["testcase"]),
        ("testcase", &["name", "classname"], &["failure", "skipped"]),
        ("failure", &["type", "message"], &[]),
        ("skipped", &[], &[]),
    ];
    let rules = |name: &str| allowed.iter().find(|(element, ..)| *element == name).expect(name);
    let mut open: Vec<String> = Vec::new();
    let mut cases = 0;
    for tag in text.split('<').skip(2) {
        let (inside, content) = tag.split_once('>').expect("a tag ends");
        if let Some(name) = inside.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name), "{text}");
            continue;
        }
        let alone = inside.ends_with('/');
        let (name, attributes) = inside.trim_end_matches('/').split_once(' ').unwrap_or((inside, ""));
        let (_, known, _) = rules(name);
        for attribute in attributes.split("=\"").filter_map(|part| part.rsplit(['"', ' ']).next()) {
            assert!(attribute.is_empty() || known.contains(&attribute), "{name} {attribute}");
        }
        match open.last() {
            Some(parent) => assert!(rules(parent).2.contains(&name), "{name} in {parent}"),
            None => assert_eq!(name, "testsuites"),
        }
        cases += u32::from(name == "testcase");
        if !alone {
            open.push(name.to_owned());
        }
        let text_allowed = ["failure", "skipped"].contains(&name);
        assert!(text_allowed || content.trim().is_empty(), "text in {name}: {content}");
    }
    assert!(open.is_empty());
    assert_eq!(cases, 3);
    assert!(
        text.contains("<testsuites name=\"fencepost\" tests=\"3\" failures=\"2\" errors=\"0\">"),
        "{text}"
    );
}
