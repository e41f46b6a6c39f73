//! Names of functions as programmers write them, for the filters by function: without the program's heap.

use core::fmt::Write;

/// The longest name that filters see, in bytes; what is longer is cut.
const NAME_MAX: usize = 512;

/// Gives `with` the name that the linker's `name` stands for: a Rust path without its hash, and any other as it is.
pub(crate) fn demangle(name: &[u8], with: &mut dyn FnMut(&[u8])) {
    let demangled = core::str::from_utf8(name).ok().and_then(|name| rustc_demangle::try_demangle(name).ok());
    let Some(demangled) = demangled else { return with(name) };
    let mut text = fencepost_record::Text::<NAME_MAX>::EMPTY;
    // Text never fails: longer input is cut.
    let written = write!(text, "{demangled:#}");
    let _ = written;
    with(text.as_str().as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rust_names_are_read_and_others_stay() {
        for (name, expected) in [
            (
                "_ZN4caja13Caja$LT$T$GT$17new_uninitialized17h0123456789abcdefE",
                "caja::Caja<T>::new_uninitialized",
            ),
            ("_RNvCs1234_4demo4main", "demo::main"),
            ("png_read_row", "png_read_row"),
            ("_ZN4demo5parseEv", "_ZN4demo5parseEv"),
        ] {
            let mut seen = String::new();
            demangle(name.as_bytes(), &mut |name| seen.push_str(&String::from_utf8_lossy(name)));
            assert_eq!(seen, expected);
        }
    }
}
