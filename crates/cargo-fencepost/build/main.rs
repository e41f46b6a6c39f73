//! Builds the library to preload, so that the program can carry it inside itself.
//!
//! Cargo has no stable way for one package to depend on another's library file, so this script calls cargo, with a
//! folder for its products of its own: no lock is shared with the build that runs this. Release builds carry the
//! library. Others leave it out, because they are made again with every change of the code below, and take it from
//! `FENCEPOST_PRELOAD` when they run; `FENCEPOST_EMBED=1` puts it into them too.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=FENCEPOST_EMBED");
    let out = PathBuf::from(variable("OUT_DIR"));
    let library = out.join("libfencepost_preload.so");
    let wanted = std::env::var("FENCEPOST_EMBED").is_ok_and(|value| value == "1");
    let release = variable("PROFILE") == "release";
    // Where such a library is loaded at all: glibc on Linux.
    let target = variable("TARGET");
    let possible = target.contains("-linux-gnu");
    if possible && (release || wanted) {
        let built = build(&out, &target);
        std::fs::copy(&built, &library)
            .unwrap_or_else(|error| panic!("{} cannot be copied: {error}", built.display()));
    } else {
        std::fs::write(&library, b"").expect("OUT_DIR can be written");
    }
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"))
}

/// Builds the library and says where it is.
fn build(out: &Path, target: &str) -> PathBuf {
    let manifest = source(out);
    let products = out.join("preload");
    let mut command = Command::new(variable("CARGO"));
    command.args(["build", "--release", "--lib", "--target", target, "--manifest-path"]).arg(&manifest);
    command.arg("--target-dir").arg(&products);
    if std::env::var_os("CARGO_NET_OFFLINE").is_some() {
        command.arg("--offline");
    }
    // What cargo sets for us is about this package, and would be wrong for that one.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let ours = ["CARGO_FEATURE_", "CARGO_CFG_", "CARGO_PKG_", "CARGO_ENCODED_", "DEP_"];
        if ours.iter().any(|start| text.starts_with(start)) || text == "CARGO_MANIFEST_DIR" {
            command.env_remove(&name);
        }
    }
    let status = command.status().expect("cargo runs");
    assert!(status.success(), "the library to preload could not be built: {status}");
    products.join(target).join("release").join("libfencepost_preload.so")
}

/// The package of the library: the one beside ours, or, where only we were downloaded, one made here that says the
/// same in two lines.
fn source(out: &Path) -> PathBuf {
    let here = PathBuf::from(variable("CARGO_MANIFEST_DIR"));
    let beside = here.join("../fencepost-preload/Cargo.toml");
    if beside.is_file() {
        for name in ["record", "sys", "guard", "memory", "report", "malloc", "preload"] {
            println!("cargo::rerun-if-changed={}", here.join(format!("../fencepost-{name}/src")).display());
        }
        println!("cargo::rerun-if-changed={}", here.join("../fencepost/src").display());
        return beside;
    }
    let package = out.join("fencepost-preload");
    let version = variable("CARGO_PKG_VERSION");
    let manifest = format!(
        "[package]\nname = \"fencepost-preload\"\nversion = \"{version}\"\nedition = \"2024\"\n\n\
         [lib]\npath = \"lib.rs\"\ncrate-type = [\"cdylib\"]\n\n\
         [dependencies]\nfencepost = {{ version = \"={version}\", features = [\"cpp\", \"symbolize\"] }}\n\n[workspace]\n"
    );
    let library = "fencepost::export_libc!();\n\n#[unsafe(no_mangle)]\npub extern \"C\" fn fencepost_preload_step_back() {\n    fencepost::exported::step_back();\n}\n";
    std::fs::create_dir_all(&package).expect("OUT_DIR can be written");
    std::fs::write(package.join("Cargo.toml"), manifest).expect("OUT_DIR can be written");
    std::fs::write(package.join("lib.rs"), library).expect("OUT_DIR can be written");
    package.join("Cargo.toml")
}
