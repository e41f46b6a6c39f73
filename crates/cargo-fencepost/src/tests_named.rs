//! The test in which an error happened.
//!
//! The test harness names a test's thread after the test, and the system keeps 15 bytes of it. The rest is in the
//! stack: the outermost function of the user's is the test itself.

use fencepost_report::parse::{Document, Frame};

/// What the system keeps of a thread's name.
const KEPT: usize = 15;

/// The test that the error of a document happened in; `None` outside of tests.
pub fn name(document: &Document) -> Option<String> {
    // Runners that give each test a process of its own say which by this flag.
    if let Some(at) = document.process.args.iter().position(|argument| argument == "--exact") {
        let before = at.checked_sub(1).and_then(|at| document.process.args.get(at));
        let after = document.process.args.get(at.saturating_add(1));
        let named = after.into_iter().chain(before).find(|argument| !argument.starts_with('-'));
        if let Some(test) = named {
            return Some(test.clone());
        }
    }
    let thread = document.fault.thread.name.as_deref().unwrap_or("");
    let is_main = thread.is_empty() || thread == "main";
    let allocated =
        document.block.as_ref().map(|block| block.allocated.frames.as_slice()).unwrap_or_default();
    let stacks = [document.fault.frames.as_slice(), allocated];
    let mut paths = stacks.iter().flat_map(|frames| frames.iter().rev()).filter_map(path);
    if let Some(path) = paths.clone().find(|path| !is_main && starts_alike(path, thread)) {
        return Some(path);
    }
    // With one thread for all tests, that thread is the program's own: the outermost function tells.
    let program = document.process.exe.as_deref().and_then(|exe| exe.rsplit('/').next()).unwrap_or("");
    if is_main || starts_alike(program, thread) {
        let outermost = document.fault.frames.last()?.function.as_deref()?;
        let is_harness = outermost.ends_with("{{closure}}") || outermost.ends_with("{closure#0}");
        return if is_harness { paths.next() } else { None };
    }
    // A thread that the harness named and whose stack does not say more; the dots stand for what was cut.
    let cut = if thread.len() >= KEPT { "…" } else { "" };
    thread.contains("::").then(|| format!("{thread}{cut}"))
}

/// Whether `whole` begins with what the system kept of a name.
fn starts_alike(whole: &str, kept: &str) -> bool {
    if kept.len() < KEPT { whole == kept } else { whole.as_bytes().starts_with(kept.as_bytes()) }
}

/// A frame's function without its crate and without the closures around it, as the harness names tests.
fn path(frame: &Frame) -> Option<String> {
    let function = frame.function.as_deref()?;
    let (_, mut path) = function.split_once("::")?;
    while let Some(outer) =
        path.rsplit_once("::").filter(|(_, last)| last.starts_with('{')).map(|(outer, _)| outer)
    {
        path = outer;
    }
    (!path.starts_with('{')).then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An invented report with this thread, stack and command line.
    fn document(thread: &str, functions: &[&str], args: &[&str]) -> Document {
        const LINE: &str = include_str!("../../fencepost-record/tests/golden/null-dereference.json");
        let mut line: serde_json::Value = serde_json::from_str(LINE).expect("JSON");
        let mut frame = line["fault"]["frames"][0].clone();
        let frames = functions.iter().map(|function| {
            frame["function"] = (*function).into();
            frame.clone()
        });
        line["fault"]["frames"] = frames.collect();
        line["fault"]["thread"]["name"] = thread.into();
        line["process"]["args"] = args.iter().copied().collect();
        line["process"]["exe"] = "/t/demo-0123456789abcdef".into();
        serde_json::from_value(line).expect("a document")
    }

    #[test]
    fn the_thread_and_the_stack_name_the_test() {
        let test =
            ["demo::ring::push", "demo::tests::wraps_around", "demo::tests::wraps_around::{{closure}}"];
        for (thread, functions, args, wanted) in [
            ("tests::wraps_ar", &test[..], &[][..], Some("tests::wraps_around")),
            ("tests::short", &["demo::tests::short"][..], &[][..], Some("tests::short")),
            ("tests::wraps_ar", &["demo::ring::push"][..], &[][..], Some("tests::wraps_ar…")),
            ("main", &test[..], &[][..], Some("tests::wraps_around")),
            ("demo-0123456789", &test[..], &[][..], Some("tests::wraps_around")),
            ("worker", &["demo::ring::push"][..], &[][..], None),
            ("main", &["demo::ring::push", "demo::main"][..], &[][..], None),
            ("main", &[][..], &["demo", "--exact", "a::b", "--nocapture"][..], Some("a::b")),
            ("main", &[][..], &["demo", "a::b", "--exact"][..], Some("a::b")),
        ] {
            assert_eq!(name(&document(thread, functions, args)).as_deref(), wanted, "{thread} {functions:?}");
        }
    }
}
