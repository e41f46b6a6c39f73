//! Files for reports: the raw line that is replaced by the resolved one, and what spoils that.

use fencepost_guard::{Placed, RenderStyle, Rendered};
use fencepost_record::{AccessType, Record};
use fencepost_sys::Verdict;
use fencepost_sys::sim::SimOptions;

use crate::world::{REPORT, World, current, fault, write_behind};

const RESOLVED: &str = "{\"schema\":\"fencepost-report/1\",\"resolved\":true}\n";
const RAW: &str = "{\"schema\":\"fencepost-report/1\",\"number\":1,";

fn overflow(world: World) {
    let address = world.block(24, 8);
    assert_eq!(world.raise(&fault(address + 24, AccessType::Write)), Verdict::Step);
}

fn render(_record: &Record, _style: RenderStyle, into: &mut Rendered<'_>) {
    (into.text)("body\n");
    (into.json)(RESOLVED);
}

fn render_while_another_writes(_record: &Record, _style: RenderStyle, into: &mut Rendered<'_>) {
    let world = current();
    assert!(world.lines()[0].starts_with(RAW), "the raw line is there before anything can go wrong");
    write_behind(world.sim(), REPORT, "another's line\n");
    (into.json)(RESOLVED);
}

fn render_on_a_full_disk(_record: &Record, _style: RenderStyle, into: &mut Rendered<'_>) {
    let sim = current().sim();
    sim.refuse_output(true);
    (into.text)("never seen\n");
    (into.json)(RESOLVED);
    sim.refuse_output(false);
}

fn render_nothing(_record: &Record, _style: RenderStyle, _into: &mut Rendered<'_>) {}

#[test]
fn the_resolved_line_takes_the_raw_ones_place() {
    let world = World::rendering("", render);
    overflow(world);
    assert_eq!(world.lines(), [RESOLVED.trim_end()]);
    assert!(world.stderr().ends_with("\nbody\n"), "{}", world.stderr());
}

#[test]
fn where_another_wrote_behind_it_the_raw_line_stays() {
    let world = World::rendering("", render_while_another_writes);
    overflow(world);
    let lines = world.lines();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with(RAW) && lines[0].ends_with('}'));
    assert_eq!(lines[1], "another's line", "nobody's line is lost");
}

#[test]
fn where_the_disk_is_full_one_whole_line_is_left() {
    let world = World::rendering("", render_on_a_full_disk);
    overflow(world);
    let lines = world.lines();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with(RAW) && lines[0].ends_with('}'));
    assert!(world.stderr().contains("allocated"), "the text is given with raw frames: {}", world.stderr());
}

#[test]
fn a_renderer_that_gives_nothing_leaves_the_raw_forms() {
    let world = World::rendering("", render_nothing);
    overflow(world);
    let lines = world.lines();
    assert_eq!(lines.len(), 1);
    assert!(lines[0].starts_with(RAW));
    assert!(world.stderr().contains("names could not be resolved"), "{}", world.stderr());
}

#[test]
fn without_symbolize_nothing_is_resolved_and_nothing_is_excused() {
    let world = World::rendering("symbolize=off", render);
    overflow(world);
    assert!(world.lines()[0].starts_with(RAW));
    assert!(!world.stderr().contains("names could not be resolved") && !world.stderr().contains("body"));
}

#[test]
fn reports_go_where_the_options_say() {
    let world = World::new("log=/log-%p,report=/report-%p-%p");
    overflow(world);
    let log = String::from_utf8(world.sim().file("/log-1001").expect("the log")).expect("text");
    assert!(log.starts_with("fencepost: ERROR: heap-buffer-overflow"), "{log}");
    assert_eq!(world.stderr(), "");
    assert!(world.sim().file("/report-1001-1001").is_some());
}

#[test]
fn a_file_that_cannot_be_opened_is_said_and_the_text_comes_all_the_same() {
    let world = World::new("log=/log");
    world.sim().refuse_output(true);
    overflow(world);
    world.sim().refuse_output(false);
    overflow(world);
    let log = String::from_utf8(world.sim().file("/log").unwrap_or_default()).expect("text");
    assert!(log.is_empty(), "the same error again is not told twice");
    crate::world::at(0x8_0000);
    overflow(world);
    let log = String::from_utf8(world.sim().file("/log").expect("opened now")).expect("text");
    assert!(log.starts_with("fencepost: ERROR:"), "{log}");
    assert_eq!(world.lines().len(), 1);
}

#[test]
fn a_process_first_says_that_it_has_a_guard() {
    let world = World::rendering("", render_nothing);
    let text = String::from_utf8(world.sim().file(REPORT).expect("a file")).expect("text");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.starts_with("{\"schema\":\"fencepost-start/1\",\"pid\":"), "{text}");
    overflow(world);
    let text = String::from_utf8(world.sim().file(REPORT).expect("a file")).expect("text");
    assert_eq!(text.matches("fencepost-start/1").count(), 1, "said once: {text}");
}

#[test]
fn a_child_accounts_for_what_it_allocated_itself() {
    let world = World::rendering("summary=on", render_nothing);
    for _ in 0..5 {
        world.block(24, 8);
    }
    world.sim().fork(|| {
        world.block(24, 8);
        world.block(24, 8);
        world.guard.on_leaving();
        let text = String::from_utf8(world.sim().file(REPORT).expect("a file")).expect("text");
        assert!(text.contains("\"total\":2,\"guarded\":2,"), "{text}");
        assert!(text.contains("\"live\":7,"), "and it still has what it took over: {text}");
    });
}

#[test]
fn who_stands_aside_gives_an_account_only_of_what_came_to_it() {
    for (blocks, accounts) in [(0, 0), (1, 1)] {
        let world = World::rendering("summary=on", render_nothing);
        for _ in 0..blocks {
            world.block(24, 8);
        }
        world.guard.stand_aside();
        world.guard.at_exit(0);
        let text = String::from_utf8(world.sim().file(REPORT).expect("a file")).expect("text");
        assert_eq!(text.matches("fencepost-summary/1").count(), accounts, "{text}");
        assert_eq!(world.stderr().contains("fencepost: summary:"), accounts == 1, "{}", world.stderr());
    }
}

#[test]
fn the_most_blocks_at_once_are_counted_to_the_block() {
    for (blocks, rounds) in [(1, 1), (7, 3), (64, 2), (1000, 2)] {
        let world = World::rendering("", render_nothing);
        for _ in 0..rounds {
            let all: Vec<usize> = (0..blocks).map(|_| world.block(24, 8)).collect();
            for block in all {
                world.free(block, 24, 8);
            }
        }
        world.guard.on_leaving();
        let text = String::from_utf8(world.sim().file(REPORT).expect("a file")).expect("text");
        assert!(text.contains(&format!("\"live\":0,\"live_max\":{blocks},")), "{text}");
    }
}

#[test]
fn a_program_that_is_left_alone_says_why() {
    let world = World::unstarted(SimOptions::new(), "", None);
    world.guard.decline("it has its own");
    let text = String::from_utf8(world.sim().file(REPORT).expect("a file")).expect("text");
    assert!(text.contains("\"engine\":null,\"mode\":null,"), "{text}");
    assert!(text.trim_end().ends_with("\"why_not\":\"it has its own\"}"), "{text}");
}

#[test]
fn a_runtime_that_stands_back_later_says_so_and_counts() {
    let world = World::rendering("summary=on", render_nothing);
    world.block(24, 8);
    world.guard.decline("it has its own");
    assert!(
        world.stderr().contains("from here on nothing is guarded here: it has its own"),
        "{}",
        world.stderr()
    );
    world.guard.count_stood_back();
    world.guard.on_leaving();
    let text = String::from_utf8(world.sim().file(REPORT).expect("a file")).expect("text");
    assert!(text.contains("\"engine\":\"marker\",\"mode\":\"strict\",\"exe\":"), "{text}");
    assert!(text.contains("\"why_not\":\"it has its own\"}"), "{text}");
    assert!(text.contains("\"total\":2,\"guarded\":1,") && text.contains("\"stood-back\":1}"), "{text}");
}

#[test]
fn what_the_start_asks_for_is_left_out_of_the_account() {
    let world = World::rendering("summary=on", render_nothing);
    world.block(24, 8);
    world.guard.apart_from_account(|| {
        world.block(24, 8);
        world.guard.count_stood_back();
    });
    world.block(24, 8);
    world.guard.on_leaving();
    let text = String::from_utf8(world.sim().file(REPORT).expect("a file")).expect("text");
    assert!(text.contains("\"total\":2,\"guarded\":2,") && text.contains("\"stood-back\":0}"), "{text}");
    assert!(text.contains("\"live\":3,"), "they are there all the same: {text}");
}

#[test]
fn the_first_allocation_to_fail_is_the_programs() {
    let world = World::new("fail_at=1");
    world.guard.apart_from_account(|| {
        world.block(24, 8);
    });
    assert!(matches!(world.place(24, 8), Placed::Fail));
    world.block(24, 8);
}
