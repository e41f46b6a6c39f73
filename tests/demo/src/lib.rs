//! A ring of bytes with a bug: the last push before it wraps around writes one byte past its end.

/// Bytes, the oldest of which are overwritten.
pub struct Ring {
    bytes: Vec<u8>,
    at: usize,
}

impl Ring {
    pub fn new(size: usize) -> Ring {
        Ring { bytes: vec![0; size], at: 0 }
    }

    pub fn push(&mut self, byte: u8) {
        // SAFETY: wrong! `at` reaches `len` before it wraps around.
        unsafe { self.bytes.as_mut_ptr().add(self.at).write_volatile(byte) };
        self.at = if self.at >= self.bytes.len() { 0 } else { self.at + 1 };
    }
}

#[cfg(test)]
#[global_allocator]
static ALLOC: fencepost::GuardedAlloc = fencepost::GuardedAlloc::new();

#[cfg(test)]
mod tests {
    use super::Ring;

    #[test]
    fn a_ring_takes_a_byte() {
        Ring::new(8).push(1);
    }

    #[test]
    fn a_ring_wraps_around() {
        let mut ring = Ring::new(8);
        (0..20).for_each(|byte| ring.push(byte));
    }
}
