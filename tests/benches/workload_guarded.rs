//! The measured work in a program whose global allocator is fencepost. Run by the bench `pairs`.

mod workload;

#[global_allocator]
static ALLOC: fencepost::GuardedAlloc = fencepost::GuardedAlloc::new();

fn main() -> std::process::ExitCode {
    workload::main(|| {
        let stats = fencepost::stats();
        workload::Coverage {
            engine: stats.engine,
            guarded: stats.guarded,
            total: stats.total,
            calls: stats.syscalls,
        }
    })
}
