//! The machine that the figures hold for.

use std::fs::read_to_string;
use std::io::Write;

/// Writes what the kernel says about processor, kernel, limits and load.
pub fn describe(out: &mut impl Write) -> std::io::Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let build = if cfg!(debug_assertions) { "dev build: not optimised" } else { "release build: optimised" };
    writeln!(out, "\n{}, {cores} cores; kernel {}", processor(), first_line("/proc/sys/kernel/osrelease"))?;
    writeln!(out, "vm.max_map_count {}; {build}", first_line("/proc/sys/vm/max_map_count"))?;
    writeln!(out, "load average {} (with this bench itself)", first_line("/proc/loadavg"))
}

fn processor() -> String {
    let text = read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("model name") || line.starts_with("Processor"));
    let name = line.and_then(|line| line.split_once(':')).map(|(_, name)| name.trim().to_owned());
    name.unwrap_or_else(|| format!("{} processor", std::env::consts::ARCH))
}

fn first_line(path: &str) -> String {
    let text = read_to_string(path).unwrap_or_default();
    text.lines().next().unwrap_or("unknown").to_owned()
}
