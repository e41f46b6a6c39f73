//! The lines that `fencepost-record` writes are read back whole, and broken ones are refused by name.

use fencepost_record::json::{self, Call, Site, Sites};
use fencepost_record::replay::Rerun;
use fencepost_record::{ErrorKind, ProcessInfo, RawFrames, Summary, Text, Unguarded};
use fencepost_report::parse::{self, Hex, Line};

#[path = "../../fencepost-record/tests/invented/mod.rs"]
mod invented;

fn all_lines() -> Vec<(fencepost_record::Record, String)> {
    let mut all = Vec::new();
    for (_, record) in invented::cases() {
        let (mut raw, mut named) = (String::new(), String::new());
        json::report(&record, &RawFrames(&record), &mut raw).unwrap();
        json::report(&record, &invented::Named(&record), &mut named).unwrap();
        all.extend([(record, raw), (record, named)]);
    }
    all
}

#[test]
fn every_report_is_read_back() {
    for (record, line) in all_lines() {
        let document = match parse::parse_line(&line, 1) {
            Ok(Line::Report(document)) => document,
            other => panic!("{other:?} from {line}"),
        };
        assert_eq!(document.kind, record.kind);
        assert_eq!(document.access.address, record.access.address.map(Hex));
        assert_eq!(document.access.size, record.access.size);
        assert_eq!(document.seed, Hex(record.seed));
        let frames: Vec<u64> = document.fault.frames.iter().map(|frame| frame.address.0).collect();
        assert_eq!(frames, record.fault.trace.frames());
        assert_eq!(document.block.is_some(), record.block.is_some());
        if let (Some(read), Some(block)) = (&document.block, &record.block) {
            assert_eq!((read.size, read.align, read.slack), (block.size, block.align, block.slack));
            assert_eq!(read.distance, block.distance);
            assert_eq!(read.freed.is_some(), block.freed.is_some());
        }
        assert_eq!(document.registers.is_some(), !record.registers.values().is_empty());
        assert_eq!(document.process.args, ["demo", "--input", "it's a file.txt"]);
    }
}

#[test]
fn summaries_are_read_back() {
    let mut summary =
        Summary { engine: "marker", mode: "strict", total: 9, guarded: 3, ..Summary::default() };
    summary.unguarded[Unguarded::Filter as usize] = 6;
    let mut line = String::new();
    json::summary(&summary, &mut line).unwrap();
    let Ok(Line::Summary(read)) = parse::parse_line(&line, 1) else { panic!("{line}") };
    assert_eq!((read.total, read.guarded, read.unguarded["filter"]), (9, 3, 6));
    assert_eq!(read.percent, Some(33.33));
}

#[test]
fn sites_are_read_back() {
    let mut process = ProcessInfo { exe: Text::new(b"/bin/demo"), ..ProcessInfo::default() };
    process.args.push(b"demo\0");
    let options = Text::new(b"mode=budget");
    let site = |number| Site { site: number, size: 24, uses: Some(900), guarded: 7, trace: number as u32 };
    let mut line = String::new();
    let calls = |trace: u32, each: &mut dyn FnMut(Call<'_>)| {
        each(Call { module: "demo", function: "", offset: u64::from(trace) });
    };
    let sites: Vec<Site> = (1..=10).map(site).collect();
    let rerun = Rerun { process: &process, options: &options, seed: 5 };
    let run = Sites { pid: 3, mode: "budget", contexts: 12, contexts_guarded: 11, rerun, sites: &sites };
    json::sites(&run, &calls, &mut line).unwrap();
    let Ok(Line::Sites(read)) = parse::parse_line(&line, 1) else { panic!("{line}") };
    assert_eq!((read.pid, read.contexts, read.contexts_guarded, read.sites.len()), (3, 12, 11, 10));
    let last = read.sites.last().unwrap();
    assert_eq!((last.site, last.size, last.uses, last.guarded), (Hex(10), 24, Some(900), 7));
    assert_eq!((last.calls[0].function.as_deref(), last.calls[0].offset), (None, Hex(10)));
    assert_eq!(read.numbers(), "0x1,0x2,0x3,0x4,0x5,0x6,0x7,0x8");
    let command = "FENCEPOST_OPTIONS='mode=budget,mode=strict,only_site=\"0x1,0x2,0x3,0x4,0x5,0x6,0x7,0x8\",seed=0x5' /bin/demo";
    assert_eq!(read.only_site.as_deref(), Some(command));
}

#[test]
fn every_key_must_be_there() {
    for (_, line) in all_lines() {
        let whole: serde_json::Value = serde_json::from_str(&line).unwrap();
        for key in whole.as_object().unwrap().keys() {
            let mut less = whole.clone();
            less.as_object_mut().unwrap().remove(key);
            let error = parse::parse_line(&less.to_string(), 7).unwrap_err();
            assert_eq!(error.line, 7);
            assert!(error.what.contains(&format!("`{key}`")), "{error}");
        }
    }
}

#[test]
fn what_is_wrong_is_said_with_its_line() {
    let (_, good) = all_lines().remove(0);
    let bad_kind = good.replace("\"kind\":\"heap-buffer-overflow\"", "\"kind\":\"heap-overflow\"");
    let bad_address = good.replace("\"address\":\"0x200000001000\"", "\"address\":\"200000001000\"");
    assert!(bad_kind != good && bad_address != good);
    let half = good.get(..good.len() / 2).unwrap();
    let newer = good.replacen('{', "{\"key_of_a_newer_version\":[1],", 1);
    let other = r#"{"schema":"something-else/1"}"#;
    let file = [&good, "", &bad_kind, &bad_address, other, &newer, "not json", half].join("\n");
    let read: Vec<_> = parse::lines(&file).collect();
    assert_eq!(read.len(), 7);
    let wrong: Vec<String> =
        read.iter().filter_map(|line| line.as_ref().err()).map(ToString::to_string).collect();
    assert_eq!(read.iter().filter(|line| matches!(line, Ok(Line::Report(_)))).count(), 2);
    for (error, words) in wrong.iter().zip([
        ["line 3, column", "unknown kind `heap-overflow`"],
        ["line 4, column", "`200000001000` is not a number in hex"],
        ["line 5:", "schema `something-else/1` is none of"],
        ["line 7, column 2", "expected ident"],
        ["line 8, column", "EOF while parsing"],
    ]) {
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }
    assert_eq!(wrong.len(), 5);
}

#[test]
fn any_cut_or_changed_line_is_refused_or_read_but_never_a_panic() {
    let (_, line) = all_lines().remove(0);
    let mut refused = 0;
    for end in (0..line.len()).filter(|end| line.is_char_boundary(*end)) {
        refused += usize::from(parse::parse_line(&line[..end], 1).is_err());
    }
    assert_eq!(refused, line.len(), "every true beginning of a line is refused");
    for index in 0..line.len() {
        let mut bytes = line.clone().into_bytes();
        bytes[index] ^= 0x11;
        if let Ok(text) = String::from_utf8(bytes) {
            let _ = parse::parse_line(&text, 1);
        }
    }
}

#[test]
fn kinds_are_those_of_the_record() {
    for kind in ErrorKind::ALL {
        let (record, line) = all_lines().into_iter().find(|(record, _)| record.kind == kind).unwrap();
        let Ok(Line::Report(document)) = parse::parse_line(&line, 1) else { panic!("{line}") };
        assert_eq!(document.kind, record.kind);
    }
}
