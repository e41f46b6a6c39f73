//! Overruns a heap block by one byte: `cargo run --example overrun`.

#[global_allocator]
static ALLOC: fencepost::GuardedAlloc = fencepost::GuardedAlloc::new();

#[inline(never)]
fn make(len: usize) -> Vec<u8> {
    vec![7; len]
}

#[inline(never)]
fn sum(bytes: &[u8], count: usize) -> u32 {
    let mut total = 0;
    for index in 0..count {
        // SAFETY: none; `count` is one too many, which is what this example shows.
        total += u32::from(unsafe { std::hint::black_box(bytes.as_ptr().add(index)).read_volatile() });
    }
    total
}

fn main() {
    let bytes = make(24);
    println!("the first 24 bytes add up to {}", sum(&bytes, 24));
    println!("the first 25 bytes add up to {}", sum(&bytes, 25));
}
