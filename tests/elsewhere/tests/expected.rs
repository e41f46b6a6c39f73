//! What a report has to say.

use serde_json::Value;

use crate::harness::run;

/// What a report must say: kind, access, where and how far, state, and the functions of the three stacks (empty: none).
#[derive(Clone, Copy)]
pub struct Expected {
    pub kind: &'static str,
    pub access: &'static str,
    pub beside: Option<(&'static str, u64)>,
    pub state: Option<&'static str>,
    pub stacks: [&'static str; 3],
}

pub const FAULT: Expected = Expected {
    kind: "",
    access: "",
    beside: None,
    state: Some("live"),
    stacks: ["victim_touches", "victim_allocates", ""],
};

/// The name of the first function of a stack that is not the standard library's.
pub fn first(stack: &Value) -> String {
    let frames = stack["frames"].as_array().cloned().unwrap_or_default();
    let mut names = frames.iter().map(|frame| frame["function"].as_str().unwrap_or("?").to_owned());
    let is_std = |name: &String| {
        let name = name.trim_start_matches('<');
        ["core::", "alloc::", "std::"].iter().any(|library| name.starts_with(library))
    };
    names.find(|name| !is_std(name)).unwrap_or_default()
}

pub fn verify(what: &str, options: &str, expected: &Expected) -> Vec<String> {
    let ran = run(what, options);
    let report = match ran.report() {
        Ok(report) => report,
        Err(wrong) => return vec![wrong],
    };
    let mut wrong = Vec::new();
    let mut same = |name: &str, is: &Value, wanted: Value| {
        if *is != wanted {
            wrong.push(ran.complain(format!("{name} is {is}, not {wanted}")));
        }
    };
    same("kind", &report["kind"], expected.kind.into());
    same("access", &report["access"]["type"], expected.access.into());
    let block = &report["block"];
    if let Some((place, distance)) = expected.beside {
        same("where", &block["where"], place.into());
        same("distance", &block["distance"], distance.into());
    }
    if let Some(state) = expected.state {
        same("state", &block["state"], state.into());
    }
    let stacks = [&report["fault"], &block["allocated"], &block["freed"]];
    for ((name, stack), wanted) in ["fault", "allocated", "freed"].iter().zip(stacks).zip(expected.stacks) {
        let is = first(stack);
        if wanted.is_empty() != stack.is_null() || !wanted.is_empty() && !is.ends_with(wanted) {
            wrong.push(ran.complain(format!("the {name} stack begins in {is:?}, not {wanted:?}: {stack}")));
        }
    }
    wrong
}

pub fn all(cases: impl IntoIterator<Item = (String, &'static str, Expected)>) {
    let cases = cases.into_iter();
    let wrong: Vec<String> =
        cases.flat_map(|(what, options, expected)| verify(&what, options, &expected)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}
