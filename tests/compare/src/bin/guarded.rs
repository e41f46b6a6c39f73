//! The programs of the comparison with fencepost as their global allocator.

#[global_allocator]
static ALLOC: fencepost::GuardedAlloc = fencepost::GuardedAlloc::new();

fn main() -> std::process::ExitCode {
    fencepost_compare::main(|| {
        let stats = fencepost::stats();
        fencepost_compare::Coverage {
            engine: stats.engine,
            guarded: stats.guarded,
            total: stats.total,
            calls: stats.syscalls,
        }
    })
}
