#[global_allocator] static ALLOC: fencepost::GuardedAlloc = fencepost::GuardedAlloc::new();
