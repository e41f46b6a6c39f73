//! Programs that die on purpose, built for any system: the victims of the main tests that ask the system for nothing, and a
//! program without a bug.

#[path = "../../src/bin/clean/api.rs"]
mod api;
#[path = "../../src/bin/victim/bounds.rs"]
mod bounds;
#[path = "../../src/bin/clean/churn.rs"]
mod churn;
#[path = "../../src/bin/clean/growing.rs"]
mod clean;
#[path = "../../src/bin/clean/coroutines.rs"]
mod clean_coroutines;
#[path = "../../src/bin/victim/coroutines.rs"]
mod coroutines;
#[path = "../../src/bin/victim/frees.rs"]
mod frees;
#[path = "../../src/bin/victim/growing.rs"]
mod growing;
#[path = "../../src/bin/victim/leaks.rs"]
mod leaks;
#[path = "../../src/bin/clean/marked.rs"]
mod marked;
mod pairs;
#[path = "../../src/bin/victim/pointers.rs"]
mod pointers;
#[path = "../../src/bin/victim/races.rs"]
mod races;
#[path = "../../src/bin/victim/seals.rs"]
mod seals;
#[path = "../../src/bin/clean/shapes.rs"]
mod shapes;
#[path = "../../src/bin/victim/stacks.rs"]
mod stacks;
#[path = "../../src/bin/victim/steps.rs"]
mod steps;
#[path = "../../src/bin/victim/touches.rs"]
mod touches;

use marked::{Dice, Marked};
use touches::{Touch, armed, layout, number, victim_allocates, victim_frees, victim_touches};

#[global_allocator]
static ALLOC: fencepost::GuardedAlloc = fencepost::GuardedAlloc::new();

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (name, rest) = words.split_first().expect("a name");
    match *name {
        "overrun" => bounds::overrun(rest),
        "overrun-realloc" => bounds::overrun_realloc(rest),
        "overrun-exit" => bounds::overrun_exit(rest),
        "overrun-once" => bounds::overrun_once(rest),
        "overrun-twice" => bounds::overrun_twice(),
        "overrun-check" => bounds::overrun_check(rest),
        "use-after-free" => frees::use_after_free(rest),
        "use-after-growth" => frees::use_after_growth(rest),
        "use-after-realloc" => frees::use_after_realloc(),
        "write-after-free" => frees::write_after_free(rest),
        "execute-freed" => frees::execute_freed(),
        "double-free" => frees::double_free(),
        "double-free-threads" => frees::double_free_threads(),
        "realloc-stale" => frees::realloc_stale(),
        "layout-mismatch" => frees::layout_mismatch(rest),
        "invalid-free" => pointers::invalid_free(rest),
        "non-canonical" => pointers::non_canonical(),
        "null" => pointers::null(),
        "fill-pattern" => pointers::fill_pattern(),
        "wild" => pointers::wild(),
        "seal" => seals::violate(rest),
        "growing" => growing::misuse(rest),
        "coroutine" => coroutines::misuse(rest),
        "clean" => clean::allocators(),
        "coroutines" => clean_coroutines::take_turns(),
        "two-threads" => bounds::two_threads_fault(),
        "stack-overflow" => stacks::overflow(rest),
        "step" => steps::step(rest),
        "race" => races::race(rest),
        "lose" => leaks::lose(rest),
        "keep" => leaks::keep(),
        "work" => shapes::work(),
        "realloc-growth" => shapes::realloc_growth(),
        "over-aligned" => shapes::over_aligned(),
        "zero-size" => shapes::zero_size(),
        "sizes" => shapes::sizes(),
        "thread-churn" => churn::thread_churn(number(rest, 0)),
        "exchange" => churn::exchange(number(rest, 0)),
        "tls-destructors" => churn::tls_destructors(number(rest, 0)),
        "panics" => api::panics(),
        "api" => api::api(),
        "pairs" => pairs::measure(),
        other => panic!("no such bug: {other}"),
    }
    println!("survived {}", fencepost::stats().engine);
}
