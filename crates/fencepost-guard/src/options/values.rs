//! The typed values of the options, and their defaults.
//!
//! Every type here is plain data of a fixed size, `Copy` and built by `const fn`, because the options are read before
//! the first allocation of the program and because compiled-in options are checked in const evaluation. A path has
//! a fixed room and a list a fixed number of entries: going past either is an error that the user sees, never a
//! silent cut.

use core::fmt;

use super::error::Problem;
use super::names::NameList;
use super::text::same;

/// An enum whose variants are written as words in an option, so that a word and its variant stand in one place.
macro_rules! words {
    ($(#[$doc:meta])* pub enum $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $name {
            /// The words of all values, the default first.
            pub const WORDS: &'static [&'static str] = &[$($word,)+];

            /// The value that `word` names.
            pub const fn from_word(word: &[u8]) -> Option<$name> {
                $(if same(word, $word.as_bytes()) {
                    return Some($name::$variant);
                })+
                None
            }

            /// The word for this value.
            pub const fn word(self) -> &'static str {
                match self {
                    $($name::$variant => $word,)+
                }
            }
        }
    };
}

words! {
    /// How much is guarded.
    pub enum Mode {
        /// Every allocation that the filters allow.
        Strict = "strict",
        /// As many as [`Options::budget`] pays for.
        Budget = "budget",
        /// One allocation in [`Options::sample_rate`].
        Sample = "sample",
        /// Nothing.
        Off = "off",
    }
}

words! {
    /// How pages are made inaccessible, as asked for; which one runs is decided at start.
    pub enum EngineChoice {
        /// The best one that works on this machine.
        Auto = "auto",
        /// Pages that are missing and moved (Linux 6.8 and later, where userfaultfd is allowed).
        Move = "move",
        /// Guard markers in the page table (Linux 6.13 and later).
        Marker = "marker",
        /// Pages without permissions.
        Mprotect = "mprotect",
        /// Pages that are not committed (Windows).
        Commit = "commit",
    }
}

words! {
    /// Which end of a block lies on the guard page.
    pub enum Place {
        /// The end: overflows trap at the access.
        Right = "right",
        /// The beginning: underflows trap at the access.
        Left = "left",
        /// Either, chosen by call site and seed.
        Alternate = "alternate",
    }
}

words! {
    /// What the process does once a report is written.
    pub enum OnError {
        /// Die by the original signal.
        Abort = "abort",
        /// Go on.
        Continue = "continue",
        /// Exit with [`Options::exitcode`].
        Exit = "exit",
    }
}

words! {
    /// Whether text reports are coloured.
    pub enum Color {
        /// On a terminal only.
        Auto = "auto",
        /// Always.
        Always = "always",
        /// Never.
        Never = "never",
    }
}

words! {
    /// Whether the exit summary is printed.
    pub enum When {
        /// Where it helps and disturbs nobody.
        Auto = "auto",
        /// Always.
        On = "on",
        /// Never.
        Off = "off",
    }
}

/// The memory past which less is guarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaxMemory {
    /// Three quarters of what the process may still use.
    Auto,
    /// This many bytes.
    Bytes(u64),
    /// No limit.
    None,
}

/// A path given as an option, before `%p` is replaced by the process id.
///
/// Never empty, UTF-8, free of NUL bytes, at most [`PathText::BYTES_MAX`] long.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PathText {
    // Zero past `len`, so that the derived comparison sees only the text.
    bytes: [u8; PathText::BYTES_MAX],
    len: u8,
}

impl PathText {
    /// The longest path an option can hold, in bytes.
    pub const BYTES_MAX: usize = 240;

    /// A copy of `text`, or `None` if it is empty, too long, not UTF-8, or holds a NUL byte.
    pub const fn new(text: &[u8]) -> Option<PathText> {
        match PathText::unquoted(text, 0) {
            Ok(path) => Some(path),
            Err(_) => None,
        }
    }

    /// A copy of `text` where each doubled `quote` counts as one; a `quote` of zero stands for none.
    pub(super) const fn unquoted(text: &[u8], quote: u8) -> Result<PathText, Problem> {
        let mut path = PathText { bytes: [0; PathText::BYTES_MAX], len: 0 };
        let mut rest = text;
        while let Some((&byte, after)) = rest.split_first() {
            rest = after;
            if byte == 0 {
                return Err(Problem::BadValue);
            }
            if byte == quote
                && let Some((&next, after)) = rest.split_first()
                && next == quote
            {
                rest = after;
            }
            let Some((_, room)) = path.bytes.split_at_mut_checked(path.len as usize) else {
                return Err(Problem::TooLong);
            };
            let Some(cell) = room.first_mut() else { return Err(Problem::TooLong) };
            *cell = byte;
            path.len = path.len.wrapping_add(1);
        }
        if path.len == 0 || core::str::from_utf8(path.as_bytes()).is_err() {
            return Err(Problem::BadValue);
        }
        Ok(path)
    }

    /// The path's bytes, without a terminator.
    pub const fn as_bytes(&self) -> &[u8] {
        match self.bytes.split_at_checked(self.len as usize) {
            Some((text, _)) => text,
            None => &self.bytes,
        }
    }

    /// The path as text.
    pub const fn as_str(&self) -> &str {
        match core::str::from_utf8(self.as_bytes()) {
            Ok(text) => text,
            Err(_) => "",
        }
    }
}

impl fmt::Debug for PathText {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), formatter)
    }
}

/// The values from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizeRange {
    /// The smallest value of the range.
    pub first: u64,
    /// The largest value of the range.
    pub last: u64,
}

/// A short list of ranges, as the size and alignment filters take it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SizeRanges {
    // Equal to `UNUSED` past `len`, so that the derived comparison sees only the list.
    ranges: [SizeRange; SizeRanges::RANGES_MAX],
    len: u8,
}

impl SizeRanges {
    /// The most ranges one list can hold.
    pub const RANGES_MAX: usize = 8;
    /// The list without a range; a filter with it filters nothing.
    pub const EMPTY: SizeRanges = SizeRanges { ranges: [UNUSED; SizeRanges::RANGES_MAX], len: 0 };

    /// Whether one of the ranges holds `value`.
    pub const fn contains(&self, value: u64) -> bool {
        if self.len == 0 {
            return false;
        }
        let mut rest = self.as_slice();
        while let Some((range, after)) = rest.split_first() {
            if range.first <= value && value <= range.last {
                return true;
            }
            rest = after;
        }
        false
    }

    /// Whether there is no range at all.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The ranges, in the order they were given.
    pub const fn as_slice(&self) -> &[SizeRange] {
        match self.ranges.split_at_checked(self.len as usize) {
            Some((used, _)) => used,
            None => &self.ranges,
        }
    }

    /// The list with one more range, or `None` if it is full or the range runs backwards.
    pub const fn with(mut self, range: SizeRange) -> Option<SizeRanges> {
        if range.first > range.last {
            return None;
        }
        let Some((_, room)) = self.ranges.split_at_mut_checked(self.len as usize) else { return None };
        let Some(cell) = room.first_mut() else { return None };
        *cell = range;
        self.len = self.len.wrapping_add(1);
        Some(self)
    }
}

const UNUSED: SizeRange = SizeRange { first: 0, last: 0 };

impl fmt::Debug for SizeRanges {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.as_slice()).finish()
    }
}

/// How `malloc` aligns what it hands out, in bytes. Its callers may count on what suits every type; a block of a size
/// that is no multiple of that then has some bytes between its end and the guard page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MallocAlign {
    /// As every type of the language asks.
    Natural,
    /// Not at all: every block ends on the guard page to the byte.
    Exact,
    /// By this power of two.
    Bytes(u16),
}

impl MallocAlign {
    /// The alignment, in bytes, of a block whose caller asks for none of its own.
    pub const fn bytes(self) -> usize {
        match self {
            // `alignof(max_align_t)` of every 64-bit system this runs on.
            MallocAlign::Natural => 16,
            MallocAlign::Exact => 1,
            MallocAlign::Bytes(bytes) => bytes as usize,
        }
    }
}

/// Every option, with the value in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How much is guarded.
    pub mode: Mode,
    /// Under [`Mode::Budget`], the share of the program's own CPU time that guarding may take, in percent; 1 to 100.
    pub budget: u8,
    /// Under [`Mode::Sample`], one allocation in this many is guarded; at least 1.
    pub sample_rate: u32,
    /// How pages are made inaccessible.
    pub engine: EngineChoice,
    /// Which end of a block lies on the guard page.
    pub place: Place,
    /// If not empty, only allocations of these sizes, in bytes, are guarded.
    pub only_size: SizeRanges,
    /// Allocations of these sizes, in bytes, are not guarded.
    pub skip_size: SizeRanges,
    /// If not empty, only allocations of these alignments, in bytes, are guarded.
    pub only_align: SizeRanges,
    /// Allocations of these alignments, in bytes, are not guarded.
    pub skip_align: SizeRanges,
    /// If not empty, only allocations of threads with these names are guarded.
    pub only_thread: NameList,
    /// Allocations of threads with these names are not guarded.
    pub skip_thread: NameList,
    /// If not empty, only allocations asked for by these modules are guarded.
    pub only_module: NameList,
    /// Allocations asked for by these modules are not guarded.
    pub skip_module: NameList,
    /// If not empty, only allocations made in or below these functions are guarded.
    pub only_fn: NameList,
    /// Allocations made in or below these functions are not guarded.
    pub skip_fn: NameList,
    /// If not empty, only allocations of these sites are guarded.
    pub only_site: SizeRanges,
    /// Allocations of these sites are not guarded.
    pub skip_site: SizeRanges,
    /// How `malloc` aligns what it hands out.
    pub align: MallocAlign,
    /// Whether buffers handed to system calls are looked at before.
    pub syscalls: bool,
    /// Bytes of freed address space that stay dead before any is used again.
    pub quarantine: u64,
    /// Freed blocks of a thread that may wait to be closed together; 0 closes each at once.
    pub defer: u32,
    /// Whether new memory is filled with a pattern and the slack is checked at free.
    pub fill: bool,
    /// Frames kept for each allocation and each free, 0 to 128.
    pub stack_depth: u8,
    /// What the process does once a report is written.
    pub on_error: OnError,
    /// The exit status of a run that reported something and did not die by a signal.
    pub exitcode: u8,
    /// Where text reports go; `None` is stderr.
    pub log: Option<PathText>,
    /// Where machine-readable reports go; `None` is nowhere.
    pub report: Option<PathText>,
    /// Whether names are resolved inside the process.
    pub symbolize: bool,
    /// Whether text reports are coloured.
    pub color: Color,
    /// One allocation in this many fails; 0 is off.
    pub fail_rate: u32,
    /// The allocation with this number fails, counted from 1; 0 is off.
    pub fail_at: u64,
    /// The seed of the choice under `fail_rate`; 0 takes the seed of the run.
    pub fail_seed: u64,
    /// The memory past which less is guarded.
    pub max_memory: MaxMemory,
    /// The seed of every random choice; `None` takes one from the system.
    pub seed: Option<u64>,
    /// Whether blocks that nothing reaches are reported at exit.
    pub leaks: bool,
    /// Whether the exit summary is printed.
    pub summary: When,
    /// Whether the table of options is printed at start.
    pub help: bool,
}

impl Options {
    /// The options of a run that sets none.
    pub const DEFAULT: Options = Options {
        mode: Mode::Strict,
        budget: 5,
        sample_rate: 1000,
        engine: EngineChoice::Auto,
        place: Place::Right,
        only_size: SizeRanges::EMPTY,
        skip_size: SizeRanges::EMPTY,
        only_align: SizeRanges::EMPTY,
        skip_align: SizeRanges::EMPTY,
        only_thread: NameList::EMPTY,
        skip_thread: NameList::EMPTY,
        only_module: NameList::EMPTY,
        skip_module: NameList::EMPTY,
        only_fn: NameList::EMPTY,
        skip_fn: NameList::EMPTY,
        only_site: SizeRanges::EMPTY,
        skip_site: SizeRanges::EMPTY,
        align: MallocAlign::Natural,
        syscalls: true,
        quarantine: 8 << 40,
        defer: 0,
        fill: true,
        stack_depth: 32,
        on_error: OnError::Abort,
        exitcode: 100,
        log: None,
        report: None,
        symbolize: true,
        color: Color::Auto,
        fail_rate: 0,
        fail_at: 0,
        fail_seed: 0,
        max_memory: MaxMemory::Auto,
        seed: None,
        leaks: false,
        summary: When::Auto,
        help: false,
    };
}

impl Default for Options {
    fn default() -> Options {
        Options::DEFAULT
    }
}
