//! What a report has to say. Every field that is given is checked, and so is what all reports have in common.

use crate::harness::Ran;
use serde_json::Value;
use std::os::unix::process::ExitStatusExt;

/// A report, and the death that goes with it.
#[derive(Clone, Copy)]
pub struct Expected<'a> {
    pub kind: &'a str,
    /// `read`, `write`, `execute`, `free`, `realloc` or `none`.
    pub access: &'a str,
    /// Size of the access, where it has to be known.
    pub access_size: Option<u64>,
    /// `before`, `inside` or `after`, and the bytes.
    pub beside: Option<(&'a str, u64)>,
    /// Size and alignment; `None` when the report must not name a block.
    pub block: Option<(u64, u64)>,
    pub state: Option<&'a str>,
    /// The functions whose stacks they are. An empty name: there must be no such stack.
    pub allocated: &'a str,
    pub freed: &'a str,
    pub fault: &'a str,
    pub signal: i32,
}

impl Expected<'_> {
    /// An access that traps, to a block that is alive.
    pub const FAULT: Expected<'static> = Expected {
        kind: "",
        access: "",
        access_size: None,
        beside: None,
        block: None,
        state: Some("live"),
        allocated: "victim_allocates",
        freed: "",
        fault: "victim_touches",
        signal: libc::SIGSEGV,
    };

    /// Something that is found without a trap.
    pub const FOUND: Expected<'static> =
        Expected { fault: "victim_frees", access: "free", signal: libc::SIGABRT, ..Self::FAULT };

    /// Everything that is wrong with a run that must end in exactly this report.
    pub fn verify(&self, ran: &Ran) -> Vec<String> {
        let mut wrong = Vec::new();
        if !ran.died_by(self.signal) {
            wrong.push(format!("{}, not by signal {}", ran.ending(), self.signal));
        }
        if !ran.stdout.starts_with("armed\n") || ran.stdout.contains("survived") {
            wrong.push("must print armed and die".into());
        }
        match &ran.reports[..] {
            [report] => {
                wrong.extend(self.verify_report(report));
                let line = headline(report);
                if ran.headlines() != [line.as_str()] {
                    wrong.push(format!("text begins {:?}, not {line:?}", ran.headlines()));
                }
                // What is found without a fault has no signal of its own.
                let without = self.signal == libc::SIGABRT && report["signal"].is_null();
                if Some(&report["signal"]) != ran.status.signal().map(Value::from).as_ref() && !without {
                    wrong.push(format!("the report announces signal {}", report["signal"]));
                }
                if report["process"]["pid"] != ran.pid {
                    wrong.push(format!("process {}, not {}", report["process"], ran.pid));
                }
            }
            reports => wrong.push(format!("{} reports", reports.len())),
        }
        ran.complain(wrong)
    }

    /// Everything that is wrong with one report.
    pub fn verify_report(&self, report: &Value) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut same = |what: &str, is: &Value, wanted: Value| {
            if *is != wanted {
                wrong.push(format!("{what} is {is}, not {wanted}"));
            }
        };
        same("kind", &report["kind"], self.kind.into());
        same("access type", &report["access"]["type"], self.access.into());
        if let Some(size) = self.access_size {
            same("access size", &report["access"]["size"], size.into());
        }
        let block = &report["block"];
        if let Some((size, align)) = self.block {
            same("block size", &block["size"], size.into());
            same("block align", &block["align"], align.into());
            if let Some(state) = self.state {
                same("block state", &block["state"], state.into());
            }
            if let Some((place, distance)) = self.beside {
                same("where", &block["where"], place.into());
                same("distance", &block["distance"], distance.into());
            }
            wrong.extend(verify_stack("allocated", &block["allocated"], self.allocated));
            wrong.extend(verify_stack("freed", &block["freed"], self.freed));
        } else if !block.is_null() {
            wrong.push(format!("a block where there is none: {block}"));
        }
        wrong.extend(verify_stack("fault", &report["fault"], self.fault));
        wrong.extend(verify_always(report));
        wrong
    }
}

/// The first line of a report's text.
pub fn headline(report: &Value) -> String {
    let word = |key: &str| report[key].as_str().unwrap_or_default().to_owned();
    format!("fencepost: ERROR: {}: {}", word("kind"), word("message"))
}

/// Whether a function belongs to the language's own library: stacks may begin in it, inlined.
fn is_std(function: &str) -> bool {
    let name = function.trim_start_matches(['<', '&']);
    ["core::", "alloc::", "std::"].iter().any(|library| name.starts_with(library))
}

/// The function names of a stack, innermost first.
pub fn functions(stack: &Value) -> Vec<&str> {
    let frames = stack["frames"].as_array().map(Vec::as_slice).unwrap_or_default();
    frames.iter().map(|frame| frame["function"].as_str().unwrap_or("?")).collect()
}

/// Whether a stack has a function of that name.
pub fn passes_through(stack: &Value, name: &str) -> bool {
    functions(stack).iter().any(|function| function.ends_with(&format!("::{name}")))
}

/// The first frame that is not std's must be the named function, with its file and line.
fn verify_stack(what: &str, stack: &Value, name: &str) -> Vec<String> {
    if name.is_empty() {
        return if stack.is_null() {
            vec![]
        } else {
            vec![format!("{what} stack where there is none: {stack}")]
        };
    }
    let names = functions(stack);
    let mut wrong = Vec::new();
    if names.iter().any(|function| function.starts_with("fencepost") || function.contains("__rust_alloc")) {
        wrong.push(format!("{what} stack holds frames of the guard: {names:?}"));
    }
    let hash = |part: &str| part.len() == 16 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    if names.iter().any(|function| function.split(['[', ']']).any(hash)) {
        wrong.push(format!("{what} stack has names with hashes: {:?}", &names[..names.len().min(6)]));
    }
    match names.iter().position(|function| !is_std(function)) {
        Some(index) if names[index].ends_with(&format!("::{name}")) => {
            let frame = &stack["frames"][index];
            if cfg!(debug_assertions) && !(frame["file"].is_string() && frame["line"].is_u64()) {
                wrong.push(format!("{what} stack: no file and line for {name}: {frame}"));
            }
        }
        _ => wrong.push(format!("{what} stack begins {:?}, not in {name}", &names[..names.len().min(6)])),
    }
    if !stack["thread"]["id"].is_u64() {
        wrong.push(format!("{what} stack without a thread: {}", stack["thread"]));
    }
    wrong
}

/// The keys of the contract, which are never left out.
fn verify_always(report: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    for key in [
        "schema",
        "kind",
        "message",
        "access",
        "block",
        "fault",
        "process",
        "options",
        "engine",
        "seed",
        "replay",
        "confidence",
        "reasons",
        "fingerprint",
    ] {
        if report.get(key).is_none() {
            wrong.push(format!("no key {key}"));
        }
    }
    let engine = report["engine"].as_str().unwrap_or_default();
    let asked = report["options"].as_str().unwrap_or_default();
    if asked.contains("engine=")
        && !asked.contains("engine=auto")
        && !asked.contains(&format!("engine={engine}"))
    {
        wrong.push(format!("engine {engine:?}, where the options were {asked:?}"));
    }
    for key in ["seed", "fingerprint"] {
        if !report[key].as_str().is_some_and(|text| text.starts_with("0x")) {
            wrong.push(format!("{key} is {}, not a hex string", report[key]));
        }
    }
    if !report["replay"].as_str().is_some_and(|line| line.contains("seed=")) {
        wrong.push(format!("replay is {}", report["replay"]));
    }
    for key in ["address", "module", "build_id", "offset", "function", "file", "line", "column", "inlined"] {
        if report["fault"]["frames"].get(0).is_some_and(|frame| frame.get(key).is_none()) {
            wrong.push(format!("frames have no key {key}"));
        }
    }
    wrong
}
