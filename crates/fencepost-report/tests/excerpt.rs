//! Which source lines a report shows, and how.

use std::path::PathBuf;

use fencepost_record::{ExcerptLine, Frames, Which};
use fencepost_report::{Resolved, Style, Symbol, render, render_json};

mod symbols;

use symbols::{Table, record, symbol};

/// A source file that lives as long as the test.
struct Source(PathBuf);

impl Source {
    fn new(name: &str, content: &[u8]) -> Source {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        Source(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).expect("the file is still there");
    }
}

fn shown(resolved: &Resolved<'_>) -> Vec<(Which, bool, u32, String, bool)> {
    let mut all = Vec::new();
    resolved.excerpt(&mut |line: &ExcerptLine<'_>| {
        all.push((line.stack, line.direct, line.number, line.text.to_owned(), line.hit));
    });
    all
}

const TEN: &[u8] = b"one\ntwo\nthree\nfour\nfive\n\tsix(\xff);\r\nseven\neight\nnine\nten\n";

#[test]
fn three_lines_before_and_after_are_shown() {
    let source = Source::new("around/own.rs", TEN);
    let mut table = Table::default();
    let fault = [table.frame(vec![symbol("demo::f", source.path(), 6)])];
    let record = record(&fault, &[], &[]);
    let resolved = Resolved::new(&record, &mut table, None);
    let lines = shown(&resolved);
    let texts: Vec<_> = lines.iter().map(|line| (line.2, line.3.as_str(), line.4)).collect();
    let expected = [
        (3, "three", false),
        (4, "four", false),
        (5, "five", false),
        (6, "    six(\u{fffd});", true),
        (7, "seven", false),
        (8, "eight", false),
        (9, "nine", false),
    ];
    assert_eq!(texts, expected);
    assert!(lines.iter().all(|line| line.0 == Which::Fault && line.1));
    let page = render(&record, &resolved, Style { resolved: true, color: false });
    // Column 5 in bytes lies three letters after the tab.
    assert!(page.contains("\n6 |     six(\u{fffd});\n  |        ^ read here\n7 | seven\n"), "{page}");
    assert!(page.contains(&format!("--> {}:6:5\n", source.path())), "{page}");
    let json = render_json(&record, &resolved).unwrap();
    assert!(json.contains(r#"{"number":6,"text":"    six("#), "{json}");
}

#[test]
fn the_first_and_the_last_line_are_shown() {
    let source = Source::new("ends/own.rs", TEN);
    for (line, first, last) in [(1, 1, 4), (10, 7, 10)] {
        let mut table = Table::default();
        let fault = [table.frame(vec![symbol("demo::f", source.path(), line)])];
        let record = record(&fault, &[], &[]);
        let lines = shown(&Resolved::new(&record, &mut table, None));
        assert_eq!((lines.first().unwrap().2, lines.last().unwrap().2), (first, last));
    }
}

#[test]
fn only_the_users_own_code_is_shown() {
    let own = Source::new("own/main.rs", TEN);
    let fetched = Source::new("home/.cargo/registry/src/index/dep-1.0/src/lib.rs", TEN);
    let checkout = Source::new("home/.cargo/git/checkouts/dep/src/lib.rs", TEN);
    let std = Source::new("toolchain/lib/rustlib/src/rust/library/core/src/a.rs", TEN);
    let guard = Source::new("guard/lib.rs", TEN);
    let mut table = Table::default();
    let fault = [
        table.frame(vec![symbol("memcpy", "./string/memcpy.S", 2)]),
        table.frame(vec![symbol("core::a::f", std.path(), 2), symbol("dep::f", fetched.path(), 2)]),
        table.frame(vec![symbol("dep::g", checkout.path(), 2)]),
        table.frame(vec![symbol("fencepost::assert", guard.path(), 2)]),
        table.frame(vec![symbol("demo::main", own.path(), 4)]),
    ];
    let record = record(&fault, &[], &[]);
    let resolved = Resolved::new(&record, &mut table, None);
    let lines = shown(&resolved);
    let hit = lines.iter().find(|line| line.4).unwrap();
    assert_eq!((hit.0, hit.1, hit.3.as_str()), (Which::Fault, false, "four"));
    let page = render(&record, &resolved, Style { resolved: true, color: false });
    assert!(page.contains("^ read in a call from here\n"), "{page}");
}

#[test]
fn without_a_line_in_the_fault_the_allocations_is_shown() {
    let own = Source::new("alloc/main.rs", TEN);
    let mut table = Table::default();
    let fault = table.stack(&["memcpy"]);
    let allocated = [table.frame(vec![symbol("demo::make", own.path(), 2)])];
    let record = record(&fault, &allocated, &[]);
    let resolved = Resolved::new(&record, &mut table, None);
    assert_eq!(shown(&resolved)[0].0, Which::Allocated);
    let page = render(&record, &resolved, Style { resolved: true, color: false });
    assert!(page.contains("^ allocated here\n"), "{page}");
}

#[test]
fn what_cannot_be_read_is_not_shown() {
    let short = Source::new("short/main.rs", b"one\n");
    let own = Source::new("short/other.rs", TEN);
    let folder = own.0.parent().unwrap().to_str().unwrap().to_owned();
    for (file, line) in
        [("/nowhere/src/main.rs", 1), (short.path(), 9), (folder.as_str(), 1), ("/dev/zero", 1)]
    {
        let mut table = Table::default();
        let fault = [table.frame(vec![symbol("demo::f", file, line)])];
        let record = record(&fault, &[], &[]);
        assert!(shown(&Resolved::new(&record, &mut table, None)).is_empty(), "{file}");
    }
    // A Rust file that is gone is not replaced by the line of a caller, which would name the wrong place.
    let mut table = Table::default();
    let fault = [
        table.frame(vec![symbol("demo::f", "/nowhere/src/main.rs", 1)]),
        table.frame(vec![symbol("demo::g", own.path(), 1)]),
    ];
    let record = record(&fault, &[], &[]);
    assert!(shown(&Resolved::new(&record, &mut table, None)).is_empty());
}

#[test]
fn a_frame_without_a_line_is_passed_over() {
    let own = Source::new("noline/main.rs", TEN);
    let mut table = Table::default();
    let nowhere = Symbol {
        function: Some("demo::f".to_owned()),
        file: Some(own.path().to_owned()),
        ..Symbol::default()
    };
    let fault = [table.frame(vec![nowhere]), table.frame(vec![symbol("demo::g", own.path(), 3)])];
    let record = record(&fault, &[], &[]);
    let lines = shown(&Resolved::new(&record, &mut table, None));
    assert_eq!(lines.iter().find(|line| line.4).unwrap().3, "three");
}
