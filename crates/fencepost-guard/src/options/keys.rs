//! The table of keys, from which the parser, the error lines, the help and the check of the documentation are made.
//!
//! A key or value that belongs to fencepost but not to this version stands in the table too, marked as such: a user
//! who writes it learns that it is missing and what happens instead, rather than that it is unknown.

use super::names::NameList;
use super::values::{
    Color, EngineChoice, MallocAlign, Mode, OnError, Options, PathText, Place, SizeRanges, When,
};

/// A name that may stand before `=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// `mode`
    Mode,
    /// `budget`
    Budget,
    /// `sample_rate`
    SampleRate,
    /// `engine`
    Engine,
    /// `place`
    Place,
    /// `only_size`
    OnlySize,
    /// `skip_size`
    SkipSize,
    /// `only_align`
    OnlyAlign,
    /// `skip_align`
    SkipAlign,
    /// `only_thread`
    OnlyThread,
    /// `skip_thread`
    SkipThread,
    /// `only_module`
    OnlyModule,
    /// `skip_module`
    SkipModule,
    /// `only_fn`
    OnlyFn,
    /// `skip_fn`
    SkipFn,
    /// `only_site`
    OnlySite,
    /// `skip_site`
    SkipSite,
    /// `align`
    Align,
    /// `syscalls`
    Syscalls,
    /// `quarantine`
    Quarantine,
    /// `defer`
    Defer,
    /// `fill`
    Fill,
    /// `stack_depth`
    StackDepth,
    /// `on_error`
    OnError,
    /// `exitcode`
    Exitcode,
    /// `log`
    Log,
    /// `report`
    Report,
    /// `symbolize`
    Symbolize,
    /// `color`
    Color,
    /// `fail_rate`
    FailRate,
    /// `fail_at`
    FailAt,
    /// `fail_seed`
    FailSeed,
    /// `max_memory`
    MaxMemory,
    /// `seed`
    Seed,
    /// `leaks`
    Leaks,
    /// `summary`
    Summary,
    /// `help`
    Help,
    /// One that this version does not have; [`KeySpec::instead`] says what happens.
    Absent,
}

/// One row of the table of options.
#[derive(Clone, Copy, Debug)]
pub struct KeySpec {
    /// Which option the row is about.
    pub key: Key,
    /// The name as a user writes it.
    pub name: &'static str,
    /// The default as a user would write it.
    pub default: &'static str,
    /// The values, as a phrase that reads after "one of" if [`KeySpec::words`] are all, else after "is not".
    pub allowed: &'static str,
    /// What the option does.
    pub meaning: &'static str,
    /// The words that are values.
    pub words: &'static [&'static str],
    /// Words that are values of a later version.
    pub later: &'static [&'static str],
    /// For [`Key::Absent`], what happens in this version; else empty.
    pub instead: &'static str,
}

const SWITCH: &[&str] = &["on", "off"];
const NO_WORDS: &[&str] = &[];
const NONE: &[&str] = &["none"];
const RANGES: &str = "none, or sizes N and ranges A-B (K, M, G and T may follow)";
const BYTES: &str = "a number of bytes (K, M, G and T may follow it)";
const NAMES: &str = "none, or names, in which * stands for any text and ? for any byte";
const NUMBERS: &str = "none, or up to 8 sites as reports print them";

const fn row(
    key: Key,
    name: &'static str,
    default: &'static str,
    words: &'static [&'static str],
    allowed: &'static str,
    meaning: &'static str,
) -> KeySpec {
    KeySpec { key, name, default, allowed, meaning, words, later: NO_WORDS, instead: "" }
}

/// Every key, in the order of the help and of the documentation.
#[rustfmt::skip]
pub const KEYS: &[KeySpec] = &[
    row(Key::Mode, "mode", "strict", Mode::WORDS, "strict, budget, sample, off",
        "guard every allocation, as many as budget pays for, one in sample_rate, or none"),
    row(Key::Budget, "budget", "5", NO_WORDS, "a number from 1 to 100",
        "under mode=budget, guarding may take this many percent of the program's CPU time"),
    row(Key::SampleRate, "sample_rate", "1000", NO_WORDS, "a number from 1 to 4294967295",
        "under mode=sample, guard one allocation in this many"),
    row(Key::Engine, "engine", "auto", EngineChoice::WORDS, "auto, move, marker, mprotect, commit",
        "how pages are made inaccessible; auto takes the best that works here"),
    row(Key::Place, "place", "right", Place::WORDS, "right, left, alternate",
        "which end of the block lies on the guard page"),
    row(Key::Align, "align", "natural", &["natural", "exact"], "natural, exact or a power of two up to 4096",
        "alignment of malloc's blocks: 16, 1 or this many bytes; Rust blocks have their layout's"),
    row(Key::OnlySize, "only_size", "none", NONE, RANGES, "guard only blocks of these sizes"),
    row(Key::SkipSize, "skip_size", "none", NONE, RANGES, "do not guard blocks of these sizes"),
    row(Key::OnlyAlign, "only_align", "none", NONE, RANGES, "guard only blocks of these alignments"),
    row(Key::SkipAlign, "skip_align", "none", NONE, RANGES, "do not guard blocks of these alignments"),
    row(Key::OnlyThread, "only_thread", "none", NONE, NAMES, "guard only blocks of threads with these names"),
    row(Key::SkipThread, "skip_thread", "none", NONE, NAMES, "do not guard blocks of threads with these names"),
    row(Key::OnlyModule, "only_module", "none", NONE, NAMES, "guard only blocks that these executables or libraries ask for"),
    row(Key::SkipModule, "skip_module", "none", NONE, NAMES, "do not guard blocks that these executables or libraries ask for"),
    row(Key::OnlyFn, "only_fn", "none", NONE, NAMES, "guard only blocks made in or below these functions"),
    row(Key::SkipFn, "skip_fn", "none", NONE, NAMES, "do not guard blocks made in or below these functions"),
    row(Key::OnlySite, "only_site", "none", NONE, NUMBERS, "guard only blocks of these allocation sites: a report prints its block's"),
    row(Key::SkipSite, "skip_site", "none", NONE, NUMBERS, "do not guard blocks of these allocation sites"),
    row(Key::Quarantine, "quarantine", "8T", NO_WORDS, BYTES,
        "freed address space that stays dead before any is used again"),
    row(Key::Defer, "defer", "0", NO_WORDS, "a number from 0 to 65536",
        "freed blocks of a thread that may wait, poisoned, to be closed together; 0: each traps at once"),
    row(Key::Fill, "fill", "on", SWITCH, "on, off",
        "fill new memory with a pattern, and check the slack at free"),
    row(Key::StackDepth, "stack_depth", "32", NO_WORDS, "a number from 0 to 128",
        "frames kept for each allocation and each free"),
    row(Key::OnError, "on_error", "abort", OnError::WORDS, "abort, continue, exit",
        "after a report: die by the original signal, go on, or exit with exitcode"),
    row(Key::Exitcode, "exitcode", "100", NO_WORDS, "a number from 0 to 255",
        "exit status under on_error=exit, and of a continue run that reported anything"),
    row(Key::Log, "log", "stderr", &["stderr"], "stderr or a path (UTF-8)",
        "where text reports go; %p in a path is the process id"),
    row(Key::Report, "report", "none", NONE, "none or a path (UTF-8)",
        "where JSON reports go, one a line; %p in a path is the process id"),
    row(Key::Symbolize, "symbolize", "on", SWITCH, "on, off",
        "resolve function names inside the process"),
    row(Key::Color, "color", "auto", Color::WORDS, "auto, always, never",
        "colour text reports; auto does on a terminal"),
    row(Key::FailRate, "fail_rate", "off", &["off"], "off or a number up to 4294967295",
        "make one allocation in this many fail"),
    row(Key::FailAt, "fail_at", "off", &["off"], "off or a number",
        "make exactly this allocation fail, counted from 1"),
    row(Key::FailSeed, "fail_seed", "off", &["off"], "off or a number, decimal or 0x and hexadecimal",
        "which allocations fail_rate picks; off follows seed"),
    row(Key::MaxMemory, "max_memory", "auto", &["auto", "none"],
        "auto, none or a number of bytes (K, M, G and T may follow it)",
        "guard less past this; auto is three quarters of what the process may still use"),
    row(Key::Seed, "seed", "auto", &["auto"], "auto or a number, decimal or 0x and hexadecimal",
        "replays every random choice; auto takes one from the system, and reports print it"),
    row(Key::Leaks, "leaks", "off", SWITCH, "on, off",
        "at exit, report the guarded blocks that nothing reaches"),
    row(Key::Summary, "summary", "auto", When::WORDS, "auto, on, off",
        "at exit, say how much was guarded and why the rest was not"),
    row(Key::Syscalls, "syscalls", "on", SWITCH, "on, off",
        "where libc is exported or preloaded, check buffers handed to read, write and their like"),
    row(Key::Help, "help", "0", &["0", "1"], "0, 1",
        "print this table with the values in force"),
];

impl KeySpec {
    /// Whether the words are all the values there are.
    pub const fn is_closed(&self) -> bool {
        matches!(
            self.key,
            Key::Mode
                | Key::Engine
                | Key::Place
                | Key::Fill
                | Key::OnError
                | Key::Syscalls
                | Key::Symbolize
                | Key::Color
                | Key::Leaks
                | Key::Summary
                | Key::Help
        )
    }
}

/// A value in force, in the form in which it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown<'o> {
    /// One of the words of the key.
    Word(&'static str),
    /// A decimal number.
    Number(u64),
    /// A number of bytes.
    Size(u64),
    /// A number that reads best in hexadecimal.
    Hex(u64),
    /// A path.
    Path(&'o PathText),
    /// A list of sizes; never empty.
    Ranges(&'o SizeRanges),
    /// A list of names; never empty.
    Names(&'o NameList),
    /// A list of sites; never empty.
    Sites(&'o SizeRanges),
}

impl Options {
    /// The value in force of one option.
    pub const fn shown(&self, key: Key) -> Shown<'_> {
        match key {
            Key::Mode => Shown::Word(self.mode.word()),
            Key::Budget => Shown::Number(self.budget as u64),
            Key::SampleRate => Shown::Number(self.sample_rate as u64),
            Key::Engine => Shown::Word(self.engine.word()),
            Key::Place => Shown::Word(self.place.word()),
            Key::OnlySize => shown_ranges(&self.only_size),
            Key::SkipSize => shown_ranges(&self.skip_size),
            Key::OnlyAlign => shown_ranges(&self.only_align),
            Key::SkipAlign => shown_ranges(&self.skip_align),
            Key::OnlyThread => shown_names(&self.only_thread),
            Key::SkipThread => shown_names(&self.skip_thread),
            Key::OnlyModule => shown_names(&self.only_module),
            Key::SkipModule => shown_names(&self.skip_module),
            Key::OnlyFn => shown_names(&self.only_fn),
            Key::SkipFn => shown_names(&self.skip_fn),
            Key::OnlySite => shown_sites(&self.only_site),
            Key::SkipSite => shown_sites(&self.skip_site),
            Key::Align => match self.align {
                MallocAlign::Natural => Shown::Word("natural"),
                MallocAlign::Exact => Shown::Word("exact"),
                MallocAlign::Bytes(bytes) => Shown::Number(bytes as u64),
            },
            Key::Syscalls => shown_switch(self.syscalls),
            Key::Quarantine => Shown::Size(self.quarantine),
            Key::Defer => Shown::Number(self.defer as u64),
            Key::Fill => shown_switch(self.fill),
            Key::StackDepth => Shown::Number(self.stack_depth as u64),
            Key::OnError => Shown::Word(self.on_error.word()),
            Key::Exitcode => Shown::Number(self.exitcode as u64),
            Key::Log => shown_path(&self.log, "stderr"),
            Key::Report => shown_path(&self.report, "none"),
            Key::Symbolize => shown_switch(self.symbolize),
            Key::Color => Shown::Word(self.color.word()),
            Key::FailRate => shown_or_off(Shown::Number(self.fail_rate as u64)),
            Key::FailAt => shown_or_off(Shown::Number(self.fail_at)),
            Key::FailSeed => shown_or_off(Shown::Hex(self.fail_seed)),
            Key::MaxMemory => match self.max_memory {
                super::MaxMemory::Auto => Shown::Word("auto"),
                super::MaxMemory::None => Shown::Word("none"),
                super::MaxMemory::Bytes(bytes) => Shown::Size(bytes),
            },
            Key::Seed => match self.seed {
                Some(seed) => Shown::Hex(seed),
                None => Shown::Word("auto"),
            },
            Key::Leaks => shown_switch(self.leaks),
            Key::Summary => Shown::Word(self.summary.word()),
            Key::Help => Shown::Number(self.help as u64),
            Key::Absent => Shown::Word(""),
        }
    }
}

const fn shown_switch(value: bool) -> Shown<'static> {
    Shown::Word(if value { "on" } else { "off" })
}

const fn shown_or_off(value: Shown<'static>) -> Shown<'static> {
    match value {
        Shown::Number(0) | Shown::Hex(0) => Shown::Word("off"),
        other => other,
    }
}

const fn shown_path<'o>(path: &'o Option<PathText>, otherwise: &'static str) -> Shown<'o> {
    match path {
        Some(path) => Shown::Path(path),
        None => Shown::Word(otherwise),
    }
}

const fn shown_ranges(ranges: &SizeRanges) -> Shown<'_> {
    if ranges.is_empty() { Shown::Word("none") } else { Shown::Ranges(ranges) }
}

const fn shown_names(names: &NameList) -> Shown<'_> {
    if names.is_empty() { Shown::Word("none") } else { Shown::Names(names) }
}

const fn shown_sites(sites: &SizeRanges) -> Shown<'_> {
    if sites.is_empty() { Shown::Word("none") } else { Shown::Sites(sites) }
}
