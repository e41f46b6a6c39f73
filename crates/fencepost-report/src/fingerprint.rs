//! A number for a bug: the same on every run and in every build that leaves the bug's own code alone.
//!
//! It is made of the kind and of the names of the program's functions in the stacks of the fault and of the
//! allocation. Addresses, lines, hashes, the counters of closures and the library's inner functions all change
//! without the bug changing, so none of them takes part.

use fencepost_record::{Fnv, Frames, RawFrames, Record};

use crate::name::{self, Origin};
use crate::trim::Named;

/// The fingerprint of a record whose fault and allocation stacks are these.
pub(crate) fn fingerprint<F: Named>(record: &Record, stacks: [&[F]; 2]) -> u64 {
    let mut hash = Fnv::new();
    let mut any = false;
    hash.add(record.kind.name().as_bytes());
    for stack in stacks {
        hash.add(b"|");
        for frame in stack {
            let Some(function) = frame.function() else { continue };
            if name::origin(function, frame.file()) == Origin::Program {
                any = true;
                hash.add(without_numbers(function).as_bytes());
                hash.add(b";");
            }
        }
    }
    // Without a single name two different bugs would look alike: then the modules and offsets must do.
    if any { hash.0 } else { RawFrames(record).fingerprint() }
}

/// A name with `{closure#3}`, `{impl#1}` and `{{closure}}` as `{closure}` and `{impl}`.
fn without_numbers(function: &str) -> String {
    let mut out = String::with_capacity(function.len());
    for (index, part) in function.replace("{{", "{").replace("}}", "}").split('{').enumerate() {
        if index > 0 {
            out.push('{');
        }
        match part.split_once('}') {
            Some((inside, rest)) if index > 0 => {
                let word = inside.split('#').next().unwrap_or("");
                out.push_str(word);
                out.push('}');
                out.push_str(rest);
            }
            _ => out.push_str(part),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::without_numbers;

    #[test]
    fn counters_do_not_count() {
        for (name, wanted) in [
            ("demo::f::{closure#3}", "demo::f::{closure}"),
            ("demo::f::{{closure}}::{{closure}}", "demo::f::{closure}::{closure}"),
            ("<demo::{impl#1}::T as X>::f", "<demo::{impl}::T as X>::f"),
            ("demo::{unclosed", "demo::{unclosed"),
            ("plain", "plain"),
        ] {
            assert_eq!(without_numbers(name), wanted);
        }
    }
}
