//! Programs that a preloaded library does not reach, or not all of: status 3, why, and what to do.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use crate::harness::{COMMAND, c_program, fencepost, products};

const HARMLESS: &str = "#include <stdlib.h>\nint main(void) {\n    char *block = malloc(16);\n    block[15] = 1;\n    free(block);\n    return 0;\n}\n";
/// The user `nobody` of every distribution.
const NOBODY: u32 = 65534;

/// A folder that everybody may enter.
fn open_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    allow(folder.path(), 0o755);
    folder
}

fn allow(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("it is ours");
}

#[test]
fn a_set_uid_program_of_somebody_else_is_refused_with_what_to_do() {
    if !rustix::process::geteuid().is_root() {
        return println!("skipped: only root can make a set-uid program that is somebody else's");
    }
    if Command::new("setpriv").arg("--version").output().is_err() {
        return println!("skipped: no setpriv, by which to become somebody else");
    }
    let folder = open_folder();
    let Some(program) = c_program(folder.path(), HARMLESS, &[]) else { return };
    // The products may lie where only root gets to.
    let (command, library) = (folder.path().join("cargo-fencepost"), folder.path().join("library.so"));
    std::fs::copy(COMMAND, &command).expect("copied");
    std::fs::copy(products().join("libfencepost_preload.so"), &library).expect("copied");
    let own = folder.path().join("own");
    std::fs::create_dir(&own).expect("a folder");
    chown(&own, Some(NOBODY), Some(NOBODY)).expect("root may");
    let as_nobody = || {
        let mut run = Command::new("setpriv");
        run.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&command);
        run.args(["fencepost", "exec", "--", &program]).current_dir(&own);
        run.env("TMPDIR", &own)
            .env("HOME", &own)
            .env("XDG_CACHE_HOME", &own)
            .env("FENCEPOST_PRELOAD", &library);
        run.env_remove("FENCEPOST_OPTIONS").env_remove("LD_PRELOAD");
        let output = run.output().expect("it runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (status, said) = as_nobody();
    assert_eq!(status, Some(0), "without the bit it is guarded: {said}");
    assert!(said.contains("1 program by preload"), "{said}");
    allow(Path::new(&program), 0o4755);
    let (status, said) = as_nobody();
    assert_eq!(status, Some(3), "{said}");
    assert!(said.contains("set-uid") && said.contains("run a copy without that bit"), "{said}");
}

#[test]
fn an_allocator_under_names_of_its_own_is_seen() {
    let folder = open_folder();
    let source =
        HARMLESS.replace("int main", "void *_rjem_malloc(size_t size) { return (void *)size; }\nint main");
    let Some(program) = c_program(folder.path(), &source, &[]) else { return };
    let ran = fencepost("exec --").then([&program]).run().ends_with(3);
    ran.says("partly guarded: ").says("jemalloc is linked into it").says("build it without jemalloc");
    // Stripped, it is known by what it says.
    let words = HARMLESS.replace(
        "int main",
        "const char *volatile said = \"<jemalloc>: Malformed conf string\\n\";\nint main",
    );
    let Some(program) = c_program(folder.path(), &words, &["-s"]) else { return };
    fencepost("exec --").then([&program]).run().ends_with(3).says("jemalloc is linked into it");
    // What is found in the part that is guarded goes first.
    let wrong = source.replace("block[15]", "block[16]");
    let Some(program) = c_program(folder.path(), &wrong, &[]) else { return };
    fencepost("exec --").then([&program]).run().ends_with(100).says("partly guarded: ");
}

/// As a language's runtime that maps its own memory.
#[test]
fn a_program_that_never_calls_malloc_is_not_said_to_be_guarded() {
    let folder = open_folder();
    let source = "#include <unistd.h>\n#include <sys/mman.h>\nint main(void) {\n    char *page = mmap(0, 4096, PROT_READ | PROT_WRITE, \
                  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);\n    page[0] = 'x';\n    return write(1, page, 1) != 1;\n}\n";
    let Some(program) = c_program(folder.path(), source, &[]) else { return };
    let ran = fencepost("exec --").then([&program]).run().ends_with(3);
    assert_eq!(ran.stdout, "x");
    ran.says("no block went through it").says("build it with GuardedAlloc");
}
