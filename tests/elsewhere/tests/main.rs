//! Programs that die, built for any system: their reports.

mod expected;
mod harness;

use expected::{Expected, FAULT, all};
use harness::run;

#[test]
fn overruns_trap_at_the_byte() {
    let over = || Expected { kind: "heap-buffer-overflow", beside: Some(("after", 0)), ..FAULT };
    let cases = [16, 24, 4096, 5000, 1 << 20].into_iter().flat_map(|size| {
        ["read", "write"].map(|access| {
            (format!("overrun {access} end {size} 8"), "place=right", Expected { access, ..over() })
        })
    });
    all(cases);
}

#[test]
fn underruns_trap_at_the_byte() {
    let under = || Expected { kind: "heap-buffer-underflow", beside: Some(("before", 0)), ..FAULT };
    let cases = ["read", "write"]
        .map(|access| (format!("overrun {access} start 24 8"), "place=left", Expected { access, ..under() }));
    all(cases);
}

#[test]
fn a_write_on_the_other_side_is_found_at_free() {
    let stacks = ["victim_frees", "victim_allocates", ""];
    let found = Expected { kind: "redzone-corruption", access: "free", stacks, ..FAULT };
    all([("overrun write start 24 8".to_owned(), "place=right", found)]);
}

fn dead(access: &'static str, offset: u64) -> Expected {
    Expected {
        kind: "use-after-free",
        access,
        beside: Some(("inside", offset)),
        state: Some("freed"),
        stacks: ["victim_touches", "victim_allocates", "victim_frees"],
    }
}

#[test]
fn uses_after_free_trap_at_once_and_later() {
    all([
        ("use-after-free read 24 8 0".to_owned(), "", dead("read", 8)),
        ("use-after-free write 5000 4999 0".to_owned(), "", dead("write", 4999)),
        ("use-after-free read 24 8 2000".to_owned(), "", dead("read", 8)),
        ("use-after-free write 1048576 123 0".to_owned(), "", dead("write", 123)),
    ]);
}

#[test]
fn wrong_frees_are_found_at_the_call() {
    let twice = |function| Expected {
        kind: "double-free",
        stacks: [function, "victim_allocates", "victim_frees"],
        ..dead("free", 0)
    };
    let mismatch = Expected {
        kind: "layout-mismatch",
        access: "free",
        stacks: ["victim_mismatches", "victim_allocates", ""],
        ..FAULT
    };
    let invalid = Expected {
        kind: "invalid-free",
        access: "free",
        state: None,
        stacks: ["victim_frees", "", ""],
        ..FAULT
    };
    all([
        ("double-free".to_owned(), "", twice("victim_frees_again")),
        ("double-free-threads".to_owned(), "", twice("victim_frees_again")),
        ("realloc-stale".to_owned(), "", Expected { access: "realloc", ..twice("victim_resizes") }),
        ("layout-mismatch dealloc 23 8".to_owned(), "", mismatch),
        ("invalid-free global".to_owned(), "", invalid),
    ]);
}

#[test]
fn writes_to_sealed_memory_trap() {
    let violation = Expected { kind: "seal-violation", access: "write", ..FAULT };
    let foreign = || Expected {
        kind: "seal-violation",
        access: "write",
        state: None,
        stacks: ["victim_touches", "", ""],
        ..FAULT
    };
    all([
        ("seal block".to_owned(), "", violation),
        ("seal static".to_owned(), "", foreign()),
        ("seal mapping".to_owned(), "", foreign()),
    ]);
    let ran = run("seal unsealed", "");
    assert!(ran.output.status.success() && ran.reports.is_empty(), "{}", ran.complain("must live".into()));
}

#[test]
fn wild_pointers_are_described() {
    let wild =
        |kind, access| Expected { kind, access, state: None, stacks: ["victim_touches", "", ""], ..FAULT };
    all([
        ("null".to_owned(), "", wild("null-dereference", "read")),
        ("wild".to_owned(), "", wild("wild-access", "write")),
    ]);
}

#[test]
fn growing_allocators_are_guarded() {
    let region =
        |kind, access| Expected { kind, access, state: None, stacks: ["victim_touches", "", ""], ..FAULT };
    all([
        ("growing arena-past".to_owned(), "", region("heap-buffer-overflow", "write")),
        ("growing arena-end".to_owned(), "", region("heap-buffer-overflow", "write")),
        ("growing arena-rewound".to_owned(), "", region("use-after-free", "write")),
        ("growing pool-freed".to_owned(), "", region("use-after-free", "read")),
        ("growing vec-cut".to_owned(), "", region("use-after-free", "read")),
    ]);
}

#[test]
fn the_overflow_of_a_growing_stack_is_described() {
    let stacks = ["victim_recurses", "", ""];
    let overflow = Expected { kind: "stack-overflow", access: "write", state: None, stacks, ..FAULT };
    all([("growing call-stack".to_owned(), "", overflow)]);
}

#[test]
fn errors_on_coroutines_are_reported() {
    let stacks = ["victim_touches", "victim_allocates", ""];
    let overrun = Expected { kind: "heap-buffer-overflow", access: "write", stacks, ..FAULT };
    let stacks = ["victim_descends", "", ""];
    let overflow = Expected { kind: "stack-overflow", access: "write", state: None, stacks, ..FAULT };
    all([
        ("coroutine overrun above".to_owned(), "", overrun),
        ("coroutine overrun below".to_owned(), "", overrun),
        ("coroutine overflow".to_owned(), "", overflow),
    ]);
}

#[test]
fn a_program_without_a_bug_is_left_alone() {
    for program in ["clean", "coroutines"] {
        let ran = run(program, "");
        let stdout = String::from_utf8_lossy(&ran.output.stdout);
        assert!(
            ran.output.status.success() && ran.reports.is_empty() && stdout.contains("survived"),
            "{}",
            ran.complain("must live in silence".into())
        );
        println!("engine:{}", stdout.rsplit("survived").next().unwrap_or_default());
    }
}

#[test]
fn a_program_goes_on_where_it_is_told_to() {
    let ran = run("overrun write end 24 8", "on_error=continue");
    let stdout = String::from_utf8_lossy(&ran.output.stdout);
    assert!(
        ran.output.status.code() == Some(100) && ran.reports.len() == 1 && stdout.contains("survived"),
        "{}",
        ran.complain("must report and live".into())
    );
}
