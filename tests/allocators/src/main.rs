//! Allocates by the language's allocator, which is another crate's, and by `malloc`, as its C libraries do.

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

unsafe extern "C" {
    fn malloc(size: usize) -> *mut u8;
    fn free(block: *mut u8);
}

fn main() {
    let texts: Vec<String> = (0..1_000).map(|number| number.to_string()).collect();
    let at = if std::env::args().count() > 1 { 16 } else { 15 };
    // SAFETY: with no argument the byte lies in the block; with one it is the error that is looked for.
    unsafe {
        let block = std::hint::black_box(malloc(16));
        block.add(at).write_volatile(1);
        free(block);
    }
    println!("{}", texts.iter().map(String::len).sum::<usize>());
}
