//! Tests that prove the guard: a block of code that must fault.

use fencepost_guard::{Expecting, Noted};
use fencepost_record::ErrorKind;

use crate::runtime::GUARD;

/// Passes only if exactly this kind of error was found on this thread while the block ran.
///
/// ```
/// # #[global_allocator]
/// # static ALLOC: fencepost::GuardedAlloc = fencepost::GuardedAlloc::new();
/// fencepost::assert_faults!("heap-buffer-overflow", {
///     let block = vec![0u8; 24].into_boxed_slice();
///     let end = std::hint::black_box(block.as_ptr()).wrapping_add(24);
///     std::hint::black_box(unsafe { end.read_volatile() });
/// });
/// ```
///
/// The literal is checked when the program is compiled. While the block runs, this thread's errors are neither written
/// nor counted, `on_error` is `continue` for it, and all that it allocates is guarded, whatever mode and filters say; other
/// threads are not concerned. It panics with "not guarded" where the guard is off. The block's bug is undefined
/// behaviour, so that the compiler may do with it what it likes: use volatile accesses and `black_box`.
///
/// The kinds after which no instruction can go on cannot be expected: `null-dereference`, `stack-overflow` and
/// `wild-access`; nor can `leak`, which is found at the end only.
///
/// ```compile_fail
/// fencepost::assert_faults!("heap-buffer-overflaw", {});
/// ```
#[macro_export]
macro_rules! assert_faults {
    ($kind:literal, $body:block $(,)?) => {{
        const KIND: $crate::ErrorKind = $crate::__expected_kind($kind);
        $crate::__assert_faults(KIND, || $body);
    }};
}

/// The kind of a name, in const evaluation: a typo is an error of the compiler.
#[doc(hidden)]
pub const fn __expected_kind(name: &str) -> ErrorKind {
    let mut index = 0;
    while index < ErrorKind::ALL.len() {
        let kind = ErrorKind::ALL[index];
        if same(kind.name().as_bytes(), name.as_bytes()) {
            assert!(
                !matches!(
                    kind,
                    ErrorKind::NullDereference
                        | ErrorKind::StackOverflow
                        | ErrorKind::WildAccess
                        | ErrorKind::Leak
                ),
                "after an error of this kind a test cannot go on, or it is found at the end only"
            );
            return kind;
        }
        index = index.wrapping_add(1);
    }
    panic!("not a kind of error: docs/detection.md lists them");
}

const fn same(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    let mut index = 0;
    while index < one.len() {
        if one[index] != other[index] {
            return false;
        }
        index = index.wrapping_add(1);
    }
    true
}

/// Ends the expectation also when the block panics.
struct Ends(Option<Expecting>);

impl Ends {
    fn now(&mut self) -> Noted {
        self.0.take().map(|expecting| GUARD.expect_end(expecting)).unwrap_or_default()
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        self.now();
    }
}

#[doc(hidden)]
#[track_caller]
pub fn __assert_faults<R>(expected: ErrorKind, body: impl FnOnce() -> R) {
    let Some(expecting) = GUARD.expect_begin() else {
        panic!(
            "not guarded: assert_faults!(\"{}\") needs a GuardedAlloc as the global allocator, and not mode=off",
            expected.name()
        );
    };
    let mut ends = Ends(Some(expecting));
    let result = body();
    let noted = ends.now();
    drop(result);
    if noted.kinds().eq([expected]) {
        return;
    }
    let found: Vec<&str> = noted.kinds().map(ErrorKind::name).collect();
    let found = if found.is_empty() { "nothing".to_owned() } else { found.join(", ") };
    let unguarded = match noted.unguarded {
        0 => String::new(),
        blocks => format!(" ({blocks} of its blocks were not guarded)"),
    };
    panic!(
        "exactly one kind of error was expected on this thread, {}, and found was {found}{unguarded}",
        expected.name()
    );
}
