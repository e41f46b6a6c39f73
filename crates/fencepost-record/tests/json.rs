//! The JSON lines: every key always there, every string escaped, one line each, as docs/report.schema.json says.

use std::path::Path;

use fencepost_record::{
    AccessType, ErrorKind, FrameView, Frames, ProcessInfo, RawFrames, Record, Summary, Text, Unguarded,
    Which, json,
};
use serde_json::Value;

mod invented;

fn line(record: &Record, frames: &dyn Frames) -> String {
    let mut out = String::new();
    json::report(record, frames, &mut out).unwrap();
    out
}

fn schema() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/report.schema.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Holds `value` against the part of JSON Schema that our schema uses. Any other keyword is an error, so the
/// schema cannot come to say something that is not checked here.
fn check(value: &Value, rule: &Value, root: &Value, at: &str) -> Result<(), String> {
    let rule = rule.as_object().ok_or(format!("{at}: a rule is no object"))?;
    for (keyword, wanted) in rule {
        let fail = || Err(format!("{at}: {value} is not as {keyword}: {wanted}"));
        match keyword.as_str() {
            "$schema" | "$id" | "$defs" | "title" | "description" => {}
            "$ref" => {
                let pointer =
                    wanted.as_str().and_then(|text| text.strip_prefix('#')).ok_or("a strange $ref")?;
                check(value, root.pointer(pointer).ok_or(format!("no {pointer}"))?, root, at)?;
            }
            "const" if value != wanted => return fail(),
            "enum" if !wanted.as_array().unwrap().contains(value) => return fail(),
            "const" | "enum" => {}
            "type" => {
                let name = match value {
                    Value::Null => "null",
                    Value::Bool(_) => "boolean",
                    Value::Number(number) if number.is_u64() => "integer",
                    Value::Number(_) => "number",
                    Value::String(_) => "string",
                    Value::Array(_) => "array",
                    Value::Object(_) => "object",
                };
                let allowed = |kind: &str| kind == name || (kind == "number" && name == "integer");
                let fits = match wanted {
                    Value::Array(kinds) => kinds.iter().any(|kind| allowed(kind.as_str().unwrap())),
                    kind => allowed(kind.as_str().unwrap()),
                };
                if !fits {
                    return fail();
                }
            }
            "anyOf" => {
                let tries: Vec<_> =
                    wanted.as_array().unwrap().iter().map(|one| check(value, one, root, at)).collect();
                if tries.iter().all(Result::is_err) {
                    return Err(tries.into_iter().filter_map(Result::err).collect::<Vec<_>>().join(" and "));
                }
            }
            "oneOf" => {
                let tries: Vec<_> =
                    wanted.as_array().unwrap().iter().map(|one| check(value, one, root, at)).collect();
                let fitting = tries.iter().filter(|result| result.is_ok()).count();
                if fitting != 1 {
                    let why = tries.into_iter().filter_map(Result::err).collect::<Vec<_>>().join(" and ");
                    return Err(format!("{at}: {fitting} of {keyword} fit: {why}"));
                }
            }
            "pattern" => {
                assert_eq!(wanted, "^0x[0-9a-f]+$", "the one pattern this test knows");
                let digits = value.as_str().and_then(|text| text.strip_prefix("0x")).unwrap_or("");
                if digits.is_empty()
                    || !digits.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
                {
                    return fail();
                }
            }
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    check(item, wanted, root, &format!("{at}[{index}]"))?;
                }
            }
            "minItems" | "maxItems" => {
                let (len, limit) = (value.as_array().map_or(0, Vec::len) as u64, wanted.as_u64().unwrap());
                if value.is_array() && if keyword == "minItems" { len < limit } else { len > limit } {
                    return fail();
                }
            }
            "required" => {
                for key in wanted.as_array().unwrap() {
                    if value.is_object() && value.get(key.as_str().unwrap()).is_none() {
                        return Err(format!("{at}: {key} is missing"));
                    }
                }
            }
            "properties" => {
                // The published schema leaves room for new keys; a key that we write and do not describe is an error.
                for (key, inner) in value.as_object().into_iter().flatten() {
                    let rule = wanted.get(key).ok_or(format!("{at}: {key} is not in the schema"))?;
                    check(inner, rule, root, &format!("{at}.{key}"))?;
                }
            }
            "additionalProperties" => {
                for (key, inner) in value.as_object().into_iter().flatten() {
                    check(inner, wanted, root, &format!("{at}.{key}"))?;
                }
            }
            other => return Err(format!("{at}: this test does not know the keyword {other}")),
        }
    }
    Ok(())
}

#[test]
fn every_report_fits_the_schema() {
    let schema = schema();
    for (name, record) in invented::cases() {
        for text in [line(&record, &RawFrames(&record)), line(&record, &invented::Named(&record))] {
            let value: Value =
                serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}: {text}"));
            check(&value, &schema, &schema, name).unwrap();
        }
    }
    let nothing = Record::default();
    let value: Value = serde_json::from_str(&line(&nothing, &RawFrames(&nothing))).unwrap();
    check(&value, &schema, &schema, "the zeroed record").unwrap();
}

/// The checker above would be worthless if it let everything pass.
#[test]
fn the_schema_refuses_what_is_wrong() {
    let schema = schema();
    let (_, record) = invented::cases().remove(0);
    let good: Value = serde_json::from_str(&line(&record, &invented::Named(&record))).unwrap();
    let keys: Vec<String> = good.as_object().unwrap().keys().cloned().collect();
    for key in &keys {
        let mut less = good.clone();
        less.as_object_mut().unwrap().remove(key);
        assert!(check(&less, &schema, &schema, "").is_err(), "{key} could be left out");
    }
    for (pointer, wrong) in [
        ("/kind", Value::from("heap-overflow")),
        ("/access/address", Value::from("7f12")),
        ("/block/distance", Value::from(-1)),
        ("/block/allocated/frames/0/line", Value::from("12")),
        ("/neighbours", Value::from(Vec::<Value>::new())),
        ("/fault/thread", Value::Null),
    ] {
        let mut other = good.clone();
        *other.pointer_mut(pointer).unwrap() = wrong;
        assert!(check(&other, &schema, &schema, "").is_err(), "{pointer} is not checked");
    }
    let names: Vec<_> = ErrorKind::ALL.iter().map(|kind| Value::from(kind.name())).collect();
    assert_eq!(schema["$defs"]["report"]["properties"]["kind"]["enum"], Value::from(names));
}

#[test]
fn the_keys_of_the_contract_are_there() {
    const TOP: [&str; 15] = [
        "schema",
        "kind",
        "message",
        "access",
        "block",
        "fault",
        "process",
        "options",
        "engine",
        "seed",
        "replay",
        "confidence",
        "reasons",
        "fingerprint",
        "number",
    ];
    const BLOCK: [&str; 9] =
        ["address", "size", "align", "slack", "where", "distance", "state", "allocated", "freed"];
    const FRAME: [&str; 9] =
        ["address", "module", "build_id", "offset", "function", "file", "line", "column", "inlined"];
    let has = |value: &Value, keys: &[&str]| {
        for key in keys {
            assert!(value.get(key).is_some(), "{key} is missing in {value}");
        }
    };
    for (_, record) in invented::cases() {
        let value: Value = serde_json::from_str(&line(&record, &RawFrames(&record))).unwrap();
        has(&value, &TOP);
        has(&value["access"], &["type", "address", "size"]);
        has(&value["fault"], &["thread", "frames"]);
        has(&value["fault"]["thread"], &["id", "name"]);
        has(&value["process"], &["pid", "exe", "args"]);
        let mut stacks = vec![&value["fault"]];
        if value["block"].is_object() {
            has(&value["block"], &BLOCK);
            stacks.push(&value["block"]["allocated"]);
            stacks.extend(Some(&value["block"]["freed"]).filter(|freed| freed.is_object()));
        }
        for stack in stacks {
            has(&stack["thread"], &["id", "name"]);
            stack["frames"].as_array().unwrap().iter().for_each(|frame| has(frame, &FRAME));
        }
    }
}

#[test]
fn the_summary_has_every_counter() {
    let mut summary =
        Summary { pid: 7, engine: "mprotect", mode: "sample", seed: u64::MAX, ..Summary::default() };
    (summary.total, summary.guarded) = (30, 10);
    for (index, count) in summary.unguarded.iter_mut().enumerate() {
        *count = index as u64;
    }
    let mut out = String::new();
    json::summary(&summary, &mut out).unwrap();
    let value: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(value["schema"], "fencepost-summary/1");
    assert_eq!(
        (&value["seed"], &value["percent"]),
        (&Value::from("0xffffffffffffffff"), &Value::from(33.33))
    );
    for reason in Unguarded::ALL {
        assert_eq!(value["unguarded"][reason.name()], reason as u64);
    }
    for (number, name) in fencepost_record::REFUSAL_NAMES.into_iter().enumerate() {
        assert_eq!(value["refused"][name], summary.refused[number]);
    }
    for key in [
        "live",
        "live_max",
        "quarantined_bytes",
        "held_bytes",
        "syscalls",
        "fallbacks",
        "reports",
        "reports_lost",
        "stacks_lost",
        "regions",
        "regions_reserved",
        "regions_committed",
    ] {
        assert!(value[key].is_u64(), "{key}");
    }
}

/// One frame whose every text is `0`.
struct Strange<'a>(&'a str);

impl Frames for Strange<'_> {
    fn each(&self, which: Which, each: &mut dyn FnMut(&FrameView<'_>)) {
        if which == Which::Fault {
            let text = Some(self.0);
            each(&FrameView { module: text, function: text, file: text, ..FrameView::default() });
        }
    }

    fn fingerprint(&self) -> u64 {
        0
    }

    fn fault_thread_name(&self) -> Option<&str> {
        Some(self.0)
    }
}

#[test]
fn any_text_survives_the_way_through_json() {
    // xorshift64 (Marsaglia 2003): the same texts on every run.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: u32| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u32 % below
    };
    const NASTY: [char; 12] =
        ['"', '\\', '\n', '\r', '\t', '\0', '\u{1b}', '\u{7f}', '\u{85}', '\u{2028}', '\u{2029}', '😀'];
    for _ in 0..4000 {
        let len = 1 + random(40);
        let text: String = (0..len)
            .map(|_| match random(3) {
                0 => NASTY[random(12) as usize],
                1 => char::from_u32(random(0x80)).unwrap(),
                _ => char::from_u32(random(0x11_0000)).unwrap_or('?'),
            })
            .collect();
        let process =
            ProcessInfo { pid: 1, exe: Text::new(text.as_bytes()), args: Text::EMPTY, preload: Text::EMPTY };
        let record = Record { options: Text::new(text.as_bytes()), process, ..Record::default() };
        let json = line(&record, &Strange(&text));
        assert!(!json.contains(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']), "{json:?}");
        let value: Value = serde_json::from_str(&json).unwrap_or_else(|error| panic!("{error}: {json}"));
        assert_eq!(value["fault"]["thread"]["name"], text);
        for key in ["module", "function", "file"] {
            assert_eq!(value["fault"]["frames"][0][key], text);
        }
        assert_eq!(value["options"], text);
        assert_eq!(value["process"]["exe"], text);
    }
}

/// A sink that takes a few pieces and then fails.
struct Failing(usize);

impl std::fmt::Write for Failing {
    fn write_str(&mut self, _: &str) -> std::fmt::Result {
        self.0 = self.0.checked_sub(1).ok_or(std::fmt::Error)?;
        Ok(())
    }
}

#[test]
fn a_sink_that_fails_is_not_ignored() {
    for (name, record) in invented::cases() {
        let frames = invented::Named(&record);
        let style = fencepost_record::text::Style { color: true, resolved: false };
        let mut all = Failing(usize::MAX);
        json::report(&record, &frames, &mut all).unwrap();
        for pieces in 0..usize::MAX - all.0 {
            assert!(json::report(&record, &frames, &mut Failing(pieces)).is_err(), "{name}, after {pieces}");
        }
        let mut all = Failing(usize::MAX);
        fencepost_record::text::report(&record, &frames, style, &mut all).unwrap();
        for pieces in 0..usize::MAX - all.0 {
            let result = fencepost_record::text::report(&record, &frames, style, &mut Failing(pieces));
            assert!(result.is_err(), "{name}, after {pieces}");
        }
    }
}

#[test]
fn an_access_that_is_none_is_named_so() {
    let record = Record::default();
    let value: Value = serde_json::from_str(&line(&record, &RawFrames(&record))).unwrap();
    assert_eq!(value["access"]["type"], AccessType::None.name());
    assert!(value["access"]["address"].is_null() && value["block"].is_null() && value["replay"].is_null());
}
