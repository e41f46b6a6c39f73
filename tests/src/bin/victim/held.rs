//! Seals of several kinds of values, one within another, held and dropped by several threads; and what a watch hands out.

use crate::armed;
use crate::races::victim_strays;
use fencepost::WatchOptions;
use std::sync::Arc;

/// Writes to a byte, and says how many reports that made.
fn caught(at: *const u8) -> u64 {
    let before = fencepost::stats().reports + fencepost::stats().reports_lost;
    victim_strays(at.expose_provenance(), 1);
    fencepost::stats().reports + fencepost::stats().reports_lost - before
}

pub fn held() {
    let vector = vec![0u8; 3 * 4096];
    let boxed: Box<[u8]> = vec![0; 100].into_boxed_slice();
    let shared: Arc<[u8]> = Arc::from(vec![0u8; 100]);
    let text = String::from("a text of some length");
    let kinds = [&vector[..], &boxed[..], &shared[..], text.as_bytes()];
    armed();
    let seals = kinds.map(|bytes| fencepost::seal(bytes).expect("sealed"));
    println!("four kinds {:?}", kinds.map(|bytes| caught(&bytes[5])));
    drop(seals);
    println!("open again {:?}", kinds.map(|bytes| caught(&bytes[5])));
    within(&vector);
}

/// Three seals that overlap, of which other threads drop two while a third thread holds on.
fn within(bytes: &[u8]) {
    let places = [100, 4500, 9000].map(|index| &raw const bytes[index]);
    let state = || places.map(caught);
    let whole = fencepost::seal(bytes).expect("sealed");
    let first = fencepost::seal(&bytes[..5000]).expect("sealed");
    let middle = fencepost::seal(&bytes[4000..6000]).expect("sealed");
    println!("all three {:?}", state());
    std::thread::scope(|scope| {
        let ends = scope.spawn(move || drop(whole)).join();
        ends.expect("a thread");
    });
    println!("without the whole {:?}", state());
    std::thread::scope(|scope| {
        let held = scope.spawn(move || middle).join().expect("a thread");
        drop(first);
        println!("the middle alone {:?}", state());
        scope.spawn(move || drop(held));
    });
    println!("none {:?}", state());
}

/// What a watch hands out is a choice, and what it has no room for is counted.
pub fn filters() {
    let block = Box::new([0u64; 8]);
    let at = block.as_ptr().cast::<u8>().expose_provenance();
    let watch = |options: WatchOptions| {
        // SAFETY: the box outlives the watches.
        unsafe { fencepost::watch_raw(std::ptr::with_exposed_provenance(at), 64, options.by_pages()) }
            .expect("watched")
    };
    let all = watch(WatchOptions::new());
    let changes = watch(WatchOptions::new().changes_only());
    let named = watch(WatchOptions::new().thread("other"));
    armed();
    victim_strays(at, 0);
    victim_strays(at + 9, 3);
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("other".into());
        thread.spawn_scoped(scope, || victim_strays(at + 20, 0)).expect("a thread");
    });
    println!("all {} changes {} named {}", all.writes().len(), changes.writes().len(), named.writes().len());
    (0..1500).for_each(|round| victim_strays(at + 1, round as u8));
    // Three notes each.
    println!("noted {} lost {} counted {}", all.writes().len(), all.lost(), all.count());
}
