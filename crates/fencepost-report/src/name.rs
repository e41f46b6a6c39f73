//! What a function's name tells: whose function it is, and what of the name means something to a person.
//!
//! Names come in two schemes. The older mangling gives `demo::ring::Ring::push::h0123456789abcdef`, without
//! type arguments and with `{{closure}}`; the v0 scheme gives `<demo[1f2e]::ring::Ring<u8>>::push::{closure#0}`,
//! where the number in brackets tells crates of one name apart. One program holds both, because the standard
//! library is compiled by its own rules.

/// A demangled name without the hashes that change with every build.
pub(crate) fn clean(name: &str) -> String {
    let mut name = name;
    if let Some((front, hash)) = name.rsplit_once("::h")
        && hash.len() == 16
        && hash.bytes().all(is_hex)
    {
        name = front;
    }
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some((front, back)) = rest.split_once('[') {
        out.push_str(front);
        let after_word = out.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        match back.split_once(']') {
            Some((inside, behind)) if after_word && !inside.is_empty() && inside.bytes().all(is_hex) => {
                rest = behind
            }
            _ => {
                out.push('[');
                rest = back;
            }
        }
    }
    out.push_str(rest);
    out
}

const fn is_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

/// Whose a function is, as far as trimming cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The program's: the user's crates, third-party crates, C code.
    Program,
    /// The standard library's.
    Std,
    /// The guard's own, or of the crate that walks stacks for it.
    Guard,
    /// The door to the allocator: `__rust_alloc`, `malloc`.
    Shim,
    /// What carries a panic, or catches it.
    Panic,
    /// What runs before `main` and under a thread's first function.
    Start,
}

const GUARD: [&str; 9] = [
    "fencepost",
    "fencepost_guard",
    "fencepost_malloc",
    "fencepost_memory",
    "fencepost_preload",
    "fencepost_record",
    "fencepost_report",
    "fencepost_sys",
    "backtrace",
];
const STD: [&str; 7] = ["alloc", "core", "std", "test", "__rustc", "panic_unwind", "compiler_builtins"];
const RUST_SHIMS: [&str; 5] = ["__rust_alloc", "__rust_dealloc", "__rust_realloc", "__rg_", "__rdl_"];
const C_SHIMS: [&str; 10] = [
    "malloc",
    "calloc",
    "realloc",
    "free",
    "aligned_alloc",
    "posix_memalign",
    "memalign",
    "valloc",
    "reallocarray",
    "cfree",
];
const PANICS: [&str; 5] =
    ["rust_begin_unwind", "rust_panic", "__rust_start_panic", "__rust_try", "__rust_panic_cleanup"];

/// Whose the function with this (clean) name is. A known file outweighs the name: generic code of the standard
/// library carries the user's types in its name, and the user's own trait methods may carry the library's.
pub(crate) fn origin(function: &str, file: Option<&str>) -> Origin {
    let head = Head::of(function);
    let last = head.rest.rsplit("::").next().unwrap_or("");
    if GUARD.contains(&head.krate) {
        return Origin::Guard;
    }
    if is_shim(function, &head, last) {
        return Origin::Shim;
    }
    if is_panic(function, &head, last) {
        return Origin::Panic;
    }
    if is_start(function) {
        return Origin::Start;
    }
    let std_name = STD.contains(&head.krate);
    match file.map(Place::of) {
        Some(Place::StdDependency) => Origin::Std,
        // The place of a macro's text is the library's, the function it stands in may be anyone's.
        Some(Place::Std) if std_name || head.krate.is_empty() => Origin::Std,
        Some(_) => Origin::Program,
        None if std_name => Origin::Std,
        None => Origin::Program,
    }
}

/// Whether a run of the standard library's start-up code begins here, seen from the program.
pub(crate) fn is_marker(function: &str) -> bool {
    function.contains("::__rust_begin_short_backtrace") && STD.contains(&Head::of(function).krate)
}

/// Whether Rust's own entry to `main` is among the callers, which makes a plain `main` the C shim below it.
pub(crate) fn is_rust_start(function: &str) -> bool {
    function.contains("std::rt::lang_start") || is_marker(function)
}

fn is_shim(function: &str, head: &Head<'_>, last: &str) -> bool {
    let rust = RUST_SHIMS.iter().any(|shim| last.starts_with(shim)) && matches!(head.krate, "" | "__rustc");
    rust || C_SHIMS.contains(&function)
        || function.starts_with("operator new")
        || function.starts_with("operator delete")
}

fn is_panic(function: &str, head: &Head<'_>, last: &str) -> bool {
    let path = head.subject;
    PANICS.contains(&last) && matches!(head.krate, "" | "std" | "__rustc" | "panic_unwind")
        || function.starts_with("_Unwind_")
        || ["std::panicking::", "std::panic::", "core::panicking::", "core::panic::", "panic_unwind::"]
            .iter()
            .any(|module| path.starts_with(module))
        || path.starts_with("std::sys::backtrace::__rust_end_short_backtrace")
}

fn is_start(function: &str) -> bool {
    matches!(
        function,
        "_start" | "__clone" | "clone" | "clone3" | "__clone3" | "start_thread" | "thread_start"
    ) || function.starts_with("__libc_start")
        || function.starts_with("_pthread_start")
}

/// The outside of a name: the crate and path that say whose it is.
struct Head<'a> {
    /// Crate of the function; empty for names without a path, as C's.
    krate: &'a str,
    /// Path of the type or module that the function belongs to.
    subject: &'a str,
    /// The name without a leading `<…>`.
    rest: &'a str,
}

impl<'a> Head<'a> {
    fn of(function: &'a str) -> Head<'a> {
        let Some((inside, rest)) = leading_brackets(function) else {
            let krate = if function.contains("::") { first_word(function) } else { "" };
            return Head { krate, subject: function, rest: function };
        };
        // `<Type as Trait>::f` stands in the crate of the type or of the trait: whichever is not the library's.
        let (subject, of_trait) = split_as(inside);
        let subject = bare(subject);
        let (type_crate, trait_crate) = (path_crate(subject), of_trait.map_or("", path_crate));
        let of_library = |krate: &str| krate.is_empty() || STD.contains(&krate);
        let krate = if !of_library(trait_crate) || (type_crate.is_empty() && !trait_crate.is_empty()) {
            trait_crate
        } else {
            type_crate
        };
        Head { krate, subject, rest }
    }
}

/// Splits `<inside>rest`.
fn leading_brackets(function: &str) -> Option<(&str, &str)> {
    if !function.starts_with('<') {
        return None;
    }
    let end = outside_brackets(function, |depth, index, byte| depth == 0 && byte == b'>' && index > 0)?;
    Some((function.get(1..end)?, function.get(end.checked_add(1)?..)?))
}

/// Splits `Type as Trait`, where the `as` is not inside further brackets.
fn split_as(inside: &str) -> (&str, Option<&str>) {
    let at = outside_brackets(inside, |depth, index, _| {
        depth == 0 && inside.get(index..).is_some_and(|rest| rest.starts_with(" as "))
    });
    match at.and_then(|at| Some((inside.get(..at)?, inside.get(at.checked_add(4)?..)?))) {
        Some((subject, of_trait)) => (subject, Some(of_trait)),
        None => (inside, None),
    }
}

/// The first byte for which `wanted` holds, told how deep in brackets it lies (a closing one counts as outside).
fn outside_brackets(text: &str, wanted: impl Fn(usize, usize, u8) -> bool) -> Option<usize> {
    let mut depth = 0_usize;
    let mut before = 0;
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            // The arrow of a function type is no bracket.
            b'>' if before != b'-' => depth = depth.saturating_sub(1),
            b')' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if wanted(depth, index, byte) {
            return Some(index);
        }
        if matches!(byte, b'<' | b'(' | b'[') {
            depth = depth.saturating_add(1);
        }
        before = byte;
    }
    None
}

/// A type without its reference, pointer, slice or `dyn` around it: whose type it is stays the same.
fn bare(mut subject: &str) -> &str {
    loop {
        let next = subject.trim_start_matches(['&', '*', '[', '(', ' ']);
        let next = ["mut ", "const ", "dyn "]
            .iter()
            .fold(next, |text, word| text.strip_prefix(word).unwrap_or(text));
        let next = match next.strip_prefix('\'') {
            Some(lifetime) => lifetime.split_once(' ').map_or("", |(_, rest)| rest),
            None => next,
        };
        if next.len() == subject.len() {
            return next;
        }
        subject = next;
    }
}

/// The crate of a path; empty for a primitive type or a type parameter.
fn path_crate(path: &str) -> &str {
    let word = first_word(path);
    if path.get(word.len()..).is_some_and(|rest| rest.starts_with("::")) { word } else { "" }
}

fn first_word(path: &str) -> &str {
    path.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or("")
}

/// Where a source file belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The standard library.
    Std,
    /// A crate that the standard library was built with.
    StdDependency,
    /// A crate that cargo fetched.
    Fetched,
    /// Anything else: the user's own, or C.
    Own,
}

impl Place {
    pub(crate) fn of(file: &str) -> Place {
        let file = file.replace('\\', "/");
        if file.starts_with("/rust/deps/") {
            Place::StdDependency
        } else if (file.starts_with("/rustc/") && file.contains("/library/"))
            || file.contains("/lib/rustlib/src/rust/")
        {
            Place::Std
        } else if file.contains("/registry/src/") || file.contains("/git/checkouts/") {
            Place::Fetched
        } else if file.starts_with("/rustc/") {
            Place::StdDependency
        } else {
            Place::Own
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_taken_off() {
        for (name, wanted) in [
            ("demo::main::haecd9b85a7e8eceb", "demo::main"),
            ("demo::h::hello", "demo::h::hello"),
            ("demo::habcdefabcdefabcd::f", "demo::habcdefabcdefabcd::f"),
            ("alloc[fdfd2bd8633a6659]::alloc::alloc", "alloc::alloc::alloc"),
            ("<demo[1]::A<[u8; 4], [u8]> as core[c1]::Tr>::f", "<demo::A<[u8; 4], [u8]> as core::Tr>::f"),
            ("core::slice::<impl [T]>::sort", "core::slice::<impl [T]>::sort"),
            ("unclosed[ab", "unclosed[ab"),
        ] {
            assert_eq!(clean(name), wanted);
        }
    }

    #[test]
    fn every_function_has_its_owner() {
        use Origin::{Guard, Panic, Program, Shim, Start, Std};
        for (function, wanted) in [
            ("demo::main", Program),
            ("<demo::Foo as core::ops::drop::Drop>::drop", Program),
            ("<demo::Foo<alloc::vec::Vec<u8>> as core::ops::drop::Drop>::drop", Program),
            ("<alloc::vec::Vec<T> as demo::Trait>::go", Program),
            ("<T as demo::Trait>::go", Program),
            ("<&mut demo::Foo as core::iter::Iterator>::next", Program),
            ("<demo::main::{closure#0} as core::ops::function::FnOnce<()>>::call_once", Program),
            ("<fn(u8) -> demo::X as demo::Call>::call", Program),
            ("memcpy", Program),
            ("core_graphics::draw", Program),
            ("fencepost_tests::victim", Program),
            ("alloc::vec::Vec<T,A>::push", Std),
            ("<u8 as alloc::vec::spec_from_elem::SpecFromElem>::from_elem", Std),
            ("<T as alloc::slice::<impl [T]>::to_vec_in::ConvertVec>::to_vec", Std),
            ("<alloc::vec::Vec<demo::Foo> as core::ops::drop::Drop>::drop", Std),
            ("core::ptr::drop_in_place<demo::Foo>", Std),
            (
                "<core::iter::Map<core::slice::Iter<u8>, demo::f::{closure#0}> as core::iter::Iterator>::next",
                Std,
            ),
            (
                "<&dyn core::ops::function::Fn<(), Output = i32> as core::ops::function::FnOnce<()>>::call_once",
                Std,
            ),
            (
                "<fn() -> core::result::Result<(), alloc::string::String> as core::ops::function::FnOnce<()>>::call_once",
                Std,
            ),
            ("<fencepost::GuardedAlloc<demo::Inner> as core::alloc::global::GlobalAlloc>::alloc", Guard),
            ("<fencepost::GuardedAlloc as core::alloc::global::GlobalAlloc>::dealloc", Guard),
            ("fencepost_guard::allocate::Runtime<P>::allocate", Guard),
            ("backtrace::backtrace::libunwind::trace", Guard),
            ("__rustc::__rust_alloc", Shim),
            ("__rust_alloc_zeroed", Shim),
            ("__rdl_dealloc", Shim),
            ("demo::__rust_alloc_statistics", Program),
            ("operator new(unsigned long)", Shim),
            ("malloc", Shim),
            ("std::panicking::catch_unwind::do_call", Panic),
            ("std::panic::catch_unwind::<demo::f::{closure#0}, ()>", Panic),
            (
                "<core::panic::unwind_safe::AssertUnwindSafe<F> as core::ops::function::FnOnce<()>>::call_once",
                Panic,
            ),
            ("core::panicking::panic_fmt", Panic),
            ("__rustc::rust_begin_unwind", Panic),
            ("_Unwind_RaiseException", Panic),
            ("__libc_start_call_main", Start),
        ] {
            assert_eq!(origin(function, None), wanted, "{function}");
        }
    }

    #[test]
    fn a_file_outweighs_a_name() {
        let library = Some("/rustc/0123456789abcdef/library/alloc/src/vec/mod.rs");
        let own = Some("/home/user/demo/src/main.rs");
        assert_eq!(
            origin("<alloc::vec::Vec<demo::Foo> as core::convert::From<demo::Bar>>::from", own),
            Origin::Program
        );
        assert_eq!(origin("<T as alloc::string::ToString>::to_string", library), Origin::Std);
        assert_eq!(origin("demo::uses_a_macro", library), Origin::Program);
        assert_eq!(
            origin("hashbrown::map::insert", Some("/rust/deps/hashbrown-0.16.1/src/map.rs")),
            Origin::Std
        );
        assert_eq!(
            origin("hashbrown::map::insert", Some("/c/registry/src/x/hashbrown/src/map.rs")),
            Origin::Program
        );
        assert_eq!(origin("__rustc::__rust_alloc", own), Origin::Shim);
    }
}
