//! Under a terminal: the program has it, and what is said is in colours there only.

use std::process::Stdio;

use crate::harness::{fencepost, ran, victim};

/// Runs a command line under a terminal of its own; `None`, said, where there is none to be had. What it wrote, errors
/// too, is its standard output.
fn on_a_terminal(arguments: &str, line: &str) -> Option<crate::harness::Ran> {
    let inner = fencepost(arguments);
    let mut outer = std::process::Command::new("script");
    // The command line as a shell reads it, with all that the command would be started with.
    let command = inner.command.get_program().to_string_lossy().into_owned();
    let words = inner.command.get_args().map(|word| format!("'{}'", word.to_string_lossy()));
    let words: Vec<String> = std::iter::once(command).chain(words).collect();
    outer.args(["--quiet", "--return", "--command", &format!("{} {line}", words.join(" ")), "/dev/null"]);
    for (name, value) in inner.command.get_envs() {
        match value {
            Some(value) => outer.env(name, value),
            None => outer.env_remove(name),
        };
    }
    let outer = outer.env("TERM", "xterm").current_dir(inner.folder.path()).stdin(Stdio::null());
    match outer.output() {
        Ok(output) => Some(ran(output, inner.folder)),
        Err(error) => {
            println!("skipped: no script, which makes a terminal: {error}");
            None
        }
    }
}

#[test]
fn the_program_has_the_terminal() {
    let line = "sh -c 'test -t 0 && test -t 1 && test -t 2 && stty -a >/dev/null && echo mine; exit 7'";
    let Some(ran) = on_a_terminal("exec --", line) else { return };
    assert!(ran.stdout.contains("mine"), "{}", ran.stdout);
    assert_eq!(ran.status, Some(7), "{}", ran.stdout);
}

#[test]
fn there_are_colours_on_a_terminal_and_not_where_they_are_not_wanted() {
    let line = format!("{} use-after-free write 24 0 0", victim());
    let Some(ran) = on_a_terminal("exec --", &line) else { return };
    assert_eq!(ran.status, Some(100), "{}", ran.stdout);
    let coloured = |text: &str| text.contains("\x1b[");
    assert!(coloured(&ran.stdout) && ran.stdout.contains("use-after-free"), "{}", ran.stdout);
    let Some(ran) = on_a_terminal("exec --color never --", &line) else { return };
    assert!(!coloured(&ran.stdout) && ran.stdout.contains("use-after-free"), "{}", ran.stdout);
}
