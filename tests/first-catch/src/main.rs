//! A bug in a published crate: `Caja` 0.2.1 lets safe code index past the end of its heap block (RUSTSEC-2026-0130).
//! Without a guard this program writes over whatever lies behind the block and ends as if nothing had happened.

use caja::Caja;

#[global_allocator]
static ALLOC: fencepost::GuardedAlloc = fencepost::GuardedAlloc::new();

fn new_scores(count: usize) -> Caja<u32> {
    Caja::new(count, 0)
}

fn record(scores: &mut Caja<u32>, player: usize, score: u32) {
    scores[player] = score;
}

fn main() {
    let mut scores = new_scores(10);
    for player in 0..=10 {
        record(&mut scores, player, 100);
    }
    println!("{} scores recorded", scores.len());
}
