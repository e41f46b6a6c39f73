//! The command line: its commands, their help, and what each starts.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Command, ValueHint};
use fencepost_report::tools::render::Format;

use crate::failure::Failure;
use crate::settings::Settings;
use crate::{Ending, cargo, doctor, flags, report_files, sweeps};

const EXIT_STATUS: &str = "\
Exit status:
  the program's own  when nothing was reported
  100                when something was reported
  2                  for a bad command line, or a file of it that cannot be used
  3                  when the guard could not be put in place, or --min-coverage was missed";

/// Everything that this program understands.
pub fn command() -> Command {
    Command::new("cargo-fencepost")
        .bin_name("cargo fencepost")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Runs programs under fencepost, the page-guard memory debugger, and reports for people and CI")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .after_help(EXIT_STATUS)
        .subcommand(with_cargo(
            "run",
            "Builds and runs a binary of the package, as `cargo run` does, under the guard",
            "Examples:\n  cargo fencepost run\n  cargo fencepost run --place left --bin demo -- input.txt\n  \
             cargo fencepost run --fail-sweep --release",
        ))
        .subcommand(with_cargo(
            "test",
            "Runs every test as `cargo test` does, under the guard, and names the test that an error happened in",
            "Examples:\n  cargo fencepost test\n  cargo fencepost test --both-sides --sarif fencepost.sarif\n  \
             cargo fencepost test -p my-crate parser:: -- --nocapture",
        ))
        .subcommand(with_cargo(
            "nextest",
            "Runs tests as `cargo nextest` does, under the guard (needs cargo-nextest)",
            "Examples:\n  cargo fencepost nextest run\n  cargo fencepost nextest --min-coverage 99 run --profile ci",
        ))
        .subcommand(exec())
        .subcommand(report())
        .subcommand(
            Command::new("doctor")
                .about("Says what this machine can do: engines, limits, permissions, and what to change"),
        )
        .subcommand(
            Command::new("completions")
                .about("Prints completions for a shell")
                .arg(Arg::new("shell").required(true).value_parser(clap::value_parser!(clap_complete::Shell)))
                .after_help("Example:\n  cargo fencepost completions bash > ~/.local/share/bash-completion/completions/cargo-fencepost"),
        )
        .subcommand(
            Command::new("man")
                .about("Prints the manual page")
                .after_help("Example:\n  cargo fencepost man > ~/.local/share/man/man1/cargo-fencepost.1"),
        )
}

fn with_cargo(name: &'static str, about: &'static str, examples: &'static str) -> Command {
    Command::new(name)
        .about(about)
        .args(flags::running())
        .arg(
            Arg::new("cargo")
                .value_name("CARGO ARGUMENTS")
                .num_args(0..)
                .trailing_var_arg(true)
                .allow_hyphen_values(true)
                .value_parser(clap::value_parser!(OsString))
                .help("what follows goes to cargo; flags of ours may stand anywhere before `--`"),
        )
        .after_help(format!("{examples}\n\n{EXIT_STATUS}"))
}

fn exec() -> Command {
    Command::new("exec")
        .about("Runs any program under the guard, unchanged, by preloading a library")
        .args(flags::running())
        .arg(
            Arg::new("program")
                .value_name("PROGRAM")
                .required(true)
                .num_args(1..)
                .trailing_var_arg(true)
                .value_hint(ValueHint::CommandWithArguments)
                .value_parser(clap::value_parser!(OsString)),
        )
        .after_help(format!(
            "Examples:\n  cargo fencepost exec -- ./server --port 8080\n  \
             cargo fencepost exec --mode sample --sample-rate 100 -- python3 script.py\n\n{EXIT_STATUS}"
        ))
}

fn report() -> Command {
    let names = Format::ALL.map(Format::name);
    Command::new("report")
        .about("Merges report files (report=, --json), gives them names, and writes them in another form")
        .arg(
            Arg::new("files")
                .value_name("FILE")
                .required(true)
                .num_args(1..)
                .value_hint(ValueHint::FilePath)
                .value_parser(clap::value_parser!(PathBuf)),
        )
        .arg(
            Arg::new("format")
                .long("format")
                .value_name("FORMAT")
                .default_value("text")
                .value_parser(clap::builder::PossibleValuesParser::new(names))
                .help("the form to write"),
        )
        .arg(
            Arg::new("output")
                .short('o')
                .long("output")
                .value_name("OUT")
                .value_hint(ValueHint::FilePath)
                .value_parser(clap::value_parser!(PathBuf))
                .help("where to write it; standard output if nowhere else"),
        )
        .arg(
            Arg::new("root")
                .long("root")
                .value_name("FOLDER")
                .value_hint(ValueHint::DirPath)
                .value_parser(clap::value_parser!(PathBuf))
                .help("write paths below this folder relative to it [default: the current folder]"),
        )
        .arg(
            Arg::new("no_resolve")
                .long("no-resolve")
                .action(ArgAction::SetTrue)
                .help("leave modules and offsets as they are"),
        )
        .args(flags::judging())
        .after_help(
            "Examples:\n  cargo fencepost report reports/*.jsonl\n  \
             cargo fencepost report shard-*/findings.jsonl --format sarif -o fencepost.sarif\n\n\
             Exit status:\n  0    when no finding counts\n  100  when one does\n  \
             2    for a bad command line, or a line that cannot be read",
        )
}

/// Does what the arguments say. Cargo calls `cargo-fencepost fencepost …` for `cargo fencepost …`.
pub fn run(mut arguments: Vec<OsString>) -> Result<Ending, Failure> {
    if arguments.get(1).is_some_and(|argument| argument == "fencepost") {
        arguments.remove(1);
    }
    let (ours, theirs) = divide(arguments);
    // A mistake ends here, with clap's explanation and status 2; so do help and version, with status 0.
    let matches = command().get_matches_from(ours);
    let (name, matches) = matches.subcommand().ok_or_else(|| Failure::usage("no command was given"))?;
    match name {
        "run" | "test" | "nextest" => with_settings(matches, |settings| cargo::run(name, settings, &theirs)),
        "exec" => with_settings(matches, |settings| {
            let all: Vec<OsString> =
                matches.get_many::<OsString>("program").into_iter().flatten().cloned().collect();
            sweeps::run(settings, &sweeps::Work::Program(all))
        }),
        "report" => report_files::run(matches),
        "doctor" => doctor::run(),
        "completions" => {
            let shell = matches.get_one::<clap_complete::Shell>("shell").copied();
            let shell = shell.ok_or_else(|| Failure::usage("no shell was given"))?;
            // Users type `cargo fencepost`, but shells complete the name of the binary.
            clap_complete::generate(shell, &mut command(), "cargo-fencepost", &mut std::io::stdout());
            Ok(Ending::Status(0))
        }
        _ => manual(),
    }
}

fn with_settings(
    matches: &ArgMatches,
    work: impl FnOnce(&Settings) -> Result<Ending, Failure>,
) -> Result<Ending, Failure> {
    let here = std::env::current_dir().map_err(|error| Failure::file("use", Path::new("."), &error))?;
    work(&Settings::read(matches, &here)?)
}

fn manual() -> Result<Ending, Failure> {
    let whole = command();
    let mut out = Vec::new();
    let write = |command: Command, out: &mut Vec<u8>| clap_mangen::Man::new(command).render(out);
    write(whole.clone(), &mut out)
        .and_then(|()| {
            let mut parts = whole.get_subcommands();
            parts.try_for_each(|part| {
                write(part.clone().name(format!("cargo fencepost {}", part.get_name())), &mut out)
            })
        })
        .and_then(|()| std::io::Write::write_all(&mut std::io::stdout(), &out))
        .map_err(|error| Failure::usage(format_args!("the manual page could not be written: {error}")))?;
    Ok(Ending::Status(0))
}

/// For commands that go on to cargo: the flags that are ours, from anywhere before `--`, and what is cargo's.
fn divide(arguments: Vec<OsString>) -> (Vec<OsString>, Vec<OsString>) {
    let through = ["run", "test", "nextest"];
    let name = arguments.get(1).and_then(|name| name.to_str()).unwrap_or("");
    if !through.contains(&name) {
        return (arguments, Vec::new());
    }
    let known = flags::running();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let mut rest = arguments.into_iter();
    ours.extend(rest.by_ref().take(2));
    while let Some(argument) = rest.next() {
        if argument == "--" {
            theirs.push(argument);
            theirs.extend(rest.by_ref());
            break;
        }
        let text = argument.to_string_lossy().into_owned();
        if ["-h", "--help", "-V", "--version"].contains(&text.as_str()) {
            ours.push(argument);
            continue;
        }
        let long = text.strip_prefix("--").unwrap_or("");
        let (flag, has_value) = long.split_once('=').map_or((long, false), |(flag, _)| (flag, true));
        match known.iter().find(|arg| !flag.is_empty() && arg.get_long() == Some(flag)) {
            Some(arg) => {
                let takes = arg.get_action().takes_values() && !has_value;
                // Cargo colours its own lines by a flag of this name.
                if flag == "color" {
                    theirs.push(argument.clone());
                }
                ours.push(argument);
                if let Some(value) = takes.then(|| rest.next()).flatten() {
                    if flag == "color" {
                        theirs.push(value.clone());
                    }
                    ours.push(value);
                }
            }
            None => theirs.push(argument),
        }
    }
    (ours, theirs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn divided(line: &str) -> (String, String) {
        let (ours, theirs) = divide(line.split(' ').map(OsString::from).collect());
        let text = |list: Vec<OsString>| list.join(std::ffi::OsStr::new(" ")).to_string_lossy().into_owned();
        (text(ours), text(theirs))
    }

    #[test]
    fn our_flags_are_ours_wherever_they_stand() {
        for (line, ours, theirs) in [
            ("c test --place left -p a b -- --place x", "c test --place left", "-p a b -- --place x"),
            ("c test -p a --place=left b --both-sides", "c test --place=left --both-sides", "-p a b"),
            ("c run --release -- --sarif", "c run", "--release -- --sarif"),
            ("c run --color never x", "c run --color never", "--color never x"),
            ("c exec --place left -- a --place b", "c exec --place left -- a --place b", ""),
        ] {
            assert_eq!(divided(line), (ours.to_owned(), theirs.to_owned()), "{line}");
        }
    }

    #[test]
    fn the_definitions_hold_together() {
        command().debug_assert();
    }

    #[test]
    fn every_option_of_the_runtime_is_a_flag() {
        let text = command().find_subcommand_mut("exec").expect("a command").render_long_help().to_string();
        for spec in flags::keys().filter(|spec| spec.key != fencepost_guard::options::Key::Absent) {
            assert!(text.contains(&format!("--{} ", flags::flag_name(spec.name))), "{}", spec.name);
        }
    }
}
