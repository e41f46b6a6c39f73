//! Programs without a bug: the guard must stay silent, and change nothing that they print.
//!
//! Output that two runs must have in common goes to standard output; measurements, which differ, go to standard
//! error after the word `figure:`. A program that finds a bound broken or a content damaged panics.

mod api;
mod churn;
mod coroutines;
mod growing;
mod guards_right;
mod limits;
mod marked;
mod process;
mod shapes;

use marked::{Dice, Marked};

#[global_allocator]
static ALLOC: fencepost::GuardedAlloc = fencepost::GuardedAlloc::new();

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |index: usize| -> usize {
        let word = arguments.get(index).map(String::as_str).unwrap_or_default();
        word.parse().unwrap_or_else(|_| {
            eprintln!("clean: argument {index} is no number: {word:?}");
            std::process::exit(2);
        })
    };
    match arguments.first().map(String::as_str) {
        Some("work") => shapes::work(),
        Some("realloc-growth") => shapes::realloc_growth(),
        Some("large-growth") => process::large_growth(),
        Some("over-aligned") => shapes::over_aligned(),
        Some("zero-size") => shapes::zero_size(),
        Some("sizes") => shapes::sizes(),
        Some("thread-churn") => churn::thread_churn(number(1)),
        Some("exchange") => churn::exchange(number(1)),
        Some("tls-destructors") => churn::tls_destructors(number(1)),
        Some("short-threads") => limits::short_threads(number(1), number(2)),
        Some("live-blocks") => limits::live_blocks(number(1)),
        Some("many-live") => limits::many_live(number(1)),
        Some("no-memory") => limits::no_memory(),
        Some("fork") => process::fork_threaded(number(1)),
        Some("fork-in-handlers") => process::fork_in_handlers(number(1)),
        Some("exit") => std::process::exit(i32::try_from(number(1)).expect("a status")),
        Some("panics") => api::panics(),
        Some("api") => api::api(),
        Some("growing") => growing::allocators(),
        Some("coroutines") => coroutines::take_turns(),
        Some("close-all") => guards_right::close_all_and_work(),
        Some("raw-clone") => guards_right::raw_clone(),
        Some("borrowed-memory") => guards_right::borrowed_memory(),
        Some("lock-memory") => guards_right::lock_memory(),
        Some("drop-own-pages") => guards_right::drop_own_pages(),
        Some("forbid-ioctl") => guards_right::forbid_ioctl(),
        other => {
            eprintln!("clean: no such program: {other:?}");
            std::process::exit(2);
        }
    }
}
