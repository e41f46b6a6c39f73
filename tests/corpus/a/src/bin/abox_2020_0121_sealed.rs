//@ advisory: RUSTSEC-2020-0121
//@ crate: abox 0.4.0
//@ class: seal-violation
//@ access: w
//@ expect: yes
//@ note: AtomicBox<Rc> hands the same Rc to other threads: its counts are sealed, and the report names who clones it
#[path = "../../../alloc_hook.rs"]
mod alloc_hook;
#[path = "../../../support.rs"]
mod support;

use abox_0_4_0::AtomicBox;
use std::rc::Rc;
use std::sync::Arc;

/// Two threads that clone and drop what only one may have.
fn hammers(shared: &Arc<AtomicBox<Rc<Box<u64>>>>) {
    let threads: Vec<_> = (0..2)
        .map(|number| {
            let own = shared.clone();
            let named = std::thread::Builder::new().name(format!("hammer-{number}"));
            named.spawn(move || support::hammer(&own.get(), 30)).unwrap()
        })
        .collect();
    for thread in threads {
        println!("{}", thread.join().unwrap());
    }
}

/// The two counts of an Rc lie before its value.
fn counts(shared: &AtomicBox<Rc<Box<u64>>>) -> *const u8 {
    Rc::as_ptr(&shared.get()).cast::<u8>().wrapping_sub(16)
}

fn main() {
    let shared = Arc::new(AtomicBox::new(Rc::new(Box::new(5u64))));
    // However the counts race, the block stays.
    std::mem::forget(std::array::from_fn::<_, 1000, _>(|_| Rc::clone(&shared.get())));
    alloc_hook::seals(counts(&shared), 16);
    hammers(&shared);
    support::end("abox_2020_0121_sealed");
}
