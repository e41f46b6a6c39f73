//! The programs of the comparison with the system's allocator, or with what is loaded before it.

fn main() -> std::process::ExitCode {
    fencepost_compare::main(|| fencepost_compare::Coverage { engine: "none", guarded: 0, total: 0, calls: 0 })
}
