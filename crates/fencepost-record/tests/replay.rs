//! The replay line, read back by a real shell.
#![cfg(unix)]

use std::process::Command;

use fencepost_record::{Record, Text, replay};

fn record(options: &str, args: &[&str]) -> Record {
    let mut record = Record { options: Text::new(options.as_bytes()), seed: 0xabc, ..Record::default() };
    for argument in args {
        record.process.args.push(argument.as_bytes());
        record.process.args.push(b"\0");
    }
    record
}

fn written(record: &Record) -> Option<String> {
    let mut out = String::new();
    replay::write(record, &mut out).unwrap().then_some(out)
}

/// What a program started by the line sees: its options and its arguments.
fn seen(line: &str) -> Vec<String> {
    let output = Command::new("/bin/sh").arg("-c").arg(line).output().expect("there is a shell");
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().split_terminator('\0').map(str::to_owned).collect()
}

#[test]
fn a_shell_gives_back_every_word() {
    let nasty = [
        "plain",
        "",
        "two words",
        "it's",
        "'",
        "''",
        "\"",
        "$HOME",
        "`id`",
        "\\",
        "a\nb",
        "*",
        "#no",
        "~",
        "A=b",
        "!",
        "tab\there",
        "ü😀",
        "-x",
    ];
    let script = "printf '%s\\0' \"$FENCEPOST_OPTIONS\" \"$@\"";
    for options in ["", "mode=strict", "only_fn='a,b',log=\"it's\"", "only_fn=$(id)"] {
        let args: Vec<&str> = ["/bin/sh", "-c", script, "sh"].into_iter().chain(nasty).collect();
        let line = written(&record(options, &args)).unwrap();
        let mut seen = seen(&line).into_iter();
        let comma = if options.is_empty() { "" } else { "," };
        assert_eq!(seen.next().unwrap(), format!("{options}{comma}seed=0xabc"));
        assert_eq!(seen.collect::<Vec<_>>(), nasty);
    }
}

#[test]
fn a_seed_that_is_given_is_kept() {
    let line = |options| written(&record(options, &["p"])).unwrap();
    assert_eq!(line("seed=0x7,mode=strict"), "FENCEPOST_OPTIONS='seed=0x7,mode=strict' p");
    assert_eq!(line("mode=strict,seed=7,"), "FENCEPOST_OPTIONS='mode=strict,seed=7' p");
    // Neither another key that ends so, nor a word in a quoted value, is a seed.
    assert!(line("fail_seed=1").ends_with(",seed=0xabc' p"));
    assert!(line("only_fn=\"x,seed=1\"").ends_with(",seed=0xabc' p"));
}

#[test]
fn a_line_that_would_run_something_else_is_not_written() {
    assert_eq!(written(&record("mode=strict", &[])), None);
    let long = "x".repeat(8192);
    assert_eq!(written(&record(&long, &["p"])), None);
    let mut cut = record("", &["p", "a"]);
    cut.process.exe = Text::new(long.as_bytes());
    assert_eq!(written(&cut), None);
    let line = written(&record("", &["p", "a", &long])).unwrap();
    assert!(line.ends_with(" # and arguments that were not kept"), "{line}");
    // Part of an argument is another argument.
    let mut part = record("", &["p", "whole"]);
    part.process.args.push(b"par");
    assert_eq!(
        written(&part).unwrap(),
        "FENCEPOST_OPTIONS='seed=0xabc' p whole # and arguments that were not kept"
    );
    assert!(!line.contains("xxxx"), "{line}");
}

#[test]
fn a_library_that_is_needed_is_preloaded() {
    let script = "printf '%s\\0' \"$LD_PRELOAD\" \"$FENCEPOST_OPTIONS\"";
    let mut record = record("place=left", &["/bin/sh", "-c", script]);
    record.process.preload = Text::new(b"/no one's/library.so");
    assert_eq!(seen(&written(&record).unwrap()), ["/no one's/library.so", "place=left,seed=0xabc"]);
}
