//! `cargo fencepost report`: files of earlier runs, as one report in any form.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use clap::ArgMatches;
use fencepost_report::tools::render::{Format, Setting};
use fencepost_report::tools::{Collection, Modules};

use crate::failure::Failure;
use crate::settings::{read_baseline, read_suppressions};
use crate::{BAD_COMMAND_LINE, Ending, REPORTED, outputs};

/// Does it.
pub fn run(matches: &ArgMatches) -> Result<Ending, Failure> {
    let suppressions = read_suppressions(matches)?;
    let baseline =
        matches.get_one::<String>("baseline").map(|path| read_baseline(path.as_ref())).transpose()?;
    let mut collection = Collection::new();
    for path in matches.get_many::<PathBuf>("files").into_iter().flatten() {
        let bytes = std::fs::read(path).map_err(|error| Failure::file("read", path, &error))?;
        collection.read(&path.display().to_string(), &String::from_utf8_lossy(&bytes));
    }
    if !matches.get_flag("no_resolve") {
        let mut modules = Modules::new();
        collection.resolve(&mut modules);
        for (path, why) in modules.failures() {
            eprintln!("fencepost: no names for {path}: {why}");
        }
    }
    collection.merge();
    for rule in collection.suppress(&suppressions) {
        eprintln!("fencepost: this suppression fits nothing (any more): {rule}");
    }
    collection.compare(&baseline.unwrap_or_default());
    write(matches, &collection)?;
    for sites in collection.sites.iter().filter(|_| collection.findings.is_empty()) {
        let command = sites.only_site.clone().unwrap_or_else(|| format!("only_site='{}'", sites.numbers()));
        eprintln!("fencepost: fewest blocks were guarded of these sites; only these, and whole: {command}");
    }
    // Everything that could be read has been written: what could not is said, and is no success.
    for problem in &collection.problems {
        eprintln!("fencepost: cannot read {problem}");
    }
    if collection.failures().next().is_some() {
        return Ok(Ending::Status(REPORTED));
    }
    Ok(Ending::Status(if collection.problems.is_empty() { 0 } else { BAD_COMMAND_LINE }))
}

fn write(matches: &ArgMatches, collection: &Collection) -> Result<(), Failure> {
    let name = matches.get_one::<String>("format").map_or("text", String::as_str);
    let format = Format::ALL.into_iter().find(|format| format.name() == name).unwrap_or(Format::Text);
    let out = matches.get_one::<PathBuf>("output");
    let root = matches.get_one::<PathBuf>("root").and_then(|root| root.canonicalize().ok());
    let setting = Setting {
        root: root.or_else(|| std::env::current_dir().ok()),
        color: out.is_none() && std::io::stdout().is_terminal(),
    };
    let text = outputs::text(collection, format, &setting)?;
    match out {
        Some(path) => std::fs::write(path, text).map_err(|error| Failure::file("write", path, &error)),
        None => match std::io::stdout().write_all(text.as_bytes()) {
            // Whoever read our output has seen enough of it.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            result => result.map_err(|error| Failure::usage(format_args!("cannot write: {error}"))),
        },
    }
}
