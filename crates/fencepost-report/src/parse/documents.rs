//! The structures and words of the format, as they stand in a line.
//!
//! One declaration a structure: its fields are the keys, so that the two cannot drift apart.

use std::collections::BTreeMap;
use std::fmt;

use fencepost_record::ErrorKind;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};

use super::numbers::{Hex, nullable};

/// A map whose order counts.
fn registers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<(String, Hex)>>, D::Error> {
    struct Pairs;
    impl<'de> Visitor<'de> for Pairs {
        type Value = Option<Vec<(String, Hex)>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("registers or null")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
            let mut pairs = Vec::new();
            while let Some(pair) = map.next_entry()? {
                pairs.push(pair);
            }
            Ok(Some(pairs))
        }
    }
    deserializer.deserialize_any(Pairs)
}

fn kind<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ErrorKind, D::Error> {
    let name = String::deserialize(deserializer)?;
    let found = ErrorKind::ALL.into_iter().find(|kind| kind.name() == name);
    found.ok_or_else(|| D::Error::custom(format!("unknown kind `{name}`")))
}

/// Declares the structures of the format: every field is a key that must be there, and an optional one may be null.
macro_rules! documents {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $kind:ty,)* })*) => {
        $($(#[$doc])* #[derive(Clone, Debug, PartialEq, serde::Deserialize)]
        pub struct $name { $($(#[$field_doc])* pub $field: $kind,)* })*
    };
}

documents! {
    /// One error.
    Document {
        /// Which error of its process, from 1.
        number: u32,
        /// What went wrong.
        #[serde(deserialize_with = "kind")]
        kind: ErrorKind,
        /// The sentence of the first line.
        message: String,
        /// The access that showed it.
        access: Access,
        /// The block it concerns.
        #[serde(deserialize_with = "nullable")]
        block: Option<Block>,
        /// The layout that the caller gave, for a layout mismatch.
        #[serde(deserialize_with = "nullable")]
        given_layout: Option<Layout>,
        /// The damaged bytes.
        #[serde(deserialize_with = "nullable")]
        damage: Option<Extent>,
        /// The copy that the access was part of.
        #[serde(deserialize_with = "nullable")]
        copy: Option<super::Copied>,
        /// The nearest blocks before and after, when the block is not known.
        neighbours: [Option<Neighbour>; 2],
        /// The seal that was violated.
        #[serde(deserialize_with = "nullable")]
        seal: Option<super::Seal>,
        /// The region of the program's own.
        #[serde(deserialize_with = "nullable")]
        region: Option<super::Region>,
        /// How many blocks a leak is about.
        #[serde(deserialize_with = "nullable")]
        leak: Option<super::Leak>,
        /// The thread that the error showed in.
        fault: Fault,
        /// The source lines around the first frame of the user's own code.
        #[serde(deserialize_with = "nullable")]
        source: Option<Source>,
        /// The machine's registers, in the order of the report.
        #[serde(deserialize_with = "registers")]
        registers: Option<Vec<(String, Hex)>>,
        /// The signal that the process ends by.
        #[serde(deserialize_with = "nullable")]
        signal: Option<u32>,
        /// Where it happened.
        process: Process,
        /// The options in force.
        options: String,
        /// The engine's name.
        #[serde(deserialize_with = "nullable")]
        engine: Option<String>,
        /// Coverage until then.
        coverage: Coverage,
        /// The random seed.
        seed: Hex,
        /// The command that runs it again.
        #[serde(deserialize_with = "nullable")]
        replay: Option<String>,
        /// The command that guards every block of its site and no other.
        #[serde(deserialize_with = "nullable")]
        only_site: Option<String>,
        /// How sure the diagnosis is.
        confidence: Confidence,
        /// What the diagnosis rests on.
        reasons: Vec<String>,
        /// What else the reader should know.
        notes: Vec<String>,
        /// Stays the same for the same bug.
        fingerprint: Hex,
    }

    /// How memory was touched.
    Access {
        /// The way.
        #[serde(rename = "type")]
        kind: AccessType,
        /// Where.
        #[serde(deserialize_with = "nullable")]
        address: Option<Hex>,
        /// How many bytes.
        #[serde(deserialize_with = "nullable")]
        size: Option<u32>,
    }

    /// A heap block.
    Block {
        /// Its first byte.
        address: Hex,
        /// Its size in bytes.
        size: u64,
        /// Its alignment in bytes.
        align: u64,
        /// Bytes between its end and the guard page.
        slack: u64,
        /// The site of its allocation.
        #[serde(deserialize_with = "nullable")]
        site: Option<Hex>,
        /// Where the access lies beside it.
        #[serde(rename = "where")]
        place: Where,
        /// How far from it, in bytes.
        distance: u64,
        /// Whether it was alive.
        state: BlockState,
        /// Who allocated it.
        allocated: Event,
        /// Who freed it.
        #[serde(deserialize_with = "nullable")]
        freed: Option<Event>,
    }

    /// Size and alignment.
    Layout {
        /// Bytes.
        size: u64,
        /// Bytes.
        align: u64,
    }

    /// A run of bytes.
    Extent {
        /// The first.
        address: Hex,
        /// How many.
        size: u64,
    }

    /// A block near an address that belongs to none.
    Neighbour {
        /// Its first byte.
        address: Hex,
        /// Its size in bytes.
        size: u64,
        /// Whether it was alive.
        state: BlockState,
        /// Bytes between it and the address.
        distance: u64,
    }

    /// A thread and where it was.
    Fault {
        /// Which thread.
        thread: Thread,
        /// Its stack, innermost first.
        frames: Vec<Frame>,
    }

    /// A thread, where it was, and when.
    Event {
        /// Which thread.
        thread: Thread,
        /// Its stack, innermost first; empty when it is not known.
        frames: Vec<Frame>,
        /// Milliseconds before the report.
        #[serde(deserialize_with = "nullable")]
        age_ms: Option<u64>,
    }

    /// A thread.
    Thread {
        /// The system's id.
        #[serde(deserialize_with = "nullable")]
        id: Option<u32>,
        /// Its name.
        #[serde(deserialize_with = "nullable")]
        name: Option<String>,
    }

    /// One function of a stack.
    Frame {
        /// The instruction, or the address after a call.
        address: Hex,
        /// Path of the module.
        #[serde(deserialize_with = "nullable")]
        module: Option<String>,
        /// The module's build id in hex.
        #[serde(deserialize_with = "nullable")]
        build_id: Option<String>,
        /// The address in the module's own numbering.
        #[serde(deserialize_with = "nullable")]
        offset: Option<Hex>,
        /// Demangled name.
        #[serde(deserialize_with = "nullable")]
        function: Option<String>,
        /// Source file.
        #[serde(deserialize_with = "nullable")]
        file: Option<String>,
        /// Line, from 1.
        #[serde(deserialize_with = "nullable")]
        line: Option<u32>,
        /// Column, from 1.
        #[serde(deserialize_with = "nullable")]
        column: Option<u32>,
        /// Inlined into the function of the next frame.
        inlined: bool,
    }

    /// Lines of a source file.
    Source {
        /// The file.
        file: String,
        /// The lines.
        lines: Vec<SourceLine>,
    }

    /// One of them.
    SourceLine {
        /// Its number, from 1.
        number: u32,
        /// The line.
        text: String,
        /// The line of the frame.
        hit: bool,
    }

    /// A process.
    Process {
        /// Its id.
        pid: u32,
        /// Path of the executable.
        #[serde(deserialize_with = "nullable")]
        exe: Option<String>,
        /// The arguments, the program's name first.
        args: Vec<String>,
    }

    /// How much was guarded.
    Coverage {
        /// Blocks guarded.
        guarded: u64,
        /// Blocks asked for.
        total: u64,
        /// The one in percent of the other.
        #[serde(deserialize_with = "nullable")]
        percent: Option<f64>,
    }

    /// What a process with a guard begins with.
    StartDocument {
        /// The process.
        pid: u32,
        /// The engine's name.
        #[serde(deserialize_with = "nullable")]
        engine: Option<String>,
        /// The mode's name.
        #[serde(deserialize_with = "nullable")]
        mode: Option<String>,
        /// Path of the executable.
        #[serde(deserialize_with = "nullable")]
        exe: Option<String>,
        /// Why nothing is guarded; none where something is.
        #[serde(default)]
        why_not: Option<String>,
    }

    /// The account at the end of a run.
    SummaryDocument {
        /// The process.
        pid: u32,
        /// The engine's name.
        #[serde(deserialize_with = "nullable")]
        engine: Option<String>,
        /// The mode's name.
        #[serde(deserialize_with = "nullable")]
        mode: Option<String>,
        /// The random seed.
        seed: Hex,
        /// Blocks asked for.
        total: u64,
        /// Blocks guarded.
        guarded: u64,
        /// The one in percent of the other.
        #[serde(deserialize_with = "nullable")]
        percent: Option<f64>,
        /// Blocks not guarded, by reason.
        unguarded: BTreeMap<String, u64>,
        /// Guarded blocks alive at the end.
        live: u64,
        /// The most alive at once.
        live_max: u64,
        /// Freed addresses that stay dead, in bytes.
        quarantined_bytes: u64,
        /// Memory held, in bytes.
        held_bytes: u64,
        /// Memory calls to the kernel.
        syscalls: u64,
        /// Those that failed and were made good another way.
        fallbacks: u64,
        /// Of these, pages that engine move could not put in place or move, by reason.
        refused: BTreeMap<String, u64>,
        /// Errors reported.
        reports: u64,
        /// Errors that could not be kept.
        reports_lost: u64,
        /// Stacks that could not be kept.
        stacks_lost: u64,
        /// Regions of the program's own.
        regions: u64,
        /// Bytes of addresses that they have reserved.
        regions_reserved: u64,
        /// Bytes of memory that they have committed.
        regions_committed: u64,
    }
}

/// Declares the words of the format.
macro_rules! words {
    ($($(#[$doc:meta])* $name:ident { $($(#[$word_doc:meta])* $word:ident,)* })*) => {
        $($(#[$doc])* #[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
        #[serde(rename_all = "lowercase")]
        pub enum $name { $($(#[$word_doc])* $word,)* })*
    };
}

words! {
    /// How memory was touched.
    AccessType {
        /// A load.
        Read,
        /// A store.
        Write,
        /// An instruction fetch.
        Execute,
        /// A deallocation.
        Free,
        /// A resize.
        Realloc,
        /// Found by a check.
        None,
    }

    /// Where an address lies beside a block.
    Where {
        /// Below its first byte.
        Before,
        /// Within.
        Inside,
        /// At or above its end.
        After,
    }

    /// Whether a block was alive.
    BlockState {
        /// Allocated and not freed.
        Live,
        /// Freed.
        Freed,
        /// Not known.
        Unknown,
    }

    /// How sure a diagnosis is.
    Confidence {
        /// The evidence allows one reading.
        High,
        /// It allows more.
        Low,
    }
}
