//! The programs of the comparison with mimalloc, which scripts/compare builds with its guard pages.

#[global_allocator]
static ALLOC: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    fencepost_compare::main(|| fencepost_compare::Coverage { engine: "none", guarded: 0, total: 0, calls: 0 })
}
