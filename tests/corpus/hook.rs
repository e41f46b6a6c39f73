#[global_allocator] static ALLOC: fencepost::GuardedAlloc = fencepost::GuardedAlloc::new();

/// Nobody writes here any more.
#[allow(dead_code)]
pub fn seals(at: *const u8, len: usize) {
    // SAFETY: the memory is never freed, and that a write ends the program is what is wanted.
    std::mem::forget(unsafe { fencepost::seal_raw(at, len) }.expect("sealed"));
}

/// Prints which threads write here while a function runs.
#[allow(dead_code)]
pub fn watches(at: *const u8, len: usize, work: impl FnOnce()) {
    // SAFETY: the memory outlives the function.
    let watch = unsafe { fencepost::watch_raw(at, len, fencepost::WatchOptions::new()) }.expect("watched");
    work();
    let mut writers: Vec<String> = watch.writes().into_iter().map(|write| write.writer.thread_name).collect();
    writers.sort();
    writers.dedup();
    println!("WATCHED {}", writers.join(" "));
}
