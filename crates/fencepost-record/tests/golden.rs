//! Every report as it is written today, byte for byte: `tests/golden/<case>.txt` and `.json`.
//!
//! A wanted change of wording is taken over by running these tests with `FENCEPOST_BLESS=1` and reading the
//! difference.

use std::path::{Path, PathBuf};

use fencepost_record::text::{self, Style};
use fencepost_record::{ErrorKind, RawFrames, Summary, Unguarded, json};

mod invented;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join("golden")
}

/// Compares `actual` with the file, or writes the file when asked to. Returns whether they agree.
fn agrees(name: &str, actual: &str) -> bool {
    let path = folder().join(name);
    if std::env::var_os("FENCEPOST_BLESS").is_some() {
        std::fs::write(&path, actual).expect("the golden file can be written");
        return true;
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    if expected != actual {
        eprintln!("--- {name}, expected:\n{expected}\n+++ actual:\n{actual}");
    }
    expected == actual
}

#[test]
fn reports_are_as_in_the_golden_files() {
    let mut wrong = Vec::new();
    for (name, record) in invented::cases() {
        let (mut raw, mut resolved) = (String::new(), String::new());
        text::report(&record, &RawFrames(&record), Style::default(), &mut raw).unwrap();
        let style = Style { resolved: true, color: false };
        text::report(&record, &invented::Named(&record), style, &mut resolved).unwrap();
        let mut line = String::new();
        json::report(&record, &invented::Named(&record), &mut line).unwrap();
        let files = [
            (format!("{name}.raw.txt"), raw),
            (format!("{name}.txt"), resolved),
            (format!("{name}.json"), line + "\n"),
        ];
        wrong.extend(files.into_iter().filter(|(file, actual)| !agrees(file, actual)).map(|(file, _)| file));
    }
    assert!(wrong.is_empty(), "these differ (FENCEPOST_BLESS=1 takes them over): {wrong:?}");
}

#[test]
fn every_kind_has_a_case() {
    let cases = invented::cases();
    for kind in ErrorKind::ALL {
        assert!(
            cases.iter().any(|(name, record)| *name == kind.name() && record.kind == kind),
            "{}",
            kind.name()
        );
    }
}

#[test]
fn no_golden_file_is_left_over() {
    let names: Vec<_> = invented::cases().iter().map(|(name, _)| *name).chain(["summary", "color"]).collect();
    for entry in std::fs::read_dir(folder()).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        let case = file.split('.').next().unwrap();
        assert!(names.contains(&case), "{file} belongs to no case");
    }
}

#[test]
fn the_first_line_is_the_contracts() {
    let (_, record) = invented::cases().remove(0);
    let mut line = String::new();
    text::headline(&record, &mut line).unwrap();
    let expected = "fencepost: ERROR: heap-buffer-overflow: write of 1 byte at 0x200000001000, 0 bytes after a 24-byte block\n";
    assert_eq!(line, expected);
    let (mut whole, mut body) = (String::new(), String::new());
    text::report(&record, &RawFrames(&record), Style::default(), &mut whole).unwrap();
    text::body(&record, &RawFrames(&record), Style::default(), &mut body).unwrap();
    assert_eq!(whole, line + &body);
}

#[test]
fn colors_change_nothing_but_colors() {
    let (_, record) = invented::cases().remove(0);
    let frames = invented::Named(&record);
    let write = |color| {
        let mut out = String::new();
        text::report(&record, &frames, Style { color, resolved: true }, &mut out).unwrap();
        out
    };
    let (plain, colored) = (write(false), write(true));
    assert!(!plain.contains('\x1b') && colored.contains('\x1b'));
    assert!(agrees("color.txt", &colored));
    let mut stripped = String::new();
    for (index, part) in colored.split("\x1b[").enumerate() {
        stripped.push_str(if index == 0 { part } else { part.split_once('m').unwrap().1 });
    }
    assert_eq!(stripped, plain);
}

#[test]
fn summaries_are_as_in_the_golden_file() {
    let mut good =
        Summary { pid: 4242, engine: "marker", mode: "strict", seed: 0x5eed, ..Summary::default() };
    (good.total, good.guarded, good.live, good.live_max) = (12_350, 12_345, 1, 1_204);
    (good.held_bytes, good.quarantined_bytes, good.syscalls) = (5_138_022, 50_560_000, 24_800);
    good.unguarded[Unguarded::Reentrant as usize] = 4;
    good.unguarded[Unguarded::Mappings as usize] = 1;
    let mut poor = Summary { fallbacks: 2, reports: 1, reports_lost: 3, stacks_lost: 1, ..good };
    (poor.refused[2], poor.refused[0]) = (1_500, 1);
    let mut off = Summary { mode: "off", total: 1, pid: 1, ..Summary::default() };
    off.unguarded[Unguarded::ModeOff as usize] = 1;
    let mut actual = String::new();
    for summary in [good, poor, off, Summary::default()] {
        actual += &summary.to_string();
        json::summary(&summary, &mut actual).unwrap();
        actual += "\n\n";
    }
    let exe = "/home/user/demo/target/debug/demo";
    let guarded = json::Start { pid: 4242, engine: "marker", mode: "strict", exe, why_not: "" };
    json::start(&guarded, &mut actual).unwrap();
    actual.push('\n');
    let why_not = "it exports a malloc of its own";
    json::start(&json::Start { engine: "", mode: "", why_not, ..guarded }, &mut actual).unwrap();
    actual += "\n";
    assert!(agrees("summary.txt", &actual));
}
