//! A test binary without an allocator of its own: guarded by preload.

#[test]
fn half_a_ring_is_fine() {
    let mut ring = demo::Ring::new(64);
    (0..32).for_each(|byte| ring.push(byte));
}

#[test]
fn a_full_ring_is_not() {
    let mut ring = demo::Ring::new(64);
    (0..65).for_each(|byte| ring.push(byte));
}
