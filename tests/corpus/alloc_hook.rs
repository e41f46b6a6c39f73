// Global-allocator hook shared by every program of the corpus.
//
// As it stands it is empty: the programs use std's System allocator, and that is how their unguarded twins are
// built. `scripts/corpus` puts `hook.rs` in its place in the guarded copy that it builds.

/// Where the guard is: nobody writes here any more.
#[allow(dead_code)]
pub fn seals(_at: *const u8, _len: usize) {}

/// Where the guard is: prints which threads write here while a function runs.
#[allow(dead_code)]
pub fn watches(_at: *const u8, _len: usize, work: impl FnOnce()) {
    work();
}
