//! From the text of options to their values.
//!
//! Grammar:
//!
//! ```text
//! options = [ pair ] *( "," [ pair ] )
//! pair    = key "=" value                      spaces around each are dropped
//! value   = bare | "'" text "'" | '"' text '"'
//! ```
//!
//! A bare value ends at a comma. Inside quotes a comma is an ordinary byte, and the quote itself is written twice.
//!
//! A mistake costs its own pair and nothing else: the option keeps the value it had, and reading goes on behind the
//! next comma. Each turn of the loop takes at least one byte, so it ends for every text.

use super::error::{OptionError, Problem};
use super::keys::{KEYS, Key, KeySpec, Shown};
use super::lists::{Collecting, Entries, collect, collect_names};
use super::text::{nearest, number, same, size, split_at, split_at_closing};
use super::values::{
    Color, EngineChoice, MallocAlign, MaxMemory, Mode, OnError, Options, PathText, Place, When,
};

/// The most mistakes that are kept with their details.
pub const ERRORS_MAX: usize = 8;

/// What a text of options says.
#[derive(Clone, Copy, Debug)]
pub struct Parsed<'a> {
    /// The base, changed by every pair that could be read.
    pub options: Options,
    /// The first mistakes, in the order of the text.
    pub errors: [Option<OptionError<'a>>; ERRORS_MAX],
    /// How many mistakes there are, also beyond [`ERRORS_MAX`].
    pub error_count: usize,
}

impl<'a> Parsed<'a> {
    /// The mistakes that were kept, in the order of the text.
    pub fn errors(&self) -> impl Iterator<Item = &OptionError<'a>> {
        self.errors.iter().flatten()
    }

    const fn add(&mut self, error: OptionError<'a>) {
        if let Some((_, room)) = self.errors.split_at_mut_checked(self.error_count)
            && let Some(cell) = room.first_mut()
        {
            *cell = Some(error);
        }
        self.error_count = self.error_count.saturating_add(1);
    }

    /// Says in every error which value is in force now that the whole text is read.
    const fn settle(&mut self) {
        let mut rest: &mut [Option<OptionError<'a>>] = &mut self.errors;
        while let Some((cell, after)) = rest.split_first_mut() {
            if let Some(error) = *cell {
                *cell = Some(error.settled(&self.options));
            }
            rest = after;
        }
    }
}

/// Reads `text` on top of `base`: what it does not name, and what it names wrongly, stays as `base` has it.
///
/// Of a key that is given several times the last good value counts; the list keys collect instead, and the first of
/// them in `text` replaces the list of `base`.
pub const fn parse(text: &[u8], base: Options) -> Parsed<'_> {
    let mut parsed = Parsed { options: base, errors: [None; ERRORS_MAX], error_count: 0 };
    let mut collecting = Collecting::NOTHING;
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        if byte == b',' || byte.is_ascii_whitespace() {
            rest = after;
            continue;
        }
        let (item, after) = next_item(rest);
        rest = after;
        let spec = find(item.key);
        let outcome = match (item.fault, spec) {
            (Some(problem), _) => Err(problem),
            (None, None) => Err(Problem::UnknownKey),
            (None, Some(spec)) => assign(&mut parsed.options, &mut collecting, spec, &item),
        };
        if let Err(problem) = outcome {
            parsed.add(describe(&item, spec, problem));
        }
    }
    parsed.settle();
    parsed
}

/// Refuses to compile a program whose options hold a mistake, saying which; for use in const evaluation.
///
/// # Panics
///
/// On the first mistake of `text`. That is its purpose: in const evaluation a panic is a compile error with this
/// message.
///
/// ```
/// const _: () = fencepost_guard::options::check("place=left,quarantine=64G");
/// ```
///
/// ```compile_fail
/// const _: () = fencepost_guard::options::check("plase=left");
/// ```
#[allow(
    clippy::panic,
    reason = "in const evaluation a panic is the one way to fail the build with a message"
)]
pub const fn check(text: &str) {
    let parsed = parse(text.as_bytes(), Options::DEFAULT);
    if let [Some(error), ..] = &parsed.errors {
        let line = error.compile_error();
        panic!("{}", line.as_str());
    }
}

struct Item<'a> {
    key: &'a [u8],
    value: &'a [u8],
    /// The quote around the value, or 0.
    quote: u8,
    fault: Option<Problem>,
}

/// The pair at the beginning of `text`, which is not empty, and the text behind it.
const fn next_item(text: &[u8]) -> (Item<'_>, &[u8]) {
    let (pair, behind_pair) = split_at(text, b',');
    let behind_pair = or_empty(behind_pair);
    let (key, Some(bare)) = split_at(pair, b'=') else {
        let fault = Some(Problem::MissingEquals);
        return (Item { key: pair.trim_ascii(), value: b"", quote: 0, fault }, behind_pair);
    };
    let key = key.trim_ascii();
    // From here the value is read from the whole text: in quotes it may reach past the comma.
    let behind_key = or_empty(split_at(text, b'=').1).trim_ascii_start();
    let Some((&quote @ (b'"' | b'\''), inner)) = behind_key.split_first() else {
        return (Item { key, value: bare.trim_ascii(), quote: 0, fault: None }, behind_pair);
    };
    let Some((value, behind_quote)) = split_at_closing(inner, quote) else {
        return (Item { key, value: inner, quote, fault: Some(Problem::UnterminatedQuote) }, b"");
    };
    let (between, rest) = split_at(behind_quote, b',');
    let fault = if between.trim_ascii().is_empty() { None } else { Some(Problem::TextAfterQuote) };
    (Item { key, value, quote, fault }, or_empty(rest))
}

const fn or_empty(text: Option<&[u8]>) -> &[u8] {
    match text {
        Some(text) => text,
        None => b"",
    }
}

const fn find(name: &[u8]) -> Option<&'static KeySpec> {
    let mut rest = KEYS;
    while let Some((spec, after)) = rest.split_first() {
        if same(name, spec.name.as_bytes()) {
            return Some(spec);
        }
        rest = after;
    }
    None
}

const fn describe<'a>(item: &Item<'a>, spec: Option<&'static KeySpec>, problem: Problem) -> OptionError<'a> {
    let hint = match (spec, problem) {
        (None, _) => nearest_key(item.key),
        (Some(spec), Problem::BadValue) => nearest(item.value, spec.words),
        (Some(_), _) => None,
    };
    let (allowed, allowed_words, known) = match spec {
        Some(spec) if matches!(spec.key, Key::Absent) => (spec.instead, false, Some(Key::Absent)),
        Some(spec) => (spec.allowed, spec.is_closed(), Some(spec.key)),
        None => ("", false, None),
    };
    OptionError {
        key: item.key,
        value: item.value,
        problem,
        allowed,
        allowed_words,
        nearest: hint,
        known,
        kept: Shown::Word(""),
    }
}

const fn nearest_key(name: &[u8]) -> Option<&'static str> {
    let mut names = [""; KEYS.len()];
    let mut cells: &mut [&'static str] = &mut names;
    let mut rest = KEYS;
    while let (Some((cell, cells_after)), Some((spec, after))) = (cells.split_first_mut(), rest.split_first())
    {
        *cell = spec.name;
        cells = cells_after;
        rest = after;
    }
    nearest(name, &names)
}

/// Gives a value that was read to its field, or leaves with the error that there is none.
macro_rules! set {
    ($field:expr, $read:expr) => {
        set!($field, $read, _)
    };
    ($field:expr, $read:expr, $type:ty) => {
        match $read {
            Some(value) => $field = value as $type,
            None => return Err(Problem::BadValue),
        }
    };
}

const fn assign(
    options: &mut Options,
    collecting: &mut Collecting,
    spec: &KeySpec,
    item: &Item<'_>,
) -> Result<(), Problem> {
    let value = item.value;
    if is_one_of(value, spec.later) {
        return Err(Problem::Unsupported);
    }
    match spec.key {
        Key::Mode => set!(options.mode, Mode::from_word(value)),
        Key::Budget => set!(options.budget, between(value, 1, 100), u8),
        Key::SampleRate => set!(options.sample_rate, between(value, 1, u32::MAX as u64), u32),
        Key::Engine => set!(options.engine, EngineChoice::from_word(value)),
        Key::Place => set!(options.place, Place::from_word(value)),
        Key::OnlySize => {
            return collect(&mut options.only_size, &mut collecting.only_size, value, Entries::Sizes);
        }
        Key::SkipSize => {
            return collect(&mut options.skip_size, &mut collecting.skip_size, value, Entries::Sizes);
        }
        Key::OnlyAlign => {
            return collect(&mut options.only_align, &mut collecting.only_align, value, Entries::Sizes);
        }
        Key::SkipAlign => {
            return collect(&mut options.skip_align, &mut collecting.skip_align, value, Entries::Sizes);
        }
        Key::OnlyThread => {
            return collect_names(&mut options.only_thread, &mut collecting.only_thread, value);
        }
        Key::SkipThread => {
            return collect_names(&mut options.skip_thread, &mut collecting.skip_thread, value);
        }
        Key::OnlyModule => {
            return collect_names(&mut options.only_module, &mut collecting.only_module, value);
        }
        Key::SkipModule => {
            return collect_names(&mut options.skip_module, &mut collecting.skip_module, value);
        }
        Key::OnlyFn => return collect_names(&mut options.only_fn, &mut collecting.only_fn, value),
        Key::SkipFn => return collect_names(&mut options.skip_fn, &mut collecting.skip_fn, value),
        Key::OnlySite => {
            return collect(&mut options.only_site, &mut collecting.only_site, value, Entries::Sites);
        }
        Key::SkipSite => {
            return collect(&mut options.skip_site, &mut collecting.skip_site, value, Entries::Sites);
        }
        Key::Align => set!(options.align, malloc_align(value)),
        Key::Syscalls => set!(options.syscalls, switch(value)),
        Key::Quarantine => set!(options.quarantine, size(value)),
        Key::Defer => set!(options.defer, between(value, 0, 1 << 16), u32),
        Key::Fill => set!(options.fill, switch(value)),
        Key::StackDepth => set!(options.stack_depth, between(value, 0, 128), u8),
        Key::OnError => set!(options.on_error, OnError::from_word(value)),
        Key::Exitcode => set!(options.exitcode, between(value, 0, u8::MAX as u64), u8),
        Key::Log => return path(&mut options.log, item, b"stderr"),
        Key::Report => return path(&mut options.report, item, b"none"),
        Key::Symbolize => set!(options.symbolize, switch(value)),
        Key::Color => set!(options.color, Color::from_word(value)),
        Key::FailRate => set!(options.fail_rate, off_or(value, u32::MAX as u64), u32),
        Key::FailAt => set!(options.fail_at, off_or(value, u64::MAX)),
        Key::FailSeed => set!(options.fail_seed, off_or(value, u64::MAX)),
        Key::MaxMemory => set!(options.max_memory, max_memory(value)),
        Key::Seed => set!(options.seed, seed(value)),
        Key::Leaks => set!(options.leaks, switch(value)),
        Key::Summary => set!(options.summary, When::from_word(value)),
        Key::Help => set!(options.help, switch(value)),
        Key::Absent if !asks_for_default(value, spec.default.as_bytes()) => return Err(Problem::Unsupported),
        Key::Absent => {}
    }
    Ok(())
}

const fn malloc_align(value: &[u8]) -> Option<MallocAlign> {
    if same(value, b"natural") {
        return Some(MallocAlign::Natural);
    }
    if same(value, b"exact") {
        return Some(MallocAlign::Exact);
    }
    match between(value, 1, 4096) {
        Some(bytes) if bytes.is_power_of_two() => Some(MallocAlign::Bytes(bytes as u16)),
        _ => None,
    }
}

const fn is_one_of(value: &[u8], words: &[&str]) -> bool {
    let mut rest = words;
    while let Some((word, after)) = rest.split_first() {
        if same(value, word.as_bytes()) {
            return true;
        }
        rest = after;
    }
    false
}

/// Whether `value` leaves an option that this version does not have as it is.
const fn asks_for_default(value: &[u8], default: &[u8]) -> bool {
    if same(value, default) || (value.is_empty() && same(default, b"none")) {
        return true;
    }
    matches!((switch(value), switch(default)), (Some(true), Some(true)) | (Some(false), Some(false)))
}

const fn switch(value: &[u8]) -> Option<bool> {
    if is_one_of(value, &["on", "1", "true", "yes"]) {
        Some(true)
    } else if is_one_of(value, &["off", "0", "false", "no"]) {
        Some(false)
    } else {
        None
    }
}

const fn between(value: &[u8], first: u64, last: u64) -> Option<u64> {
    match number(value) {
        Some(number) if first <= number && number <= last => Some(number),
        _ => None,
    }
}

const fn off_or(value: &[u8], last: u64) -> Option<u64> {
    if same(value, b"off") { Some(0) } else { between(value, 0, last) }
}

const fn max_memory(value: &[u8]) -> Option<MaxMemory> {
    if same(value, b"auto") {
        return Some(MaxMemory::Auto);
    }
    if same(value, b"none") {
        return Some(MaxMemory::None);
    }
    match size(value) {
        Some(bytes) => Some(MaxMemory::Bytes(bytes)),
        None => None,
    }
}

const fn seed(value: &[u8]) -> Option<Option<u64>> {
    if same(value, b"auto") {
        return Some(None);
    }
    match number(value) {
        Some(seed) => Some(Some(seed)),
        None => None,
    }
}

const fn path(target: &mut Option<PathText>, item: &Item<'_>, word_for_none: &[u8]) -> Result<(), Problem> {
    if same(item.value, word_for_none) {
        *target = None;
        return Ok(());
    }
    match PathText::unquoted(item.value, item.quote) {
        Ok(path) => {
            *target = Some(path);
            Ok(())
        }
        Err(problem) => Err(problem),
    }
}
