//! A program that exports C's allocation functions: what the C library allocates for it is guarded as well.

// (A static program cannot, and the macro says so.)
#[cfg(not(target_feature = "crt-static"))]
fencepost::export_libc!();

/// A text of 15 bytes and its end mark, from the C library's own call of `malloc`.
#[inline(never)]
fn victim_copies() -> *mut libc::c_char {
    // SAFETY: strdup reads a text that ends.
    unsafe { libc::strdup(c"fifteen letters".as_ptr()) }
}

fn main() {
    let what = std::env::args().nth(1).unwrap_or_default();
    let copy = std::hint::black_box(victim_copies());
    println!("armed");
    // SAFETY: none where there is a bug: it frees twice, or writes past the end. Else it is freed once.
    unsafe {
        match what.as_str() {
            "overrun" => copy.wrapping_add(16).write_volatile(1),
            "twice" => libc::free(copy.cast()),
            _ => {}
        }
        libc::free(copy.cast());
    }
    println!("survived");
}
