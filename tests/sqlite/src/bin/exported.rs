//! With the C library's functions exported from the executable.

fencepost::export_libc!();

fn main() {
    sqlite_catch::ask(std::env::args().any(|argument| argument == "lookaside"));
}
