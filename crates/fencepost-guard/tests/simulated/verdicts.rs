//! How the process goes on after a fault was told, and faults of the reporter itself.

use std::sync::atomic::{AtomicUsize, Ordering};

use fencepost_guard::{Placed, RenderStyle, Rendered};
use fencepost_record::{AccessType, ErrorKind, Note, Record};
use fencepost_sys::Verdict;

use crate::world::{World, current, end_of, fault, layout, pointer};

#[test]
fn abort_dies_at_the_instruction_after_report_and_summary() {
    let world = World::new("on_error=abort");
    let address = world.block(24, 8);
    assert_eq!(world.raise(&fault(address + 24, AccessType::Write)), Verdict::Die);
    let lines = world.lines();
    assert_eq!(lines.len(), 2);
    assert!(lines[0].starts_with("{\"schema\":\"fencepost-report/1\",\"number\":1"));
    assert!(lines[1].starts_with("{\"schema\":\"fencepost-summary/1\""));
    assert!(world.sim().would_trap(address + 24), "the same instruction faults again");
    let first = format!(
        "fencepost: ERROR: heap-buffer-overflow: write of 1 byte at {:#x}, 0 bytes after",
        address + 24
    );
    assert!(world.stderr().starts_with(&first), "{}", world.stderr());
}

#[test]
fn exit_ends_with_the_status() {
    let world = World::new("on_error=exit,exitcode=33,summary=on");
    let address = world.block(24, 8);
    let end = end_of(|| _ = world.raise(&fault(address + 24, AccessType::Write)));
    assert_eq!(end, "simulated exit with status 33");
    assert_eq!(world.lines().len(), 2);
    assert!(world.stderr().contains("fencepost: summary:"));
    let world = World::new("on_error=exit,exitcode=34");
    world.block(24, 8);
    let end = end_of(|| _ = world.raise(&fault(8, AccessType::Read)));
    assert_eq!(end, "simulated exit with status 34", "also for what is not the heap's");
}

#[test]
fn continue_steps_over_and_tells_each_error_once() {
    for engine in ["engine=move", "engine=marker", "engine=mprotect"] {
        let world = World::new(engine);
        let address = world.block(24, 8);
        for _ in 0..3 {
            assert_eq!(world.raise(&fault(address + 24, AccessType::Write)), Verdict::Step);
            assert!(world.sim().would_trap(address + 24), "{engine}");
        }
        assert_eq!(world.records().len(), 1, "{engine}");
        world.free(address, 24, 8);
        assert_eq!(world.raise(&fault(address, AccessType::Read)), Verdict::Step);
        assert!(world.sim().would_trap(address), "{engine}");
        assert_eq!(world.record().kind, ErrorKind::UseAfterFree);
        world.sim().assert_no_violations();
    }
}

#[test]
fn a_page_that_cannot_be_opened_ends_the_process() {
    for engine in ["engine=move", "engine=marker", "engine=mprotect"] {
        let world = World::new(engine);
        let address = world.block(24, 8);
        world.sim().fail_from(1);
        let end = end_of(|| _ = world.raise(&fault(address + 24, AccessType::Write)));
        assert_eq!(end, "simulated abort", "it would fault for ever");
        assert_eq!(world.lines().len(), 1, "the report was written before");
    }
}

static RENDERED: AtomicUsize = AtomicUsize::new(0);

/// Allocates as resolvers do, and faults by itself.
fn allocate_in_the_arena(_record: &Record, style: RenderStyle, into: &mut Rendered<'_>) {
    RENDERED.fetch_add(1, Ordering::Relaxed);
    let world = current();
    let wanted = layout(1000, 64);
    let Placed::Here(block) = world.guard.allocate(wanted, false, 0) else { panic!("the arena serves") };
    assert!(!world.guard.is_heap(block.as_ptr().addr()), "not a guarded block");
    assert_eq!(block.as_ptr().addr() % 64, 0);
    // What is freed here wrongly is the renderer's own fault.
    world.free(block.as_ptr().addr(), 1000, 64);
    let Placed::Here(again) = world.guard.allocate(wanted, false, 0) else { panic!("the arena serves") };
    assert_eq!(again, block, "freed memory of the arena is used again");
    (into.text)("the body of the text\n");
    assert!(style.json);
    (into.json)("{\"schema\":\"fencepost-report/1\",\"resolved\":true}\n");
}

#[test]
fn the_renderer_allocates_from_its_own_arena() {
    let world = World::rendering("", allocate_in_the_arena);
    let address = world.block(24, 8);
    let before = world.guard.stats().map(|stats| stats.total);
    assert_eq!(world.raise(&fault(address + 24, AccessType::Write)), Verdict::Step);
    assert_eq!(RENDERED.load(Ordering::Relaxed), 1);
    assert_eq!(world.guard.stats().map(|stats| stats.total), before, "no block of the program");
    assert!(world.stderr().ends_with("the body of the text\n"), "{}", world.stderr());
    assert_eq!(
        world.lines(),
        ["{\"schema\":\"fencepost-report/1\",\"resolved\":true}"],
        "the raw line is replaced"
    );
    assert!(!world.record().notes.has(Note::NotResolved));
    assert_eq!(world.sim().watchdogs(), [30_000, 0], "a renderer that hangs is ended");
    let block = world.block(24, 8);
    assert!(world.guard.is_heap(block), "after that the program's blocks are guarded again");
}

#[test]
fn a_fault_while_reporting_ends_the_process_as_it_would_have() {
    let world = World::new("");
    let address = world.block(24, 8);
    world.free(address, 24, 8);
    world.free(address, 24, 8);
    let mut verdicts = Vec::new();
    // A drain holds the reporter as a report does.
    world.guard.drain(&mut |_| verdicts.push(world.raise(&fault(address, AccessType::Read))));
    assert_eq!(verdicts, [Verdict::Die]);
    assert!(world.stderr().contains("fencepost: fault while reporting"));
    assert_eq!(world.raise(&fault(address, AccessType::Read)), Verdict::Step, "later ones are told again");
}

#[test]
fn an_error_of_the_renderer_is_no_error_of_the_program() {
    fn free_twice(_record: &Record, _style: RenderStyle, into: &mut Rendered<'_>) {
        let world = current();
        let dead = DEAD.load(Ordering::Relaxed);
        world.guard.free(pointer(dead), layout(24, 8), AccessType::Free, 0);
        (into.text)("body\n");
    }
    static DEAD: AtomicUsize = AtomicUsize::new(0);
    let world = World::rendering("", free_twice);
    let address = world.block(24, 8);
    world.free(address, 24, 8);
    DEAD.store(address, Ordering::Relaxed);
    world.free(address, 24, 8);
    assert_eq!(world.record().kind, ErrorKind::DoubleFree);
    assert_eq!(world.lines().len(), 1, "one report, with the raw line where no other was given");
}

#[test]
fn a_program_that_takes_our_handlers_place_is_noticed() {
    let world = World::new("");
    let address = world.block(24, 8);
    world.sim().replace_handler();
    assert_eq!(world.sim().raise(&fault(address + 24, AccessType::Read)), None);
    let held: Vec<usize> = (0..70).map(|_| world.block(24, 8)).collect();
    assert!(world.sim().raise(&fault(address + 24, AccessType::Read)).is_some(), "in force again");
    assert_eq!(held.len(), 70);
}
