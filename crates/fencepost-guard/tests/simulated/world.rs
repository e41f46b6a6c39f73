//! One runtime over one simulated system, and what tests do with them.

use std::alloc::Layout;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;

use fencepost_guard::{
    Content, Copying, Door, Freed, Guard, Hooks, Keep, Placed, RenderStyle, Rendered, Resize, Tracing,
};
use fencepost_record::{AccessType, CopyInfo, ErrorKind, Record, Registers, Unguarded};
use fencepost_sys::sim::{Sim, SimOptions};
use fencepost_sys::{AfterStep, Fault, Hit, Memory, Output, Verdict};

pub const PAGE: usize = 4096;
pub const SPAN: usize = 2 << 20;
/// Where reports of every world go.
pub const REPORT: &str = "/reports";
/// In force before a test's own options: small, so that one process holds many worlds, and the same in every run.
const OPTIONS: &str =
    "engine=marker,quarantine=256M,on_error=continue,report=/reports,seed=0x5eed,summary=off,";

/// The frame in which a copy is under way, if [`COPY`] says which.
pub const COPY_FRAME: u64 = 0x60_0000;

pub type Renderer = fn(&Record, RenderStyle, &mut Rendered<'_>);

thread_local! {
    static CURRENT: Cell<Option<World>> = const { Cell::new(None) };
    pub static COPY: Cell<Option<CopyInfo>> = const { Cell::new(None) };
    static WALK: Cell<u64> = const { Cell::new(0) };
    static STACK: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

/// A runtime and its system. Both live as long as the process.
#[derive(Clone, Copy)]
pub struct World {
    pub guard: &'static Guard<Sim>,
}

/// What the program thinks it holds.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    pub address: usize,
    pub layout: Layout,
}

/// Says which code this thread is at: the innermost frame of the stacks captured from here on.
pub fn at(code: u64) {
    stack(&[code, 0x40_0000]);
}

/// Says what the whole stack of this thread is, innermost first.
pub fn stack(frames: &[u64]) {
    STACK.with_borrow_mut(|stack| *stack = frames.to_vec());
}

pub fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).expect("a layout")
}

/// The world of this thread.
pub fn current() -> World {
    CURRENT.get().expect("a world was entered on this thread")
}

/// Lets every walk of a stack on this thread take so many nanoseconds.
pub fn walks_take(nanoseconds: u64) {
    WALK.set(nanoseconds);
}

fn capture(_anchor: usize, into: &mut [u64]) -> usize {
    if WALK.get() != 0 {
        current().sim().spend_ns(WALK.get());
    }
    STACK.with_borrow(|stack| into.iter_mut().zip(stack).map(|(place, frame)| *place = *frame).count())
}

fn trace(tracing: &Tracing, keep: Keep<'_>) -> u32 {
    let mut frames = [0; 128];
    let kept = capture(tracing.anchor, &mut frames[..tracing.depth]);
    keep(&frames[..kept])
}

fn region(_: usize) -> Option<fencepost_record::RegionInfo> {
    None
}

fn copy(_sp: usize, frames: &[u64]) -> Option<Copying> {
    let frame = frames.iter().position(|frame| *frame == COPY_FRAME)?;
    COPY.get().map(|copy| Copying { frame, copy })
}

fn regions() -> [u64; 3] {
    [0; 3]
}

fn on_fault(fault: &Fault) -> Verdict {
    current().guard.on_fault(fault)
}

fn on_step(next: usize) -> AfterStep {
    current().guard.on_step(next)
}

fn on_hit(hit: &Hit) {
    current().guard.on_hit(hit);
}

extern "C" fn thread_exit(word: usize) {
    current().guard.thread_exit(word);
}

extern "C" fn fork_prepare() {
    current().guard.fork_prepare();
}

extern "C" fn fork_parent() {
    current().guard.fork_parent();
}

extern "C" fn fork_child() {
    let _others = current().guard.fork_child();
}

extern "C" fn at_exit() {
    current().guard.at_exit(0);
}

impl World {
    /// A started runtime on a recent Linux, with further options.
    pub fn new(options: &str) -> World {
        World::on(SimOptions::new(), options)
    }

    /// A started runtime on a system of choice.
    pub fn on(system: SimOptions, options: &str) -> World {
        let world = World::unstarted(system, options, None);
        world.guard.start("");
        world.sim().assert_no_violations();
        assert!(!world.guard.is_off(), "{}", world.stderr());
        world
    }

    /// The same with a function that renders reports.
    pub fn rendering(options: &str, render: Renderer) -> World {
        let world = World::unstarted(SimOptions::new(), options, Some(render));
        world.guard.start("");
        world
    }

    /// A runtime that has not been started.
    pub fn unstarted(system: SimOptions, options: &str, render: Option<Renderer>) -> World {
        let hooks = Hooks {
            capture,
            trace,
            trace_memory: 0,
            region,
            regions,
            copy,
            demangle: |name, with| with(name),
            on_fault,
            on_step,
            on_hit,
            thread_exit,
            fork_prepare,
            fork_parent,
            fork_child,
            at_exit,
            render,
        };
        // A system that commits page by page, where the engine is to be the one for it.
        let commits_pages = system.commits_pages || options.contains("engine=commit");
        let sim = Sim::with(SimOptions { commits_pages, ..system });
        sim.set_environment("FENCEPOST_OPTIONS", &format!("{OPTIONS}{options}"));
        let world = World { guard: Box::leak(Box::new(Guard::new(sim, hooks))) };
        world.enter();
        at(0x1_0000);
        world
    }

    /// Makes this the world of the calling thread.
    pub fn enter(self) {
        CURRENT.set(Some(self));
    }

    pub fn sim(self) -> &'static Sim {
        self.guard.platform()
    }

    pub fn place(self, size: usize, align: usize) -> Placed {
        if self.guard.passes_at_once() || self.guard.passes(size, Door::Alloc, || 0) {
            return Placed::Inner;
        }
        self.guard.allocate(layout(size, align), false, 0)
    }

    /// A guarded block.
    pub fn block(self, size: usize, align: usize) -> usize {
        match self.place(size, align) {
            Placed::Here(block) => block.as_ptr().addr(),
            other => panic!("{size} {align}: {other:?}; {:?}", self.guard.stats()),
        }
    }

    pub fn free(self, address: usize, size: usize, align: usize) -> Freed {
        self.guard.free(pointer(address), layout(size, align), AccessType::Free, 0)
    }

    /// What a program's allocation does: guarded, or from the inner allocator.
    pub fn allocate(self, layout: Layout) -> Option<Held> {
        let address = match self.guard.allocate(layout, false, 0) {
            Placed::Here(block) => block.as_ptr().addr(),
            Placed::Fail => return None,
            Placed::Inner => {
                let padded = padded(layout);
                // SAFETY: the padded layout has a size above zero.
                let block = unsafe { std::alloc::alloc(padded) };
                assert!(!block.is_null(), "the host has memory");
                self.guard.inner_block();
                block.expose_provenance()
            }
        };
        Some(Held { address, layout })
    }

    /// What a program's free does.
    pub fn release(self, held: Held, how: AccessType) {
        if self.guard.free(pointer(held.address), held.layout, how, 0) == Freed::Inner {
            // SAFETY: the runtime says that the block is the inner allocator's, so `allocate` got it from there with
            // this padded layout.
            unsafe {
                std::alloc::dealloc(std::ptr::with_exposed_provenance_mut(held.address), padded(held.layout))
            };
        }
    }

    /// What a program's resize does; `None` when it was refused.
    pub fn resize(self, held: Held, size: usize) -> Option<Held> {
        let true_layout = match self.guard.check_resize(pointer(held.address), held.layout, 0) {
            Resize::Refuse => return None,
            Resize::Inner => held.layout,
            Resize::Move(layout) => layout,
        };
        let moved = self.allocate(layout(size, held.layout.align()))?;
        let sizes = [true_layout.size(), size];
        match self.guard.move_content(pointer(held.address), pointer(moved.address), sizes, 0) {
            Content::Moved => {}
            Content::Stays => {
                for offset in 0..true_layout.size().min(size) {
                    poke(moved.address + offset, peek(held.address + offset));
                }
            }
            Content::Refused => {
                self.release(moved, AccessType::Free);
                return None;
            }
        }
        self.release(Held { address: held.address, layout: true_layout }, AccessType::Realloc);
        Some(moved)
    }

    /// Reports since the last call, oldest first.
    pub fn records(self) -> Vec<Record> {
        let mut records = Vec::new();
        let lost = self.guard.drain(&mut |record| records.push(*record));
        assert_eq!(lost, 0, "the ring holds all reports of a test");
        records
    }

    /// The only report since the last call.
    pub fn record(self) -> Record {
        let mut records = self.records();
        let kinds: Vec<ErrorKind> = records.iter().map(|record| record.kind).collect();
        assert_eq!(kinds.len(), 1, "one report, not {kinds:?}");
        records.remove(0)
    }

    pub fn stderr(self) -> String {
        String::from_utf8(self.sim().written(2)).expect("text")
    }

    /// The lines of the file for reports; each must be whole.
    pub fn lines(self) -> Vec<String> {
        let bytes = self.sim().file(REPORT).unwrap_or_default();
        let text = String::from_utf8(bytes).expect("text");
        assert!(text.is_empty() || text.ends_with('\n'), "the last line has no end: {text}");
        // What every process begins with is looked at by a test of its own.
        let lines = text.lines().filter(|line| !line.starts_with("{\"schema\":\"fencepost-start/1\""));
        lines.map(str::to_owned).collect()
    }

    /// How many blocks one reason kept from being guarded.
    pub fn unguarded(self, why: Unguarded) -> u64 {
        self.guard.stats().map_or(0, |stats| stats.unguarded[why as usize])
    }

    /// Asks the handler about a fault, and runs the instruction of a step.
    pub fn raise(self, fault: &Fault) -> Verdict {
        let verdict = self.begin(fault);
        if verdict == Verdict::Step {
            assert!(!self.sim().open_for_steps().is_empty(), "a step opens something");
            assert_eq!(self.sim().step_ends(fault.pc + 3), Some(AfterStep::Done));
        }
        assert!(self.sim().open_for_steps().is_empty(), "nothing stays open");
        verdict
    }

    /// Asks the handler about a fault; a step goes on after this.
    pub fn begin(self, fault: &Fault) -> Verdict {
        self.sim().raise(fault).expect("a handler is in force")
    }

    /// Panics unless every page of a range traps, or none.
    pub fn expect_traps(self, start: usize, len: usize, traps: bool) {
        for page in (start & !(PAGE - 1)..start + len).step_by(PAGE) {
            assert_eq!(self.sim().would_trap(page), traps, "{page:#x} within {start:#x}+{len:#x}");
        }
    }

    /// The address of the fill pattern's value is kept unmapped for one system of a process only.
    pub fn release_everything(self) {
        self.sim().fail_never();
        for range in self.sim().reserved() {
            // SAFETY: the test is over: nothing refers to this world's memory any more.
            unsafe { self.sim().release(range) }.expect("the range is reserved");
        }
    }
}

/// The inner allocator serves no block of no bytes.
fn padded(layout: Layout) -> Layout {
    Layout::from_size_align(layout.size().max(1), layout.align()).expect("a layout")
}

pub fn pointer(address: usize) -> NonNull<u8> {
    NonNull::new(std::ptr::with_exposed_provenance_mut(address)).expect("not null")
}

pub fn peek(address: usize) -> u8 {
    // SAFETY: tests name memory of their world, which is readable underneath whatever its state.
    unsafe { pointer(address).as_ptr().read_volatile() }
}

/// A copy of some memory.
pub fn bytes(address: usize, len: usize) -> Vec<u8> {
    let mut copy = vec![0; len];
    // SAFETY: as for `peek`; the copy has room for `len` bytes and is the test's own.
    unsafe { pointer(address).as_ptr().copy_to_nonoverlapping(copy.as_mut_ptr(), len) };
    copy
}

pub fn poke(address: usize, value: u8) {
    // SAFETY: tests name memory of their world, which is writable underneath whatever its state.
    unsafe { pointer(address).as_ptr().write_volatile(value) }
}

/// A fault as an instruction at `0x50_0000` raises it.
pub fn fault(address: usize, access: AccessType) -> Fault {
    Fault {
        signal: 11,
        address: Some(address),
        start: None,
        decoded: false,
        access,
        size: Some(1),
        pc: 0x50_0000,
        sp: 0x7fff_0000,
        fp: 0x7fff_0040,
        caller: None,
        sent: false,
        registers: Registers::EMPTY,
        others: false,
        held: false,
        can_write: false,
        once: false,
        repeated: None,
    }
}

/// Runs what must end in a panic of the simulated system, and gives its message.
pub fn end_of(work: impl FnOnce()) -> String {
    let end = catch_unwind(AssertUnwindSafe(work)).expect_err("the process was to end");
    match end.downcast::<String>() {
        Ok(message) => *message,
        Err(end) => (*end.downcast::<&str>().expect("a message")).to_owned(),
    }
}

/// A row of numbers that is the same in every run.
pub struct Draw(pub u64);

impl Draw {
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}

/// Writes to a file of the system as another process would.
pub fn write_behind(sim: &Sim, path: &str, text: &str) {
    let file = sim.open_append(path.as_bytes()).expect("the file opens");
    sim.write(file, text.as_bytes()).expect("the write succeeds");
}
