//! Finds out whether the whole program is built with frame pointers, and whether it is built for a C library whose
//! functions can be put behind ours. (`links` in Cargo.toml asks for a build script, and two versions of this package in
//! one program are refused by it.)

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=CARGO_ENCODED_RUSTFLAGS");
    println!("cargo::rustc-check-cfg=cfg(fencepost_frame_pointers)");
    println!("cargo::rustc-check-cfg=cfg(fencepost_libc)");
    println!("cargo::rustc-check-cfg=cfg(fencepost_interpose)");
    // Cargo.toml has `fencepost-malloc` for the same systems. A static program has no loader that could be asked for the
    // functions behind ours.
    let target = |what: &str| env::var(format!("CARGO_CFG_TARGET_{what}")).unwrap_or_default();
    let is_static = target("FEATURE").split(',').any(|feature| feature == "crt-static");
    if target("OS") == "linux" && target("ENV") == "gnu" && !is_static {
        println!("cargo::rustc-cfg=fencepost_libc");
    }
    if target("OS") == "macos" {
        println!("cargo::rustc-cfg=fencepost_interpose");
    }
    // Flags come separated by the unit separator; `-C` and its value may be two of them.
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    let forced = flags.split('\u{1f}').filter_map(|flag| flag.split_once("force-frame-pointers")).next_back();
    if let Some((_, value)) = forced
        && !matches!(value, "=no" | "=n" | "=off" | "=false" | "=never")
    {
        println!("cargo::rustc-cfg=fencepost_frame_pointers");
    }
}
