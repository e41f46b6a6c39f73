//! Real allocators of others: jemalloc, mimalloc and tcmalloc as a distribution packages them, and as crates link them in.
//! What goes to `malloc` is guarded wherever ours comes first; where it does not, that is said.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use crate::harness::{COMMAND, c_program, fencepost, root};

const OVERRUN: &str = "#include <stdio.h>\n#include <stdlib.h>\nint main(int count, char **words) {\n    volatile char *block = malloc(16);\n    \
                       block[count > 1 ? 16 : 15] = 1;\n    free((void *)block);\n    puts(\"ran\");\n    return 0;\n}\n";
/// As Debian names them.
const LIBRARIES: [&str; 3] = ["libjemalloc.so.2", "libmimalloc.so.2", "libtcmalloc_minimal.so.4"];

/// The program and each of these libraries that is here, linked into it.
fn each_library(mut see: impl FnMut(&str, &str)) {
    for library in LIBRARIES {
        let folder = tempfile::tempdir().expect("a folder");
        let link = format!("-l:{library}");
        match c_program(folder.path(), OVERRUN, &["-Wl,--no-as-needed", &link]) {
            Some(program) => see(library, &program),
            None => println!("skipped: {library} (scripts/setup --bench installs it)"),
        }
    }
}

#[test]
fn a_program_linked_against_another_allocators_library_is_guarded() {
    each_library(|_, program| {
        let ran = fencepost("exec --").then([program]).run().ends_with(0).says("1 program by preload");
        assert_eq!(ran.stdout, "ran\n");
        let ran = fencepost("exec --").then([program, "x"]).run().ends_with(100);
        ran.says("ERROR: heap-buffer-overflow: write of 1 byte").says("0 bytes after a 16-byte block");
    });
}

#[test]
fn a_library_that_is_preloaded_besides_stays_behind() {
    each_library(|library, program| {
        let run = fencepost("exec --").then([program, "x"]).environment("LD_PRELOAD", library);
        run.run().ends_with(100).says("ERROR: heap-buffer-overflow: write of 1 byte");
    });
}

/// It gives its own library to a program that it starts, before ours.
#[test]
fn a_child_that_has_another_allocator_first_is_left_alone_and_named() {
    each_library(|library, program| {
        let line = format!("LD_PRELOAD={library}:$LD_PRELOAD {program} x; exit 0");
        let ran = fencepost("exec -- sh -c").then([line.as_str()]).run().ends_with(0);
        assert_eq!(ran.stdout, "ran\n");
        ran.says("not guarded: sh: ").says("malloc is bound to an allocator of the program's own");
    });
}

/// `tests/allocators` with a feature on, as `NAME` in a folder; `None`, said, where it cannot be built here.
fn built(feature: &str, folder: &Path) -> Option<PathBuf> {
    // One at a time: they share the folder of their build products.
    static BUILDING: Mutex<()> = Mutex::new(());
    let _alone = BUILDING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let target = Path::new(COMMAND).parent().expect("a folder").join("allocators");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--features", feature, "--target-dir"]).arg(&target);
    let output = build.current_dir(root().join("tests/allocators")).output().expect("cargo runs");
    if !output.status.success() {
        println!("skipped: {feature} cannot be built: {}", String::from_utf8_lossy(&output.stderr));
        return None;
    }
    let program = folder.join(feature);
    std::fs::copy(target.join("debug/fencepost-allocators"), &program).expect("copied");
    Some(program)
}

/// Blocks of the language go to it, and those of C to the C library.
fn is_seen_inside(feature: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(program) = built(feature, folder.path()) else { return };
    let said = format!("{feature} is linked into it under names of its own");
    let ran = fencepost("exec --").then([&program]).run().ends_with(3).says("partly guarded: ").says(&said);
    assert_eq!(ran.stdout, "2890\n");
    let ran = fencepost("exec --").then([&program]).then(["x"]).run().ends_with(100);
    ran.says("ERROR: heap-buffer-overflow: write of 1 byte").says(&said);
    let stripped = folder.path().join("stripped");
    match Command::new("strip").arg("-o").args([&stripped, &program]).status() {
        Ok(status) => assert!(status.success(), "it can be stripped"),
        Err(error) => return println!("skipped: no strip: {error}"),
    }
    fencepost("exec --").then([&stripped]).run().ends_with(3).says("partly guarded: ").says(&said);
}

/// It exports `malloc`, and all blocks of the process go to it.
fn is_left_alone(feature: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(program) = built(feature, folder.path()) else { return };
    let ran = fencepost("exec --").then([&program]).run().ends_with(3);
    assert_eq!(ran.stdout, "2890\n");
    ran.says("not guarded: ").says("it exports a malloc of its own").says("or with GuardedAlloc");
}

#[test]
fn mimalloc_inside_is_seen() {
    is_seen_inside("mimalloc");
}

#[test]
fn mimalloc_for_the_whole_program_is_left_alone() {
    is_left_alone("mimalloc-for-all");
}

#[test]
fn jemalloc_inside_is_seen_and_for_the_whole_program_left_alone() {
    if std::env::var_os("FENCEPOST_TEST_JEMALLOC").is_none() {
        return println!("skipped: building jemalloc takes minutes: FENCEPOST_TEST_JEMALLOC=1");
    }
    is_seen_inside("jemalloc");
    is_left_alone("jemalloc-for-all");
}
