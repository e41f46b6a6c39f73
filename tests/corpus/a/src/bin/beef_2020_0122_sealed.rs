//@ advisory: RUSTSEC-2020-0122
//@ crate: beef 0.4.4
//@ class: seal-violation
//@ access: w
//@ expect: yes
//@ note: Cow<[Cell]> is Send although Cell is not Sync: the block is sealed, and the report names the thread that writes all the same
#[path = "../../../alloc_hook.rs"]
mod alloc_hook;
#[path = "../../../support.rs"]
mod support;

use beef_0_4_4::Cow;
use std::cell::Cell;

#[inline(never)]
fn adds_up(cells: &[Cell<u64>]) {
    for round in 0..100u64 {
        cells[2].set(cells[2].get() + (round & 1));
    }
}

fn main() {
    let cells: Box<[Cell<u64>]> = (0..4).map(Cell::new).collect();
    let leaked: &'static [Cell<u64>] = Box::leak(cells);
    // A Cell is not Sync, so that nobody else can write here, and this thread does not mean to.
    alloc_hook::seals(leaked.as_ptr().cast(), size_of_val(leaked));
    let cow: Cow<'static, [Cell<u64>]> = Cow::borrowed(leaked);
    let stranger = std::thread::Builder::new().name("stranger".into());
    stranger.spawn(move || adds_up(&cow)).unwrap().join().unwrap();
    println!("{}", leaked[2].get());
    support::end("beef_2020_0122_sealed");
}
