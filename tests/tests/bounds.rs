//! Accesses beside a block: caught at the access on the guarded side, writes found later on the other side, and
//! reads there missed.

use crate::expected::Expected;
use crate::harness::{PLACES, Ran, everywhere, fail_on, victim};

const PAGE: usize = 4096;

/// What has to become of an access to the byte beside a block.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    AtTheAccess,
    Later,
    Missed,
}

/// The fate follows from the free bytes between that end of the block and the guard page there.
fn fate(touch: &str, side: &str, size: usize, align: usize, place: &str) -> Fate {
    let pages = size.max(1).next_multiple_of(PAGE);
    let start_gap = if place == "left" { 0 } else { (pages - size) / align.min(PAGE) * align.min(PAGE) };
    let gap = if side == "start" { start_gap } else { pages - size - start_gap };
    match (gap, touch) {
        (0, _) => Fate::AtTheAccess,
        (_, "write") => Fate::Later,
        _ => Fate::Missed,
    }
}

fn beside(touch: &'static str, side: &str, size: usize, align: usize) -> Expected<'static> {
    let (kind, place) =
        if side == "end" { ("heap-buffer-overflow", "after") } else { ("heap-buffer-underflow", "before") };
    Expected {
        kind,
        access: touch,
        access_size: Some(1),
        beside: Some((place, 0)),
        block: Some((size as u64, align as u64)),
        ..Expected::FAULT
    }
}

fn damaged(side: &str, size: usize, align: usize) -> Expected<'static> {
    let place = if side == "end" { "after" } else { "before" };
    Expected {
        kind: "redzone-corruption",
        beside: Some((place, 0)),
        block: Some((size as u64, align as u64)),
        ..Expected::FOUND
    }
}

/// A run that must have seen nothing.
fn missed(ran: &Ran) -> Vec<String> {
    let mut wrong = ran.silent(0);
    if ran.stdout != "armed\nsurvived\n" {
        wrong.extend(ran.complain(vec!["must live to its end".into()]));
    }
    wrong
}

fn overrun(size: usize, align: usize, place: &str, options: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for touch in ["read", "write"] {
        for side in ["end", "start"] {
            let ran = victim(&format!("overrun {touch} {side} {size} {align}")).options(options).run();
            wrong.extend(match fate(touch, side, size, align, place) {
                Fate::AtTheAccess => beside(touch, side, size, align).verify(&ran),
                Fate::Later => damaged(side, size, align).verify(&ran),
                Fate::Missed => {
                    println!("missed: {options}: {touch} at the {side} of {size} bytes at alignment {align}");
                    missed(&ran)
                }
            });
        }
    }
    wrong
}

#[test]
fn one_byte_beside_blocks_of_every_size() {
    everywhere(&PLACES, |place, options| {
        [1, 7, 24, 4095, 4096, 4097].into_iter().flat_map(|size| overrun(size, 1, place, options)).collect()
    });
}

#[test]
fn alignment_leaves_slack_and_the_slack_is_watched() {
    assert!(fate("write", "end", 24, 16, "right") == Fate::Later, "24 bytes at 16 leave 8 bytes of slack");
    everywhere(&PLACES, |place, options| {
        let shapes = [(24, 8), (24, 16), (100, 64), (128, 64), (4096, 4096)];
        shapes.into_iter().flat_map(|(size, align)| overrun(size, align, place, options)).collect()
    });
}

#[test]
fn blocks_aligned_to_more_than_a_page() {
    everywhere(&PLACES, |place, options| {
        let shapes = [(65_536, 65_536), (100, 65_536), (2 << 20, 2 << 20)];
        shapes
            .into_iter()
            .flat_map(|(size, align)| {
                ["read", "write"].into_iter().flat_map(move |touch| {
                    let ran = victim(&format!("overrun {touch} end {size} {align}")).options(options).run();
                    match fate(touch, "end", size, align, place) {
                        Fate::AtTheAccess => beside(touch, "end", size, align).verify(&ran),
                        Fate::Later => damaged("end", size, align).verify(&ran),
                        Fate::Missed => missed(&ran),
                    }
                })
            })
            .collect()
    });
}

#[test]
fn a_block_without_bytes_has_no_byte_to_touch() {
    everywhere(&["right"], |_, options| {
        let touches = ["read", "write"].into_iter();
        touches
            .flat_map(|touch| {
                let ran = victim(&format!("overrun {touch} end 0 1")).options(options).run();
                beside(touch, "end", 0, 1).verify(&ran)
            })
            .collect()
    });
}

#[test]
fn large_blocks_have_two_ends() {
    everywhere(&PLACES, |place, options| {
        let sizes = [(1 << 20) + 3, 100 << 20];
        sizes.into_iter().flat_map(|size| overrun(size, 1, place, options)).collect()
    });
}

#[test]
fn realloc_checks_the_block_that_it_resizes() {
    everywhere(&["right"], |_, options| {
        let ran = victim("overrun-realloc write start 24 8").options(options).run();
        Expected { access: "realloc", fault: "victim_resizes", ..damaged("start", 24, 8) }.verify(&ran)
    });
}

#[test]
fn check_finds_the_damaged_block() {
    everywhere(&["right"], |_, options| {
        let found = Expected { access: "none", fault: "overrun_check", ..damaged("start", 24, 8) };
        let ran = victim("overrun-check write start 24 8").options(options).run();
        let mut wrong = found.verify(&ran);

        let ran =
            victim("overrun-check write start 24 8").options(options).options("on_error=continue").run();
        let mut more = Vec::new();
        if ran.stdout != "armed\nchecked 1\nchecked again 0\nsurvived\n" || ran.status.code() != Some(100) {
            more.push("one damaged block is found once, and the run ends with status 100".into());
        }
        match &ran.reports[..] {
            [report] => more.extend(found.verify_report(report)),
            reports => more.push(format!("{} reports", reports.len())),
        }
        wrong.extend(ran.complain(more));
        wrong
    });
}

#[test]
fn damage_is_found_at_the_end_of_the_process() {
    everywhere(&["right"], |_, options| {
        let ran = victim("overrun-exit write start 24 8").options(options).run();
        let mut wrong = Vec::new();
        // Here `survived` is printed: the end of `main` comes before the check.
        if ran.stdout != "armed\nsurvived\n" || ran.ending() != format!("ended by signal {}", libc::SIGABRT) {
            wrong.push("must end by SIGABRT after main".into());
        }
        match &ran.reports[..] {
            [report] => {
                let found = damaged("start", 24, 8);
                wrong.extend(Expected { access: "none", ..found }.verify_report(report).into_iter().filter(
                    |line| {
                        // Who runs the check is the C library's business, and no frame of the program's.
                        !line.starts_with("fault stack")
                    },
                ));
            }
            reports => wrong.push(format!("{} reports", reports.len())),
        }
        ran.complain(wrong)
    });
}

#[test]
fn alternate_takes_both_sides_and_a_seed_takes_the_same_again() {
    let mut wrong = Vec::new();
    for engine in crate::harness::engines() {
        let mut sides = [0, 0];
        for seed in 1..=16 {
            let options = format!("engine={engine},place=alternate,seed={seed}");
            let kinds = [(); 2].map(|()| {
                let ran = victim("overrun write end 24 1").options(&options).run();
                let kind = ran
                    .reports
                    .first()
                    .map_or("none", |report| report["kind"].as_str().unwrap_or("?"))
                    .to_owned();
                wrong.extend(match kind.as_str() {
                    "heap-buffer-overflow" => beside("write", "end", 24, 1).verify(&ran),
                    _ => damaged("end", 24, 1).verify(&ran),
                });
                kind
            });
            if kinds[0] != kinds[1] {
                wrong.push(format!("{options}: once {}, once {}", kinds[0], kinds[1]));
            }
            sides[usize::from(kinds[0] == "heap-buffer-overflow")] += 1;
        }
        if sides.contains(&0) {
            wrong.push(format!("{engine}: 16 seeds took one side only"));
        }
    }
    fail_on(wrong);
}
