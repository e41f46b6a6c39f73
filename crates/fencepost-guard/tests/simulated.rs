//! The whole runtime over a simulated system: placement, failures, quarantine, threads, limits, errors, faults, files.
//!
//! Every test has a system and a runtime of its own. Memory of the simulated system is real underneath, so a test
//! looks at any byte, and asks the system's table what would have trapped. Stacks are invented: a test says which
//! code it is at, and finds that code in the report.

#[path = "simulated/audits.rs"]
mod audits;
#[path = "simulated/budget.rs"]
mod budget;
#[path = "simulated/copies.rs"]
mod copies;
#[path = "simulated/deferred.rs"]
mod deferred;
#[path = "simulated/errors.rs"]
mod errors;
#[path = "simulated/failures.rs"]
mod failures;
#[path = "simulated/faults.rs"]
mod faults;
#[path = "simulated/files.rs"]
mod files;
#[path = "simulated/filters.rs"]
mod filters;
#[path = "simulated/keyed.rs"]
mod keyed;
#[path = "simulated/leaks.rs"]
mod leaks;
#[path = "simulated/limits.rs"]
mod limits;
#[path = "simulated/moving.rs"]
mod moving;
#[path = "simulated/placement.rs"]
mod placement;
#[path = "simulated/quarantine.rs"]
mod quarantine;
#[path = "simulated/resizes.rs"]
mod resizes;
#[path = "simulated/seals.rs"]
mod seals;
#[path = "simulated/steps.rs"]
mod steps;
#[path = "simulated/stock.rs"]
mod stock;
#[path = "simulated/threads.rs"]
mod threads;
#[path = "simulated/verdicts.rs"]
mod verdicts;
#[path = "simulated/watches.rs"]
mod watches;
#[path = "simulated/world.rs"]
mod world;
