//! The account of coverage that a run ends with: how much was guarded, and why the rest was not.

use core::fmt;

use crate::wording::{Amount, Count, Grouped, Percent};

/// A reason why a block was not guarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Unguarded {
    /// `mode=off`.
    ModeOff,
    /// Not chosen by `mode=sample`.
    Sample,
    /// Not paid for by `mode=budget`.
    Budget,
    /// Excluded by an `only_…` or `skip_…` filter.
    Filter,
    /// Asked for while the runtime was starting, or from within itself.
    Reentrant,
    /// The memory limit (`max_memory`) was reached.
    Memory,
    /// The kernel's limit on mappings was near.
    Mappings,
    /// No address space was left.
    AddressSpace,
    /// The kernel refused a call.
    Kernel,
    /// The runtime found a fault of its own and stopped guarding.
    Disabled,
    /// Asked for after the runtime stood back, because another allocator serves the program.
    StoodBack,
}

/// How many reasons there are.
pub const UNGUARDED_REASONS: usize = 11;

impl Unguarded {
    /// All reasons, in the order they are printed; the index of each is its number.
    pub const ALL: [Unguarded; UNGUARDED_REASONS] = [
        Unguarded::ModeOff,
        Unguarded::Sample,
        Unguarded::Budget,
        Unguarded::Filter,
        Unguarded::Reentrant,
        Unguarded::Memory,
        Unguarded::Mappings,
        Unguarded::AddressSpace,
        Unguarded::Kernel,
        Unguarded::Disabled,
        Unguarded::StoodBack,
    ];

    /// The name used in JSON and in the summary.
    pub const fn name(self) -> &'static str {
        match self {
            Unguarded::ModeOff => "mode-off",
            Unguarded::Sample => "sample",
            Unguarded::Budget => "budget",
            Unguarded::Filter => "filter",
            Unguarded::Reentrant => "reentrant",
            Unguarded::Memory => "memory-limit",
            Unguarded::Mappings => "mapping-limit",
            Unguarded::AddressSpace => "address-space",
            Unguarded::Kernel => "kernel-refused",
            Unguarded::Disabled => "disabled",
            Unguarded::StoodBack => "stood-back",
        }
    }

    /// What it means and what to do about it.
    pub const fn advice(self) -> &'static str {
        match self {
            Unguarded::ModeOff => "mode=off guards nothing",
            Unguarded::Sample => "mode=sample guards one block in sample_rate",
            Unguarded::Budget => "mode=budget had better use for its time: raise budget",
            Unguarded::Filter => "excluded by an only_ or skip_ filter",
            Unguarded::Reentrant => "asked for while the guard itself was at work on that thread",
            Unguarded::Memory => "the memory limit was reached: raise max_memory, or use mode=sample",
            Unguarded::Mappings => {
                "the kernel's limit on mappings was near: raise vm.max_map_count, or use engine=marker"
            }
            Unguarded::AddressSpace => {
                "no address space was left: raise the limit on it (ulimit -v), or lower quarantine"
            }
            Unguarded::Kernel => "the kernel refused a memory call: see the system's limits",
            Unguarded::Disabled => "the guard stopped after a fault of its own",
            Unguarded::StoodBack => "the program has an allocator of its own, which is left alone",
        }
    }
}

/// How many reasons there are why engine move had to go another way.
pub const REFUSALS: usize = 10;

/// Why a page was not put in place or not moved, as JSON and the summary name it: the descriptor was closed; the memory is
/// a parent's (vfork); the page is shared with a forked process, or the kernel holds it; there is a page already; there is
/// none; the memory is locked or of another kind; somebody changed it just then, or only part was done; no memory; the
/// system forbids it; anything else.
pub const REFUSAL_NAMES: [&str; REFUSALS] =
    ["lost", "borrowed", "shared", "taken", "absent", "unfit", "busy", "no-memory", "denied", "other"];

/// What a run ends with.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    /// Process id.
    pub pid: u32,
    /// The engine's name.
    pub engine: &'static str,
    /// The mode's name.
    pub mode: &'static str,
    /// The random seed.
    pub seed: u64,
    /// Blocks asked for.
    pub total: u64,
    /// Blocks guarded.
    pub guarded: u64,
    /// Blocks not guarded, by reason: the index is the number of the [`Unguarded`].
    pub unguarded: [u64; UNGUARDED_REASONS],
    /// Calling contexts seen under `mode=budget`.
    pub contexts: u64,
    /// Those of which a block was ever guarded.
    pub contexts_guarded: u64,
    /// Those that were taken for one and are more.
    pub contexts_confused: u64,
    /// Microseconds that guarding took under `mode=budget`, as it was measured.
    pub guarding_us: u64,
    /// Guarded blocks alive now.
    pub live: u64,
    /// The most guarded blocks alive at once.
    pub live_max: u64,
    /// Freed address space that stays dead, in bytes.
    pub quarantined_bytes: u64,
    /// Bytes of memory that guarded blocks and the guard's own tables hold.
    pub held_bytes: u64,
    /// Memory calls made to the kernel.
    pub syscalls: u64,
    /// Memory calls that the kernel refused and that another way was found for.
    pub fallbacks: u64,
    /// Pages that engine move could not put in place or move, by reason as in [`REFUSAL_NAMES`].
    pub refused: [u64; REFUSALS],
    /// Errors reported.
    pub reports: u64,
    /// Errors not written, because the same one had been or because too many came at once.
    pub reports_lost: u64,
    /// Stacks not kept because the depot was full.
    pub stacks_lost: u64,
    /// Regions of the program's own: reservations, arenas, pools, stacks.
    pub regions: u64,
    /// Bytes of addresses that they have reserved.
    pub regions_reserved: u64,
    /// Bytes of memory that they have committed.
    pub regions_committed: u64,
}

/// One line, and one more for each reason why blocks were not guarded, each with its end.
impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const HEAD: &str = "fencepost: summary:";
        let engine = if self.engine.is_empty() { "none" } else { self.engine };
        let mode = if self.mode.is_empty() { "not known" } else { self.mode };
        write!(f, "{HEAD} engine {engine}, mode {mode}: ")?;
        let total = Count(self.total, "block");
        if self.total == 0 {
            write!(f, "nothing was guarded: no block was asked for")?;
        } else if self.guarded == 0 {
            write!(f, "nothing was guarded: 0 of {total} (0.00%)")?;
        } else {
            let percent = Percent { part: self.guarded, whole: self.total, digits: 2 };
            write!(f, "{} of {total} guarded ({percent}%)", Grouped(self.guarded))?;
        }
        match self.reports {
            0 => writeln!(f, ", no error reported")?,
            count => writeln!(f, ", {} reported", Count(count, "error"))?,
        }
        if self.guarded > 0 {
            write!(f, "{HEAD} {} alive at the end, ", Count(self.live, "guarded block"))?;
            write!(f, "at most {} at once, {} held, ", Grouped(self.live_max), Amount(self.held_bytes))?;
            write!(f, "{} of freed addresses in quarantine, ", Amount(self.quarantined_bytes))?;
            writeln!(f, "{}, seed {:#x}", Count(self.syscalls, "memory call"), self.seed)?;
        }
        if self.contexts > 0 {
            let percent = Percent { part: self.contexts_guarded, whole: self.contexts, digits: 2 };
            write!(f, "{HEAD} a block was guarded of {} of ", Grouped(self.contexts_guarded))?;
            write!(f, "{} ({percent}%), ", Count(self.contexts, "calling context"))?;
            writeln!(f, "guarding took {} ms", Grouped(self.guarding_us.div_ceil(1000)))?;
        }
        for (reason, count) in Unguarded::ALL.iter().zip(self.unguarded).filter(|(_, count)| *count > 0) {
            let percent = Percent { part: count, whole: self.total, digits: 2 };
            write!(f, "{HEAD} not guarded: {} ({percent}%), ", Count(count, "block"))?;
            writeln!(f, "{}: {}", reason.name(), reason.advice())?;
        }
        if self.fallbacks > 0 {
            writeln!(
                f,
                "{HEAD} the kernel refused {}; another way was found",
                Count(self.fallbacks, "memory call")
            )?;
        }
        if self.refused.iter().any(|count| *count > 0) {
            write!(f, "{HEAD} of these for pages that engine move could not move or put in place: ")?;
            let reasons = REFUSAL_NAMES.iter().zip(self.refused).filter(|(_, count)| *count > 0);
            for (index, (name, count)) in reasons.enumerate() {
                write!(f, "{}{} {name}", if index == 0 { "" } else { ", " }, Grouped(count))?;
            }
            writeln!(f)?;
        }
        if self.reports_lost > 0 {
            let errors = Count(self.reports_lost, "more error");
            writeln!(f, "{HEAD} {errors} not written: the same as one before, or too many at once")?;
        }
        if self.regions > 0 {
            write!(f, "{HEAD} {} of the program's own: ", Count(self.regions, "region"))?;
            let (committed, reserved) = (Amount(self.regions_committed), Amount(self.regions_reserved));
            writeln!(f, "{committed} committed of {reserved} reserved")?;
        }
        if self.stacks_lost > 0 {
            let stacks = Count(self.stacks_lost, "stack");
            writeln!(f, "{HEAD} {stacks} not kept: the depot was full, and reports say so")?;
        }
        Ok(())
    }
}
