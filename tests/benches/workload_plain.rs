//! The measured work in a program that knows nothing of fencepost: the system row, the Electric Fence row and the
//! raw kernel figures. Run by the bench `pairs`.

mod workload;

fn main() -> std::process::ExitCode {
    workload::main(|| workload::Coverage { engine: "none", guarded: 0, total: 0, calls: 0 })
}
