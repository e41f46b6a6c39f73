//! C and C++ programs that know nothing of fencepost, guarded by the preloaded library.
//!
//! The sources are in `tests/c`, built here by `cc` and `c++`; where there is none, a test prints `skipped: why`.

#[path = "preload/calls.rs"]
mod calls;
#[path = "preload/copies.rs"]
mod copies;
#[path = "preload/cwe.rs"]
mod cwe;
#[path = "preload/limits.rs"]
mod limits;
#[path = "preload/matrix.rs"]
mod matrix;
#[path = "preload/operators.rs"]
mod operators;
#[path = "preload/others.rs"]
mod others;
#[path = "preload/process.rs"]
mod process;
#[path = "preload/rules.rs"]
mod rules;
#[path = "preload/sandbox.rs"]
mod sandbox;
#[path = "preload/sealing.rs"]
mod sealing;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};

use crate::harness::{Run, VICTIM};

/// The library, built as these tests are.
pub fn library() -> &'static str {
    static LIBRARY: OnceLock<String> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let products = Path::new(VICTIM).parent().expect("a folder");
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "-p", "fencepost-preload", "--target-dir"]);
        build.arg(products.parent().expect("a folder"));
        if products.ends_with("release") {
            build.arg("--release");
        }
        let library = products.join("libfencepost_preload.so");
        match build.current_dir(env!("CARGO_MANIFEST_DIR")).status() {
            Ok(status) => assert!(status.success(), "the library to preload builds"),
            // On a machine that was only given what runs.
            Err(error) => assert!(library.exists(), "no cargo, and no library: {error}"),
        }
        library.display().to_string()
    })
}

/// Builds `tests/c/SOURCE`; `None`, said, where there is no compiler for it.
pub fn built(source: &str) -> Option<&'static str> {
    built_with(source, "", &[])
}

/// The same with more flags, under a name of its own.
pub fn built_with(source: &str, variant: &str, flags: &[&str]) -> Option<&'static str> {
    // One at a time: tests share the programs.
    static BUILDING: Mutex<()> = Mutex::new(());
    let _alone = BUILDING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let code = Path::new(env!("CARGO_MANIFEST_DIR")).join("c").join(source);
    let program = program(source, variant);
    let compiler = compiler(source);
    let newer = |path: &Path| path.metadata().and_then(|data| data.modified()).ok();
    if newer(&program) <= newer(&code) {
        let mut build = Command::new(&compiler);
        build.args(["-g", "-O1", "-w", "-fno-builtin", "-o"]).arg(&program).arg(&code);
        build.args(flags).args(["-lpthread", "-ldl"]);
        match build.output() {
            Ok(output) => {
                assert!(output.status.success(), "{source}: {}", String::from_utf8_lossy(&output.stderr));
            }
            Err(error) => {
                println!("skipped: {source}: no {compiler} here: {error}");
                return None;
            }
        }
    }
    Some(Box::leak(program.display().to_string().into_boxed_str()))
}

/// The compiler for a source: this machine's, or the one named by `FENCEPOST_TEST_CC` and `FENCEPOST_TEST_CXX`.
fn compiler(source: &str) -> String {
    let (variable, usual) =
        if source.ends_with(".cpp") { ("FENCEPOST_TEST_CXX", "c++") } else { ("FENCEPOST_TEST_CC", "cc") };
    std::env::var(variable).unwrap_or_else(|_| usual.to_owned())
}

/// Makes what the tests run, for a machine that has no compiler.
#[test]
#[ignore = "it makes programs and runs none: for machines without a compiler"]
fn the_programs() {
    for source in [
        "cwe.c",
        "cwe.cpp",
        "copies.c",
        "kernel.c",
        "late.c",
        "matrix.c",
        "nothing.c",
        "process.c",
        "rules.c",
        "sealing.c",
    ] {
        built(source);
    }
    built("race.c");
    built_with("own_malloc.c", "", &["-rdynamic"]);
}

fn program(source: &str, variant: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}{variant}", source.replace('.', "_")))
}

/// `program` with its arguments, split at spaces, under the preloaded library.
pub fn preloaded(program: &'static str, arguments: &str) -> Run {
    Run::new(program, arguments).environment("LD_PRELOAD", library())
}
