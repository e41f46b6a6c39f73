//! What the programs work with.

/// A small generator of numbers that look random and are the same in every run (xorshift, Marsaglia 2003).
pub struct Dice(pub u64);

impl Dice {
    /// The next, below a bound.
    pub fn roll(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % below as u64).expect("fits")
    }
}

/// A block whose bytes follow from a number, so that damage shows.
pub struct Marked {
    pub seed: u8,
    pub bytes: Vec<u8>,
}

impl Marked {
    pub fn new(seed: u8, len: usize) -> Marked {
        Marked { seed, bytes: (0..len).map(|index| seed.wrapping_add(index as u8)).collect() }
    }

    pub fn verify(&self) {
        for (index, byte) in self.bytes.iter().enumerate() {
            assert_eq!(
                *byte,
                self.seed.wrapping_add(index as u8),
                "damage at byte {index} of {}",
                self.bytes.len()
            );
        }
    }
}
