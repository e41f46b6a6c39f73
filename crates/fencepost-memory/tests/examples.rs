//! The examples, run: they assert what they show.

#[path = "../examples/frame_allocator.rs"]
mod frame_allocator;
#[path = "../examples/interner.rs"]
mod interner;
#[path = "../examples/parser.rs"]
mod parser;

#[test]
fn the_memory_of_a_game_loop_does_not_grow() {
    frame_allocator::main().expect("memory");
}

#[test]
fn interned_texts_stay_where_they_are() {
    interner::main().expect("memory");
}

#[test]
fn a_tree_lies_in_an_arena() {
    parser::main().expect("memory");
}
