//! What people read about the options: error lines, compile errors, the help table, and the documentation.

use fencepost_guard::options::{KEYS, Key, OptionError, Options, Parsed, Place, check, parse, write_table};

fn read(text: &str) -> Parsed<'_> {
    parse(text.as_bytes(), Options::DEFAULT)
}

fn good(text: &str) -> Options {
    let parsed = read(text);
    let errors: Vec<String> = parsed.errors().map(ToString::to_string).collect();
    assert_eq!(parsed.error_count, 0, "{text}: {errors:?}");
    parsed.options
}

/// The one error of `text`, which must have changed nothing.
fn bad(text: &str) -> OptionError<'_> {
    let parsed = read(text);
    assert_eq!(parsed.error_count, 1, "{text}");
    assert_eq!(parsed.options, Options::DEFAULT, "{text}");
    parsed.errors[0].expect("the first error is kept")
}

#[test]
fn messages_are_one_clear_line() {
    let cases = [
        ("plase=left", r#"unknown option "plase=left": did you mean "place"? see FENCEPOST_OPTIONS=help=1"#),
        ("zzz=1", r#"unknown option "zzz=1"; see FENCEPOST_OPTIONS=help=1"#),
        (
            "STACK-DEPTH=1",
            r#"unknown option "STACK-DEPTH=1": did you mean "stack_depth"? see FENCEPOST_OPTIONS=help=1"#,
        ),
        (
            "place=lfet",
            r#"option "place=lfet" is not one of right, left, alternate; did you mean "left"? using right"#,
        ),
        ("place=up", r#"option "place=up" is not one of right, left, alternate: using right"#),
        ("stack_depth=129", r#"option "stack_depth=129" is not a number from 0 to 128: using 32"#),
        (
            "quarantine=8X",
            r#"option "quarantine=8X" is not a number of bytes (K, M, G and T may follow it): using 8T"#,
        ),
        (
            "place",
            r#"option "place" has no "=": write key=value, and quote a value that holds a comma: using right"#,
        ),
        (
            "log='a",
            r#"option "log=a" has a quote that does not close, so the rest is not read: using stderr"#,
        ),
        ("=a\n\u{1b}é", r#"unknown option "=a\n\x1b\xc3\xa9"; see FENCEPOST_OPTIONS=help=1"#),
    ];
    for (text, expected) in cases {
        assert_eq!(bad(text).to_string(), expected);
    }
    let long = format!("log='{}'", "\u{1}".repeat(5000));
    let line = bad(&long).to_string();
    assert!(line.len() < 400 && line.contains("...\" is longer than 240 bytes: using stderr"), "{line}");
}

#[test]
fn an_error_names_the_value_that_is_in_force_in_the_end() {
    let parsed = read("place=up,place=left");
    assert_eq!(parsed.options.place, Place::Left);
    assert!(parsed.errors[0].expect("an error").to_string().ends_with(": using left"));
    let parsed = read("place=left,place=up");
    assert_eq!(parsed.options.place, Place::Left, "the last good value counts");
}

#[test]
fn check_panics_with_the_whole_message() {
    let message = |text: &'static str| {
        let panic = std::panic::catch_unwind(|| check(text)).expect_err("check refuses it");
        panic
            .downcast_ref::<String>()
            .cloned()
            .or(panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
    };
    assert_eq!(
        message("plase=left").as_deref(),
        Some(r#"fencepost options: unknown option "plase=left": did you mean "place"? see docs/options.md"#)
    );
    assert_eq!(
        message("fill=maybe").as_deref(),
        Some(r#"fencepost options: option "fill=maybe" is not one of on, off"#)
    );
    check("");
}

#[test]
fn the_help_table_shows_every_key_aligned_with_its_value_in_force() {
    let options = good("place=left,seed=7,only_size='8,16',log=/var/log/guard.txt");
    let mut table = String::new();
    write_table(&options, &mut table).expect("a String takes all");
    for spec in KEYS {
        let line = table.lines().find(|line| line.split_whitespace().next() == Some(spec.name));
        let line = line.unwrap_or_else(|| panic!("{} is in\n{table}", spec.name));
        assert!(line.len() <= 110, "{line}");
        if spec.key != Key::Absent && spec.key != Key::Log {
            assert_eq!(
                line.find(spec.default).map(|_| &line[27..27 + spec.default.len()]),
                Some(spec.default)
            );
            assert_eq!(&line[38..], spec.allowed);
        }
    }
    let value = |key: &str| {
        let line = table.lines().find(|line| line.split_whitespace().next() == Some(key));
        line.and_then(|line| line.split_whitespace().nth(1)).map(str::to_owned)
    };
    assert_eq!(value("place").as_deref(), Some("left"));
    assert_eq!(value("seed").as_deref(), Some("0x7"));
    assert_eq!(value("only_size").as_deref(), Some("8,16"));
    assert_eq!(value("log").as_deref(), Some("/var/log/guard.txt"));
    assert_eq!(value("quarantine").as_deref(), Some("8T"));
}

#[test]
fn the_documentation_lists_every_key_with_its_default_and_words() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/options.md");
    let page = std::fs::read_to_string(file).expect("docs/options.md can be read");
    for spec in KEYS {
        let begin = format!("| `{}` | `{}` |", spec.name, spec.default);
        let rows: Vec<&str> = page.lines().filter(|line| line.starts_with(&begin)).collect();
        assert_eq!(rows.len(), 1, "one row begins with {begin}");
        for word in spec.words {
            assert!(rows[0].contains(&format!("`{word}`")), "{word} stands in {}", rows[0]);
        }
        for word in spec.later {
            assert!(
                page.contains(&format!("`{}={word}`", spec.name)),
                "{}={word} is said to be missing",
                spec.name
            );
        }
    }
    let rows = page.lines().filter(|line| line.starts_with("| `")).count();
    assert_eq!(
        rows,
        KEYS.len() + KEYS.iter().map(|spec| spec.later.len()).sum::<usize>(),
        "no row beyond the keys"
    );
    // The examples of the page are text that parses without a mistake.
    let examples: Vec<&str> =
        page.lines().filter_map(|line| line.trim().strip_prefix("FENCEPOST_OPTIONS=")).collect();
    assert!(examples.len() >= 5, "{examples:?}");
    for example in examples {
        let text = example.rsplit_once(" ./").map_or(example, |(text, _)| text);
        let text = match text.strip_prefix('\'').and_then(|text| text.strip_suffix('\'')) {
            Some(inner) => inner,
            None => text,
        };
        good(text);
    }
}
