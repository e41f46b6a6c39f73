// Global-allocator hook shared by every program of the corpus.
//
// As it stands it is empty: the programs use std's System allocator, and that is how their unguarded twins are
// built. `scripts/corpus` puts `hook.rs` in its place in the guarded copy that it builds.
