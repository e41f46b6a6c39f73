//! The record of one error: plain data of fixed size, valid when zeroed.

use crate::{
    AccessType, BlockState, Confidence, CopyInfo, ErrorKind, ModuleTable, Notes, RegionInfo, SealInfo, Text,
    Where,
};

/// The most frames a stack can hold (`stack_depth` goes up to this).
pub const FRAMES_MAX: usize = 128;
/// The most machine registers one record can hold.
pub const REGISTERS_MAX: usize = 34;

/// The addresses of one stack, innermost first.
#[derive(Clone, Copy)]
pub struct Trace {
    frames: [u64; FRAMES_MAX],
    len: u8,
    /// The first address is the instruction itself (a fault), not the address after a call.
    pub first_is_exact: bool,
}

impl Trace {
    /// No frames.
    pub const EMPTY: Trace = Trace { frames: [0; FRAMES_MAX], len: 0, first_is_exact: false };

    /// Appends one address; false when the trace is full.
    pub fn push(&mut self, address: u64) -> bool {
        match self.frames.get_mut(usize::from(self.len)) {
            Some(place) => {
                *place = address;
                self.len = self.len.saturating_add(1);
                true
            }
            None => false,
        }
    }

    /// The addresses.
    pub fn frames(&self) -> &[u64] {
        self.frames.get(..usize::from(self.len)).unwrap_or(&[])
    }
}

impl Default for Trace {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl core::fmt::Debug for Trace {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(self.frames()).finish()
    }
}

/// A thread as the operating system knew it.
#[derive(Clone, Copy, Debug, Default)]
pub struct ThreadInfo {
    /// The system's thread id; 0 when it is no longer known.
    pub id: u32,
    /// Its name; empty when it had none or it is no longer known.
    pub name: Text<64>,
}

/// A thread and where it was.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stack {
    /// Which thread.
    pub thread: ThreadInfo,
    /// Its call stack; empty when it was not kept.
    pub trace: Trace,
    /// Milliseconds from that moment to the report.
    pub age_ms: u64,
}

impl Stack {
    /// Whether anything is known of that moment: a thread or a frame.
    pub fn is_known(&self) -> bool {
        self.thread.id != 0 || !self.trace.frames().is_empty()
    }
}

/// The access that showed the error.
#[derive(Clone, Copy, Debug, Default)]
pub struct Access {
    /// How memory was touched.
    pub kind: AccessType,
    /// Where; unknown for a non-canonical address that could not be recovered.
    pub address: Option<u64>,
    /// How many bytes, where the instruction was understood.
    pub size: Option<u32>,
}

/// The heap block that an error concerns.
#[derive(Clone, Copy, Debug, Default)]
pub struct Block {
    /// Its first byte.
    pub address: u64,
    /// Its size in bytes, as it was asked for.
    pub size: u64,
    /// Its alignment in bytes, as it was asked for.
    pub align: u64,
    /// Bytes between its end and the guard page that alignment forced.
    pub slack: u64,
    /// The site of its allocation, for `only_site`; `None` where it is not known.
    pub site: Option<u64>,
    /// Where the access lies beside it.
    pub place: Where,
    /// How far, in bytes: 0 is the first byte past the end, or the last before the start; inside, from the start.
    pub distance: u64,
    /// Whether it was alive.
    pub state: BlockState,
    /// Who allocated it.
    pub allocated: Stack,
    /// Who freed it, if it was freed.
    pub freed: Option<Stack>,
}

/// A block near an address that belongs to none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Neighbour {
    /// Its first byte.
    pub address: u64,
    /// Its size in bytes.
    pub size: u64,
    /// Whether it was alive.
    pub state: BlockState,
    /// Bytes between it and the address.
    pub distance: u64,
}

/// The machine's registers at the fault.
#[derive(Clone, Copy, Debug)]
pub struct Registers {
    /// Names and values, in the order to print.
    values: [(&'static str, u64); REGISTERS_MAX],
    len: u8,
}

impl Registers {
    /// None known.
    pub const EMPTY: Registers = Registers { values: [("", 0); REGISTERS_MAX], len: 0 };

    /// Appends a register; ignored when full.
    pub fn push(&mut self, name: &'static str, value: u64) {
        if let Some(place) = self.values.get_mut(usize::from(self.len)) {
            *place = (name, value);
            self.len = self.len.saturating_add(1);
        }
    }

    /// The registers.
    pub fn values(&self) -> &[(&'static str, u64)] {
        self.values.get(..usize::from(self.len)).unwrap_or(&[])
    }
}

impl Default for Registers {
    fn default() -> Self {
        Self::EMPTY
    }
}

/// The process a report comes from.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessInfo {
    /// Process id.
    pub pid: u32,
    /// Path of the executable.
    pub exe: Text<256>,
    /// The arguments, each ended by a zero character.
    pub args: Text<512>,
    /// The library that has to be preloaded to see the error again; empty where none has.
    pub preload: Text<240>,
}

/// How much of the program is guarded, at the moment of the report.
#[derive(Clone, Copy, Debug, Default)]
pub struct Coverage {
    /// Blocks guarded so far.
    pub guarded: u64,
    /// Blocks asked for so far.
    pub total: u64,
}

/// Blocks of one allocation stack that nothing reaches, and what is reached through them alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeakInfo {
    /// Blocks that nothing reaches.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Blocks that only those reach.
    pub through_blocks: u64,
    /// Their bytes.
    pub through_bytes: u64,
}

/// Everything known about one error.
#[derive(Clone, Copy, Debug, Default)]
pub struct Record {
    /// Which error of this process it is, from 1.
    pub number: u32,
    /// What went wrong.
    pub kind: ErrorKind,
    /// The access that showed it.
    pub access: Access,
    /// The block it concerns.
    pub block: Option<Block>,
    /// Size and alignment that the caller gave, for a layout mismatch.
    pub given_layout: Option<(u64, u64)>,
    /// The nearest blocks before and after, when `block` is not known.
    pub neighbours: [Option<Neighbour>; 2],
    /// Address of the first damaged byte and number of damaged bytes, for a redzone corruption.
    pub damage: Option<(u64, u64)>,
    /// The copy that the access was part of.
    pub copy: Option<CopyInfo>,
    /// The thread that the error showed in. For `redzone-corruption` this is the thread that checked.
    pub fault: Stack,
    /// Who sealed the memory, for a seal violation, or set the tripwire.
    pub seal: Option<SealInfo>,
    /// The region of the program's own that it concerns.
    pub region: Option<RegionInfo>,
    /// How many blocks a leak is about.
    pub leak: Option<LeakInfo>,
    /// The machine's registers, for a fault.
    pub registers: Registers,
    /// The signal that the fault raised; 0 when the error was found without a fault.
    pub signal: u32,
    /// How sure the diagnosis is.
    pub confidence: Confidence,
    /// Facts for the reader.
    pub notes: Notes,
    /// Where this happened.
    pub process: ProcessInfo,
    /// `FENCEPOST_OPTIONS` as the process saw it, compiled-in options first.
    pub options: Text<1024>,
    /// The engine's name.
    pub engine: &'static str,
    /// The random seed.
    pub seed: u64,
    /// Coverage so far.
    pub coverage: Coverage,
    /// The modules that the stacks touch.
    pub modules: ModuleTable,
}
