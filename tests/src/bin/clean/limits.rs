//! Programs that go to the limits of the machine, and measure what the guard costs there.

use std::alloc::{Layout, alloc, dealloc};
use std::fs::read_to_string;
use std::hint::black_box;

/// What the kernel says this process holds.
#[derive(Clone, Copy, Debug)]
struct Held {
    resident_kib: usize,
    page_tables_kib: usize,
    mappings: usize,
}

impl Held {
    fn now() -> Held {
        let status = read_to_string("/proc/self/status").expect("/proc");
        let field = |name: &str| -> usize {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a field of status");
            line.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number")
        };
        Held {
            resident_kib: field("VmRSS:"),
            page_tables_kib: field("VmPTE:"),
            mappings: read_to_string("/proc/self/maps").expect("/proc").lines().count(),
        }
    }
}

/// Many threads one after another, a few at once: what they leave behind must stay the same, but for the records of
/// their freed blocks, which may take up to `records_kib`.
pub fn short_threads(threads: usize, records_kib: usize) {
    let wave = |count: usize| {
        for _ in 0..count / 4 {
            let four: [_; 4] = std::array::from_fn(|index| {
                std::thread::spawn(move || {
                    let words: Vec<String> = (0..4).map(|n| format!("thread word {index} {n}")).collect();
                    words.iter().map(String::len).sum::<usize>()
                })
            });
            for thread in four {
                assert!(thread.join().expect("a thread that ends") > 0);
            }
        }
    };
    // The first fifth fills what is kept for threads to come.
    wave(threads / 5);
    let early = Held::now();
    wave(threads - threads / 5);
    let late = Held::now();
    eprintln!("figure: after {} threads {early:?}, after {threads} {late:?}", threads / 5);
    let (before, after) =
        (early.resident_kib + early.page_tables_kib, late.resident_kib + late.page_tables_kib);
    let growth = after.saturating_sub(before);
    eprintln!("figure: {growth} KiB more, {} bytes a thread", growth * 1024 / (threads - threads / 5));
    assert!(growth < 16 * 1024 + before / 4 + records_kib, "memory grew from {before} to {after} KiB");
    // Each of 32 arenas may have come to its next chunk or two meanwhile, of two mappings and a gap.
    assert!(
        late.mappings < early.mappings + 40 + 32 * 2 * 2,
        "mappings grew from {} to {}",
        early.mappings,
        late.mappings
    );
    println!("{threads} threads");
}

fn fill(count: usize) -> Vec<*mut u8> {
    let layout = Layout::from_size_align(64, 8).expect("a layout");
    (0..count)
        .map(|index| {
            // SAFETY: the size is not 0, and the write stays within it.
            unsafe {
                let block = alloc(layout);
                assert!(!block.is_null(), "no memory for block {index}");
                block.cast::<usize>().write_volatile(index);
                black_box(block)
            }
        })
        .collect()
}

fn verify_and_free(blocks: Vec<*mut u8>) {
    let layout = Layout::from_size_align(64, 8).expect("a layout");
    for (index, block) in blocks.into_iter().enumerate() {
        // SAFETY: each block came from `fill` with this layout and is freed once.
        unsafe {
            assert_eq!(block.cast::<usize>().read_volatile(), index);
            dealloc(block, layout);
        }
    }
}

/// That many live blocks of 64 bytes, each a page of its own: mappings under 200, and no more than 5% over a page
/// and 128 bytes for each.
pub fn live_blocks(count: usize) {
    let mut blocks = Vec::with_capacity(count);
    blocks.resize(count, std::ptr::null_mut());
    let before = Held::now();
    let filled = fill(count);
    blocks.copy_from_slice(&filled);
    let after = Held::now();
    drop(filled);
    // `filled` held a pointer for each, beside the blocks themselves.
    let grown = (after.resident_kib + after.page_tables_kib) - (before.resident_kib + before.page_tables_kib);
    let bytes = (grown * 1024) as f64 / count as f64 - 8.0;
    let guarded = fencepost::stats();
    eprintln!(
        "figure: {count} live blocks: {} mappings, {bytes:.0} bytes a block, {guarded:?}",
        after.mappings
    );
    assert!(after.mappings < 200, "{} mappings", after.mappings);
    assert!(bytes <= (4096.0 + 128.0) * 1.05, "{bytes} bytes a block");
    verify_and_free(blocks);
    println!("{count} blocks");
}

/// That many live blocks, and nothing is asked of memory and mappings but to live.
pub fn many_live(count: usize) {
    let blocks = fill(count);
    eprintln!("figure: {:?}", Held::now());
    verify_and_free(blocks);
    println!("{count} blocks");
}

/// Asks for more than there is: must get null, and go on.
pub fn no_memory() {
    let huge = Layout::from_size_align(1 << 46, 8).expect("a layout");
    // SAFETY: the size is not 0.
    let nothing = std::hint::black_box(unsafe { alloc(std::hint::black_box(huge)) });
    assert!(nothing.is_null());
    let mut small: Vec<Vec<u8>> = Vec::new();
    assert!(Vec::<u8>::new().try_reserve_exact(1 << 45).is_err());
    small.extend((0..1000).map(|n| vec![n as u8; 100]));
    println!("null, and then {} bytes", small.iter().map(Vec::len).sum::<usize>());
}
