//! One program under the guard: started, waited for, and its reports read.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use fencepost_guard::options::{self, Options};
use fencepost_report::parse::Document;
use fencepost_report::tools::{Collection, Modules};

use crate::Ending;
use crate::evidence;
use crate::failure::Failure;
use crate::flags::quote;
use crate::inspect;
use crate::session::{Account, Plan};
use crate::system::{self, Forwarding};
use crate::tests_named;

/// What came of a program.
pub struct Outcome {
    /// How it was guarded, and how it ended.
    pub account: Account,
    /// Its reports and those of its children: with names, merged, judged.
    pub collection: Collection,
    /// What the account of the collection rests on: lines as they were written, reports left out.
    pub other_lines: String,
}

impl Outcome {
    /// How the program ended.
    pub fn ending(&self) -> Ending {
        Ending::of(self.account.status, self.account.signal)
    }
}

/// Runs `program` under the guard that `plan` describes, with its reports in `folder`.
pub fn launch(
    plan: &Plan,
    folder: &Path,
    program: &OsStr,
    arguments: &[OsString],
) -> Result<Outcome, Failure> {
    let path = inspect::find(program.as_ref());
    let facts = path.as_deref().map(inspect::inspect).unwrap_or_default();
    let mut command = Command::new(program);
    command.args(arguments).env(options::VARIABLE, option_text(plan, folder)?);
    for name in &plan.hidden {
        command.env_remove(name);
    }
    // Also where the program guards itself, which then takes over from it: the programs that it starts may not.
    if let Some(library) = &plan.preload {
        command.env("LD_PRELOAD", with_library(library));
        if plan.alone {
            // The library, which comes first there, takes itself out of the program's environment.
            command.env("FENCEPOST_CHILDREN", "off");
        }
    }
    if plan.quiet {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    }
    let (pid, status) = wait(&mut command, program)?;
    let (mut collection, other_lines) = evidence::read(folder);
    collection.resolve(&mut Modules::new());
    for finding in &mut collection.findings {
        if plan.tests {
            finding.set_test(tests_named::name(&finding.document));
        }
        let options = without_ours(&finding.document.options);
        let library = replay_needs(plan, &finding.document);
        finding.set_options(&options, library.as_deref());
    }
    collection.merge();
    collection.suppress(&plan.suppressions());
    collection.compare(&plan.baseline());
    let (status, signal) = system::ended(status);
    let (guard, why) = evidence::judge(plan, &facts, &collection, pid);
    let account = Account {
        program: program.to_string_lossy().into_owned(),
        guard,
        why,
        status,
        signal,
        unread: collection.problems.len(),
        left_alone: evidence::left_alone(&collection, pid),
    };
    Ok(Outcome { account, collection, other_lines })
}

/// Starts it and waits, with signals going through.
fn wait(command: &mut Command, program: &OsStr) -> Result<(u32, ExitStatus), Failure> {
    let cannot = |error: &dyn std::fmt::Display| {
        Failure::usage(format_args!("cannot run {}: {error}", program.to_string_lossy()))
    };
    let mut forwarding = Forwarding::prepare().map_err(|error| cannot(&error))?;
    let mut child = command.spawn().map_err(|error| cannot(&error))?;
    forwarding.to(child.id());
    let status = child.wait().map_err(|error| cannot(&error))?;
    Ok((child.id(), status))
}

/// The options of the program: the user's, and where its reports go. It resolves nothing and prints nothing.
fn option_text(plan: &Plan, folder: &Path) -> Result<String, Failure> {
    let report = folder.join("%p.jsonl");
    let report =
        report.to_str().filter(|path| path.len() <= options::PathText::BYTES_MAX).ok_or_else(|| {
            Failure::unguarded(format_args!(
                "the path {} cannot be handed to the program: set TMPDIR to a shorter one, in UTF-8",
                folder.display()
            ))
        })?;
    let between = if plan.options.is_empty() { "" } else { "," };
    Ok(format!(
        "{}{between}log={},report={},symbolize=off,summary=off,color=never",
        plan.options,
        system::NOWHERE,
        quote(report)
    ))
}

/// The library without which the line that replays an error would run a program that has no guard.
fn replay_needs(plan: &Plan, document: &Document) -> Option<String> {
    let exe = document.process.exe.as_deref().map(Path::new)?;
    let library = plan.preload.as_ref().filter(|_| !inspect::inspect(exe).own_runtime)?;
    Some(library.display().to_string())
}

/// The options of a report without those that were put there by [`option_text`].
fn without_ours(text: &str) -> String {
    let mut options = options::parse(text.as_bytes(), Options::DEFAULT).options;
    options.log = None;
    options.report = None;
    options.symbolize = true;
    options.color = options::Color::Auto;
    options.summary = options::When::Auto;
    let mut out = String::new();
    match options::write_in_force(&options, &mut out) {
        Ok(()) => out,
        Err(_) => text.to_owned(),
    }
}

/// The library in front of whatever is to be preloaded already.
fn with_library(library: &Path) -> OsString {
    let mut all = library.as_os_str().to_owned();
    if let Some(others) = std::env::var_os("LD_PRELOAD").filter(|others| !others.is_empty()) {
        all.push(":");
        all.push(others);
    }
    all
}
