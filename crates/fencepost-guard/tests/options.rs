//! The options: every key with good and bad values, the grammar, precedence, and writing them back.

use fencepost_guard::options::{
    Color, ERRORS_MAX, EngineChoice, KEYS, Key, MallocAlign, MaxMemory, Mode, NameList, OnError, OptionError,
    Options, Parsed, PathText, Place, Problem, SizeRange, SizeRanges, When, check, parse, write_in_force,
};

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

fn with(change: impl FnOnce(&mut Options)) -> Options {
    let mut options = Options::DEFAULT;
    change(&mut options);
    options
}

fn list(ranges: &[(u64, u64)]) -> SizeRanges {
    let add = |list: SizeRanges, &(first, last): &(u64, u64)| list.with(SizeRange { first, last });
    ranges.iter().try_fold(SizeRanges::EMPTY, add).expect("the list fits")
}

fn names(entries: &[&str]) -> NameList {
    entries.iter().fold(NameList::EMPTY, |list, entry| list.with(entry.as_bytes()).expect("the list fits"))
}

fn in_force(options: &Options) -> String {
    let mut text = String::new();
    write_in_force(options, &mut text).expect("a String takes all");
    text
}

/// Good texts for every key, and what each must make of the defaults.
fn good_values() -> Vec<(&'static str, Options)> {
    let path = |text: &str| PathText::new(text.as_bytes());
    vec![
        ("mode=strict", Options::DEFAULT),
        ("mode=sample", with(|o| o.mode = Mode::Sample)),
        ("mode=off", with(|o| o.mode = Mode::Off)),
        ("mode=budget", with(|o| o.mode = Mode::Budget)),
        ("budget=1", with(|o| o.budget = 1)),
        ("budget=100", with(|o| o.budget = 100)),
        ("sample_rate=1", with(|o| o.sample_rate = 1)),
        ("sample_rate=4294967295", with(|o| o.sample_rate = u32::MAX)),
        ("engine=auto", Options::DEFAULT),
        ("engine=marker", with(|o| o.engine = EngineChoice::Marker)),
        ("engine=mprotect", with(|o| o.engine = EngineChoice::Mprotect)),
        ("engine=commit", with(|o| o.engine = EngineChoice::Commit)),
        ("place=right", Options::DEFAULT),
        ("place=left", with(|o| o.place = Place::Left)),
        ("place=alternate", with(|o| o.place = Place::Alternate)),
        ("align=natural", Options::DEFAULT),
        ("align=exact", with(|o| o.align = MallocAlign::Exact)),
        ("align=64", with(|o| o.align = MallocAlign::Bytes(64))),
        ("only_size=24", with(|o| o.only_size = list(&[(24, 24)]))),
        ("skip_size=1-4K", with(|o| o.skip_size = list(&[(1, 4096)]))),
        ("only_align=16", with(|o| o.only_align = list(&[(16, 16)]))),
        ("skip_align=1-8", with(|o| o.skip_align = list(&[(1, 8)]))),
        ("only_thread=main", with(|o| o.only_thread = names(&["main"]))),
        ("skip_thread='a,b'", with(|o| o.skip_thread = names(&["a", "b"]))),
        ("only_module=libz.so*", with(|o| o.only_module = names(&["libz.so*"]))),
        ("skip_module=c", with(|o| o.skip_module = names(&["c"]))),
        ("only_fn=demo::*,only_fn=e", with(|o| o.only_fn = names(&["demo::*", "e"]))),
        ("skip_fn=f", with(|o| o.skip_fn = names(&["f"]))),
        ("only_site='0x12,0x34'", with(|o| o.only_site = list(&[(0x12, 0x12), (0x34, 0x34)]))),
        ("skip_site=0x1", with(|o| o.skip_site = list(&[(1, 1)]))),
        ("quarantine=0", with(|o| o.quarantine = 0)),
        ("quarantine=3g", with(|o| o.quarantine = 3 << 30)),
        ("leaks=on", with(|o| o.leaks = true)),
        ("leaks=0", Options::DEFAULT),
        ("defer=0", Options::DEFAULT),
        ("defer=65536", with(|o| o.defer = 65536)),
        ("fill=off", with(|o| o.fill = false)),
        ("fill=yes", Options::DEFAULT),
        ("stack_depth=0", with(|o| o.stack_depth = 0)),
        ("stack_depth=128", with(|o| o.stack_depth = 128)),
        ("on_error=continue", with(|o| o.on_error = OnError::Continue)),
        ("on_error=exit", with(|o| o.on_error = OnError::Exit)),
        ("exitcode=0", with(|o| o.exitcode = 0)),
        ("exitcode=255", with(|o| o.exitcode = 255)),
        ("log=stderr", Options::DEFAULT),
        ("log=a/%p.txt", with(|o| o.log = path("a/%p.txt"))),
        ("report=none", Options::DEFAULT),
        ("report=réport.json", with(|o| o.report = path("réport.json"))),
        ("symbolize=0", with(|o| o.symbolize = false)),
        ("color=always", with(|o| o.color = Color::Always)),
        ("color=never", with(|o| o.color = Color::Never)),
        ("fail_rate=off", Options::DEFAULT),
        ("fail_rate=7", with(|o| o.fail_rate = 7)),
        ("fail_at=18446744073709551615", with(|o| o.fail_at = u64::MAX)),
        ("fail_seed=0xff", with(|o| o.fail_seed = 255)),
        ("max_memory=none", with(|o| o.max_memory = MaxMemory::None)),
        ("max_memory=512M", with(|o| o.max_memory = MaxMemory::Bytes(512 << 20))),
        ("seed=0", with(|o| o.seed = Some(0))),
        ("seed=0XdeadBEEF", with(|o| o.seed = Some(0xdead_beef))),
        ("summary=on", with(|o| o.summary = When::On)),
        ("summary=off", with(|o| o.summary = When::Off)),
        ("syscalls=on", Options::DEFAULT),
        ("syscalls=off", with(|o| o.syscalls = false)),
        ("help=1", with(|o| o.help = true)),
    ]
}

#[test]
fn every_key_takes_its_good_values() {
    let values = good_values();
    for (text, expected) in &values {
        assert_eq!(good(text), *expected, "{text}");
    }
    for spec in KEYS {
        let tried = values.iter().any(|(text, _)| text.split('=').next() == Some(spec.name));
        assert_eq!(tried, spec.key != Key::Absent, "{} in the list above", spec.name);
        for word in spec.words {
            good(&format!("{}={word}", spec.name));
        }
    }
}

#[test]
fn the_defaults_in_the_table_are_those_in_the_code() {
    for spec in KEYS {
        // On top of a base where everything differs, the table's default must give back the code's.
        let base = with(|o| {
            *o = good(
                "mode=off,budget=7,sample_rate=2,engine=marker,place=left,only_size=1,skip_size=1,only_align=1,skip_align=1,only_thread=t,skip_thread=t,only_module=m,skip_module=m,only_fn=f,skip_fn=f,only_site=1,skip_site=1",
            );
            o.align = MallocAlign::Exact;
            o.syscalls = false;
            o.quarantine = 1;
            o.defer = 1;
            o.fill = false;
            o.stack_depth = 1;
            o.on_error = OnError::Exit;
            o.exitcode = 1;
            o.log = PathText::new(b"l");
            o.report = PathText::new(b"r");
            o.symbolize = false;
            o.color = Color::Never;
            (o.fail_rate, o.fail_at, o.fail_seed) = (1, 1, 1);
            o.max_memory = MaxMemory::None;
            o.seed = Some(1);
            o.leaks = true;
            o.summary = When::Off;
            o.help = true;
        });
        let text = format!("{}={}", spec.name, spec.default);
        let parsed = parse(text.as_bytes(), base);
        assert_eq!(parsed.error_count, 0, "{text}");
        assert_eq!(parsed.options.shown(spec.key), Options::DEFAULT.shown(spec.key), "{text}");
        assert!(
            spec.key == Key::Absent || base.shown(spec.key) != Options::DEFAULT.shown(spec.key),
            "{text}"
        );
    }
}

#[test]
fn every_key_refuses_bad_values_and_keeps_the_old_one() {
    let numbers = ["", "-1", "+1", "1.5", "x", "0x", "0xg", "18446744073709551616", "1 2"];
    for spec in KEYS.iter().filter(|spec| !matches!(spec.key, Key::Absent | Key::Log | Key::Report)) {
        for value in numbers {
            let list = spec.name.starts_with("only_") || spec.name.starts_with("skip_");
            // Nearly every text is a name.
            let name = list && spec.allowed.contains("names");
            if name || list && value.is_empty() {
                continue;
            }
            let text = format!("{}={value}", spec.name);
            let error = bad(&text);
            assert_eq!(error.problem, Problem::BadValue, "{text}");
            assert_eq!(error.known, Some(spec.key), "{text}");
            assert_eq!(error.allowed, spec.allowed, "{text}");
        }
    }
    let more = [
        "budget=0",
        "budget=101",
        "sample_rate=0",
        "sample_rate=4294967296",
        "defer=65537",
        "stack_depth=129",
        "exitcode=256",
        "fail_rate=4294967296",
        "mode=Strict",
        "align=0",
        "align=24",
        "align=8192",
        "quarantine=8X",
        "quarantine=K",
        "quarantine=0x10",
        "quarantine=16777216T",
        "quarantine=8TB",
        "max_memory=99999999999999999999",
        "only_size=9-3",
        "skip_size=1-2-3",
        "only_align=-8",
        "only_site=main",
        "only_fn=\"a'b\"",
        "skip_align='8,x'",
        "log=",
        "report=a\0b",
    ];
    for text in more {
        assert_eq!(bad(text).problem, Problem::BadValue, "{text}");
    }
    assert_eq!(good("quarantine=16777215T").quarantine, u64::MAX - (1 << 40) + 1);
    assert_eq!(parse(b"log=\xff", Options::DEFAULT).errors[0].map(|e| e.problem), Some(Problem::BadValue));
}

#[test]
fn precedence_is_environment_then_compiled_in_then_default() {
    const COMPILED: Options = parse(b"place=left,stack_depth=8,only_size='1,2'", Options::DEFAULT).options;
    let parsed = parse(b"stack_depth=16,only_size=9,exitcode=x", COMPILED);
    assert_eq!(parsed.options.place, Place::Left);
    assert_eq!(parsed.options.stack_depth, 16);
    assert_eq!(parsed.options.exitcode, 100);
    assert_eq!(parsed.options.only_size, list(&[(9, 9)]), "the first list of a text replaces the base's");
    assert_eq!(parsed.error_count, 1);
    let kept = parse(b"only_size=x,place=up", COMPILED);
    assert_eq!(kept.options, COMPILED);
    let lines: Vec<String> = kept.errors().map(ToString::to_string).collect();
    assert!(lines[0].ends_with(": using the list set before"), "{lines:?}");
    assert!(lines[1].ends_with(": using left"), "{lines:?}");
    assert_eq!(parse(b"only_size=none,place=right,stack_depth=32", COMPILED).options, Options::DEFAULT);
}

#[test]
fn const_evaluation_reads_the_same() {
    const PARSED: Parsed<'static> =
        parse(b"seed=0x10, skip_size='1,2-3K' ,log=\"a,b\",bogus=1", Options::DEFAULT);
    const _: () = check("seed=0x10,skip_size='1,2-3K',max_memory=1G");
    let at_run_time = read(std::hint::black_box("seed=0x10, skip_size='1,2-3K' ,log=\"a,b\",bogus=1"));
    assert_eq!(PARSED.options, at_run_time.options);
    assert_eq!(PARSED.errors, at_run_time.errors);
    assert_eq!(PARSED.options.seed, Some(16));
    assert_eq!(PARSED.error_count, 1);
}

#[test]
fn quotes_hold_commas_and_doubled_quotes() {
    let path = |text: &str| good(text).log.map(|path| path.as_str().to_owned());
    assert_eq!(path("log='a,b',place=left").as_deref(), Some("a,b"));
    assert_eq!(path("log = \"a 'b', c\" , place=left").as_deref(), Some("a 'b', c"));
    assert_eq!(path("log='it''s, \"x\"'").as_deref(), Some("it's, \"x\""));
    assert_eq!(path("log=it's").as_deref(), Some("it's"));
    assert_eq!(path("log=it''s").as_deref(), Some("it''s"));
    assert_eq!(path("log=' a '").as_deref(), Some(" a "));
    assert_eq!(path("log=a=b").as_deref(), Some("a=b"));
    assert_eq!(good("place='left'").place, Place::Left);
    assert_eq!(good("log='a,b',place=left").place, Place::Left);

    assert_eq!(bad("log='a,place=left").problem, Problem::UnterminatedQuote);
    assert_eq!(bad("log='a''").problem, Problem::UnterminatedQuote);
    let parsed = read("log='a'b,place=left");
    assert_eq!(parsed.errors[0].map(|error| error.problem), Some(Problem::TextAfterQuote));
    assert_eq!((parsed.options.log, parsed.options.place), (None, Place::Left));
}

#[test]
fn empty_items_and_spaces_do_not_count() {
    for text in ["", ",", " , ,,\t", "\n"] {
        assert_eq!(good(text), Options::DEFAULT);
    }
    let options = good(" ,, place = left ,\n stack_depth=\t4 ,");
    assert_eq!((options.place, options.stack_depth), (Place::Left, 4));
}

#[test]
fn lists_collect_and_have_an_end() {
    let options = good("only_size=8,place=left,only_size='16, 24-32,',only_size=1K-2K");
    assert_eq!(options.only_size, list(&[(8, 8), (16, 16), (24, 32), (1024, 2048)]));
    for (value, inside) in
        [(7, false), (8, true), (23, false), (24, true), (32, true), (33, false), (1500, true), (2049, false)]
    {
        assert_eq!(options.only_size.contains(value), inside, "{value}");
    }
    assert!(!options.only_size.is_empty() && options.skip_size.is_empty());
    assert!(!SizeRanges::EMPTY.contains(0), "unused entries match nothing");
    good("only_size='1,2,3,4,5,6,7,8'");
    assert_eq!(bad("only_size='1,2,3,4,5,6,7,8,9'").problem, Problem::TooManyRanges);
    let parsed = read("only_size='1,2,3,4,5,6,7,8',only_size=9");
    assert_eq!(parsed.options.only_size.as_slice().len(), 8);
    assert_eq!(parsed.errors[0].map(|error| error.problem), Some(Problem::TooManyRanges));
}

#[test]
fn paths_have_an_end() {
    let fits = "p".repeat(PathText::BYTES_MAX);
    assert_eq!(good(&format!("report={fits}")).report.map(|path| path.as_bytes().len()), Some(240));
    let error_text = format!("report={fits}p");
    assert_eq!(bad(&error_text).problem, Problem::TooLong);
    assert!(
        PathText::new(b"").is_none() && PathText::new(b"a\0").is_none() && PathText::new(b"\xff").is_none()
    );
}

#[test]
fn errors_beyond_the_room_are_counted() {
    let text = "x=1,".repeat(20) + "place=left";
    let parsed = read(&text);
    assert_eq!(parsed.error_count, 20);
    assert_eq!(parsed.errors().count(), ERRORS_MAX);
    assert_eq!(parsed.options.place, Place::Left);
}

#[test]
fn options_in_force_read_back() {
    assert_eq!(in_force(&Options::DEFAULT), "");
    for (text, options) in good_values() {
        assert_eq!(good(&in_force(&options)), options, "{text}");
    }
    let mut all = String::new();
    for (text, _) in good_values() {
        all.push_str(text);
        all.push(',');
    }
    let options = good(&all);
    assert_eq!(good(&in_force(&options)), options, "{}", in_force(&options));
    let paths =
        ["a,b", " a", "a ", "'a'", "\"", "it's", "a,'b'", "a,\"b\"", "'\",'\"", "''", "é,%p", "a=b", "\n"];
    for text in paths {
        let options = with(|o| {
            o.log = PathText::new(text.as_bytes());
            o.only_size = list(&[(0, 0), (5, 4096), (1 << 40, u64::MAX)]);
            o.report = o.log;
        });
        assert_eq!(good(&in_force(&options)), options, "{}", in_force(&options));
    }
    let options = good("seed=255,skip_size='16,24-4096',report='a,b'");
    assert_eq!(in_force(&options), r#"skip_size="16,24-4K",report="a,b",seed=0xff"#);
}

#[test]
fn random_bytes_never_panic_and_what_they_say_reads_back() {
    // An xorshift generator: the same texts in every run.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let words: Vec<&str> =
        KEYS.iter().flat_map(|spec| spec.words.iter().copied().chain([spec.name, spec.default])).collect();
    let (mut clean, mut faulty) = (0, 0);
    for round in 0..10_000 {
        let mut text = Vec::new();
        for _ in 0..next(24) {
            match next(if round % 2 == 0 { 3 } else { 8 }) {
                0 => text.push(next(256) as u8),
                1 => text.push(b"=,'\"- K0x9"[next(10)]),
                2 => text.extend_from_slice(words[next(words.len())].as_bytes()),
                _ => {
                    let spec = &KEYS[next(KEYS.len())];
                    let value = if next(2) == 0 { spec.default } else { words[next(words.len())] };
                    text.extend_from_slice(format!("{}={value},", spec.name).as_bytes());
                }
            }
        }
        let parsed = parse(&text, Options::DEFAULT);
        assert!(parsed.error_count <= text.len());
        assert_eq!(parsed.errors().count(), parsed.error_count.min(ERRORS_MAX));
        for error in parsed.errors() {
            let line = error.to_string();
            assert!(!line.is_empty() && line.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{line:?}");
        }
        assert_eq!(good(&in_force(&parsed.options)), parsed.options);
        if parsed.error_count == 0 { clean += 1 } else { faulty += 1 }
    }
    assert!(clean > 500 && faulty > 500, "{clean} clean and {faulty} faulty texts try both sides");
}
