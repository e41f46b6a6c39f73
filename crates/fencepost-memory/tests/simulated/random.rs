//! Random numbers from a seed: the same in every run, and printed when a test fails with them.

pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

/// Seeds to try: `FENCEPOST_TEST_SEED` picks one, and more come with `FENCEPOST_TEST_RUNS`.
pub fn seeds() -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    match number("FENCEPOST_TEST_SEED") {
        Some(seed) => vec![seed],
        None => (1..=number("FENCEPOST_TEST_RUNS").unwrap_or(6)).collect(),
    }
}
