//! Programs that die on purpose, one bug a subcommand.
//!
//! Each prints `armed` and flushes it just before its bug, and `survived` if it lives to its end. Accesses are
//! volatile and pointers go through `black_box`, so that an optimised build keeps the bug. The functions that the
//! tests look for in stacks are named after what they do (`victim_allocates`, `victim_frees`, `victim_touches`, …),
//! are never inlined, and never end in a call that could become a jump.

mod bounds;
mod calls;
mod coroutines;
mod frees;
mod growing;
mod held;
mod keyed;
mod leaks;
mod lost;
mod pointers;
mod races;
mod sealed_heap;
mod seals;
mod stacks;
mod steps;
mod steps_signals;
mod touches;
mod watched;

use touches::{Touch, armed, layout, number, victim_allocates, victim_frees, victim_touches};

#[global_allocator]
static ALLOC: fencepost::GuardedAlloc = fencepost::GuardedAlloc::new();

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let Some((name, rest)) = words.split_first() else {
        eprintln!("usage: victim NAME [ARGUMENT]...");
        std::process::exit(2);
    };
    match *name {
        "engine" => println!("{}", fencepost::stats().engine),
        "overrun" => bounds::overrun(rest),
        "overrun-realloc" => bounds::overrun_realloc(rest),
        "overrun-check" => bounds::overrun_check(rest),
        "overrun-exit" => bounds::overrun_exit(rest),
        "overrun-once" => bounds::overrun_once(rest),
        "overrun-twice" => bounds::overrun_twice(),
        "use-after-free" => frees::use_after_free(rest),
        "write-after-free" => frees::write_after_free(rest),
        "use-after-realloc" => frees::use_after_realloc(),
        "use-after-growth" => frees::use_after_growth(rest),
        "lose" => leaks::lose(rest),
        "keep" => leaks::keep(),
        "execute-freed" => frees::execute_freed(),
        "double-free" => frees::double_free(),
        "double-free-threads" => frees::double_free_threads(),
        "realloc-stale" => frees::realloc_stale(),
        "layout-mismatch" => frees::layout_mismatch(rest),
        "invalid-free" => pointers::invalid_free(rest),
        "non-canonical" => pointers::non_canonical(),
        "null" => pointers::null(),
        "wild" => pointers::wild(),
        "fill-pattern" => pointers::fill_pattern(),
        "stack-overflow" if rest == ["pthread"] => calls::overflow_c_thread(),
        "stack-overflow" => stacks::overflow(rest),
        "seal" => seals::violate(rest),
        "seal-many" => sealed_heap::many(),
        "seal-forked" => sealed_heap::forked(),
        "step" => {
            if !steps_signals::step(rest) {
                steps::step(rest);
            }
        }
        "race" if rest == ["held"] => held::held(),
        "race" if rest == ["filters"] => held::filters(),
        "race" if rest == ["key"] => keyed::keyed(),
        "race" if rest == ["crowd-cost"] => sealed_heap::crowd_cost(),
        "race" if rest == ["key-cost"] => keyed::cost(),
        "race" => races::race(rest),
        "watch" => watched::watched(rest),
        "growing" => growing::misuse(rest),
        "coroutine" => coroutines::misuse(rest),
        "memcpy" => calls::memcpy_overrun(),
        "qsort" => calls::qsort_overrun(),
        "fork" => calls::fork_overrun(),
        "two-threads" => bounds::two_threads_fault(),
        "close-all" => lost::overrun_after_close_all(),
        "raw-clone" => lost::use_after_free_in_raw_clone(),
        _ => {
            eprintln!("victim: no such bug: {name}");
            std::process::exit(2);
        }
    }
    println!("survived");
}
