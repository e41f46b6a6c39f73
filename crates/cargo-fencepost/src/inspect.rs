//! What a program's file tells before it runs: whether it brings its own guard, and whether a library can be
//! preloaded into it.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use object::read::elf::{FileHeader, ProgramHeader};
use object::{Object, ObjectSymbol, elf};

use crate::system;

/// Texts that every program with the runtime in it holds, stripped or not: the variable it reads, and the first line
/// it writes.
const RUNTIME_MARKS: [&[u8]; 2] = [b"FENCEPOST_OPTIONS\0", b"fencepost-start/1"];
/// Prefixes of allocators that programs link in under names of their own.
const OTHER_ALLOCATORS: [(&str, &str); 4] =
    [("_rjem_", "jemalloc"), ("je_malloc", "jemalloc"), ("mi_malloc", "mimalloc"), ("tc_malloc", "tcmalloc")];

/// Words of the same allocators, by which they are known in programs whose names were stripped.
const ALLOCATOR_MARKS: [(&[u8], &str); 3] = [
    (b"<jemalloc>: ", "jemalloc"),
    (b"mimalloc: warning: ", "mimalloc"),
    (b"tcmalloc: large alloc ", "tcmalloc"),
];

/// How an allocator is called that is not linked in but comes with the language.
pub const GO: &str = "the runtime of Go";
/// The section that every program of Go's linker has (cmd/link: it holds the versions of what was built in).
const GO_SECTION: &str = ".go.buildinfo";

/// What the file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// It holds the runtime: a `GuardedAlloc`, or `export_libc!`.
    pub own_runtime: bool,
    /// Why a library cannot be preloaded into it, and what to do instead.
    pub no_preload: Option<String>,
    /// An allocator inside, whose blocks a preloaded library does not see.
    pub own_allocator: Option<String>,
}

/// Looks a program up as the system does: by its path, or in the folders of `PATH`.
pub fn find(program: &Path) -> Option<PathBuf> {
    let called = match program.extension() {
        None => program.with_extension(std::env::consts::EXE_EXTENSION),
        Some(_) => program.to_owned(),
    };
    if program.components().count() > 1 {
        return [program, &called].into_iter().find(|path| path.is_file()).map(Path::to_owned);
    }
    let folders = std::env::var_os("PATH")?;
    let mut paths = std::env::split_paths(&folders).map(|folder| folder.join(&called));
    paths.find(|path| system::may_be_run(path))
}

/// What the file of a program tells; of a script, that of its interpreter.
pub fn inspect(path: &Path) -> Facts {
    let mut path = path.to_owned();
    for _ in 0..4 {
        match interpreter(&path) {
            Some(next) => path = next,
            None => break,
        }
    }
    let mut facts = Facts::default();
    let Ok(bytes) = std::fs::read(&path) else { return facts };
    facts.own_runtime = RUNTIME_MARKS.iter().all(|mark| holds(&bytes, mark));
    facts.no_preload = system::refuses_preload(&path).map(str::to_owned);
    let about_elf = elf_facts(&bytes);
    facts.no_preload = facts.no_preload.or(about_elf.no_preload);
    facts.own_allocator = about_elf.own_allocator;
    facts
}

/// The program that a script names in its first line.
fn interpreter(path: &Path) -> Option<PathBuf> {
    let mut start = [0; 256];
    let count = File::open(path).ok()?.read(&mut start).ok()?;
    let line = start.get(..count)?.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line.split_whitespace();
    let first = Path::new(words.next()?);
    if first.file_name().is_some_and(|name| name == "env") {
        return find(Path::new(words.find(|word| !word.starts_with('-') && !word.contains('='))?));
    }
    Some(first.to_owned())
}

fn holds(bytes: &[u8], mark: &[u8]) -> bool {
    let first = mark.first().copied().unwrap_or(0);
    let mut from = 0;
    // Searching for one byte is fast; the rest is compared only there.
    while let Some(at) = bytes.get(from..).and_then(|rest| rest.iter().position(|byte| *byte == first)) {
        if bytes.get(from + at..).is_some_and(|rest| rest.starts_with(mark)) {
            return true;
        }
        from += at + 1;
    }
    false
}

fn elf_facts(bytes: &[u8]) -> Facts {
    let mut facts = Facts::default();
    let Ok(header) = elf::FileHeader64::<object::Endianness>::parse(bytes) else {
        facts.no_preload = Some(
            "it is no 64-bit ELF program (nor a script that starts one): only such programs load the library"
                .to_owned(),
        );
        return facts;
    };
    let loader = header.endian().ok().and_then(|endian| {
        let headers = header.program_headers(endian, bytes).ok()?;
        headers.iter().find_map(|segment| segment.interpreter(endian, bytes).ok().flatten())
    });
    match loader.map(|loader| String::from_utf8_lossy(loader).into_owned()) {
        None => {
            facts.no_preload = Some(
                "it is linked statically, so that no library can be preloaded: link it dynamically \
                 (Rust: without +crt-static; Go: with cgo), or build it with GuardedAlloc"
                    .to_owned(),
            );
        }
        Some(loader) if loader.contains("musl") => {
            facts.no_preload = Some(format!(
                "it is built for musl ({loader}), and the library for glibc: build it for a gnu target, or with GuardedAlloc"
            ));
        }
        Some(_) => {}
    }
    let Ok(file) = object::File::parse(bytes) else { return facts };
    let exported =
        file.dynamic_symbols().find(|symbol| symbol.is_definition() && symbol.name() == Ok("malloc"));
    if exported.is_some() {
        facts.own_allocator = Some("malloc".to_owned());
        return facts;
    }
    if file.section_by_name(GO_SECTION).is_some() {
        facts.own_allocator = Some(GO.to_owned());
        return facts;
    }
    let inside = file.symbols().chain(file.dynamic_symbols()).find_map(|symbol| {
        let name = symbol.name().ok().filter(|_| symbol.is_definition())?;
        OTHER_ALLOCATORS.iter().find(|(prefix, _)| name.starts_with(prefix)).map(|(_, allocator)| *allocator)
    });
    let is_stripped = file.symbols().next().is_none();
    let marked =
        || ALLOCATOR_MARKS.iter().find(|(mark, _)| holds(bytes, mark)).map(|(_, allocator)| *allocator);
    facts.own_allocator = inside.or_else(|| marked().filter(|_| is_stripped)).map(str::to_owned);
    facts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_found_anywhere() {
        assert!(holds(b"..aab", b"ab"));
        assert!(holds(b"aab", b"aab"));
        assert!(!holds(b"aa", b"ab"));
        assert!(!holds(b"", b"ab"));
    }

    #[test]
    fn this_program_is_dynamic_and_holds_no_other_allocator() {
        let facts = inspect(&std::env::current_exe().expect("a path"));
        assert_eq!(facts.no_preload, None);
        assert_eq!(facts.own_allocator, None);
    }

    #[test]
    fn a_script_is_its_interpreter() {
        let folder = tempfile::tempdir().expect("a folder");
        let script = folder.path().join("script");
        std::fs::write(&script, "#!/usr/bin/env -S VAR=1 sh -x\n").expect("written");
        assert_eq!(interpreter(&script), find(Path::new("sh")));
        std::fs::write(&script, "no script").expect("written");
        assert_eq!(interpreter(&script), None);
        assert!(inspect(&script).no_preload.expect("refused").contains("no 64-bit ELF"));
    }
}
