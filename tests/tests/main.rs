//! The tests that watch programs die, and programs that must not, in one binary so that it links once.
//!
//! What they run is in `src/bin`: `victim` (one bug a subcommand), `clean` (none), `handlers` (fault handlers of the
//! program's own), `exported` (with the C library's functions) and `healthy` (real crates at work). A test that this machine cannot run prints `skipped: why`.

mod bounds;
mod calls;
mod expected;
mod exported;
mod fallbacks;
mod frees;
mod growing;
mod handlers;
mod harness;
mod holding;
mod leaks;
mod moving;
mod options;
mod pointers;
mod preload;
mod quiet;
mod races;
mod seals;
mod steps;
mod watched;
