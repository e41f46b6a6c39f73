//! `tests/c/kernel.c`: buffers, structures and paths handed to the kernel, each beyond its block.

use super::{built, preloaded};
use crate::expected::functions;
use crate::harness::{Run, fail_on};

/// The names that the program knows.
fn names(program: &'static str) -> Vec<String> {
    let ran = Run::new(program, "").run();
    let names: Vec<String> = ran.stdout.lines().map(str::to_owned).collect();
    assert!(names.len() > 80, "{}", ran.stdout);
    names
}

#[test]
fn every_call_is_found_and_done_as_the_program_asked() {
    let Some(program) = built("kernel.c") else { return };
    let mut wrong = Vec::new();
    for name in names(program) {
        let plain = Run::new(program, &format!("{name} good")).run();
        let good = preloaded(program, &format!("{name} good")).run();
        wrong.extend(good.silent(0));
        let ran = preloaded(program, &name).options("on_error=continue").run();
        let mut here = Vec::new();
        if good.stdout != plain.stdout {
            here.push(format!(
                "{name} good: {:?} without and {:?} with the guard",
                plain.stdout, good.stdout
            ));
        }
        let kinds = ["heap-buffer-overflow", "use-after-free"];
        match ran.reports.first() {
            Some(first) if kinds.iter().any(|kind| first["kind"] == *kind) => {
                if functions(&first["fault"]).first() != Some(&"main") {
                    here.push(format!("{name}: the stack begins {:?}", functions(&first["fault"])));
                }
                let access = first["access"]["type"].as_str();
                if !matches!(access, Some("read" | "write")) {
                    here.push(format!("{name}: accessed by {access:?}"));
                }
            }
            first => here.push(format!("{name} is not found: {first:?}")),
        }
        // What the kernel did not refuse with a block of the right size, it must not refuse now.
        let wanted = plain.stdout.replace("64", "80");
        if ran.stdout != wanted {
            here.push(format!("{name}: gave {:?}, not {wanted:?}", ran.stdout));
        }
        wrong.extend(ran.complain(here));
    }
    fail_on(wrong);
}

#[test]
fn an_error_ends_the_program_before_the_call() {
    let Some(program) = built("kernel.c") else { return };
    let ran = preloaded(program, "read").run();
    let signal = std::os::unix::process::ExitStatusExt::signal(&ran.status);
    assert_eq!((ran.stdout.as_str(), signal), ("armed\n", Some(libc::SIGABRT)), "{}", ran.stderr);
    assert_eq!(ran.reports.len(), 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("before the kernel saw them"), "{}", ran.stderr);
}

#[test]
fn it_can_be_switched_off() {
    let Some(program) = built("kernel.c") else { return };
    for name in ["read", "getrandom", "recvmsg", "open"] {
        let ran = preloaded(program, name).options("syscalls=off").run();
        assert!(ran.reports.is_empty(), "{name}: {}", ran.stderr);
    }
}

#[test]
fn what_is_exported_is_tested() {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/fencepost/src/exported");
    let mut untested = Vec::new();
    let tests = include_str!("../../c/kernel.c");
    for file in ["buffers.rs", "structures.rs"] {
        let text = std::fs::read_to_string(std::path::Path::new(source).join(file)).expect("the source");
        let table = text.split("\nlooked_at! {\n").nth(1).expect("the table");
        for line in table.lines().filter(|line| line.contains("|anchor|")) {
            let name = line.trim().split('(').next().expect("a name");
            if !tests.contains(&format!("X({name},")) && !UNTESTED.contains(&name) {
                untested.push(name.to_owned());
            }
        }
    }
    assert!(untested.is_empty(), "no case in tests/c/kernel.c for {untested:?}");
}

/// Of one kind with one that is tested: other names, or other kinds of paths.
const UNTESTED: [&str; 28] = [
    "accept",
    "accept4",
    "open64",
    "openat64",
    "creat",
    "creat64",
    "faccessat",
    "unlinkat",
    "mkdir",
    "rmdir",
    "renameat",
    "link",
    "symlink",
    "chmod",
    "chown",
    "truncate",
    "fopen64",
    "opendir",
    "__open64_2",
    "__openat_2",
    "__openat64_2",
    "__xstat64",
    "__lxstat",
    "__lxstat64",
    "__fxstat64",
    "__fxstatat",
    "__fxstatat64",
    "getrlimit64",
];
