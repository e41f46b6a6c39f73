//! What a Windows machine is and allows.

use std::process::Command;

use fencepost_sys::{Host, Memory, Pages, Platform, WatchpointOffer, Watchpoints};

use super::NO_PRELOAD;
use crate::doctor::Finding;

/// What the system is; and its limits and permissions.
pub fn machine() -> (Finding, Vec<Finding>) {
    Host::new().probe();
    (system(), vec![preload(), pages(), large_pages(), memory(), watchpoints()])
}

fn plain(what: &'static str, state: String) -> Finding {
    Finding { what, state, change: None }
}

/// As the command interpreter calls it.
fn system() -> Finding {
    let said = Command::new("cmd").args(["/c", "ver"]).output().ok();
    let said = said.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    plain("system", said.filter(|text| !text.is_empty()).unwrap_or_else(|| "not known".to_owned()))
}

fn preload() -> Finding {
    Finding {
        what: "preload",
        state: "absent: programs are guarded by the allocator that they are built with".to_owned(),
        change: Some(NO_PRELOAD.to_owned()),
    }
}

fn pages() -> Finding {
    let host = Host::new();
    let state = format!("{} bytes; addresses by {} bytes", host.page_size(), host.granularity());
    plain("pages", state)
}

fn large_pages() -> Finding {
    let mut sizes = [0; 4];
    let count = Host::new().huge_page_sizes(&mut sizes);
    let state = match sizes.get(..count).unwrap_or(&[]) {
        [] => "the processor has none".to_owned(),
        sizes => format!("of {sizes:?} bytes, for accounts with the right SeLockMemoryPrivilege"),
    };
    plain("large pages", state)
}

fn memory() -> Finding {
    let state =
        Host::new().available().map_or_else(|| "not known".to_owned(), |bytes| format!("{bytes} bytes"));
    plain("available memory", state)
}

/// What the processor's watchpoints see, by setting one.
fn watchpoints() -> Finding {
    let offer = Host::new().ready_to_watch(|_| ());
    let change =
        matches!(offer, WatchpointOffer::Nothing(_)).then(|| "watches close pages instead".to_owned());
    Finding { what: "hardware watchpoints", state: offer.to_string(), change }
}
