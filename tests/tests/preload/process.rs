//! `tests/c/process.c`: programs that are rough with their process, and have no error.

use std::path::Path;
use std::process::Command;

use super::{built, preloaded};
use crate::harness::everywhere;

fn unharmed(arguments: &str) {
    let Some(program) = built("process.c") else { return };
    everywhere(&["right"], |_, options| {
        let mut ran = preloaded(program, arguments).options(options).seconds(300).run();
        let mut wrong = Vec::new();
        if arguments == "closes_all" && options.contains("engine=move") {
            // What was touched meanwhile went unseen: that is owned up to, in one line, and nothing else is said.
            let said = std::mem::take(&mut ran.stderr);
            let line = "fencepost: the program closed the descriptor that guards its memory: ";
            if said.lines().count() != 1 || !said.starts_with(line) {
                wrong.push(format!("not one line about the descriptor: {said:?}"));
            }
        }
        wrong.extend(ran.silent(0));
        // Programs that start others pass them their own output.
        if !ran.stdout.ends_with("done\n") {
            wrong.extend(ran.complain(vec!["it did not get through".into()]));
        }
        wrong
    });
}

#[test]
fn two_hundred_threads_start_allocate_and_end() {
    unharmed("threads");
}

#[test]
fn a_thousand_forks_while_threads_allocate() {
    unharmed("forks 1000");
}

#[test]
fn all_descriptors_are_closed() {
    unharmed("closes_all");
}

#[test]
fn program_after_program_in_one_process() {
    unharmed("execs 7");
}

#[test]
fn programs_started_by_spawn_and_vfork() {
    unharmed("spawns");
}

#[test]
fn handlers_masks_and_alternate_stacks_are_the_programs() {
    unharmed("signals");
}

#[test]
fn locked_memory_and_much_of_it() {
    unharmed("limits");
}

#[test]
fn threads_are_cancelled_in_calls() {
    unharmed("cancels");
}

#[test]
fn libraries_allocate_when_they_come_and_free_when_they_go() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("c/plugin.c");
    let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join("plugin.so");
    let status = Command::new("cc").args(["-shared", "-fPIC", "-g", "-o"]).args([&library, &source]).status();
    match status {
        Ok(status) => assert!(status.success(), "the plugin builds"),
        Err(error) => return println!("skipped: no C compiler: {error}"),
    }
    unharmed(&format!("libraries {}", library.display()));
}
