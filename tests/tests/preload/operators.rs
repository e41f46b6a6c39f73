//! `tests/c/operators.cpp`: every form of operator new and delete; and that every name is exported which a program may bind.

use std::process::Command;

use super::{built, built_with, library, preloaded};
use crate::harness::{everywhere, fail_on};

/// Of C, what a program must not get from one heap and give to another; of C++, 8 forms that give and 12 that take.
const NAMES: &str = "malloc calloc realloc reallocarray free cfree memalign aligned_alloc posix_memalign valloc pvalloc malloc_usable_size \
    mallinfo mallinfo2 malloc_info malloc_stats malloc_trim mallopt free_sized free_aligned_sized \
    _Znwm _Znam _ZnwmRKSt9nothrow_t _ZnamRKSt9nothrow_t _ZnwmSt11align_val_t _ZnamSt11align_val_t \
    _ZnwmSt11align_val_tRKSt9nothrow_t _ZnamSt11align_val_tRKSt9nothrow_t \
    _ZdlPv _ZdaPv _ZdlPvm _ZdaPvm _ZdlPvRKSt9nothrow_t _ZdaPvRKSt9nothrow_t _ZdlPvSt11align_val_t _ZdaPvSt11align_val_t \
    _ZdlPvmSt11align_val_t _ZdaPvmSt11align_val_t _ZdlPvSt11align_val_tRKSt9nothrow_t _ZdaPvSt11align_val_tRKSt9nothrow_t \
    pthread_create sigaction pthread_sigmask sigprocmask prctl setrlimit";

#[test]
fn every_form_of_new_and_delete_keeps_its_rules() {
    let Some(program) = built("operators.cpp") else { return };
    everywhere(&["right", "left"], |_, options| {
        let ran = preloaded(program, "").options(options).run();
        let mut wrong = ran.silent(0);
        if ran.stdout != "0 broken\n" {
            wrong.extend(ran.complain(vec!["rules are broken".into()]));
        }
        wrong
    });
}

/// The program's half is on malloc: that the library's half takes it back is no error of the program's.
#[test]
fn a_program_with_one_operator_of_its_own_is_not_accused() {
    let Some(program) = built_with("operators.cpp", "own", &["-DOWN"]) else { return };
    let ran = preloaded(program, "").run();
    assert_eq!(ran.stdout, "0 broken\n", "{}", ran.stderr);
    fail_on(ran.silent(0));
    assert!(ran.summaries[0]["guarded"].as_u64() > Some(10), "{}", ran.summaries[0]);
}

#[test]
fn every_name_that_a_program_may_bind_is_exported() {
    let listed = match Command::new("nm").args(["--dynamic", "--defined-only", library()]).output() {
        Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Err(error) => return println!("skipped: no nm: {error}"),
    };
    let exported: Vec<&str> = listed.lines().filter_map(|line| line.split_whitespace().nth(2)).collect();
    let missing: Vec<&str> = NAMES.split_whitespace().filter(|name| !exported.contains(name)).collect();
    assert!(missing.is_empty(), "not exported: {missing:?}");
}
