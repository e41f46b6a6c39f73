//! `cargo fencepost doctor`: what this machine can do, found out by trying it, and what to change.

use std::path::Path;

use fencepost_guard::options::KEYS;
use fencepost_sys::{Host, Memory, MissingOffer, NoWatchpoints, Platform, WatchpointOffer, Watchpoints};
use rustix::process::{Resource, getrlimit};

use crate::failure::Failure;
use crate::launch;
use crate::session::{Guard, Plan, Session};
use crate::{Ending, NOT_GUARDED, inspect, preload};

/// Fewer mappings than this, and engine `mprotect` soon guards a sample only.
const MAPPINGS_WANTED: u64 = 262_144;

/// One line of the answer.
struct Finding {
    what: &'static str,
    state: String,
    /// What to change; `None` if all is well.
    change: Option<String>,
}

/// Says everything; the status tells whether anything can be guarded here.
pub fn run() -> Result<Ending, Failure> {
    let mut findings = vec![kernel()];
    let (engines, works) = engines()?;
    findings.extend(engines);
    findings.extend([
        mappings(),
        overcommit(),
        limit("address space", Resource::As),
        limit("data", Resource::Data),
    ]);
    findings.extend([locked(), userfaultfd(), seccomp(), watchpoints(), protection_keys(), cores()]);
    let mut out = String::new();
    for Finding { what, state, change } in &findings {
        let mark = if change.is_some() { "!" } else { " " };
        out.push_str(&format!("{mark} {what:<22} {state}\n"));
        if let Some(change) = change {
            out.push_str(&format!("  {:<22} -> {change}\n", ""));
        }
    }
    print!("{out}");
    Ok(Ending::Status(if works { 0 } else { NOT_GUARDED }))
}

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn kernel() -> Finding {
    let state = read("/proc/sys/kernel/osrelease").unwrap_or_else(|| "not known".to_owned());
    Finding { what: "kernel", state, change: None }
}

/// Each engine, tried on a small program; and whether any works.
fn engines() -> Result<(Vec<Finding>, bool), Failure> {
    let library = preload::library()?;
    // One that asks for a buffer: a program without a block proves nothing.
    let program = inspect::find(Path::new("cat"));
    let (Some(library), Some(program)) = (library, program) else { return Ok((offers(), true)) };
    let words = KEYS.iter().find(|spec| spec.name == "engine").map(|spec| spec.words).unwrap_or_default();
    let (mut findings, mut works) = (Vec::new(), false);
    // Engine commit is for systems that count pages when they are asked for.
    let is_here = |word: &&&str| **word != "commit" || Host::new().offers().commits_pages;
    for word in words.iter().filter(is_here) {
        let plan = Plan {
            options: format!("engine={word}"),
            preload: Some(library.clone()),
            quiet: true,
            ..Plan::default()
        };
        let session = Session::new(&plan)?;
        let outcome = launch::launch(&plan, session.path(), program.as_os_str(), &["/dev/null".into()])?;
        let used = outcome.collection.starts.first().and_then(|start| start.engine.clone());
        let guarded = outcome.account.guard != Guard::None && outcome.account.status == Some(0);
        works |= guarded;
        let (state, change) = match used {
            Some(used) if guarded && *word == "auto" => (format!("takes {used}"), None),
            Some(used) if guarded && used == *word => ("works".to_owned(), None),
            Some(used) if guarded => {
                (format!("does not work here: {used} is used instead"), engine_advice(word))
            }
            _ => {
                let why = outcome.account.why.unwrap_or_else(|| "a small program failed under it".to_owned());
                ("does not work here".to_owned(), Some(why))
            }
        };
        findings.push(Finding { what: engine_label(word), state, change });
    }
    Ok((findings, works))
}

fn engine_label(word: &str) -> &'static str {
    match word {
        "auto" => "engine auto",
        "move" => "engine move",
        "marker" => "engine marker",
        "mprotect" => "engine mprotect",
        "commit" => "engine commit",
        _ => "engine",
    }
}

fn engine_advice(word: &str) -> Option<String> {
    let advice = match word {
        "move" => "needs Linux 6.8 and userfaultfd: see the line on it below",
        "marker" => "needs Linux 6.13 or later",
        _ => return None,
    };
    Some(advice.to_owned())
}

/// What this process itself sees, where there is no library to try a program with.
fn offers() -> Vec<Finding> {
    let host = Host::new();
    host.probe();
    let offers = host.offers();
    let moves = offers.missing != MissingOffer::Nothing;
    [("move", moves), ("marker", offers.guard_markers)]
        .map(|(word, works)| {
            let state = if works { "works" } else { "does not work here" }.to_owned();
            let change = engine_advice(word).filter(|_| !works);
            Finding { what: engine_label(word), state, change }
        })
        .into()
}

fn mappings() -> Finding {
    let max = read("/proc/sys/vm/max_map_count").and_then(|text| text.parse::<u64>().ok());
    let few = max.is_some_and(|max| max < MAPPINGS_WANTED);
    Finding {
        what: "vm.max_map_count",
        state: max.map_or_else(|| "not known".to_owned(), |max| max.to_string()),
        change: few.then(|| {
            format!(
                "bounds engine mprotect only (two mappings a live block): sudo sysctl vm.max_map_count={MAPPINGS_WANTED}"
            )
        }),
    }
}

fn overcommit() -> Finding {
    let mode = read("/proc/sys/vm/overcommit_memory").unwrap_or_default();
    let (state, change) = match mode.as_str() {
        "0" => ("0, by estimate", None),
        "1" => ("1, always", None),
        "2" => (
            "2, never",
            Some(
                "reserved addresses may count as memory: sudo sysctl vm.overcommit_memory=0, or a smaller quarantine",
            ),
        ),
        _ => ("not known", None),
    };
    Finding { what: "overcommit", state: state.to_owned(), change: change.map(str::to_owned) }
}

fn limit(what: &'static str, resource: Resource) -> Finding {
    let current = getrlimit(resource).current;
    Finding {
        what,
        state: current.map_or_else(|| "unlimited".to_owned(), |bytes| format!("{bytes} bytes")),
        change: current.map(|_| {
            let flag = if matches!(resource, Resource::As) { "-v" } else { "-d" };
            format!("less can be guarded and kept dead: ulimit {flag} unlimited")
        }),
    }
}

fn locked() -> Finding {
    let current = getrlimit(Resource::Memlock).current;
    let state = current.map_or_else(|| "unlimited".to_owned(), |bytes| format!("{bytes} bytes"));
    Finding { what: "locked memory", state, change: None }
}

fn userfaultfd() -> Finding {
    let path = "/proc/sys/vm/unprivileged_userfaultfd";
    let (state, change) = match read(path).as_deref() {
        Some("1") => ("for everybody, kernel faults included", None),
        Some(_) => ("for everybody, faults of user mode", None),
        None => ("not in this kernel", Some("engine move needs it: a kernel with CONFIG_USERFAULTFD")),
    };
    Finding { what: "userfaultfd", state: state.to_owned(), change: change.map(str::to_owned) }
}

fn seccomp() -> Finding {
    let status = read("/proc/self/status").unwrap_or_default();
    let filtered = status.lines().any(|line| line.starts_with("Seccomp:") && !line.ends_with('0'));
    Finding {
        what: "seccomp",
        state: if filtered { "a filter is in force" } else { "no filter" }.to_owned(),
        change: filtered.then(|| {
            "containers forbid userfaultfd by default: engine move then gives way to the next; \
             allow it by a profile if you want that engine"
                .to_owned()
        }),
    }
}

/// What the processor's watchpoints see, by setting one; and what stands in the way.
fn watchpoints() -> Finding {
    let host = Host::new();
    host.probe();
    let level = read("/proc/sys/kernel/perf_event_paranoid").and_then(|text| text.parse::<i32>().ok());
    let paranoid = level.map_or_else(String::new, |level| format!(" (perf_event_paranoid {level})"));
    let offer = host.ready_to_watch(|_| ());
    let change = match offer {
        WatchpointOffer::AndKernel => None,
        WatchpointOffer::Instructions => {
            Some("to see those as well: sudo sysctl kernel.perf_event_paranoid=1".to_owned())
        }
        WatchpointOffer::Nothing(why) => {
            let advice = match (why, level) {
                (NoWatchpoints::Denied, Some(level)) if level > 2 => {
                    "sudo sysctl kernel.perf_event_paranoid=2"
                }
                (NoWatchpoints::Denied, None) => "a kernel with CONFIG_PERF_EVENTS",
                (NoWatchpoints::Denied, _) => "a container's filter that allows perf_event_open",
                (NoWatchpoints::TooOld, _) => "Linux 5.19",
                _ => "nothing that can be changed here",
            };
            Some(format!("watches close pages instead; for watchpoints: {advice}"))
        }
    };
    Finding { what: "hardware watchpoints", state: format!("{offer}{paranoid}"), change }
}

fn protection_keys() -> Finding {
    let processor = read("/proc/cpuinfo").unwrap_or_default();
    let flags = processor.lines().find(|line| line.starts_with("flags")).unwrap_or("");
    let has = |flag: &str| flags.split_whitespace().any(|known| known == flag);
    let state = match (has("pku"), has("ospke")) {
        (true, true) => "there",
        (true, false) => "in the processor, and switched off by the system",
        _ => "not in this processor",
    };
    Finding { what: "protection keys", state: state.to_owned(), change: None }
}

fn cores() -> Finding {
    let pattern = read("/proc/sys/kernel/core_pattern").unwrap_or_default();
    Finding { what: "core pattern", state: pattern, change: None }
}
