//! Runs programs under the guard and holds their reports against what is expected.
//!
//! A run has a folder of its own, a limit of time, no core file unless one is asked for, and its reports from
//! `report=`. Where programs cannot be started by themselves, `FENCEPOST_TEST_RUNNER` stands before them (`qemu-aarch64 -L
//! ROOT`), `FENCEPOST_TEST_OPTIONS` before their options, and they get eight times as long. Checks collect every complaint instead of stopping at the first, with the command that repeats the run.

use serde_json::Value;
use std::fmt::Write as _;
use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub const VICTIM: &str = env!("CARGO_BIN_EXE_victim");
pub const CLEAN: &str = env!("CARGO_BIN_EXE_clean");
pub const EXPORTING: &str = env!("CARGO_BIN_EXE_exporting");
pub const HANDLERS: &str = env!("CARGO_BIN_EXE_handlers");
pub const HEALTHY: &str = env!("CARGO_BIN_EXE_healthy");

pub const ENGINES: [&str; 3] = ["move", "marker", "mprotect"];
pub const PLACES: [&str; 2] = ["right", "left"];

/// A resource limit of a run, as `setrlimit` takes it.
type Limit = (libc::__rlimit_resource_t, libc::rlim_t);

/// A program, how it is run, and for how long at most.
pub struct Run {
    program: &'static str,
    arguments: Vec<String>,
    options: String,
    environment: Vec<(&'static str, String)>,
    limits: Vec<Limit>,
    closed: bool,
    seconds: u64,
}

/// What a run left behind.
pub struct Ran {
    pub command: String,
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
    pub reports: Vec<Value>,
    pub summaries: Vec<Value>,
    pub sites: Vec<Value>,
    pub folder: Folder,
    pub pid: u32,
    pub took: Duration,
    pub timed_out: bool,
}

/// A folder that goes away with its value.
pub struct Folder(pub PathBuf);

impl Folder {
    fn new() -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("fencepost-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).expect("a folder");
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Left over is a folder of temporary files: no reason to fail a test.
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// `victim` with its arguments, split at spaces.
pub fn victim(arguments: &str) -> Run {
    Run::new(VICTIM, arguments)
}

/// `clean` with its arguments, split at spaces.
pub fn clean(arguments: &str) -> Run {
    Run::new(CLEAN, arguments)
}

impl Run {
    pub fn new(program: &'static str, arguments: &str) -> Run {
        Run {
            program,
            arguments: arguments.split_whitespace().map(str::to_owned).collect(),
            options: format!("color=never,summary=off,{}", setting("FENCEPOST_TEST_OPTIONS")),
            environment: Vec::new(),
            limits: vec![(libc::RLIMIT_CORE, 0)],
            closed: false,
            seconds: 60,
        }
    }

    /// Adds options, separated by commas. `{dir}` is the run's folder.
    pub fn options(mut self, options: &str) -> Run {
        write!(self.options, ",{options}").expect("a string grows");
        self
    }

    pub fn environment(mut self, name: &'static str, value: &str) -> Run {
        self.environment.push((name, value.to_owned()));
        self
    }

    /// Sets a resource limit, as far as this user may.
    pub fn limit(mut self, resource: libc::__rlimit_resource_t, value: libc::rlim_t) -> Run {
        self.limits.push((resource, value));
        self
    }

    /// Starts it without standard input, output and error.
    pub fn closed(mut self) -> Run {
        self.closed = true;
        self
    }

    /// How long it may take; 60 seconds unless said.
    pub fn seconds(mut self, seconds: u64) -> Run {
        self.seconds = seconds;
        self
    }

    pub fn run(self) -> Ran {
        let folder = Folder::new();
        let report = folder.0.join("report.jsonl");
        let options = format!("{},report={}", self.options, report.display());
        let options = options.replace("{dir}", &folder.0.display().to_string());
        let runner = setting("FENCEPOST_TEST_RUNNER");
        let mut words = runner.split_whitespace().chain([self.program]);
        let mut command = Command::new(words.next().expect("a program"));
        let seconds = if runner.is_empty() { self.seconds } else { self.seconds * 8 };
        command.args(words).args(&self.arguments).current_dir(&folder.0).env("FENCEPOST_OPTIONS", &options);
        command.env_remove("RUST_BACKTRACE").env_remove("FENCEPOST_DENY").stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let (limits, closed) = (self.limits.clone(), self.closed);
        // SAFETY: the closure makes plain system calls only; it neither allocates nor locks.
        unsafe { command.pre_exec(move || restrict(&limits, closed)) };
        let start = Instant::now();
        let mut child = command.spawn().expect("the program starts");
        let pid = child.id();
        let stdout = reader(child.stdout.take());
        let stderr = reader(child.stderr.take());
        let (status, timed_out) = wait(&mut child, start + Duration::from_secs(seconds));
        let took = start.elapsed();
        let documents = documents(&std::fs::read(&report).unwrap_or_default());
        let of = |schema: &str| documents.iter().filter(|d| d["schema"] == schema).cloned().collect();
        Ran {
            command: format!("FENCEPOST_OPTIONS={options:?} {} {}", self.program, self.arguments.join(" ")),
            status,
            stdout: stdout.join().expect("a reader"),
            stderr: stderr.join().expect("a reader"),
            reports: of("fencepost-report/1"),
            summaries: of("fencepost-summary/1"),
            sites: of("fencepost-sites/1"),
            folder,
            pid,
            took,
            timed_out,
        }
    }
}

/// What whoever starts the tests says; empty where nothing is said.
fn setting(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

/// The documents of a report file; a line that is none makes the test fail.
fn documents(bytes: &[u8]) -> Vec<Value> {
    let text = String::from_utf8(bytes.to_vec()).expect("reports are UTF-8");
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}")))
        .collect()
}

fn restrict(limits: &[Limit], closed: bool) -> std::io::Result<()> {
    for (resource, value) in limits {
        // SAFETY: the structure is written before it is read, and lives through the calls.
        unsafe {
            let mut limit: libc::rlimit = std::mem::zeroed();
            if libc::getrlimit(*resource, &mut limit) != 0 {
                return Err(std::io::Error::last_os_error());
            }
            limit.rlim_cur = (*value).min(limit.rlim_max);
            if libc::setrlimit(*resource, &limit) != 0 {
                return Err(std::io::Error::last_os_error());
            }
        }
    }
    if closed {
        for file in 0..3 {
            // SAFETY: these descriptors are the child's own, and nothing of it uses them any more.
            unsafe { libc::close(file) };
        }
    }
    Ok(())
}

fn reader(pipe: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.expect("a pipe").read_to_end(&mut bytes).expect("the pipe can be read");
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Waits for the end, or kills at the deadline.
fn wait(child: &mut Child, deadline: Instant) -> (ExitStatus, bool) {
    loop {
        if let Some(status) = child.try_wait().expect("the child is ours") {
            return (status, false);
        }
        if Instant::now() >= deadline {
            child.kill().expect("the child is ours");
            return (child.wait().expect("the child is ours"), true);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The engines that work here; says which do not.
pub fn engines() -> &'static [&'static str] {
    static USABLE: OnceLock<Vec<&'static str>> = OnceLock::new();
    USABLE.get_or_init(|| {
        let usable = |engine: &&str| {
            let ran = victim("engine").options(&format!("engine={engine}")).run();
            let works = ran.stdout.lines().next() == Some(engine);
            if !works {
                println!("skipped: engine {engine}: asked for it and got {:?}: {}", ran.stdout, ran.stderr);
            }
            works
        };
        let engines: Vec<&str> = ENGINES.into_iter().filter(usable).collect();
        assert!(engines.contains(&"mprotect"), "every Linux can do mprotect, and it does not work");
        engines
    })
}

/// Runs `each` for every engine that works here and every given place, and fails with all complaints.
pub fn everywhere(places: &[&'static str], each: impl Fn(&str, &str) -> Vec<String>) {
    let mut complaints = Vec::new();
    for engine in engines() {
        for place in places {
            complaints.extend(each(place, &format!("engine={engine},place={place}")));
        }
    }
    fail_on(complaints);
}

/// Fails when there is anything to complain about.
pub fn fail_on(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "{} complaints\n\n{}\n", complaints.len(), complaints.join("\n\n"));
}

impl Ran {
    /// Complaints, each with the command and what the program said.
    pub fn complain(&self, complaints: Vec<String>) -> Vec<String> {
        if complaints.is_empty() {
            return complaints;
        }
        let stderr: String =
            self.stderr.lines().take(60).fold(String::new(), |all, line| all + "    | " + line + "\n");
        let head = format!("{}\n  {}\n  stdout {:?}\n{stderr}", self.command, self.ending(), self.stdout);
        vec![head + "  - " + &complaints.join("\n  - ")]
    }

    /// Whether it ended by this signal in time. For SIGSEGV engine move may have SIGBUS: that is how missing pages trap.
    pub fn died_by(&self, signal: i32) -> bool {
        let ended = self.status.signal();
        let other = ["engine=marker", "engine=mprotect"].iter().any(|engine| self.command.contains(engine));
        let moved = signal == libc::SIGSEGV && !other;
        !self.timed_out && (ended == Some(signal) || moved && ended == Some(libc::SIGBUS))
    }

    pub fn ending(&self) -> String {
        match (self.timed_out, self.status.signal()) {
            (true, _) => "did not end in time".into(),
            (_, Some(signal)) => format!("ended by signal {signal}"),
            (_, None) => format!("ended with status {:?}", self.status.code()),
        }
    }

    /// The lines that begin a text report.
    pub fn headlines(&self) -> Vec<&str> {
        self.stderr.lines().filter(|line| line.starts_with("fencepost: ERROR: ")).collect()
    }

    /// What is wrong with a run that had nothing to report; `code` is the status it has to end with.
    pub fn silent(&self, code: i32) -> Vec<String> {
        let mut complaints = Vec::new();
        if self.timed_out || self.status.code() != Some(code) {
            complaints.push(format!("{}, not with status {code}", self.ending()));
        }
        complaints.extend(
            self.reports.iter().map(|report| format!("reported: {} {}", report["kind"], report["message"])),
        );
        let figures = |line: &&str| !line.starts_with("figure:");
        complaints.extend(self.stderr.lines().filter(figures).map(|line| format!("said: {line}")));
        self.complain(complaints)
    }

    /// The run's only summary.
    pub fn summary(&self) -> &Value {
        assert_eq!(self.summaries.len(), 1, "one summary a process\n{}\n{}", self.command, self.stderr);
        &self.summaries[0]
    }
}
