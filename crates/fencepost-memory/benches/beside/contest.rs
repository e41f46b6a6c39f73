//! Rounds in turns: every entrant runs once a round, so that a noisy moment of the machine hits all alike, and ratios
//! are taken within a round.

use super::clock::cpu_ns;

/// One who takes part: a name, and the work to do once.
pub type Entrant<'a> = (&'static str, Box<dyn FnMut() + 'a>);

/// Runs all in turns and prints a table. The first is ours; true if it is at least 0.95 times as fast as each other.
pub fn contest(title: &str, operations: u64, rounds: usize, mut entrants: Vec<Entrant<'_>>) -> bool {
    let mut times = vec![Vec::with_capacity(rounds); entrants.len()];
    for round in 0..=rounds {
        for turn in 0..entrants.len() {
            let index = (round + turn) % entrants.len();
            let before = cpu_ns();
            (entrants[index].1)();
            let spent = cpu_ns() - before;
            // The first round warms up.
            if round > 0 {
                times[index].push(spent as f64 / operations as f64);
            }
        }
    }
    println!("\n{title}\n  {:<38}{:>10}  {:>28}", "", "ns each", "our speed is, of its speed");
    let mut good = true;
    for ((name, _), own) in entrants.iter().zip(&times) {
        let ratios = own.iter().zip(&times[0]).map(|(other, ours)| other / ours).collect();
        let ratio = median(ratios);
        good &= ratio >= 0.95;
        println!("  {name:<38}{:>10.2}  {ratio:>28.2}", median(own.clone()));
    }
    good
}

/// The middle one.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
