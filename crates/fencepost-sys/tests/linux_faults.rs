//! Faults, chains and stacks of the host, each in a process of its own that may die of it.
//!
//! A test names a scene and says how the process must end and what it must have printed. The scene runs in this
//! same program, started again with the scene's name in the environment: by `FENCEPOST_TEST_RUNNER` where it cannot be
//! started by itself (`qemu-aarch64 -L ROOT`).
#![cfg(target_os = "linux")]
#![allow(clippy::disallowed_types, clippy::disallowed_macros, clippy::disallowed_methods)]

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

#[path = "linux_faults/chained.rs"]
mod chained;
#[path = "linux_faults/faults.rs"]
mod faults;
#[path = "linux_faults/stacks.rs"]
mod stacks;

/// How a scene ends.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Status(i32),
    Signal(i32),
}

const SCENE: &str = "FENCEPOST_TEST_SCENE";

/// A scene: its name, what it does, how it ends, and what it prints on standard error, line by line.
type Scene = (&'static str, fn(), End, &'static [&'static str]);

fn scenes() -> Vec<Scene> {
    [faults::scenes(), chained::scenes(), stacks::scenes()].into_iter().flatten().collect()
}

/// Prints a line, by one bare call: this runs in handlers.
pub(crate) fn say(line: &str) {
    let mut text = [0u8; 256];
    let len = line.len().min(255);
    text[..len].copy_from_slice(&line.as_bytes()[..len]);
    text[len] = b'\n';
    // SAFETY: the buffer is ours.
    unsafe { libc::write(2, text.as_ptr().cast(), len + 1) };
}

/// The scene's side.
#[test]
fn scene() {
    if let Ok(name) = std::env::var(SCENE) {
        let scene = scenes().into_iter().find(|(known, ..)| *known == name).unwrap();
        (scene.1)();
        std::process::exit(0);
    }
}

/// The test's side.
#[test]
fn every_scene_ends_as_it_must() {
    if std::env::var_os(SCENE).is_some() {
        return;
    }
    let runner = std::env::var("FENCEPOST_TEST_RUNNER").unwrap_or_default();
    let mut wrong = Vec::new();
    for denied in ["", "markers,process_vm_readv"] {
        for (name, _, end, lines) in scenes() {
            let child = Command::new("timeout")
                .args(["--foreground", "--signal=KILL", "60"])
                .args(runner.split_whitespace())
                .arg(std::env::current_exe().unwrap())
                .args(["--exact", "scene", "--nocapture", "--test-threads=1"])
                .env(SCENE, name)
                .env("FENCEPOST_DENY", denied)
                .env("RUST_BACKTRACE", "0")
                .stdin(Stdio::null())
                .output()
                .unwrap();
            let status = child.status;
            // `timeout` ends by the signal of its command, or says it as a shell does.
            let signal = status.signal().or(status.code().filter(|code| *code > 128).map(|code| code - 128));
            let ended = signal.map_or(End::Status(status.code().unwrap_or(-1)), End::Signal);
            let printed = String::from_utf8_lossy(&child.stderr);
            // What an emulator says of a signal that nobody took is not the program's.
            let foreign = |line: &&str| line.starts_with("timeout:") || line.starts_with("qemu: uncaught");
            let own: Vec<&str> = printed.lines().filter(|line| !foreign(line)).collect();
            if ended != end || own != lines {
                wrong.push(format!("{name} (without {denied:?}): {ended:?} for {end:?}\n{printed}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
