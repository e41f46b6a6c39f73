//! Running code when a program is loaded, before `main`.

/// Runs `$function` (an `extern "C" fn()`) when the program that links this is loaded: before `main`, before the
/// language's runtime has set itself up, and before ordinary constructors of C and C++ code.
#[macro_export]
macro_rules! at_load {
    ($function:path) => {
        const _: () = {
            // The dynamic loader (or the C library's start code) calls every address in this section, lower numbers
            // first; constructors without a number come after all that have one.
            #[used]
            #[cfg_attr(target_os = "linux", unsafe(link_section = ".init_array.00100"))]
            #[cfg_attr(target_os = "macos", unsafe(link_section = "__DATA,__mod_init_func"))]
            #[cfg_attr(target_os = "windows", unsafe(link_section = ".CRT$XCB"))]
            static AT_LOAD: extern "C" fn() = $function;
        };
    };
}
