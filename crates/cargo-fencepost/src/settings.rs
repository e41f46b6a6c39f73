//! What a run is to do: from `fencepost.toml`, then the environment, then the flags; the later goes first.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::ArgMatches;
use clap::parser::ValueSource;
use fencepost_guard::options::{self, Options};
use fencepost_report::parse::Hex;
use fencepost_report::tools::render::Format;
use fencepost_report::tools::{Collection, Suppression};
use toml::{Table, Value};

use crate::failure::Failure;
use crate::flags;

/// The file beside Cargo.toml.
const FILE: &str = "fencepost.toml";

/// A plan for one or more runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Options for the runtime, checked.
    pub options: String,
    pub both_sides: bool,
    pub fail_sweep: bool,
    pub fail_sweep_max: Option<u64>,
    pub min_coverage: Option<f64>,
    pub preload: bool,
    /// Whether the library is preloaded into what the program starts as well.
    pub children: bool,
    pub github: bool,
    pub outputs: Vec<(Format, PathBuf)>,
    pub suppressions: Vec<Suppression>,
    pub baseline: BTreeSet<Hex>,
    /// Where text goes; stderr if nowhere else.
    pub log: Option<PathBuf>,
    pub color: options::Color,
    /// Whether the account is printed.
    pub summary: options::When,
}

/// The outputs that are files, by key.
const OUTPUTS: [(&str, Format); 5] = [
    ("sarif", Format::Sarif),
    ("junit", Format::Junit),
    ("html", Format::Html),
    ("json", Format::Json),
    ("asan", Format::Asan),
];

impl Settings {
    /// What holds when nobody says anything.
    const NONE: Settings = Settings {
        options: String::new(),
        both_sides: false,
        fail_sweep: false,
        fail_sweep_max: None,
        min_coverage: None,
        preload: true,
        children: true,
        github: false,
        outputs: Vec::new(),
        suppressions: Vec::new(),
        baseline: BTreeSet::new(),
        log: None,
        color: options::Color::Auto,
        summary: options::When::Auto,
    };

    /// Reads everything; `start` is where to begin looking for `fencepost.toml`.
    pub fn read(matches: &ArgMatches, start: &Path) -> Result<Settings, Failure> {
        let file = find_file(start);
        let table = file.as_deref().map(read_file).transpose()?.unwrap_or_default();
        let folder = file.as_deref().and_then(Path::parent).unwrap_or(Path::new(".")).to_owned();
        let mut settings = Settings::NONE;
        let from_file = settings.take_table(&table, &folder, file.as_deref().unwrap_or(Path::new(FILE)))?;
        settings.take_flags(matches)?;
        let environment = match std::env::var(options::VARIABLE) {
            Ok(text) => text,
            Err(std::env::VarError::NotPresent) => String::new(),
            Err(error) => return Err(Failure::usage(format_args!("{}: {error}", options::VARIABLE))),
        };
        let flags = flags::option_text(matches);
        let parts = [from_file, environment, flags];
        let parts: Vec<&str> = parts.iter().map(|text| text.trim_matches(',')).collect();
        for part in parts.iter().filter(|part| !part.is_empty()) {
            check(part)?;
        }
        settings.options = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(",");
        settings.take_options()?;
        Ok(settings)
    }

    /// The part of the options that the command line follows itself.
    fn take_options(&mut self) -> Result<(), Failure> {
        let parsed = options::parse(self.options.as_bytes(), Options::DEFAULT).options;
        if parsed.help {
            return Err(Failure::usage("help=1 is for a program: see cargo fencepost help run"));
        }
        self.color = parsed.color;
        self.summary = parsed.summary;
        self.log = parsed
            .log
            .map(|path| PathBuf::from(path.as_str().replace("%p", &std::process::id().to_string())));
        if let Some(path) = parsed.report {
            let path = path.as_str().replace("%p", &std::process::id().to_string());
            self.outputs.push((Format::Json, path.into()));
        }
        Ok(())
    }

    fn take_flags(&mut self, matches: &ArgMatches) -> Result<(), Failure> {
        let given = |name: &str| matches.value_source(name) == Some(ValueSource::CommandLine);
        self.both_sides |= matches.get_flag("both_sides");
        self.fail_sweep |= matches.get_flag("fail_sweep");
        self.github |= matches.get_flag("github");
        self.preload &= !matches.get_flag("no_preload");
        self.children &= !matches.get_flag("no_children");
        self.fail_sweep_max = matches.get_one("fail_sweep_max").copied().or(self.fail_sweep_max);
        self.min_coverage = matches.get_one("min_coverage").copied().or(self.min_coverage);
        for (name, format) in OUTPUTS {
            if let Some(path) = matches.get_one::<String>(name) {
                self.outputs.retain(|(other, _)| *other != format);
                self.outputs.push((format, path.into()));
            }
        }
        if given("suppress") {
            self.suppressions = read_suppressions(matches)?;
        }
        if let Some(path) = matches.get_one::<String>("baseline") {
            self.baseline = read_baseline(path.as_ref())?;
        }
        Ok(())
    }

    /// Takes what `fencepost.toml` says, and gives the runtime's options in it as text.
    fn take_table(&mut self, table: &Table, folder: &Path, file: &Path) -> Result<String, Failure> {
        let wrong = |key: &str, what: &str| Failure::usage(format_args!("{}: {key} {what}", file.display()));
        let mut pairs = Vec::new();
        for (key, value) in table {
            let name = key.replace('-', "_");
            let text = || value.as_str().ok_or_else(|| wrong(key, "must be a text"));
            let truth = || value.as_bool().ok_or_else(|| wrong(key, "must be true or false"));
            if let Some((_, format)) = OUTPUTS.iter().find(|(output, _)| *output == name) {
                self.outputs.push((*format, folder.join(text()?)));
                continue;
            }
            match name.as_str() {
                "both_sides" => self.both_sides = truth()?,
                "fail_sweep" => self.fail_sweep = truth()?,
                "github" => self.github = truth()?,
                "preload" => self.preload = truth()?,
                "children" => self.children = truth()?,
                "fail_sweep_max" => {
                    let number = value.as_integer().and_then(|number| u64::try_from(number).ok());
                    let number = number.filter(|number| *number > 0);
                    self.fail_sweep_max = Some(number.ok_or_else(|| wrong(key, "must be a number from 1"))?);
                }
                "min_coverage" => {
                    let number = value.as_float().or(value.as_integer().map(|whole| whole as f64));
                    let number = number.filter(|number| (0.0..=100.0).contains(number));
                    self.min_coverage = Some(number.ok_or_else(|| wrong(key, "must be from 0 to 100"))?);
                }
                "suppress" => self.suppressions.extend(suppression_file(&folder.join(text()?))?),
                "baseline" => self.baseline = read_baseline(&folder.join(text()?))?,
                "suppression" => self.suppressions.extend(suppressions_of(table, file)?),
                _ if flags::keys().any(|spec| spec.name == name) => {
                    let values = option_values(value)
                        .ok_or_else(|| wrong(key, "must be a text, a number, true, false or a list"))?;
                    let values: Vec<&str> = values.iter().map(String::as_str).collect();
                    pairs.push(flags::pair(&name, &values));
                }
                _ => return Err(wrong(key, "is no setting: see docs/command-line.md")),
            }
        }
        let text = pairs.join(",");
        check(&text).map_err(|failure| Failure::usage(format_args!("{}: {failure}", file.display())))?;
        Ok(text)
    }
}

/// A value of the file as the option text would have it.
fn option_values(value: &Value) -> Option<Vec<String>> {
    Some(match value {
        Value::String(text) => vec![text.clone()],
        Value::Integer(number) => vec![number.to_string()],
        Value::Boolean(truth) => vec![if *truth { "on" } else { "off" }.to_owned()],
        Value::Array(list) => {
            let each: Option<Vec<Vec<String>>> = list.iter().map(option_values).collect();
            each?.concat()
        }
        _ => return None,
    })
}

/// Refuses an option text with a mistake: the command line does not start with options that do not hold.
pub fn check(text: &str) -> Result<(), Failure> {
    let parsed = options::parse(text.as_bytes(), Options::DEFAULT);
    let lines: Vec<String> = parsed.errors().map(ToString::to_string).collect();
    if lines.is_empty() { Ok(()) } else { Err(Failure::usage(lines.join("\nfencepost: "))) }
}

/// `fencepost.toml` beside the nearest Cargo.toml that has one, or in the folder itself.
fn find_file(start: &Path) -> Option<PathBuf> {
    let mut folders = start.ancestors();
    let here = start.join(FILE);
    if here.is_file() {
        return Some(here);
    }
    folders
        .find(|folder| folder.join("Cargo.toml").is_file() && folder.join(FILE).is_file())
        .map(|f| f.join(FILE))
}

fn read_file(path: &Path) -> Result<Table, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| Failure::file("read", path, &error))?;
    text.parse().map_err(|error| Failure::file("read", path, &error))
}

/// The rules in all files of `--suppress`.
pub fn read_suppressions(matches: &ArgMatches) -> Result<Vec<Suppression>, Failure> {
    let mut rules = Vec::new();
    for path in matches.get_many::<String>("suppress").into_iter().flatten() {
        rules.extend(suppression_file(path.as_ref())?);
    }
    Ok(rules)
}

fn suppression_file(path: &Path) -> Result<Vec<Suppression>, Failure> {
    suppressions_of(&read_file(path)?, path)
}

fn suppressions_of(table: &Table, path: &Path) -> Result<Vec<Suppression>, Failure> {
    let Some(list) = table.get("suppression") else {
        return Err(Failure::usage(format_args!("{}: has no [[suppression]]", path.display())));
    };
    let rules: Vec<Suppression> =
        list.clone().try_into().map_err(|error| Failure::file("use", path, &error))?;
    for rule in &rules {
        if let Some(fault) = rule.fault() {
            return Err(Failure::usage(format_args!("{}: {fault}: {rule}", path.display())));
        }
    }
    Ok(rules)
}

/// The fingerprints in a file of findings.
pub fn read_baseline(path: &Path) -> Result<BTreeSet<Hex>, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| Failure::file("read", path, &error))?;
    let mut collection = Collection::new();
    collection.read(&path.display().to_string(), &text);
    match collection.problems.first() {
        // A baseline that is half read would let old findings fail, or new ones pass.
        Some(problem) => Err(Failure::usage(format_args!("the baseline cannot be used: {problem}"))),
        None => Ok(collection.fingerprints()),
    }
}
