//! As anybody would write it: knows nothing of fencepost.

fn main() {
    sqlite_catch::ask(std::env::args().any(|argument| argument == "lookaside"));
}
