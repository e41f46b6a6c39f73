//! The end of a session: what counts, what is said, and the exit status.

use std::collections::{BTreeMap, BTreeSet};

use fencepost_guard::options::When;
use fencepost_report::tools::{Collection, Status};

use crate::failure::Failure;
use crate::outputs::Outputs;
use crate::session::{Account, Guard, Session};
use crate::settings::Settings;
use crate::sweeps;
use crate::{Ending, NOT_GUARDED, REPORTED};

/// What all runs left.
#[derive(Default)]
pub struct Verdict {
    /// Their reports.
    pub collection: Collection,
    /// Whether many tests share a process.
    tests_share: bool,
    accounts: Vec<Account>,
}

impl Verdict {
    /// Of no run yet; `tests_share` a process, or have one each.
    pub fn of(tests_share: bool) -> Verdict {
        Verdict { tests_share, ..Verdict::default() }
    }

    /// Takes in what a session's runners left.
    pub fn take(&mut self, session: &Session) {
        for (account, findings) in session.results() {
            self.collection.read("findings", &findings);
            self.accounts.extend(account);
        }
    }

    /// Takes in findings alone: how a program was guarded is known from elsewhere.
    pub fn add(&mut self, collection: Collection) {
        let reports = Collection { findings: collection.findings, ..Collection::new() };
        sweeps::join(&mut self.collection, reports);
    }
}

/// Judges, writes every output, says how it went, and gives the way to end.
pub fn judge(
    settings: &Settings,
    mut verdict: Verdict,
    outputs: Outputs,
    ending: Ending,
) -> Result<Ending, Failure> {
    let collection = &mut verdict.collection;
    collection.merge();
    let unused: Vec<String> =
        collection.suppress(&settings.suppressions).into_iter().map(ToString::to_string).collect();
    collection.compare(&settings.baseline);
    let unguarded = unguarded(&verdict.accounts);
    let collection = &verdict.collection;
    outputs.write(collection)?;
    if settings.summary != When::Off && !verdict.accounts.is_empty() {
        eprintln!("{}", account(collection, &verdict.accounts));
    }
    for rule in &unused {
        eprintln!("fencepost: this suppression fits nothing (any more): {rule}");
    }
    for line in &unguarded {
        eprintln!("fencepost: {line}");
    }
    if cut_tests_off(&verdict) {
        eprintln!(
            "fencepost: a test program ends at its first error, and its other tests with it: --on-error continue \
             goes on, and `cargo fencepost nextest run` gives each test a process"
        );
    }
    if let Some(line) = next_hunt(collection).filter(|_| settings.summary != When::Off) {
        eprintln!("fencepost: {line}");
    }
    let missed = missed_coverage(settings, &verdict);
    if let Some(line) = &missed {
        eprintln!("fencepost: {line}");
    }
    let unread: usize = verdict.accounts.iter().map(|account| account.unread).sum();
    if unread > 0 {
        eprintln!(
            "fencepost: lines of reports that could not be read: {unread}; they count as errors \
             (is the program built with another version of fencepost?)"
        );
    }
    if collection.failures().next().is_some() || unread > 0 {
        return Ok(Ending::Status(REPORTED));
    }
    if verdict.accounts.iter().any(lacks_its_guard) || missed.is_some() {
        return Ok(Ending::Status(NOT_GUARDED));
    }
    Ok(as_if_alone(ending, collection, settings))
}

/// Whether an error of one test ended others.
fn cut_tests_off(verdict: &Verdict) -> bool {
    verdict.tests_share
        && verdict.accounts.iter().any(|account| account.signal.is_some())
        && verdict.collection.failures().any(|finding| finding.test.is_some())
}

/// No guard, or one that does not see most blocks: an allocator under names of its own has those.
fn lacks_its_guard(account: &Account) -> bool {
    account.guard == Guard::None || account.why.is_some()
}

/// A program that died of what is suppressed or known died for us only: a CI that accepts the finding goes on.
fn as_if_alone(ending: Ending, collection: &Collection, settings: &Settings) -> Ending {
    let accepted = !settings.suppressions.is_empty() || !settings.baseline.is_empty();
    if accepted && !collection.findings.is_empty() {
        return Ending::Status(0);
    }
    ending
}

/// The one line that says how it went.
fn account(collection: &Collection, accounts: &[Account]) -> String {
    let failures = collection.failures().count();
    let mut line = match failures {
        0 => "fencepost: no error".to_owned(),
        1 => "fencepost: 1 error".to_owned(),
        more => format!("fencepost: {more} different errors"),
    };
    let tests: BTreeSet<&str> = collection.failures().filter_map(|finding| finding.test.as_deref()).collect();
    if !tests.is_empty() {
        line.push_str(&format!(" (in {})", Vec::from_iter(tests).join(", ")));
    }
    let known = collection.findings.iter().filter(|finding| finding.status == Status::Known).count();
    let suppressed = collection.findings.len() - known - failures;
    for (count, what) in [(known, "known from the baseline"), (suppressed, "suppressed")] {
        if count > 0 {
            line.push_str(&format!(", {count} {what}"));
        }
    }
    let (guarded, total) = collection.coverage();
    if total > 0 {
        line.push_str(&format!("; {guarded} of {total} blocks guarded ({}%)", percent(guarded, total)));
    }
    let mut by: BTreeMap<Guard, u64> = BTreeMap::new();
    for account in accounts {
        *by.entry(account.guard).or_default() += 1;
    }
    let words = by.iter().map(|(guard, count)| {
        let s = if *count == 1 { "" } else { "s" };
        match guard {
            Guard::Own => format!("{count} program{s} by the allocator built in"),
            Guard::Preload => format!("{count} program{s} by preload"),
            Guard::None => format!("{count} program{s} not guarded"),
        }
    });
    line.push_str(&format!("; {}", Vec::from_iter(words).join(", ")));
    let mut engines: Vec<&str> =
        collection.starts.iter().filter_map(|start| start.engine.as_deref()).collect();
    engines.sort_unstable();
    engines.dedup();
    if !engines.is_empty() {
        line.push_str(&format!("; engine {}", engines.join(", ")));
    }
    line
}

/// After runs that left blocks out and found nothing: how to guard those whole that they say least about.
fn next_hunt(collection: &Collection) -> Option<String> {
    let sites = collection.sites.last().filter(|_| collection.findings.is_empty())?;
    Some(format!(
        "fewest blocks were guarded of these sites; only these, and whole: --mode=strict --only-site={}",
        sites.numbers()
    ))
}

/// Hundredths of a percent, cut: 100 only if it is all of them.
fn percent(part: u64, whole: u64) -> String {
    let hundredths = u128::from(part) * 10_000 / u128::from(whole.max(1));
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

/// What has no guard, or only half of one: each reason once.
fn unguarded(accounts: &[Account]) -> Vec<String> {
    let mut lines = BTreeSet::new();
    for account in accounts {
        lines.extend(
            account.left_alone.iter().map(|line| format!("not guarded: {}: {line}", account.program)),
        );
        let Some(why) = &account.why else { continue };
        let what = if account.guard == Guard::None { "not guarded" } else { "partly guarded" };
        lines.insert(format!("{what}: {}: {why}", account.program));
    }
    lines.into_iter().collect()
}

fn missed_coverage(settings: &Settings, verdict: &Verdict) -> Option<String> {
    let wanted = settings.min_coverage?;
    if verdict.accounts.is_empty() {
        return None;
    }
    let (guarded, total) = verdict.collection.coverage();
    if total == 0 {
        return Some("coverage is not known: no program lived to write its account".to_owned());
    }
    let mut reasons: BTreeMap<&str, u64> = BTreeMap::new();
    for summary in &verdict.collection.summaries {
        for (reason, count) in summary.unguarded.iter().filter(|(_, count)| **count > 0) {
            *reasons.entry(reason).or_default() += count;
        }
    }
    let missed = (guarded as f64) < wanted / 100.0 * (total as f64);
    let reasons: Vec<String> = reasons.iter().map(|(reason, count)| format!("{reason}: {count}")).collect();
    missed.then(|| {
        format!(
            "coverage is {}%, less than the {wanted}% of --min-coverage (not guarded, by reason: {})",
            percent(guarded, total),
            reasons.join(", ")
        )
    })
}
