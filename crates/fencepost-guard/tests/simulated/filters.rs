//! Filters by thread, module, function and site.

use fencepost_guard::Placed;
use fencepost_record::{Module, Text, Unguarded};
use fencepost_sys::sim::SimOptions;

use crate::world::{REPORT, World, at, stack};

/// A world with two modules: the program at 0x400000 and a library at 0x800000.
fn with_modules(options: &str, program: u64) -> World {
    let world = World::unstarted(SimOptions::new(), options, None);
    let module = |start: u64, path: &str| Module {
        start,
        end: start + 0x10_0000,
        bias: start,
        path: Text::new(path.as_bytes()),
        ..Module::default()
    };
    world.sim().set_modules(&[module(program, "/bin/program"), module(0x80_0000, "/lib/libz.so.1")]);
    world.guard.start("");
    world
}

/// Whether a block is guarded when this is the stack.
fn guarded(world: World, frames: &[u64]) -> bool {
    stack(frames);
    match world.place(24, 8) {
        Placed::Here(block) => {
            world.free(block.as_ptr().addr(), 24, 8);
            true
        }
        _ => false,
    }
}

const PROGRAM: u64 = 0x40_0000;

#[test]
fn the_innermost_frame_says_which_module_asks() {
    let (own, library) = ([0x40_1010, 0x40_2010], [0x80_1010, 0x40_2010]);
    for (options, expected) in [
        ("only_module=libz.so*", [false, true]),
        ("skip_module=libz.so.1", [true, false]),
        ("only_module=program,skip_module=lib*", [true, false]),
        ("only_module=z", [false, false]),
    ] {
        let world = with_modules(options, PROGRAM);
        for _ in 0..3 {
            assert_eq!([guarded(world, &own), guarded(world, &library)], expected, "{options}");
        }
        let left_out = 3 * expected.iter().filter(|wanted| !**wanted).count() as u64;
        assert_eq!(world.unguarded(Unguarded::Filter), left_out);
    }
}

#[test]
fn any_frame_says_which_function_is_at_work() {
    let (in_it, below, beside) =
        ([0x40_1010, 0x40_5010], [0x40_2010, 0x40_1020, 0x40_5010], [0x40_2010, 0x40_5010]);
    for (options, expected) in [
        ("only_fn=code_401", [true, true, false]),
        ("skip_fn=code_401", [false, false, true]),
        ("only_fn=code_?02", [false, true, true]),
    ] {
        let world = with_modules(options, PROGRAM);
        assert_eq!([&in_it[..], &below, &beside].map(|frames| guarded(world, frames)), expected, "{options}");
    }
}

/// The site that a report tells for a block with this stack, in a program loaded at `base`.
fn site(base: u64, frames: &[u64]) -> String {
    let world = with_modules("", base);
    stack(frames);
    let block = world.block(24, 8);
    world.free(block, 24, 8);
    world.free(block, 24, 8);
    let site = world.record().block.and_then(|block| block.site).expect("the site is told");
    let site = format!("{site:#x}");
    let told = String::from_utf8(world.sim().file(REPORT).expect("a file")).expect("text");
    assert!(
        told.contains(&format!("\"site\":\"{site}\"")) && told.contains(&format!("only_site={site}'")),
        "{told}"
    );
    site
}

#[test]
fn the_site_of_a_report_chooses_its_blocks_wherever_the_program_lies() {
    let frames = |base: u64| [base + 0x1010, base + 0x2020, base + 0x3030];
    let here = site(PROGRAM, &frames(PROGRAM));
    assert_ne!(here, site(PROGRAM, &[0x40_1018, 0x40_2020, 0x40_3030]), "another call");
    assert_ne!(here, site(PROGRAM, &[0x40_1010, 0x40_2020]), "another way there");
    let world = with_modules(&format!("only_site={here}"), PROGRAM);
    for _ in 0..3 {
        assert!(guarded(world, &frames(PROGRAM)));
        assert!(!guarded(world, &[0x40_1018, 0x40_2020, 0x40_3030]));
        assert!(!guarded(world, &[]), "without a stack there is no site");
    }
    let world = with_modules(&format!("skip_site={here}"), PROGRAM);
    assert!(!guarded(world, &frames(PROGRAM)) && guarded(world, &[0x40_1018, 0x40_2020]));
}

/// What a run of that program said of its sites at its end, as one line; and of people's text.
fn sites_told(options: &str, blocks: usize) -> (String, String) {
    let world = with_modules(&format!("report={REPORT},{options}"), PROGRAM);
    stack(&[PROGRAM + 0x1010, PROGRAM + 0x2020]);
    for round in 0..blocks {
        world.sim().advance_ms(usize::from(round % 64 == 0) as u64);
        if let Placed::Here(block) = world.place(24, 8) {
            world.free(block.as_ptr().addr(), 24, 8);
        }
    }
    world.guard.at_exit(0);
    let told = String::from_utf8(world.sim().file(REPORT).expect("a file")).expect("text");
    let line = told.lines().find(|line| line.starts_with("{\"schema\":\"fencepost-sites/1\"")).unwrap_or("");
    (line.to_owned(), world.stderr())
}

#[test]
fn a_run_that_leaves_blocks_out_tells_its_sites_and_others_do_not() {
    let here = site(PROGRAM, &[PROGRAM + 0x1010, PROGRAM + 0x2020]);
    for options in ["mode=sample,sample_rate=100", "mode=budget,budget=1"] {
        crate::world::walks_take(if options.contains("budget") { 2_000 } else { 0 });
        let (line, text) = sites_told(&format!("{options},summary=on"), 5_000);
        crate::world::walks_take(0);
        assert!(line.contains(&format!("{{\"site\":\"{here}\",\"size\":24,\"uses\":")), "{options}: {line}");
        assert!(line.contains("\"function\":\"code_401"), "{options}: {line}");
        assert!(
            line.contains(",mode=strict,only_site=") && text.contains(",mode=strict,only_site="),
            "{line}\n{text}"
        );
    }
    for options in ["mode=strict", "mode=off", "mode=budget", "mode=sample,stack_depth=0"] {
        // Nothing is left out, or no stack is known.
        assert_eq!(sites_told(options, 50).0, "", "{options}");
    }
}

#[test]
fn threads_are_chosen_by_name_also_when_they_get_it_late() {
    for (options, expected) in
        [("only_thread=worker-?", [true, false]), ("skip_thread=worker*", [false, true])]
    {
        let world = World::new(options);
        // The first thread that is seen is the process's own, whose name is `main`.
        let main = matches!(world.place(24, 8), Placed::Here(_));
        assert_eq!(main, options.starts_with("skip"), "{options}");
        let on = |name: &str| {
            let run = move || {
                world.enter();
                at(0x5_0000);
                let guarded = matches!(world.place(24, 8), Placed::Here(_));
                world.sim().end_thread();
                guarded
            };
            std::thread::Builder::new()
                .name(name.to_owned())
                .spawn(run)
                .expect("a thread")
                .join()
                .expect("no panic")
        };
        assert_eq!([on("worker-1"), on("other")], expected, "{options}");
    }
}
