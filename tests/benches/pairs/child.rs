//! One child process: how it is started, how long it may run, and what became of it.

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::FileExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus, Stdio};

use crate::plan::{Effort, Kind, Program, Task};

/// What a child measured.
#[derive(Clone, Debug, Default)]
pub struct Values {
    pairs: Vec<(String, String)>,
}

impl Values {
    fn parse(text: &str) -> Values {
        let pairs = text.split_whitespace().filter_map(|word| word.split_once('='));
        Values { pairs: pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect() }
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.pairs.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// A number by its name.
    pub fn number(&self, key: &str) -> Option<f64> {
        self.text(key)?.parse().ok()
    }
}

/// What became of a child.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// It lived, and measured this.
    Done(Values),
    /// It died, or said that it could not go on: how.
    Died(String),
    /// It gave no figure for a reason that lies outside it.
    Skipped(String),
}

/// Runs one workload in one program, for at most so many seconds.
pub fn run(program: &Program, task: Task, effort: Effort, seconds: u64) -> Outcome {
    match try_run(program, task, effort, seconds) {
        Ok(outcome) => outcome,
        Err(why) => Outcome::Died(format!("not started: {why}")),
    }
}

fn try_run(program: &Program, task: Task, effort: Effort, seconds: u64) -> Result<Outcome, String> {
    let progress = progress_file()?;
    let mut command = Command::new(&program.path);
    for variable in ["FENCEPOST_OPTIONS", "LD_PRELOAD"] {
        command.env_remove(variable);
    }
    match &program.kind {
        Kind::Plain => {}
        Kind::Preload(Some(library)) => {
            command.env("LD_PRELOAD", library);
        }
        Kind::Preload(None) => {
            return Ok(Outcome::Skipped("libefence.so.0 is not installed: scripts/setup --bench".into()));
        }
        Kind::Guarded { options, .. } => {
            command.env("FENCEPOST_OPTIONS", options);
        }
    }
    let millis = effort.millis().to_string();
    command.arg("--child");
    match task {
        Task::Pair(size) => command.args(["pair", &size.to_string(), &millis]),
        Task::Random(size) => command.args(["random", &size.to_string(), &millis]),
        Task::Threads(count) => command.args(["threads", &count.to_string(), &millis]),
        Task::Live(count) => command.args(["live", &count.to_string(), &progress.as_raw_fd().to_string()]),
        Task::Kernel(what, _) => command.args(["kernel", what, &millis]),
    };
    let seconds = u32::try_from(seconds.max(1)).unwrap_or(u32::MAX);
    // SAFETY: the closure runs in the forked child and makes one system call there. An alarm outlives exec, so a
    // program that hangs ends by itself.
    unsafe {
        command.pre_exec(move || {
            libc::alarm(seconds);
            Ok(())
        })
    };
    command.stdin(Stdio::null());
    let output = command.output().map_err(|error| format!("{}: {error}", program.path.display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Ok(ended(output.status, alive(&progress, task), &said));
    }
    if matches!(program.kind, Kind::Preload(_)) && !said.contains("Electric Fence") {
        return Ok(Outcome::Skipped("libefence.so.0 was not loaded".into()));
    }
    let values = Values::parse(&String::from_utf8_lossy(&output.stdout));
    if values.number("cpu").is_none() {
        return Ok(Outcome::Died("it ended well but measured nothing".into()));
    }
    if let Kind::Guarded { engine: Some(engine), .. } = program.kind {
        let found = values.text("engine").unwrap_or("none");
        if found != engine {
            return Ok(Outcome::Skipped(format!("no engine {engine} here: {found} stood in for it")));
        }
    }
    Ok(Outcome::Done(values))
}

/// A file in memory that the child inherits and writes the number of live blocks to.
fn progress_file() -> Result<File, String> {
    // SAFETY: the name is a C string.
    let descriptor = unsafe { libc::memfd_create(c"live blocks".as_ptr(), 0) };
    if descriptor < 0 {
        return Err(format!("memfd_create: {}", std::io::Error::last_os_error()));
    }
    // SAFETY: the descriptor was opened just now and belongs to nobody else.
    let file = unsafe { File::from_raw_fd(descriptor) };
    file.set_len(8).map_err(|error| format!("the progress file: {error}"))?;
    Ok(file)
}

fn alive(progress: &File, task: Task) -> Option<u64> {
    if !matches!(task, Task::Live(_)) {
        return None;
    }
    let mut word = [0; 8];
    progress.read_exact_at(&mut word, 0).ok()?;
    Some(u64::from_ne_bytes(word))
}

fn ended(status: ExitStatus, alive: Option<u64>, said: &str) -> Outcome {
    let how = match status.signal() {
        Some(libc::SIGALRM) => return Outcome::Skipped("stopped: out of time".into()),
        Some(libc::SIGSEGV) => "died of SIGSEGV".to_owned(),
        Some(libc::SIGILL) => "died of SIGILL".to_owned(),
        Some(libc::SIGABRT) => "died of SIGABRT".to_owned(),
        Some(libc::SIGKILL) => "was killed".to_owned(),
        Some(other) => format!("died of signal {other}"),
        None => format!("ended with {status}"),
    };
    let alive = alive.map_or(String::new(), |alive| format!(" at {alive} live blocks"));
    let last = said.lines().rev().map(str::trim).find(|line| !line.is_empty());
    let words = last.map_or(String::new(), |line| format!(", saying \"{line}\""));
    Outcome::Died(format!("{how}{alive}{words}"))
}
