//! Page sizes against each other: `cargo bench -p fencepost-memory --bench pages`, with `-- --quick` for a smaller range.
//!
//! The same random accesses over the same range, in ordinary pages, in transparent huge pages and in explicit ones. The
//! processor keeps the last translations of addresses in a small cache (the TLB); a page of 2 MiB takes one entry of it
//! where pages of 4 KiB take 512. The price is what lies unused in a page of which one byte is wanted.

#[path = "../clock.rs"]
mod clock;

use std::hint::black_box;

use fencepost_memory::{HugePages, MemoryError, Reservation, page_size};
use perf_event::events::{Cache, CacheOp, CacheResult, WhichCache};
use perf_event::{Builder, Counter};

const ACCESSES: u64 = 1 << 24;
const ROUNDS: usize = 3;

fn main() {
    let quick =
        std::env::args().any(|word| word == "--quick") || !std::env::args().any(|word| word == "--bench");
    let bytes = if quick { 256 << 20 } else { 4 << 30 };
    let mut misses = match counter() {
        Ok(counter) => Some(counter),
        Err(error) => {
            println!("no TLB misses below: this machine has no counter for them ({error})");
            None
        }
    };
    println!(
        "random reads of 8 bytes over {} MiB, {ACCESSES} a round, CPU time, the least of {ROUNDS} rounds\n",
        bytes >> 20
    );
    println!(
        "{:<26}{:>10}{:>14}{:>16}{:>30}",
        "pages", "ns a read", "x ordinary", "TLB misses", "KiB resident for 1 in 64 KiB"
    );
    let huge = fencepost_memory::huge_page_sizes();
    let kinds = [HugePages::No, HugePages::Transparent].into_iter();
    let mut ordinary = None;
    for kind in kinds.chain(huge.into_iter().filter(|size| *size <= 2 << 20).map(HugePages::Explicit)) {
        let name = match kind {
            HugePages::No => format!("{} KiB", page_size() >> 10),
            HugePages::Transparent => "transparent huge".to_owned(),
            HugePages::Explicit(size) => format!("explicit, {} KiB", size >> 10),
            _ => unreachable!("there are three kinds"),
        };
        match measure(kind, bytes, &mut misses) {
            Ok((ns, missed, resident)) => {
                let ratio = ns / *ordinary.get_or_insert(ns);
                let missed = missed.map_or("no counter".to_owned(), |missed| format!("{missed:.3} a read"));
                println!("{name:<26}{ns:>10.2}{ratio:>14.2}{missed:>16}{:>30}", resident >> 10);
            }
            Err(why) => println!("{name:<26}skipped: {why}"),
        }
    }
}

fn counter() -> std::io::Result<Counter> {
    let event = Cache { which: WhichCache::DTLB, operation: CacheOp::READ, result: CacheResult::MISS };
    Builder::new().kind(event).build()
}

type Measured = (f64, Option<f64>, usize);

fn measure(kind: HugePages, bytes: usize, misses: &mut Option<Counter>) -> Result<Measured, String> {
    let text = |error: MemoryError| error.to_string();
    let mut space =
        Reservation::builder(bytes).huge_pages(kind).name("page sizes").reserve().map_err(text)?;
    space.commit(0..bytes).map_err(text)?;
    if let (HugePages::Explicit(_), Some(error)) = (kind, space.fell_back()) {
        return Err(error.to_string());
    }
    // One byte in each 64 KiB, and what that takes; then all of it.
    let sparse = space.slice_mut(0..bytes).ok_or("not committed")?;
    (0..bytes).step_by(64 << 10).for_each(|at| sparse[at] = 1);
    black_box(&sparse);
    let resident = space.resident().map_err(text)?;
    space.populate(0..bytes).map_err(text)?;
    let words = bytes / 8;
    let slice = space.slice(0..bytes).ok_or("not committed")?;
    // SAFETY: any bytes are integers; the start is aligned to a page.
    let (_, slice, _) = unsafe { slice.align_to::<u64>() };
    let (mut least, mut missed) = (f64::MAX, None);
    for _ in 0..ROUNDS {
        if let Some(counter) = misses {
            counter.reset().and_then(|()| counter.enable()).map_err(|error| error.to_string())?;
        }
        let start = clock::cpu_ns();
        black_box(walk(slice, words));
        let ns = (clock::cpu_ns() - start) as f64 / ACCESSES as f64;
        if let Some(counter) = misses {
            counter.disable().map_err(|error| error.to_string())?;
            missed = counter.read().ok().map(|count| count as f64 / ACCESSES as f64);
        }
        least = least.min(ns);
    }
    Ok((least, missed, resident))
}

/// Reads that wait for each other: the next place depends on what was read, as in a walk through a tree.
fn walk(slice: &[u64], words: usize) -> u64 {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..ACCESSES {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        let at = (seed % words as u64) as usize;
        seed = seed.wrapping_add(slice[at] & 2);
    }
    seed
}
