//! A session: one private folder in which the programs leave their reports and the runners their findings.
//!
//! The folder is readable by this user alone and goes away at the end. Every runner has a folder of its own in it, so
//! that programs which run at the same time cannot be mixed up.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use fencepost_guard::options;
use fencepost_report::parse::Hex;
use fencepost_report::tools::Suppression;
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::settings::Settings;

/// Tells a runner where its session is.
pub const VARIABLE: &str = "FENCEPOST_SESSION";
const PLAN: &str = "plan.json";
/// What a runner leaves: first its account, then findings.
const ACCOUNT: &str = "account.json";
const FINDINGS: &str = "findings.jsonl";

/// What every runner of a session needs to know.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Plan {
    /// Options for the runtime.
    pub options: String,
    /// The library to preload, if there is one and it may be used.
    pub preload: Option<PathBuf>,
    /// Whether the programs alone are to be guarded, and not what they start.
    pub alone: bool,
    /// Whether the programs are tests.
    pub tests: bool,
    /// Where text goes; stderr if nowhere else.
    pub log: Option<PathBuf>,
    /// Whether text is coloured.
    pub color: bool,
    /// Findings that are set aside.
    pub suppressions: Vec<Rule>,
    /// Findings that are known.
    pub baseline: Vec<u64>,
    /// Variables that only the runner is to see.
    pub hidden: Vec<String>,
    /// What the programs print is not wanted: runs of a sweep.
    pub quiet: bool,
}

/// A suppression on its way to a runner.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Rule {
    kind: Option<String>,
    function: Option<String>,
    module: Option<String>,
    fingerprint: Option<String>,
    reason: String,
}

impl Rule {
    fn of(rule: &Suppression) -> Rule {
        let Suppression { kind, function, module, fingerprint, reason } = rule.clone();
        Rule { kind, function, module, fingerprint, reason }
    }

    fn suppression(&self) -> Suppression {
        let Rule { kind, function, module, fingerprint, reason } = self.clone();
        Suppression { kind, function, module, fingerprint, reason }
    }
}

impl Plan {
    /// What `settings` ask of every run.
    pub fn of(settings: &Settings, preload: Option<PathBuf>) -> Plan {
        let color = match settings.color {
            options::Color::Always => true,
            options::Color::Never => false,
            options::Color::Auto => {
                settings.log.is_none() && std::io::IsTerminal::is_terminal(&std::io::stderr())
            }
        };
        Plan {
            options: settings.options.clone(),
            preload,
            alone: !settings.children,
            log: settings.log.clone(),
            color,
            suppressions: settings.suppressions.iter().map(Rule::of).collect(),
            baseline: settings.baseline.iter().map(|hex| hex.0).collect(),
            ..Plan::default()
        }
    }

    pub fn suppressions(&self) -> Vec<Suppression> {
        self.suppressions.iter().map(Rule::suppression).collect()
    }

    pub fn baseline(&self) -> BTreeSet<Hex> {
        self.baseline.iter().copied().map(Hex).collect()
    }
}

/// How a guarded program ended up being guarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Guard {
    /// By the allocator that it was built with.
    Own,
    /// By the preloaded library.
    Preload,
    /// Not.
    None,
}

/// What a runner says of its program.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Account {
    /// The program.
    pub program: String,
    /// Its guard, as proved by what it wrote.
    pub guard: Guard,
    /// Why it has none, and what to do about it.
    pub why: Option<String>,
    /// It ended by this status.
    pub status: Option<i32>,
    /// It ended by this signal.
    pub signal: Option<i32>,
    /// Lines of its reports that could not be read.
    pub unread: usize,
    /// Programs that it started, or became, and that have no guard, each with why.
    pub left_alone: Vec<String>,
}

/// The folder of a session, which goes away with this.
pub struct Session {
    folder: tempfile::TempDir,
}

impl Session {
    pub fn new(plan: &Plan) -> Result<Session, Failure> {
        let wrong = |error: &dyn std::fmt::Display| {
            Failure::unguarded(format_args!(
                "no folder for reports could be made in {}: {error}: set TMPDIR to one that can be written",
                std::env::temp_dir().display()
            ))
        };
        let folder =
            tempfile::Builder::new().prefix("fencepost-").tempdir().map_err(|error| wrong(&error))?;
        let plan = serde_json::to_string(plan).map_err(|error| wrong(&error))?;
        std::fs::write(folder.path().join(PLAN), plan).map_err(|error| wrong(&error))?;
        Ok(Session { folder })
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// What every runner left: its account, if it got so far, and its findings as text.
    pub fn results(&self) -> Vec<(Option<Account>, String)> {
        let Ok(entries) = std::fs::read_dir(self.path()) else { return Vec::new() };
        let mut folders: Vec<PathBuf> =
            entries.flatten().map(|entry| entry.path()).filter(|p| p.is_dir()).collect();
        folders.sort();
        let read = |folder: PathBuf| {
            let account = std::fs::read_to_string(folder.join(ACCOUNT)).ok();
            let account = account.and_then(|text| serde_json::from_str(&text).ok());
            let findings = std::fs::read_to_string(folder.join(FINDINGS)).unwrap_or_default();
            (account, findings)
        };
        folders.into_iter().map(read).collect()
    }
}

/// The plan of the session in `folder`.
pub fn plan(folder: &Path) -> Result<Plan, Failure> {
    let path = folder.join(PLAN);
    let text = std::fs::read_to_string(&path).map_err(|error| Failure::file("read", &path, &error))?;
    serde_json::from_str(&text).map_err(|error| Failure::file("read", &path, &error))
}

/// Leaves a runner's results in its own folder.
pub fn leave(folder: &Path, account: &Account, findings: &str) -> std::io::Result<()> {
    std::fs::write(folder.join(FINDINGS), findings)?;
    std::fs::write(folder.join(ACCOUNT), serde_json::to_string(account)?)
}
