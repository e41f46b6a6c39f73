//! `tests/c/matrix.c`: errors by size and offset. `scripts/matrix` runs all of it, beside other tools; here is a part.

use super::{built, preloaded};
use crate::harness::{everywhere, fail_on};

/// Sizes below and at the alignment, with slack, and of more than a page.
const SIZES: [u64; 4] = [7, 16, 100, 5000];

/// Operations that must be found for every size and offset, whichever way the block lies.
const ALWAYS: &[(&str, &[i64])] = &[
    ("write-past", &[0, 7, 16, 4095]),
    ("write-past-zero", &[0]),
    ("write-past-leak", &[0]),
    ("write-past-realloc", &[0]),
    ("write-past-calloc", &[0]),
    ("write-before", &[1, 64]),
    ("write-before-leak", &[1]),
    ("uaf-read", &[0, 1000]),
    ("uaf-write", &[0]),
    ("uaf-samesize", &[100]),
    ("uaf-thread", &[100]),
    ("uaf-realloc-moved", &[0]),
    ("uaf-thread2", &[0]),
    ("uaf-memcpy", &[0]),
    ("double-free", &[0, 1000]),
    ("double-free-thread", &[0]),
    ("double-free-samesize", &[0]),
    ("realloc-freed", &[0]),
    ("usable-freed", &[0]),
    ("free-inside", &[1, 8, 15]),
    ("free-stack", &[0]),
    ("free-static", &[0]),
    ("free-mmapish", &[0]),
    ("free-odd", &[0]),
    ("syscall-read-past", &[1, 16]),
    ("syscall-uaf", &[0]),
];

#[test]
fn every_write_and_every_use_after_free_is_found() {
    let Some(program) = built("matrix.c") else { return };
    everywhere(&["right", "left"], |_, options| {
        let mut wrong = Vec::new();
        for (operation, numbers) in ALWAYS {
            for size in SIZES {
                // A byte one past a block of one byte is inside another test; freeing inside needs an inside.
                if *operation == "free-inside" && size < 16 {
                    continue;
                }
                for number in *numbers {
                    let arguments = format!("{operation} {size} {number}");
                    let ran = preloaded(program, &arguments).options(options).options("symbolize=off").run();
                    if ran.reports.len() != 1 || ran.status.success() {
                        wrong.extend(ran.complain(vec![format!("{} reports", ran.reports.len())]));
                    }
                }
            }
        }
        wrong
    });
}

#[test]
fn reads_are_found_beyond_the_alignment() {
    let Some(program) = built("matrix.c") else { return };
    let mut wrong = Vec::new();
    for size in SIZES {
        for past in [0, 8, 9, 12, 4095] {
            let slack = size.next_multiple_of(16) - size;
            for (options, seen) in [("align=natural", past >= slack), ("align=exact", true)] {
                let ran = preloaded(program, &format!("read-past {size} {past}")).options(options).run();
                if ran.reports.len() != usize::from(seen) {
                    wrong.extend(ran.complain(vec![format!("{} reports", ran.reports.len())]));
                }
            }
        }
    }
    fail_on(wrong);
}

#[test]
fn a_program_without_errors_is_silent() {
    let Some(program) = built("matrix.c") else { return };
    everywhere(&["right", "left"], |_, options| {
        SIZES
            .iter()
            .flat_map(|size| preloaded(program, &format!("none {size} 0")).options(options).run().silent(0))
            .collect()
    });
}
