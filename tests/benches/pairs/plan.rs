//! What is measured: the programs, the workloads, and in which order.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// How much is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// Everything.
    Full,
    /// Smaller sets, fewer rounds.
    Quick,
    /// Just enough to see that every workload runs.
    Smoke,
}

impl Effort {
    /// Past it nothing new is started, and what runs is stopped.
    pub fn time_max(self) -> Duration {
        Duration::from_secs(match self {
            Effort::Full => 235,
            Effort::Quick | Effort::Smoke => 38,
        })
    }

    fn rounds(self) -> usize {
        match self {
            Effort::Full => 5,
            Effort::Quick => 3,
            Effort::Smoke => 1,
        }
    }

    /// Measured time of a workload that can be repeated at will, in milliseconds.
    pub fn millis(self) -> u64 {
        match self {
            Effort::Full => 200,
            Effort::Quick => 50,
            Effort::Smoke => 5,
        }
    }
}

/// Where an allocator comes from.
#[derive(Clone, Debug)]
pub enum Kind {
    /// The system's, in a program without fencepost.
    Plain,
    /// A library loaded before the system's, in that same program; `None` where it is not installed.
    Preload(Option<PathBuf>),
    /// Fencepost with these options; the engine that has to be in force, if one has to.
    Guarded { options: &'static str, engine: Option<&'static str> },
}

/// One row of the tables.
#[derive(Clone, Debug)]
pub struct Program {
    pub name: &'static str,
    pub kind: Kind,
    pub path: PathBuf,
}

/// One workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Allocate, touch and free a block of so many bytes.
    Pair(usize),
    /// Free a random one of 1,000 blocks of so many bytes, and allocate and touch another.
    Random(usize),
    /// So many threads that do pairs of 100 bytes.
    Threads(usize),
    /// So many blocks of 64 bytes alive at once.
    Live(usize),
    /// A figure of the kernel's own; measured in the plain program only.
    Kernel(&'static str, &'static str),
}

impl Task {
    /// What the progress line calls it.
    pub fn name(self) -> String {
        match self {
            Task::Pair(size) => format!("pairs of {size} bytes"),
            Task::Random(size) => format!("pairs of {size} bytes in random order"),
            Task::Threads(count) => format!("pairs in {count} threads"),
            Task::Live(count) => format!("{count} live blocks"),
            Task::Kernel(_, name) => name.to_owned(),
        }
    }

    /// The size of its blocks, if that differs from task to task.
    pub fn bytes(self) -> usize {
        match self {
            Task::Pair(size) | Task::Random(size) => size,
            Task::Threads(_) | Task::Live(_) | Task::Kernel(..) => 0,
        }
    }

    fn rounds(self, effort: Effort) -> usize {
        match self {
            // Long enough to average over noise by itself, and too long to repeat.
            Task::Live(count) if count > 100_000 => 1,
            Task::Live(count) if count > 10_000 => effort.rounds().min(3),
            _ => effort.rounds(),
        }
    }
}

/// One child process to run.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    pub round: usize,
    pub task: usize,
    pub program: usize,
}

/// Everything there is to measure.
pub struct Plan {
    pub effort: Effort,
    pub programs: Vec<Program>,
    pub tasks: Vec<Task>,
}

/// Row of the system allocator.
pub const SYSTEM: usize = 0;
/// Row of Electric Fence.
pub const FENCE: usize = 1;

impl Plan {
    /// Finds the programs.
    pub fn new(effort: Effort) -> Result<Plan, String> {
        let programs = ["workload_plain", "workload_guarded"];
        if effort != Effort::Smoke {
            build(&programs)?;
        }
        let [plain, guarded] = programs.map(find);
        let (plain, guarded) = (plain?, guarded?);
        let fencepost = |name, options, engine| Program {
            name,
            kind: Kind::Guarded { options, engine },
            path: guarded.clone(),
        };
        let programs = vec![
            Program { name: "system", kind: Kind::Plain, path: plain.clone() },
            Program { name: "Electric Fence", kind: Kind::Preload(electric_fence()), path: plain },
            fencepost("fencepost off", "mode=off", None),
            fencepost("fencepost sample 1000", "mode=sample,sample_rate=1000", None),
            fencepost("move, engine alone", "engine=move,stack_depth=0,fill=off", Some("move")),
            fencepost("move", "engine=move", Some("move")),
            fencepost("marker, engine alone", "engine=marker,stack_depth=0,fill=off", Some("marker")),
            fencepost("marker", "engine=marker", Some("marker")),
            fencepost("mprotect", "engine=mprotect", Some("mprotect")),
        ];
        let sizes = [16, 100, 1000, 5000, 65536];
        let counts: &[usize] = match effort {
            Effort::Full => &[1_000, 10_000, 100_000, 1_000_000],
            Effort::Quick => &[1_000, 10_000, 100_000],
            Effort::Smoke => &[1_000],
        };
        let kernel = [
            Task::Kernel("syscall", "one bare system call"),
            Task::Kernel("move", "one UFFDIO_MOVE of a page, and a touch"),
            Task::Kernel("move-random", "the same, a random one of 1,000 pages"),
            Task::Kernel("fault", "one page fault: first touch of a page"),
            Task::Kernel("guard", "one guard marker over a populated page"),
            Task::Kernel("fault-guard", "both of these, one after the other"),
            Task::Kernel("mmap", "mmap, mprotect, touch and munmap of a block"),
        ];
        let pairs = sizes.into_iter().map(Task::Pair);
        let pairs = pairs.chain([Task::Random(100), Task::Threads(1), Task::Threads(2)]);
        let live = counts.iter().copied().map(Task::Live);
        // The quick ones first: on a busy machine the time may end before all are done.
        let tasks = kernel.into_iter().chain(pairs).chain(live).collect();
        Ok(Plan { effort, programs, tasks })
    }

    /// The child processes in the order in which they run: all programs of a workload side by side, forwards in one
    /// round and backwards in the next, so that none always follows the same one.
    pub fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for round in 0..self.effort.rounds() {
            for (task, what) in self.tasks.iter().enumerate() {
                if round >= what.rounds(self.effort) {
                    continue;
                }
                let programs = if matches!(what, Task::Kernel(..)) { 1 } else { self.programs.len() };
                let mut order: Vec<usize> = (0..programs).collect();
                // What runs in one round only begins with the rows that matter most.
                if round % 2 == 1 || what.rounds(self.effort) == 1 {
                    order.reverse();
                }
                steps.extend(order.into_iter().map(|program| Step { round, task, program }));
            }
        }
        steps
    }
}

/// Has cargo, if that is what runs us, build bench targets as this program was built.
fn build(names: &[&str]) -> Result<(), String> {
    let Some(cargo) = std::env::var_os("CARGO") else { return Ok(()) };
    let mut build = std::process::Command::new(cargo);
    build.args(["bench", "--quiet", "--no-run", "--package", env!("CARGO_PKG_NAME")]);
    if cfg!(debug_assertions) {
        build.args(["--profile", "dev"]);
    }
    build.args(names.iter().flat_map(|name| ["--bench", name]));
    let status = build.status().map_err(|error| format!("cargo does not start: {error}"))?;
    if status.success() { Ok(()) } else { Err("the workloads could not be built".into()) }
}

/// The newest executable of a bench target, beside this one: cargo puts a hash of what went into it in the name.
fn find(name: &str) -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|error| format!("the path of this program: {error}"))?;
    let folder = own.parent().ok_or("this program lies in no folder")?;
    let entries = folder.read_dir().map_err(|error| format!("{}: {error}", folder.display()))?;
    let newest = entries.flatten().map(|entry| entry.path()).filter_map(|path| aged(path, name)).max();
    newest.map(|(_, path)| path).ok_or_else(|| {
        let package = env!("CARGO_PKG_NAME");
        format!("{name} is not built: run `cargo bench -p {package} --bench {name} --no-run`")
    })
}

/// A path with its time, if it is an executable of that target.
fn aged(path: PathBuf, name: &str) -> Option<(SystemTime, PathBuf)> {
    let stem = path.file_stem()?.to_str()?;
    let hash = stem.strip_prefix(name)?.strip_prefix('-')?;
    let known = hash.chars().all(|c| c.is_ascii_hexdigit());
    let suffix = path.extension().and_then(|suffix| suffix.to_str()).unwrap_or("");
    if !known || suffix != std::env::consts::EXE_EXTENSION || !path.is_file() {
        return None;
    }
    Some((path.metadata().ok()?.modified().ok()?, path))
}

fn electric_fence() -> Option<PathBuf> {
    let triple = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    let folders = ["/usr/lib", &triple, "/usr/lib64", "/usr/local/lib"];
    folders.into_iter().map(|folder| Path::new(folder).join("libefence.so.0")).find(|path| path.is_file())
}
