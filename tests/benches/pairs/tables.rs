//! The figures as tables of plain text.

use std::io::Write;

use crate::figures::{Figures, Middle};
use crate::plan::{FENCE, Kind, Plan, SYSTEM, Task};

const NOTES: &str = "\
Times are medians of the rounds, with the smallest and the largest where they differ. `CPU` is user and system
time that the kernel charged the process, `wall` is what passed. Ratios compare CPU time within a round.";

/// Writes all tables.
pub fn print(out: &mut impl Write, plan: &Plan, figures: &Figures) -> std::io::Result<()> {
    writeln!(out, "\n{NOTES}")?;
    for (task, what) in plan.tasks.iter().enumerate() {
        match what {
            Task::Pair(_) | Task::Random(_) | Task::Threads(_) => {
                match what {
                    Task::Random(size) => writeln!(
                        out,
                        "\nfree of a random one of 1,000 blocks and malloc of another, {size} bytes, ns a pair"
                    ),
                    Task::Threads(count) => writeln!(
                        out,
                        "\nmalloc and free of 100 bytes in {count} threads, wall ns of all for a pair of any"
                    ),
                    _ => writeln!(out, "\nmalloc and free of {} bytes, ns a pair", what.bytes()),
                }?;
                writeln!(
                    out,
                    "  {:<22} {:>26} {:>9} {:>24} {:>22} {:>8}",
                    "", "CPU", "wall", "x system", "x Electric Fence", "guarded"
                )?;
                each_program(out, plan, figures, task, pair_row)?;
            }
            Task::Live(count) => {
                writeln!(out, "\n{count} live blocks of 64 bytes, ns a block")?;
                writeln!(
                    out,
                    "  {:<22} {:>24} {:>9} {:>22} {:>9} {:>9} {:>9} {:>8}  outcome",
                    "", "build, CPU", "wall", "free, CPU", "wall", "bytes", "mappings", "guarded"
                )?;
                each_program(out, plan, figures, task, live_row)?;
            }
            Task::Kernel(..) => {}
        }
    }
    kernel(out, plan, figures)
}

fn each_program(
    out: &mut impl Write,
    plan: &Plan,
    figures: &Figures,
    task: usize,
    row: impl Fn(&Plan, &Figures, usize, usize) -> String,
) -> std::io::Result<()> {
    for (program, what) in plan.programs.iter().enumerate() {
        let text = match figures.why_empty(task, program) {
            Some(why) => format!(" {why}"),
            None => row(plan, figures, task, program),
        };
        writeln!(out, "  {:<22}{text}", what.name)?;
    }
    Ok(())
}

fn pair_row(plan: &Plan, figures: &Figures, task: usize, program: usize) -> String {
    format!(
        " {:>26} {:>9} {:>24} {:>22} {:>8}",
        spread(figures.value(task, program, "cpu"), time),
        middle(figures.value(task, program, "wall"), time),
        spread(figures.ratio(task, program, SYSTEM, "cpu"), ratio),
        spread(figures.ratio(task, program, FENCE, "cpu"), ratio),
        guarded(plan, figures, task, program),
    )
}

fn live_row(plan: &Plan, figures: &Figures, task: usize, program: usize) -> String {
    format!(
        " {:>24} {:>9} {:>22} {:>9} {:>9} {:>9} {:>8}  alive",
        spread(figures.value(task, program, "cpu"), time),
        middle(figures.value(task, program, "wall"), time),
        spread(figures.value(task, program, "free_cpu"), time),
        middle(figures.value(task, program, "free_wall"), time),
        middle(figures.value(task, program, "bytes"), time),
        middle(figures.value(task, program, "mappings"), time),
        guarded(plan, figures, task, program),
    )
}

fn kernel(out: &mut impl Write, plan: &Plan, figures: &Figures) -> std::io::Result<()> {
    writeln!(out, "\nthe kernel alone, ns\n  {:<46} {:>24} {:>9}", "", "CPU", "wall")?;
    for (task, what) in plan.tasks.iter().enumerate() {
        let Task::Kernel(_, name) = what else { continue };
        match figures.why_empty(task, SYSTEM) {
            Some(why) => writeln!(out, "  {name:<46} {why}")?,
            None => writeln!(
                out,
                "  {name:<46} {:>24} {:>9}",
                spread(figures.value(task, SYSTEM, "cpu"), time),
                middle(figures.value(task, SYSTEM, "wall"), time),
            )?,
        }
    }
    Ok(())
}

/// The share of the program's blocks that were guarded.
fn guarded(plan: &Plan, figures: &Figures, task: usize, program: usize) -> String {
    if !matches!(plan.programs[program].kind, Kind::Guarded { .. }) {
        return "-".into();
    }
    let share = figures.value(task, program, "guarded").zip(figures.value(task, program, "total"));
    match share {
        // The allocator that guards nothing counts nothing.
        Some((_, total)) if total.median == 0.0 => "0%".into(),
        Some((guarded, total)) => percent(100.0 * guarded.median / total.median),
        None => "-".into(),
    }
}

/// One digit after the point, and 100 only for all.
fn percent(share: f64) -> String {
    if share >= 100.0 { "100%".into() } else { format!("{:.1}%", (share * 10.0).floor() / 10.0) }
}

fn spread(value: Option<Middle>, write: impl Fn(f64) -> String) -> String {
    let Some(value) = value else { return "-".into() };
    if value.min == value.max {
        return write(value.median);
    }
    format!("{} ({}..{})", write(value.median), write(value.min), write(value.max))
}

fn middle(value: Option<Middle>, write: impl Fn(f64) -> String) -> String {
    value.map_or_else(|| "-".into(), |value| write(value.median))
}

fn time(value: f64) -> String {
    if value < 100.0 { format!("{value:.1}") } else { format!("{value:.0}") }
}

fn ratio(value: f64) -> String {
    match value {
        _ if value < 0.1 => format!("{value:.4}"),
        _ if value < 10.0 => format!("{value:.2}"),
        _ => format!("{value:.0}"),
    }
}
