//! The start: options, engine, limits and memory. Runs once, before the program's own code where possible.

use core::fmt::Write;

use fencepost_record::Text;
use fencepost_sys::{MissingOffer, Offers, Platform, Range, VmError};

use crate::engine::Engine;
use crate::filter::{ask_for_stack, ask_for_thread};
use crate::geometry::{Geometry, SMALL_PAGES, SPAN_BYTES};
use crate::heap::{HeapSetup, SPAN_OVERHEAD};
use crate::limits::{Bounds, HELD_MAX};
use crate::options::{self, EngineChoice, MaxMemory, Mode, OnError, Options};
use crate::output::Line;
use crate::pattern::{FILL_RANGE, Patterns};
use crate::runtime::{Guard, Setup};
use crate::sites::keeps_samples;
use crate::steady::Lane;

/// Address space for the heap beyond the quarantine, so that live blocks have room: half as much again.
const HEADROOM_SHARE: u64 = 2;
/// The most address space that is asked for: an eighth of what 47 bits give.
const HEAP_MAX: u64 = 16 << 40;
/// Inaccessible mappings that dead memory may cost: few enough that the whole process stays under 200 mappings.
const HOLES_MAX: usize = 48;
/// The share of the memory limit that records of freed blocks may take.
const RECORDS_SHARE: u64 = 16;
/// The most that records of freed blocks may take with the page tables of their spans, in bytes: a million one-page blocks.
const RECORDS_MAX: u64 = 48 << 20;
/// The part of what the process may still use that guarding may take: three quarters.
pub(crate) const AVAILABLE_SHARE: u64 = 4;
/// Address space that is reckoned with where the system does not tell.
const SMALLEST_SPACE: u64 = 512 << 20;
/// A stack for rendering: names are resolved by code that was not written for small stacks.
const REPORT_STACK: usize = 8 << 20;

/// Address space for each part, in bytes.
struct Rooms {
    heap: usize,
    arena: usize,
    depot: usize,
    traces: usize,
    keep_fill_unmapped: bool,
}

impl Rooms {
    /// What is taken where nothing limits address space.
    fn full(options: &Options) -> Rooms {
        let heap =
            options.quarantine.saturating_add(options.quarantine / HEADROOM_SHARE).clamp(1 << 30, HEAP_MAX);
        Rooms {
            heap: usize::try_from(heap).unwrap_or(usize::MAX),
            arena: 4 << 30,
            depot: 1 << 30,
            traces: 128 << 20,
            keep_fill_unmapped: true,
        }
    }

    /// What is taken of a limited space: less than half of it.
    fn part_of(available: u64) -> Rooms {
        let available = usize::try_from(available).unwrap_or(usize::MAX);
        Rooms {
            heap: available / 4,
            arena: (available / 8).clamp(16 << 20, 1 << 30),
            depot: (available / 32).clamp(4 << 20, 1 << 30),
            traces: (available / 64).clamp(1 << 20, 32 << 20),
            keep_fill_unmapped: false,
        }
    }
}

impl<P: Platform> Guard<P> {
    /// Decides everything; `None` when nothing is to be guarded.
    pub(crate) fn set_up(&self, compiled: &str) -> Option<()> {
        let options = self.read_options(compiled);
        let seed = options.seed.unwrap_or_else(|| self.platform.random());
        // Asked once: it reads all mappings of the process.
        let offers = self.platform.offers();
        let mut setup = Setup {
            options,
            lets_pass: crate::quick::lets_pass(&options),
            steady: 0,
            lane: Lane::NONE,
            by_thread: ask_for_thread(&options),
            by_stack: ask_for_stack(&options),
            heap: self.heap_setup(&options, &offers),
            bounds: Bounds { held_max: HELD_MAX, mappings_max: None },
            patterns: Patterns::NONE,
            seed,
            started_ms: self.platform.now_ms(),
            options_text: Text::EMPTY,
            report_stack: Range::default(),
            keeps_fill: false,
        };
        // Text never fails: longer input is cut.
        let written = options::write_in_force(&options, &mut setup.options_text);
        let _ = written;
        if options.mode == Mode::Off {
            self.store_setup(setup);
            return None;
        }
        if setup.engine() == Engine::Move {
            self.begin_moving(&mut setup);
        }
        setup.steady = crate::steady::ways(&options, setup.engine());
        self.set_bounds(&mut setup, &offers);
        let taken = self.take_memory(&mut setup, &Rooms::full(&options)).or_else(|_| {
            self.give_memory_back();
            // The address space is limited: take a part, and leave the rest to the program.
            let available = self.platform.available().unwrap_or(SMALLEST_SPACE);
            self.take_memory(&mut setup, &Rooms::part_of(available))
        });
        match taken {
            Ok(()) => {
                setup.lane = Lane::of(&setup);
                if options.mode.leaves_most() {
                    // Most blocks will be the inner allocator's, whose free has checks of its own.
                    self.inner_block();
                    self.quick.set_hull([self.heap.addresses(), self.arena.addresses()]);
                }
                self.store_setup(setup);
                Some(())
            }
            Err(error) => {
                self.give_memory_back();
                self.complain(format_args!(
                    "nothing is guarded: no address space could be reserved ({error}): raise the limit on it (ulimit -v)"
                ));
                self.store_setup(setup);
                None
            }
        }
    }

    pub(crate) fn read_options(&self, compiled: &str) -> Options {
        let built_in = options::parse(compiled.as_bytes(), Options::DEFAULT);
        let environment = self.platform.environment(c"FENCEPOST_OPTIONS").unwrap_or(b"");
        let parsed = options::parse(environment, built_in.options);
        for error in built_in.errors().chain(parsed.errors()) {
            self.complain(format_args!("{error}"));
        }
        if parsed.options.help {
            let mut line = Line::new(&self.platform, 2);
            let offer = self.platform.ready_to_watch(self.hooks.on_hit);
            let written = options::write_table(&parsed.options, &mut line)
                .and_then(|()| writeln!(line, "\nhardware watchpoints: {offer}"));
            line.end(written);
        }
        parsed.options
    }

    fn heap_setup(&self, options: &Options, offers: &Offers) -> HeapSetup {
        let lazy = match offers {
            Offers { guard_markers: true, .. } => Engine::Marker,
            Offers { commits_pages: true, .. } => Engine::Commit,
            _ => Engine::Mprotect,
        };
        let engine = match options.engine {
            EngineChoice::Move if offers.missing != MissingOffer::Nothing => Engine::Move,
            EngineChoice::Move => {
                self.complain(format_args!(
                    "engine=move does not work here (it needs Linux 6.8 or later and userfaultfd): using engine={}",
                    lazy.name()
                ));
                lazy
            }
            EngineChoice::Commit if offers.commits_pages => Engine::Commit,
            EngineChoice::Auto if offers.missing == MissingOffer::Moves => Engine::Move,
            // Copying and dropping costs more than markers, and less than mappings.
            EngineChoice::Auto if offers.missing == MissingOffer::Copies && lazy == Engine::Mprotect => {
                Engine::Move
            }
            EngineChoice::Auto => lazy,
            EngineChoice::Marker if offers.guard_markers => Engine::Marker,
            EngineChoice::Commit => {
                self.complain(format_args!(
                    "engine=commit does not work here (it is Windows's): using engine=mprotect"
                ));
                Engine::Mprotect
            }
            EngineChoice::Marker => {
                self.complain(format_args!(
                    "engine=marker does not work here (it needs Linux 6.13 or later): using engine=mprotect"
                ));
                Engine::Mprotect
            }
            _ => Engine::Mprotect,
        };
        HeapSetup {
            engine,
            lazy: if engine == Engine::Move { lazy } else { engine },
            geometry: Geometry::new(self.platform.page_size()),
            quarantine: usize::try_from(options.quarantine.checked_div(SPAN_BYTES as u64).unwrap_or(0))
                .unwrap_or(usize::MAX),
            holes_max: HOLES_MAX,
            kept_max: usize::try_from(RECORDS_MAX / SPAN_OVERHEAD).unwrap_or(usize::MAX),
        }
    }

    /// Takes the right to work on missing pages; where it was there a moment ago and is not now, the next engine serves.
    fn begin_moving(&self, setup: &mut Setup) {
        match self.platform.open_missing() {
            Ok(offer) => self.moving.began(offer, self.platform.process_id()),
            Err(_) => setup.heap.engine = setup.heap.lazy,
        }
    }

    fn set_bounds(&self, setup: &mut Setup, offers: &Offers) {
        let held_max = match setup.options.max_memory {
            MaxMemory::None => None,
            MaxMemory::Bytes(bytes) => Some(bytes),
            MaxMemory::Auto => {
                self.platform.available().map(|bytes| bytes.saturating_sub(bytes / AVAILABLE_SHARE))
            }
        };
        setup.bounds = Bounds {
            held_max: held_max.unwrap_or(HELD_MAX).min(HELD_MAX),
            mappings_max: offers.mappings_max.map(|max| Bounds::mappings(max, offers.mappings_now)),
        };
        if let Some(held_max) = held_max {
            let records = (held_max / RECORDS_SHARE).min(RECORDS_MAX);
            setup.heap.kept_max = usize::try_from(records / SPAN_OVERHEAD).unwrap_or(usize::MAX);
        }
    }

    fn take_memory(&self, setup: &mut Setup, rooms: &Rooms) -> Result<(), VmError> {
        let platform = &self.platform;
        self.misc.reserve(platform, REPORT_STACK.saturating_mul(2))?;
        let page = platform.page_size();
        // A page put in place is a copy of the redzone's: as many as the longest slot has.
        let copies = if setup.engine() == Engine::Move { SMALL_PAGES } else { 1 };
        let tables = page.saturating_mul(copies.saturating_add(2));
        // A guard page's worth of reserved addresses stays below the stack.
        self.misc.ensure(platform, tables)?;
        let misc = self.misc.range();
        let patterns = Range { start: misc.start, len: tables };
        let stack = Range { start: misc.end().wrapping_sub(REPORT_STACK), len: REPORT_STACK };
        // SAFETY: the range is the committed start of our own reservation, given away here for good.
        setup.patterns = unsafe { Patterns::write(patterns, page, setup.seed) };
        // SAFETY: the range is the end of our own reservation, which `ensure` above does not reach.
        unsafe { platform.commit(stack) }?;
        setup.report_stack = stack;
        self.depot.start(platform, rooms.depot)?;
        self.filters.start(platform)?;
        let by_budget = setup.options.mode == Mode::Budget;
        let traces = if self.hooks.trace_memory == 0 { 0 } else { rooms.traces };
        self.threads.start(platform, by_budget, traces)?;
        if by_budget || keeps_samples(&setup.options) {
            self.contexts.start(platform)?;
        }
        self.arena.start(platform, rooms.arena)?;
        self.reporter.start(platform)?;
        if setup.options.on_error == OnError::Continue && self.remains.start(platform).is_err() {
            // Without them a program that goes on reads zeros in freed blocks.
            self.remains.release(platform);
        }
        self.heap.start(platform, setup.engine(), rooms.heap)?;
        if rooms.keep_fill_unmapped {
            // Where these addresses are taken, reading through the fill pattern may not fault: nothing else depends
            // on it.
            setup.keeps_fill = platform.reserve_at(FILL_RANGE).is_ok();
        }
        Ok(())
    }

    fn give_memory_back(&self) {
        self.heap.release(&self.platform);
        self.remains.release(&self.platform);
        self.reporter.release(&self.platform);
        self.arena.release(&self.platform);
        self.threads.release(&self.platform);
        self.contexts.release(&self.platform);
        self.filters.release(&self.platform);
        self.depot.release(&self.platform);
        self.misc.release(&self.platform);
    }

    /// One line on stderr that starts with our name.
    pub(crate) fn complain(&self, what: core::fmt::Arguments<'_>) {
        let mut line = Line::new(&self.platform, 2);
        let written = writeln!(line, "fencepost: {what}");
        line.end(written);
    }
}
