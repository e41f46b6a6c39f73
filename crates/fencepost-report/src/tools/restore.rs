//! A document read back as the record it was made from, so that the one text writer serves both.
//!
//! What a document does not hold (the module table, the trim marks) is rebuilt as far as its frames tell. The
//! message, the words and the layout of a report are then those of the process itself, byte for byte.

use std::collections::BTreeSet;
use std::sync::Mutex;

use fencepost_record::{
    self as record, AccessType, BlockState, ErrorKind, ExcerptLine, FrameView, Frames, Module, ModuleTable,
    Note, Notes, Record, Registers, Stack, Text, ThreadInfo, Trace, Where, Which,
};

use crate::parse::{self, Document, Event, Frame, Thread};

/// The most different names of engines and registers that are kept for good: a file could hold any number.
const NAMES_MAX: usize = 256;

/// The record that a document was made from.
pub(crate) fn record(document: &Document) -> Box<Record> {
    let mut out = Box::new(Record {
        number: document.number,
        kind: document.kind,
        access: record::Access {
            kind: access_type(document.access.kind),
            address: document.access.address.map(|hex| hex.0),
            size: document.access.size,
        },
        block: document.block.as_ref().map(block),
        given_layout: document.given_layout.as_ref().map(|layout| (layout.size, layout.align)),
        damage: document.damage.as_ref().map(|damage| (damage.address.0, damage.size)),
        copy: document.copy.as_ref().map(|copy| record::CopyInfo {
            function: copy.function.as_deref().map_or("", kept),
            to: copy.to.0,
            from: copy.from.map(|from| from.0),
            size: copy.size,
            left: copy.left,
        }),
        neighbours: [0, 1].map(|at| document.neighbours[at].as_ref().map(neighbour)),
        fault: Stack {
            thread: thread(&document.fault.thread),
            trace: trace(&document.fault.frames, is_fault(document)),
            age_ms: 0,
        },
        seal: document.seal.as_ref().map(|seal| record::SealInfo {
            address: seal.address.0,
            size: seal.size,
            pages: seal.pages.as_ref().map_or((0, 0), |pages| (pages.address.0, pages.size)),
            old: bytes(seal.old.as_deref()),
            new: bytes(seal.new.as_deref()),
            sealer: stack(&seal.sealer),
        }),
        region: document.region.as_ref().map(region),
        leak: document.leak.as_ref().map(|leak| record::LeakInfo {
            blocks: leak.blocks,
            bytes: leak.bytes,
            through_blocks: leak.through_blocks,
            through_bytes: leak.through_bytes,
        }),
        registers: registers(document),
        signal: document.signal.unwrap_or(0),
        confidence: match document.confidence {
            parse::Confidence::High => record::Confidence::High,
            parse::Confidence::Low => record::Confidence::Low,
        },
        notes: notes(document),
        process: process(document),
        options: Text::new(document.options.as_bytes()),
        engine: document.engine.as_deref().map_or("", kept),
        seed: document.seed.0,
        coverage: record::Coverage { guarded: document.coverage.guarded, total: document.coverage.total },
        modules: ModuleTable::default(),
    });
    fill_modules(&mut out.modules, document);
    out
}

/// Bytes as a line has them; none where they are not known.
fn bytes(text: Option<&str>) -> record::Bytes {
    text.and_then(record::Bytes::parse).unwrap_or_default()
}

fn region(region: &parse::Region) -> record::RegionInfo {
    let place = record::RegionPlace::ALL.into_iter().find(|place| place.name() == region.place);
    record::RegionInfo {
        kind: Text::new(region.kind.as_bytes()),
        name: Text::new(region.name.as_deref().unwrap_or_default().as_bytes()),
        address: region.address.0,
        reserved: region.reserved,
        committed: region.committed,
        used: region.used,
        place: place.unwrap_or_default(),
        distance: region.distance,
        slot: region.slot,
    }
}

/// Whether the first frame of the fault is the instruction itself.
fn is_fault(document: &Document) -> bool {
    document.signal.is_some()
}

fn access_type(kind: parse::AccessType) -> AccessType {
    match kind {
        parse::AccessType::Read => AccessType::Read,
        parse::AccessType::Write => AccessType::Write,
        parse::AccessType::Execute => AccessType::Execute,
        parse::AccessType::Free => AccessType::Free,
        parse::AccessType::Realloc => AccessType::Realloc,
        parse::AccessType::None => AccessType::None,
    }
}

fn block(block: &parse::Block) -> record::Block {
    record::Block {
        address: block.address.0,
        size: block.size,
        align: block.align,
        slack: block.slack,
        site: block.site.map(|site| site.0),
        place: match block.place {
            parse::Where::Before => Where::Before,
            parse::Where::Inside => Where::Inside,
            parse::Where::After => Where::After,
        },
        distance: block.distance,
        state: state(block.state),
        allocated: stack(&block.allocated),
        freed: block.freed.as_ref().map(stack),
    }
}

fn state(state: parse::BlockState) -> BlockState {
    match state {
        parse::BlockState::Live => BlockState::Live,
        parse::BlockState::Freed => BlockState::Freed,
        parse::BlockState::Unknown => BlockState::Unknown,
    }
}

fn neighbour(found: &parse::Neighbour) -> record::Neighbour {
    record::Neighbour {
        address: found.address.0,
        size: found.size,
        state: state(found.state),
        distance: found.distance,
    }
}

fn thread(thread: &Thread) -> ThreadInfo {
    ThreadInfo {
        id: thread.id.unwrap_or(0),
        name: Text::new(thread.name.as_deref().unwrap_or("").as_bytes()),
    }
}

fn stack(event: &Event) -> Stack {
    Stack {
        thread: thread(&event.thread),
        trace: trace(&event.frames, false),
        age_ms: event.age_ms.unwrap_or(0),
    }
}

fn trace(frames: &[Frame], first_is_exact: bool) -> Trace {
    let mut trace = Trace::EMPTY;
    trace.first_is_exact = first_is_exact;
    // An inlined frame and the one it was inlined into have one address.
    for frame in frames.iter().filter(|frame| !frame.inlined) {
        if !trace.push(frame.address.0) {
            break;
        }
    }
    trace
}

fn registers(document: &Document) -> Registers {
    let mut registers = Registers::EMPTY;
    for (name, value) in document.registers.iter().flatten() {
        registers.push(kept(name), value.0);
    }
    registers
}

fn notes(document: &Document) -> Notes {
    let mut notes = Notes::NONE;
    for note in Note::ALL.into_iter().filter(|note| document.notes.iter().any(|text| text == note.text())) {
        notes.add(note);
    }
    notes
}

fn process(document: &Document) -> record::ProcessInfo {
    let found = &document.process;
    let mut process = record::ProcessInfo { pid: found.pid, ..record::ProcessInfo::default() };
    process.exe.push(found.exe.as_deref().unwrap_or("").as_bytes());
    for argument in &found.args {
        process.args.push(argument.as_bytes());
        process.args.push(b"\0");
    }
    process.preload.push(preloaded(document.replay.as_deref().unwrap_or("")).as_bytes());
    process
}

/// The library that a replay line preloads, without its quotes.
fn preloaded(replay: &str) -> String {
    let inside =
        replay.strip_prefix("LD_PRELOAD='").and_then(|rest| rest.split_once("' FENCEPOST_OPTIONS='"));
    inside.map(|(path, _)| path.replace("'\\''", "'")).unwrap_or_default()
}

/// All frames of a document, whatever stack they are of.
pub(crate) fn all_frames(document: &Document) -> impl Iterator<Item = &Frame> {
    let block = document.block.as_ref();
    let allocated = block.map(|block| block.allocated.frames.as_slice()).unwrap_or_default();
    let freed =
        block.and_then(|block| block.freed.as_ref()).map(|freed| freed.frames.as_slice()).unwrap_or_default();
    let sealed = document.seal.as_ref().map(|seal| seal.sealer.frames.as_slice()).unwrap_or_default();
    document.fault.frames.iter().chain(allocated).chain(freed).chain(sealed)
}

/// One module for each path and bias, over just the addresses that frames of it have.
fn fill_modules(table: &mut ModuleTable, document: &Document) {
    let mut modules: Vec<Module> = Vec::new();
    for frame in all_frames(document) {
        let (Some(path), Some(offset)) = (frame.module.as_deref(), frame.offset) else { continue };
        let bias = frame.address.0.wrapping_sub(offset.0);
        let (from, to) = (frame.address.0.saturating_sub(1), frame.address.0.saturating_add(1));
        match modules.iter_mut().find(|module| module.bias == bias && module.path.as_str() == path) {
            Some(module) => {
                module.start = module.start.min(from);
                module.end = module.end.max(to);
            }
            None => modules.push(module(path, frame.build_id.as_deref(), bias, from, to)),
        }
    }
    for module in modules {
        if !table.push(module) {
            break;
        }
    }
}

fn module(path: &str, build_id: Option<&str>, bias: u64, start: u64, end: u64) -> Module {
    let mut module = Module { start, end, bias, path: Text::new(path.as_bytes()), ..Module::default() };
    let digits = build_id.unwrap_or("").as_bytes();
    for (byte, pair) in module.build_id.iter_mut().zip(digits.chunks_exact(2)) {
        let text = std::str::from_utf8(pair).unwrap_or("");
        let Ok(value) = u8::from_str_radix(text, 16) else { break };
        *byte = value;
        module.build_id_len = module.build_id_len.saturating_add(1);
    }
    module
}

/// A name that lives as long as the program, as a record holds it. Each is kept once.
fn kept(name: &str) -> &'static str {
    static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut names = NAMES.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some(known) = names.get(name) {
        return known;
    }
    if names.len() >= NAMES_MAX {
        return "?";
    }
    let new: &'static str = Box::leak(name.to_owned().into_boxed_str());
    names.insert(new);
    new
}

/// The frames of a document as they stand in it.
pub(crate) struct DocumentFrames<'a> {
    document: &'a Document,
    /// For each frame with a build id, its bytes; in the order of the document's frames.
    build_ids: Vec<Vec<u8>>,
}

impl<'a> DocumentFrames<'a> {
    pub(crate) fn new(document: &'a Document) -> Self {
        let bytes = |text: &str| {
            let pairs = text.as_bytes().chunks_exact(2).map_while(|pair| std::str::from_utf8(pair).ok());
            pairs.map_while(|pair| u8::from_str_radix(pair, 16).ok()).collect()
        };
        let ids = all_frames(document).map(|frame| frame.build_id.as_deref().map(bytes).unwrap_or_default());
        DocumentFrames { document, build_ids: ids.collect() }
    }

    fn stack(&self, which: Which) -> &'a [Frame] {
        stack_of(self.document, which)
    }
}

/// The frames of one stack of a document.
pub(crate) fn stack_of(document: &Document, which: Which) -> &[Frame] {
    let block = document.block.as_ref();
    match which {
        Which::Fault => &document.fault.frames,
        Which::Allocated => block.map(|block| block.allocated.frames.as_slice()).unwrap_or_default(),
        Which::Freed => block
            .and_then(|block| block.freed.as_ref())
            .map(|freed| freed.frames.as_slice())
            .unwrap_or_default(),
        Which::Sealed => document.seal.as_ref().map(|seal| seal.sealer.frames.as_slice()).unwrap_or_default(),
    }
}

/// Which frame the source lines of a document belong to: its stack, and its index there.
pub(crate) fn source_frame(document: &Document) -> Option<(Which, usize)> {
    let source = document.source.as_ref()?;
    let hit = source.lines.iter().find(|line| line.hit)?;
    Which::ALL.into_iter().find_map(|which| {
        let frames = stack_of(document, which).iter();
        let mut places = frames.map(|frame| (frame.file.as_deref(), frame.line));
        places.position(|place| place == (Some(source.file.as_str()), Some(hit.number))).map(|at| (which, at))
    })
}

impl Frames for DocumentFrames<'_> {
    fn each(&self, which: Which, each: &mut dyn FnMut(&FrameView<'_>)) {
        let before = Which::ALL.into_iter().take_while(|stack| *stack != which);
        let first: usize = before.map(|stack| self.stack(stack).len()).sum();
        for (index, frame) in self.stack(which).iter().enumerate() {
            let id = self.build_ids.get(first.saturating_add(index)).filter(|id| !id.is_empty());
            each(&FrameView {
                address: frame.address.0,
                module: frame.module.as_deref(),
                build_id: id.map(Vec::as_slice),
                offset: frame.offset.map(|hex| hex.0),
                function: frame.function.as_deref(),
                file: frame.file.as_deref(),
                line: frame.line,
                column: frame.column,
                inlined: frame.inlined,
            });
        }
    }

    fn excerpt(&self, each: &mut dyn FnMut(&ExcerptLine<'_>)) {
        let Some(source) = &self.document.source else { return };
        let (stack, index) = source_frame(self.document).unwrap_or((Which::Fault, 0));
        let column = stack_of(self.document, stack).get(index).and_then(|frame| frame.column);
        for line in &source.lines {
            let column = column.filter(|_| line.hit).map(|column| (column, column));
            each(&ExcerptLine {
                stack,
                direct: index == 0,
                file: &source.file,
                number: line.number,
                text: &line.text,
                hit: line.hit,
                column,
            });
        }
    }

    fn fingerprint(&self) -> u64 {
        self.document.fingerprint.0
    }

    fn fault_thread_name(&self) -> Option<&str> {
        // A record keeps the first 64 bytes of it.
        self.document.fault.thread.name.as_deref()
    }
}

/// The frames that tell what an error is about: of the error's stack, or of the allocation's for what was found later.
pub(crate) fn telling_frames(document: &Document) -> &[Frame] {
    match &document.block {
        Some(block) if document.kind == ErrorKind::Leak => &block.allocated.frames,
        _ => &document.fault.frames,
    }
}
