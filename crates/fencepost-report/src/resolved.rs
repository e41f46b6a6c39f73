//! A record's stacks with names, ready to be written.

use std::collections::BTreeMap;

use fencepost_record::{
    AccessType, ErrorKind, ExcerptLine, FrameView, Frames, RawFrames, Record, Trace, Which,
};

use crate::excerpt::{self, Excerpt, Spot};
use crate::trim::{self, Named, Top};
use crate::{Resolver, Symbol, fingerprint, name};

/// A record whose stacks have names: expanded to inlined functions and trimmed to the program's frames.
pub struct Resolved<'a> {
    record: &'a Record,
    stacks: [Vec<Frame>; 4],
    excerpt: Option<Excerpt>,
    fingerprint: u64,
    thread_name: Option<String>,
}

/// One function of a stack.
#[derive(Clone)]
struct Frame {
    address: u64,
    exact: bool,
    symbol: Symbol,
    inlined: bool,
}

impl Named for Frame {
    fn function(&self) -> Option<&str> {
        self.symbol.function.as_deref()
    }

    fn file(&self) -> Option<&str> {
        self.symbol.file.as_deref()
    }
}

impl<'a> Resolved<'a> {
    /// Asks `resolver` about every frame of `record`. `thread_name` is a better name for the faulting thread than
    /// the record's, where one is known.
    ///
    /// Reads one source file for the excerpt, if it is there.
    pub fn new(record: &'a Record, resolver: &mut dyn Resolver, thread_name: Option<String>) -> Resolved<'a> {
        let mut known = BTreeMap::new();
        let stacks = Which::ALL.map(|which| match which.trace(record) {
            Some(trace) => trim::trim(expand(trace, resolver, &mut known), top(record, which)),
            None => Vec::new(),
        });
        let [fault, allocated, ..] = &stacks;
        let spots = spots(fault, Which::Fault).chain(spots(allocated, Which::Allocated));
        let excerpt = excerpt::read(spots);
        let fingerprint = fingerprint::fingerprint(record, [fault, allocated]);
        Resolved { record, stacks, excerpt, fingerprint, thread_name }
    }
}

/// Where on its stack a trace was taken.
fn top(record: &Record, which: Which) -> Top {
    let by_access = matches!(record.access.kind, AccessType::Read | AccessType::Write | AccessType::Execute);
    match which {
        Which::Fault if by_access || record.kind == ErrorKind::StackOverflow => Top::Anywhere,
        Which::Sealed => Top::Anywhere,
        Which::Fault | Which::Allocated | Which::Freed => Top::Allocator,
    }
}

/// The frames of a trace with a frame for each inlined function. `known` saves asking twice: the stacks of one
/// error share their outer frames.
fn expand(
    trace: &Trace,
    resolver: &mut dyn Resolver,
    known: &mut BTreeMap<(u64, bool), Vec<Symbol>>,
) -> Vec<Frame> {
    let mut frames = Vec::new();
    for (index, address) in trace.frames().iter().copied().enumerate() {
        let exact = index == 0 && trace.first_is_exact;
        let symbols = known.entry((address, exact)).or_insert_with(|| {
            let mut symbols = resolver.resolve(address, exact);
            symbols.iter_mut().for_each(tidy);
            symbols
        });
        let count = symbols.len();
        for (depth, symbol) in symbols.iter().enumerate() {
            let inlined = depth.saturating_add(1) < count;
            frames.push(Frame { address, exact, symbol: symbol.clone(), inlined });
        }
        if count == 0 {
            frames.push(Frame { address, exact, symbol: Symbol::default(), inlined: false });
        }
    }
    frames
}

/// A symbol with its name clean, and without the zeros and blanks that stand for "not known".
fn tidy(symbol: &mut Symbol) {
    symbol.function = symbol.function.take().map(|name| name::clean(&name)).filter(|name| !name.is_empty());
    symbol.file = symbol.file.take().filter(|file| !file.is_empty());
    symbol.line = symbol.line.filter(|line| *line != 0 && symbol.file.is_some());
    symbol.column = symbol.column.filter(|column| *column != 0 && symbol.line.is_some());
}

/// The places in the source of a stack's frames.
fn spots(frames: &[Frame], stack: Which) -> impl Iterator<Item = Spot<'_>> {
    frames.iter().enumerate().filter_map(move |(index, frame)| {
        let Symbol { function, file, line, column } = &frame.symbol;
        let guard = function
            .as_deref()
            .is_some_and(|name| name::origin(name, file.as_deref()) == name::Origin::Guard);
        let (file, line) = (file.as_deref()?, (*line)?);
        (!guard).then_some(Spot { stack, direct: index == 0, file, line, column: *column })
    })
}

impl Frames for Resolved<'_> {
    fn each(&self, which: Which, each: &mut dyn FnMut(&FrameView<'_>)) {
        let [fault, allocated, freed, sealed] = &self.stacks;
        let frames = match which {
            Which::Fault => fault,
            Which::Allocated => allocated,
            Which::Freed => freed,
            Which::Sealed => sealed,
        };
        for frame in frames {
            each(&FrameView {
                function: frame.symbol.function.as_deref(),
                file: frame.symbol.file.as_deref(),
                line: frame.symbol.line,
                column: frame.symbol.column,
                inlined: frame.inlined,
                ..RawFrames::frame(self.record, frame.address, frame.exact)
            });
        }
    }

    fn excerpt(&self, each: &mut dyn FnMut(&ExcerptLine<'_>)) {
        let Some(excerpt) = &self.excerpt else { return };
        for line in &excerpt.lines {
            each(&ExcerptLine {
                stack: excerpt.stack,
                direct: excerpt.direct,
                file: &excerpt.file,
                number: line.number,
                text: &line.text,
                hit: line.hit,
                column: line.column,
            });
        }
    }

    fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    fn fault_thread_name(&self) -> Option<&str> {
        self.thread_name.as_deref()
    }
}
