//! Where the writers get a stack's frames from: raw from the record, or resolved from outside.

use crate::{Module, Record, Trace};

/// Which stack of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Of the thread the error showed in.
    Fault,
    /// Of the block's allocation.
    Allocated,
    /// Of the block's free.
    Freed,
    /// Of the seal.
    Sealed,
}

impl Which {
    /// All stacks a record may have.
    pub const ALL: [Which; 4] = [Which::Fault, Which::Allocated, Which::Freed, Which::Sealed];

    /// That stack's addresses, if the record has it.
    pub fn trace(self, record: &Record) -> Option<&Trace> {
        match self {
            Which::Fault => Some(&record.fault.trace),
            Which::Allocated => record.block.as_ref().map(|block| &block.allocated.trace),
            Which::Freed => record.block.as_ref().and_then(|block| block.freed.as_ref()).map(|s| &s.trace),
            Which::Sealed => record.seal.as_ref().map(|seal| &seal.sealer.trace),
        }
    }
}

/// One frame as it is written. What is not known is `None`.
#[derive(Clone, Copy, Debug, Default)]
pub struct FrameView<'a> {
    /// The instruction, or the address after a call.
    pub address: u64,
    /// Path of the module.
    pub module: Option<&'a str>,
    /// Build id of the module.
    pub build_id: Option<&'a [u8]>,
    /// The address in the module's own numbering.
    pub offset: Option<u64>,
    /// Demangled function name.
    pub function: Option<&'a str>,
    /// Source file.
    pub file: Option<&'a str>,
    /// Line in the file, from 1.
    pub line: Option<u32>,
    /// Column in the line, from 1.
    pub column: Option<u32>,
    /// The function was inlined into the one of the next frame.
    pub inlined: bool,
}

/// One line of source around the first frame of the user's own code.
#[derive(Clone, Copy, Debug)]
pub struct ExcerptLine<'a> {
    /// The stack that the frame belongs to.
    pub stack: Which,
    /// The frame is the first of its stack, rather than one that called the first.
    pub direct: bool,
    /// Source file.
    pub file: &'a str,
    /// Line number, from 1.
    pub number: u32,
    /// The line, without its end.
    pub text: &'a str,
    /// Whether this is the line of the frame.
    pub hit: bool,
    /// On the line of the frame: its column, and the column of the place in `text` to mark; both from 1.
    pub column: Option<(u32, u32)>,
}

/// A source of frames for the writers.
pub trait Frames {
    /// Calls `each` for every frame of a stack, innermost first.
    fn each(&self, which: Which, each: &mut dyn FnMut(&FrameView<'_>));

    /// Calls `each` for the source lines to show.
    fn excerpt(&self, each: &mut dyn FnMut(&ExcerptLine<'_>)) {
        let _ = each;
    }

    /// A number that stays the same for the same bug across runs and rebuilds of unrelated code.
    fn fingerprint(&self) -> u64;

    /// Name that the runtime of the language gives the faulting thread, where it knows a better one than the
    /// operating system (which keeps 15 bytes).
    fn fault_thread_name(&self) -> Option<&str> {
        None
    }
}

/// The frames as the record holds them: module and offset, no names.
pub struct RawFrames<'a>(pub &'a Record);

/// FNV-1a, 64 bits (Fowler, Noll, Vo): small, and the same everywhere.
pub struct Fnv(pub u64);

impl Fnv {
    /// The hash of nothing.
    pub const fn new() -> Self {
        Fnv(0xcbf2_9ce4_8422_2325)
    }

    /// Takes in `bytes`.
    pub fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

impl Default for Fnv {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a> RawFrames<'a> {
    /// The frame of one address of the record.
    pub fn frame(record: &'a Record, address: u64, exact: bool) -> FrameView<'a> {
        // A return address may be the first byte past its function: look one byte back.
        let inside = if exact { address } else { address.saturating_sub(1) };
        let module: Option<&Module> = record.modules.find(inside);
        FrameView {
            address,
            module: module.map(|m| m.path.as_str()),
            build_id: module
                .and_then(|m| m.build_id.get(..usize::from(m.build_id_len)))
                .filter(|id| !id.is_empty()),
            offset: module.map(|m| address.wrapping_sub(m.bias)),
            ..FrameView::default()
        }
    }
}

impl Frames for RawFrames<'_> {
    fn each(&self, which: Which, each: &mut dyn FnMut(&FrameView<'_>)) {
        let Some(trace) = which.trace(self.0) else { return };
        for (index, address) in trace.frames().iter().enumerate() {
            each(&RawFrames::frame(self.0, *address, index == 0 && trace.first_is_exact));
        }
    }

    fn fingerprint(&self) -> u64 {
        let mut hash = Fnv::new();
        hash.add(self.0.kind.name().as_bytes());
        for which in [Which::Fault, Which::Allocated] {
            self.each(which, &mut |frame| {
                let file = frame.module.and_then(|path| path.rsplit('/').next()).unwrap_or("?");
                hash.add(file.as_bytes());
                hash.add(&frame.offset.unwrap_or(0).to_le_bytes());
            });
            hash.add(b"|");
        }
        hash.0
    }
}
