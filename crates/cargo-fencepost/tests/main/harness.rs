//! Starts the command with folders of its own, and looks whether it leaves anything there.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

pub const COMMAND: &str = env!("CARGO_BIN_EXE_cargo-fencepost");

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the root")
}

/// Where this build's programs lie, with the victims and the library to preload built.
pub fn products() -> &'static Path {
    static PRODUCTS: OnceLock<PathBuf> = OnceLock::new();
    PRODUCTS.get_or_init(|| {
        let folder = Path::new(COMMAND).parent().expect("a folder").to_owned();
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        for what in [&["fencepost-tests", "--bin", "victim", "--bin", "clean"][..], &["fencepost-preload"]] {
            let mut build = Command::new(&cargo);
            build.args(["build", "--quiet", "-p"]).args(what).arg("--target-dir");
            build.arg(folder.parent().expect("a folder"));
            if folder.ends_with("release") {
                build.arg("--release");
            }
            let status = build.current_dir(root()).status().expect("cargo runs");
            assert!(status.success(), "{what:?} builds");
        }
        folder
    })
}

pub fn victim() -> String {
    products().join("victim").display().to_string()
}

pub fn clean() -> String {
    products().join("clean").display().to_string()
}

/// A run of the command, in a folder of its own.
pub struct Run {
    pub command: Command,
    pub folder: tempfile::TempDir,
    input: String,
}

/// What it left.
pub struct Ran {
    pub status: Option<i32>,
    pub signal: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    pub folder: tempfile::TempDir,
}

/// `cargo fencepost` with arguments that are split at spaces; an argument with spaces comes after, by `then`.
pub fn fencepost(arguments: &str) -> Run {
    let folder = tempfile::tempdir().expect("a folder");
    let temporary = folder.path().join("tmp");
    std::fs::create_dir(&temporary).expect("a folder");
    let mut command = Command::new(COMMAND);
    command.arg("fencepost").args(arguments.split_whitespace()).current_dir(folder.path());
    command.env("TMPDIR", temporary).env("XDG_CACHE_HOME", folder.path().join("cache"));
    command.env("FENCEPOST_PRELOAD", products().join("libfencepost_preload.so"));
    for name in ["FENCEPOST_OPTIONS", "FENCEPOST_DENY", "RUST_BACKTRACE", "LD_PRELOAD"] {
        command.env_remove(name);
    }
    Run { command, folder, input: String::new() }
}

impl Run {
    pub fn then(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Run {
        self.command.args(arguments);
        self
    }

    pub fn environment(mut self, name: &str, value: &str) -> Run {
        self.command.env(name, value);
        self
    }

    pub fn input(mut self, text: &str) -> Run {
        text.clone_into(&mut self.input);
        self
    }

    /// Puts a file into its folder.
    pub fn file(self, name: &str, text: &str) -> Run {
        std::fs::write(self.folder.path().join(name), text).expect("written");
        self
    }

    pub fn run(mut self) -> Ran {
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.command.spawn().expect("it starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        // A program that reads nothing closes it: that is its business.
        drop(stdin.write_all(self.input.as_bytes()));
        drop(stdin);
        let output = child.wait_with_output().expect("it ends");
        ran(output, self.folder)
    }
}

pub fn ran(output: Output, folder: tempfile::TempDir) -> Ran {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    let left: Vec<_> = std::fs::read_dir(folder.path().join("tmp")).expect("a folder").collect();
    assert!(left.is_empty(), "left behind: {left:?}");
    Ran {
        status: output.status.code(),
        signal: output.status.signal(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
        folder,
    }
}

impl Ran {
    #[track_caller]
    pub fn ends_with(self, status: i32) -> Ran {
        let said = format!("{}\n{}", self.stdout, self.stderr);
        assert_eq!((self.status, self.signal), (Some(status), None), "{said}");
        self
    }

    #[track_caller]
    pub fn says(self, what: &str) -> Ran {
        assert!(self.stderr.contains(what), "`{what}` is not in:\n{}", self.stderr);
        self
    }

    #[track_caller]
    pub fn says_nothing_of(self, what: &str) -> Ran {
        assert!(!self.stderr.contains(what), "`{what}` is in:\n{}", self.stderr);
        self
    }

    /// A file in its folder.
    #[track_caller]
    pub fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(name)).expect(name)
    }
}

/// A C program, built in a folder; `None`, said, where there is no compiler.
pub fn c_program(folder: &Path, source: &str, flags: &[&str]) -> Option<String> {
    let (code, program) = (folder.join("program.c"), folder.join("program"));
    std::fs::write(&code, source).expect("written");
    let built = Command::new("cc").args(["-g", "-O0", "-o"]).arg(&program).args(flags).arg(&code).output();
    match built {
        Ok(output) if output.status.success() => Some(program.display().to_string()),
        Ok(output) => {
            eprintln!("skipped: cc cannot build it: {}", String::from_utf8_lossy(&output.stderr));
            None
        }
        Err(error) => {
            eprintln!("skipped: no C compiler: {error}");
            None
        }
    }
}
