//! The flags, from the one table of options that the runtime reads, and ours beside them.
//!
//! `--sample-rate 50` is `sample_rate=50`. What a flag may hold, its default and its meaning are the table's, so the
//! help, the completions and the manual page cannot say anything else.

use clap::{Arg, ArgAction, ArgMatches};
use fencepost_guard::options::{KEYS, Key, KeySpec};

/// Keys that the command line answers itself, or that only make sense in the process.
const NOT_FLAGS: [&str; 3] = ["help", "report", "symbolize"];

/// The keys that are flags, with those that this version does not have: writing one explains itself.
pub fn keys() -> impl Iterator<Item = &'static KeySpec> {
    KEYS.iter().filter(|spec| !NOT_FLAGS.contains(&spec.name))
}

/// A key as a flag.
pub fn flag_name(key: &str) -> String {
    key.replace('_', "-")
}

/// The options of the runtime as flags.
fn option_flags() -> impl Iterator<Item = Arg> {
    keys().map(|spec| {
        let name = flag_name(spec.name);
        let collects = spec.name.starts_with("only_") || spec.name.starts_with("skip_");
        let arg = Arg::new(spec.name)
            .long(name)
            .value_name("VALUE")
            .action(if collects { ArgAction::Append } else { ArgAction::Set })
            .help_heading("Options of the guard")
            .hide(spec.key == Key::Absent)
            .help(format!("{} [{}; default: {}]", spec.meaning, spec.allowed, spec.default));
        // The table's own words complete in a shell; the table's parser, and not this one, refuses others.
        if spec.is_closed() {
            arg.value_parser(clap::builder::PossibleValuesParser::new(spec.words))
        } else {
            arg
        }
    })
}

fn file(name: &'static str, long: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(long).value_name("FILE").value_hint(clap::ValueHint::FilePath).help(help)
}

fn switch(name: &'static str, long: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(long).action(ArgAction::SetTrue).help(help)
}

/// How findings are judged: also for `report`.
pub fn judging() -> Vec<Arg> {
    let heading = "Judging";
    vec![
        file(
            "suppress",
            "suppress",
            "set aside the findings that the rules in this file fit (TOML, [[suppression]])",
        )
        .action(ArgAction::Append)
        .help_heading(heading),
        file(
            "baseline",
            "baseline",
            "fail only on findings that are not in this file (JSON lines, as --json writes)",
        )
        .help_heading(heading),
    ]
}

/// Everything for commands that run programs.
pub fn running() -> Vec<Arg> {
    let outputs = "Outputs";
    let runs = "Runs";
    let mut args = vec![
        switch(
            "both_sides",
            "both-sides",
            "run twice, with place=right and place=left, and report both as one",
        )
        .help_heading(runs),
        switch("fail_sweep", "fail-sweep", "run once per allocation, and let that allocation fail")
            .help_heading(runs),
        Arg::new("fail_sweep_max")
            .long("fail-sweep-max")
            .value_name("N")
            .value_parser(clap::value_parser!(u64).range(1..))
            .help("make at most this many runs of a --fail-sweep, spread evenly over the allocations")
            .help_heading(runs),
        Arg::new("min_coverage")
            .long("min-coverage")
            .value_name("PERCENT")
            .value_parser(percent)
            .help("fail (status 3) if less than this share of all blocks was guarded")
            .help_heading(runs),
        switch("no_preload", "no-preload", "never preload the library: guard only what has a GuardedAlloc")
            .help_heading(runs),
        switch(
            "no_children",
            "no-children",
            "preload nothing into the programs that the program starts or becomes",
        )
        .help_heading(runs),
        file("sarif", "sarif", "write SARIF 2.1.0 for code scanning").help_heading(outputs),
        file("junit", "junit", "write JUnit XML").help_heading(outputs),
        file("html", "html", "write one page of HTML").help_heading(outputs),
        file("json", "json", "write the findings as JSON lines, for `cargo fencepost report` and --baseline")
            .help_heading(outputs),
        file("asan", "asan", "write text as AddressSanitizer does, for tools that read that")
            .help_heading(outputs),
        switch("github", "github", "print GitHub annotations to stdout").help_heading(outputs),
    ];
    args.extend(judging());
    args.extend(option_flags());
    args
}

fn percent(text: &str) -> Result<f64, String> {
    let number: f64 = text.trim_end_matches('%').parse().map_err(|_| "not a number".to_owned())?;
    if (0.0..=100.0).contains(&number) { Ok(number) } else { Err("not from 0 to 100".to_owned()) }
}

/// The options that were given as flags, as an option text: `place=left,only_size="8,24"`.
pub fn option_text(matches: &ArgMatches) -> String {
    let mut pairs = Vec::new();
    for spec in keys() {
        let Some(values) = matches.get_many::<String>(spec.name) else { continue };
        if matches.value_source(spec.name) != Some(clap::parser::ValueSource::CommandLine) {
            continue;
        }
        let values: Vec<&str> = values.map(String::as_str).collect();
        pairs.push(pair(spec.name, &values));
    }
    pairs.join(",")
}

/// One option as text. A list starts anew: what the environment or the file says of it no longer counts.
pub fn pair(key: &str, values: &[&str]) -> String {
    let quoted: Vec<String> = values.iter().map(|value| format!("{key}={}", quote(value))).collect();
    if key.starts_with("only_") || key.starts_with("skip_") {
        return format!("{key}=none,{}", quoted.join(","));
    }
    quoted.join(",")
}

/// A value as the option text wants it.
pub fn quote(value: &str) -> String {
    if value.contains(',') || value.starts_with(['\'', '"']) || value.trim() != value {
        return format!("\"{}\"", value.replace('"', "\"\""));
    }
    value.to_owned()
}
