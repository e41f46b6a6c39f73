//! The command as it is installed: it carries the library, and puts it into the user's cache.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::harness::{COMMAND, c_program, root};

const HARMLESS: &str = "#include <stdlib.h>\nint main(void) {\n    char *block = malloc(16);\n    block[15] = 1;\n    free(block);\n    return 0;\n}\n";

/// By `cargo install --path`, into a folder.
fn installed(folder: &Path) -> PathBuf {
    let products = Path::new(COMMAND).ancestors().nth(2).expect("a folder");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut install = Command::new(cargo);
    // Builds without optimisation leave the library out unless they are told to carry it.
    install.args(["install", "--quiet", "--debug", "--path"]).arg(root().join("crates/cargo-fencepost"));
    install.env("FENCEPOST_EMBED", "1").arg("--root").arg(folder).arg("--target-dir").arg(products);
    assert!(install.status().expect("cargo runs").success(), "it can be installed");
    folder.join("bin/cargo-fencepost")
}

fn guard(command: &Path, cache: &Path, program: &str) -> Output {
    let mut run = Command::new(command);
    run.args(["fencepost", "exec", "--", program]).env("XDG_CACHE_HOME", cache);
    for name in ["FENCEPOST_PRELOAD", "FENCEPOST_OPTIONS", "LD_PRELOAD"] {
        run.env_remove(name);
    }
    run.output().expect("it runs")
}

#[test]
fn what_is_installed_carries_the_library_and_puts_it_into_the_cache() {
    if std::env::var_os("FENCEPOST_TEST_INSTALL").is_none() {
        return println!("skipped: installing takes minutes: FENCEPOST_TEST_INSTALL=1");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let Some(program) = c_program(folder.path(), HARMLESS, &[]) else { return };
    let command = installed(folder.path());
    let cache = folder.path().join("cache");
    let is_guarded = || {
        let output = guard(&command, &cache, &program);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{said}");
        assert!(said.contains("1 program by preload"), "{said}");
        let files = std::fs::read_dir(cache.join("fencepost")).expect("the cache");
        let files: Vec<PathBuf> = files.map(|file| file.expect("a file").path()).collect();
        let [library] = files.as_slice() else { panic!("one library: {files:?}") };
        library.clone()
    };
    let library = is_guarded();
    let whole = std::fs::read(&library).expect("the library");
    // Half of it, as after a full disk, is not used.
    std::fs::write(&library, &whole[..whole.len() / 2]).expect("written");
    assert_eq!(is_guarded(), library, "named by its content");
    assert_eq!(std::fs::read(&library).expect("the library"), whole, "made anew");
    let output = guard(&command, Path::new("/proc/no-such-place"), &program);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("set XDG_CACHE_HOME to a folder that can be written"), "{said}");
}
