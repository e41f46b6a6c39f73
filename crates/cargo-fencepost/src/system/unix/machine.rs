//! What a Unix machine is and allows. Most of it is Linux's, from its files; elsewhere that is not known.

use fencepost_sys::{Host, NoWatchpoints, Platform, WatchpointOffer, Watchpoints};
use rustix::process::{Resource, getrlimit};

use crate::doctor::Finding;

/// Fewer mappings than this, and engine `mprotect` soon guards a sample only.
const MAPPINGS_WANTED: u64 = 262_144;

/// What the system is; and its limits and permissions.
pub fn machine() -> (Finding, Vec<Finding>) {
    let mut rest =
        vec![mappings(), overcommit(), limit("address space", Resource::As), limit("data", Resource::Data)];
    rest.extend([locked(), userfaultfd(), seccomp(), watchpoints(), protection_keys(), cores()]);
    (kernel(), rest)
}

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn kernel() -> Finding {
    let state = read("/proc/sys/kernel/osrelease").unwrap_or_else(|| "not known".to_owned());
    Finding { what: "kernel", state, change: None }
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
