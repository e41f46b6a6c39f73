//! `exec`: programs as they are.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use crate::harness::{c_program, clean, fencepost, ran, victim};

const OVERRUN: &str = "#include <stdlib.h>\nint main(int count, char **words) {\n    volatile char *block = malloc(16);\n    \
                       block[count > 1 ? 16 : 15] = 1;\n    free((void *)block);\n    return 5;\n}\n";

#[test]
fn a_program_without_errors_is_as_it_was() {
    let ran = fencepost("exec -- sh -c").then(["cat; echo done >&2; exit 7"]).input("through").run();
    let ran = ran.ends_with(7).says("done\n").says("fencepost: no error").says("1 program by preload");
    assert_eq!(ran.stdout, "through");
}

#[test]
fn an_end_by_a_signal_is_the_same_end() {
    let ran = fencepost("exec -- sh -c").then(["kill -TERM $$"]).run();
    assert_eq!((ran.status, ran.signal), (None, Some(15)), "{}", ran.stderr);
}

#[test]
fn an_error_is_reported_with_names_and_lines() {
    let Some(program) = c_program(&std::env::temp_dir().join(made("lines")), OVERRUN, &[]) else { return };
    fencepost("exec --").then([&program]).run().ends_with(5).says("no error");
    let ran = fencepost("exec --seed 0x2a --").then([&program, "x"]).run().ends_with(100);
    let ran = ran
        .says("fencepost: ERROR: heap-buffer-overflow: write of 1 byte at 0x")
        .says("0 bytes after a 16-byte block")
        .says("program.c:4")
        .says("4 |     block[count > 1 ? 16 : 15] = 1;")
        .says(" in main  ")
        .says("\nallocated ")
        .says("/libfencepost_preload.so' FENCEPOST_OPTIONS='seed=0x2a' ")
        .says("fencepost: 1 error; ");
    assert_eq!(ran.stderr.matches("fencepost: ERROR").count(), 1, "{}", ran.stderr);
    assert!(!ran.stderr.contains('\x1b'), "no colours where there is no terminal");
}

/// A folder in the folder for temporary files.
fn made(name: &str) -> String {
    let name = format!("fencepost-command-{}-{name}", std::process::id());
    std::fs::create_dir_all(std::env::temp_dir().join(&name)).expect("a folder");
    name
}

#[test]
fn the_allocator_built_in_goes_first() {
    let ran = fencepost("exec --").then([&victim(), "use-after-free", "write", "24", "0", "0"]).run();
    let ran = ran.ends_with(100).says("use-after-free: write of").says("1 program by the allocator built in");
    for (event, function) in [("\nfreed ", "victim_frees"), ("\nallocated ", "victim_allocates")] {
        let (_, after) = ran.stderr.split_once(event).expect("all three stacks");
        let (when, stack) = after.split_once(':').expect("a heading");
        assert!(when.contains(" before by thread "), "{}", ran.stderr);
        let stack = stack.split("\n\n").next().unwrap_or_default();
        assert!(stack.contains(function), "{}", ran.stderr);
    }
    fencepost("exec --no-preload --").then([&clean(), "work"]).run().says("by the allocator built in");
}

#[test]
fn children_are_guarded_too() {
    let line = format!("{} use-after-free write 24 0 0; exit 0", victim());
    fencepost("exec -- sh -c").then([line.as_str()]).run().ends_with(100).says("use-after-free: write of");
}

/// One of the process's own, which a child would inherit, stays where it is.
#[test]
fn children_are_left_alone_where_that_is_asked_for() {
    let Some(program) = c_program(&std::env::temp_dir().join(made("alone")), OVERRUN, &[]) else { return };
    let line = format!("echo \"[$LD_PRELOAD]\"; {program} x; echo $?");
    let ran = fencepost("exec --no-children -- sh -c").then([line.as_str()]).run().ends_with(0);
    assert_eq!(ran.stdout, "[]\n5\n", "the error goes unseen");
    ran.says("1 program by preload").says_nothing_of("ERROR");
    let run = fencepost("exec --no-children -- sh -c").then([line.as_str()]);
    let ran = run.environment("LD_PRELOAD", "libm.so.6").run().ends_with(0);
    assert_eq!(ran.stdout, "[libm.so.6]\n5\n");
    fencepost("exec --no-children --").then([&program, "x"]).run().ends_with(100);
    fencepost("exec -- sh -c").then([line.as_str()]).run().ends_with(100);
}

#[test]
fn what_cannot_be_guarded_is_said_with_what_to_do() {
    let folder = std::env::temp_dir().join(made("static"));
    if let Some(program) = c_program(&folder, OVERRUN, &["-static"]) {
        let ran = fencepost("exec --").then([&program]).run();
        ran.ends_with(3).says("not guarded: ").says("linked statically").says("build it with GuardedAlloc");
    }
    // As the wrapper `musl-gcc` calls the compiler, where there is one.
    let folder = std::env::temp_dir().join(made("musl"));
    let flags = ["-specs", "/usr/lib/x86_64-linux-musl/musl-gcc.specs"];
    if let Some(program) = c_program(&folder, OVERRUN, &flags) {
        let ran = fencepost("exec --").then([&program]).run();
        ran.ends_with(3).says("not guarded: ").says("it is built for musl").says("or with GuardedAlloc");
    }
    let own = "#include <stddef.h>\nstatic char room[1 << 16];\nstatic size_t used;\n\
               void *malloc(size_t size) { void *at = room + used; used += (size + 15) & ~15ul; return at; }\n\
               void free(void *at) { (void)at; }\nint main(void) { return malloc(8) == NULL; }\n";
    if let Some(program) = c_program(&folder, own, &["-rdynamic"]) {
        let ran = fencepost("exec --").then([&program]).run();
        ran.ends_with(3).says("it exports a malloc of its own");
    }
    let ran = fencepost("exec --no-preload -- true").run();
    ran.ends_with(3).says("no library may be preloaded");
}

#[test]
fn signals_go_through() {
    let line = "trap 'echo got; exit 9' USR1; echo ready; while :; do sleep 0.05; done";
    let mut run = fencepost("exec -- sh -c").then([line]);
    run.command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = run.command.spawn().expect("it starts");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut first = String::new();
    lines.read_line(&mut first).expect("a line");
    assert_eq!(first, "ready\n");
    let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw).expect("a process");
    rustix::process::kill_process(pid, rustix::process::Signal::USR1).expect("it is there");
    let mut rest = String::new();
    lines.read_to_string(&mut rest).expect("text");
    assert_eq!(rest, "got\n");
    let output = child.wait_with_output().expect("it ends");
    ran(output, run.folder).ends_with(9);
}

#[test]
fn both_sides_find_what_one_side_misses() {
    let source = OVERRUN.replace("count > 1 ? 16 : 15", "-1");
    let Some(program) = c_program(&std::env::temp_dir().join(made("sides")), &source, &[]) else { return };
    let ran = fencepost("exec --both-sides --").then([&program]).run().ends_with(100);
    ran.says("heap-buffer-underflow: write of 1 byte").says("2 programs by preload");
}

#[test]
fn each_allocation_fails_once_in_a_sweep() {
    let source = "#include <stdlib.h>\nint main(void) {\n    char *one = malloc(100);\n    if (one == NULL) return 1;\n    \
                  char *two = malloc(200);\n    two[0] = 1;\n    free(one);\n    free(two);\n    return 0;\n}\n";
    let Some(program) = c_program(&std::env::temp_dir().join(made("sweep")), source, &[]) else { return };
    fencepost("exec --").then([&program]).run().ends_with(0);
    let ran = fencepost("exec --fail-sweep --").then([&program]).run().ends_with(100);
    let ran = ran.says("fencepost: fail-sweep: ").says("fencepost: 1 error");
    assert!(ran.stderr.contains(" 1 by a signal"), "{}", ran.stderr);
}

#[test]
fn the_replay_line_brings_the_error_back() {
    let Some(program) = c_program(&std::env::temp_dir().join(made("replay")), OVERRUN, &[]) else { return };
    let ran = fencepost("exec --").then([&program, "x"]).run().ends_with(100);
    let line = ran.stderr.lines().find_map(|line| line.strip_prefix("replay: ")).expect("a line").to_owned();
    let again = std::process::Command::new("sh").args(["-c", &line]).output().expect("there is a shell");
    let said = String::from_utf8_lossy(&again.stderr);
    assert!(said.starts_with("fencepost: ERROR: heap-buffer-overflow: write of 1 byte"), "{line}\n{said}");
}
