//! What is left of a stack: on invented stacks, and on stacks of a real program in debug, release and under
//! libtest (`tests/shapes`, taken with the backtrace crate and Rust 1.95).

use fencepost_record::{AccessType, ErrorKind, Frames, Which};
use fencepost_report::{Resolved, Symbol};

mod symbols;

use symbols::{Table, names, record, shapes, stack, symbol};

/// The names left of one stack, as an allocation's, a free's and a fault's.
fn trimmed(functions: &[&str]) -> [Vec<String>; 3] {
    let mut table = Table::default();
    let addresses = table.stack(functions);
    let record = record(&addresses, &addresses, &addresses);
    let resolved = Resolved::new(&record, &mut table, None);
    [Which::Allocated, Which::Freed, Which::Fault].map(|which| names(&resolved, which))
}

#[test]
fn stacks_start_and_end_at_the_users_code() {
    let all = trimmed(&[
        "backtrace::backtrace::trace_unsynchronized",
        "fencepost::capture",
        "fencepost_guard::runtime::Runtime<P>::allocate",
        "<fencepost::GuardedAlloc<A> as core::alloc::global::GlobalAlloc>::alloc",
        "__rust_alloc",
        "alloc::alloc::alloc",
        "<alloc::alloc::Global as core::alloc::Allocator>::allocate",
        "<T as alloc::slice::hack::ConvertVec>::to_vec",
        "demo::inner",
        "core::iter::Iterator::for_each",
        "third_party::run",
        "std::panic::catch_unwind",
        "std::panicking::catch_unwind::do_call",
        "__rust_try",
        "demo::main",
        "core::ops::function::FnOnce::call_once",
        "std::sys::backtrace::__rust_begin_short_backtrace",
        "std::rt::lang_start::{{closure}}",
        "std::rt::lang_start_internal",
        "main",
        "__libc_start_call_main",
        "_start",
    ]);
    for names in all {
        assert_eq!(
            names,
            ["demo::inner", "core::iter::Iterator::for_each", "third_party::run", "demo::main"]
        );
    }
}

#[test]
fn an_impl_of_the_users_stays() {
    for own in [
        "<demo::Foo as core::ops::drop::Drop>::drop",
        "<demo::Foo<alloc::vec::Vec<u8>> as core::clone::Clone>::clone",
        "<alloc::vec::Vec<T> as demo::Extra>::extra",
        "<&demo::Foo as core::fmt::Display>::fmt",
    ] {
        for names in trimmed(&["fencepost::x", "core::ptr::drop_in_place<demo::Foo>", own, "demo::main"]) {
            assert_eq!(names, [own, "demo::main"]);
        }
    }
}

#[test]
fn c_frames_at_the_top_of_a_fault_stay() {
    let [allocated, _, fault] = trimmed(&["__memcpy_avx_unaligned_erms", "demo::copy", "demo::main"]);
    assert_eq!(fault, ["__memcpy_avx_unaligned_erms", "demo::copy", "demo::main"]);
    assert_eq!(allocated, fault);
    // The door to the allocator is trimmed from the stacks of allocations; a C program's main is its own.
    let [allocated, ..] = trimmed(&["malloc", "xmalloc", "main", "__libc_start_main", "_start"]);
    assert_eq!(allocated, ["xmalloc", "main"]);
}

/// A user's allocator around ours lies above the door, but only for stacks that were taken in it.
#[test]
fn the_users_own_allocator_is_no_part_of_an_allocation() {
    let functions = [
        "fencepost::x",
        "<demo::Counting as core::alloc::global::GlobalAlloc>::alloc",
        "__rust_alloc",
        "demo::f",
    ];
    let [allocated, freed, fault] = trimmed(&functions);
    assert_eq!(allocated, ["demo::f"]);
    assert_eq!(freed, ["demo::f"]);
    assert_eq!(fault, [functions[1], functions[2], functions[3]]);
}

#[test]
fn a_fault_found_at_a_free_starts_at_the_users_code() {
    let mut table = Table::default();
    let addresses = table.stack(&[
        "fencepost::x",
        "demo::Wrapper::dealloc",
        "__rust_dealloc",
        "core::ptr::drop_in_place<u8>",
        "demo::f",
    ]);
    for access in [AccessType::Free, AccessType::Realloc, AccessType::None] {
        let mut record = record(&addresses, &[], &[]);
        record.kind = ErrorKind::DoubleFree;
        record.access.kind = access;
        assert_eq!(names(&Resolved::new(&record, &mut table.clone(), None), Which::Fault), ["demo::f"]);
    }
}

#[test]
fn a_stack_with_nothing_of_the_users_is_shown() {
    // Only what is ours is taken off where all the rest is the library's ...
    let library = ["std::rt::init", "std::rt::lang_start_internal", "main", "_start"];
    let with_guard = ["fencepost::x", "__rust_alloc", library[0], library[1], library[2], library[3]];
    let [allocated, ..] = trimmed(&with_guard);
    assert_eq!(allocated, library);
    // ... and nothing where all of it is ours.
    let [allocated, ..] = trimmed(&["fencepost::x", "fencepost::y", "__rust_alloc"]);
    assert_eq!(allocated, ["fencepost::x", "fencepost::y", "__rust_alloc"]);
    assert_eq!(trimmed(&[])[0], [""; 0]);
}

#[test]
fn nameless_frames_are_kept() {
    let mut table = Table::default();
    let named = table.stack(&["fencepost::x", "demo::f"]);
    let addresses = [named[0], 0xdead, named[1], 0xbeef];
    let record = record(&addresses, &addresses, &[]);
    let resolved = Resolved::new(&record, &mut table, None);
    assert_eq!(names(&resolved, Which::Allocated), ["0xdead", "demo::f", "0xbeef"]);
    assert_eq!(names(&resolved, Which::Freed), [""; 0]);
    assert_eq!(names(&resolved, Which::Sealed), [""; 0]);
}

#[test]
fn inlined_functions_become_frames() {
    let mut table = Table::default();
    let inlined = vec![
        symbol("demo::inner::h0123456789abcdef", "/a.rs", 3),
        symbol("demo::outer", "/a.rs", 9),
        symbol("demo::top", "/a.rs", 0),
    ];
    let addresses = [table.frame(inlined), table.frame(vec![symbol("demo::main", "", 0)])];
    let record = record(&addresses, &addresses, &addresses);
    let resolved = Resolved::new(&record, &mut table, Some("worker-of-a-long-name".to_owned()));
    let mut seen = Vec::new();
    resolved.each(Which::Fault, &mut |frame| {
        seen.push((frame.address, frame.function.unwrap().to_owned(), frame.line, frame.inlined));
    });
    let expected = [
        (addresses[0], "demo::inner".to_owned(), Some(3), true),
        (addresses[0], "demo::outer".to_owned(), Some(9), true),
        (addresses[0], "demo::top".to_owned(), None, false),
        (addresses[1], "demo::main".to_owned(), None, false),
    ];
    assert_eq!(seen, expected);
    assert_eq!(resolved.fault_thread_name(), Some("worker-of-a-long-name"));
    // Each place is looked up once, and only a fault's first address is an instruction that ran.
    let mut asked = table.asked.clone();
    asked.sort_unstable();
    assert_eq!(asked, [(addresses[0], false), (addresses[0], true), (addresses[1], false)]);
}

/// What the written-down program's stacks must start with and end with.
fn check_shapes(text: &str, first: &[(&str, &str)], last: &[&str]) {
    let mut seen = 0;
    for mut shape in shapes(text) {
        let taken_in_allocator = ["alloc", "dealloc", "realloc"].contains(&shape.what.as_str());
        let mut record = record(&shape.addresses, &shape.addresses, &[]);
        record.fault = stack(&shape.addresses, false);
        let resolved = Resolved::new(&record, &mut shape.table, None);
        let names = names(&resolved, if taken_in_allocator { Which::Allocated } else { Which::Fault });
        let (start, end) = (names.first().unwrap().as_str(), names.last().unwrap().as_str());
        assert!(
            first.contains(&(shape.what.as_str(), start)),
            "{}: starts with {start}: {names:#?}",
            shape.what
        );
        assert!(last.contains(&end), "{}: ends with {end}: {names:#?}", shape.what);
        for name in &names {
            let hidden = [
                "fencepost",
                "__rust_",
                "panicking",
                "lang_start",
                "libc_start",
                "_Unwind",
                "short_backtrace",
            ];
            assert!(!hidden.iter().any(|part| name.contains(part)), "{}: {name} in {names:#?}", shape.what);
            let hash = name
                .split(['[', ']', ':'])
                .any(|part| part.len() >= 15 && part.bytes().all(|b| b.is_ascii_hexdigit() || b == b'h'));
            assert!(!hash, "{name} has a hash");
        }
        seen += 1;
    }
    assert!(seen >= 2, "only {seen} stacks were read");
    for (what, function) in first {
        assert!(text.contains(&format!("== {what}\n")) && text.contains(function), "no stack for {function}");
    }
}

const FUNCTIONS: [(&str, &str); 10] = [
    ("alloc", "shapes::makes"),
    ("realloc", "shapes::grows"),
    ("reads", "shapes::reads"),
    ("dealloc", "shapes::frees"),
    ("alloc", "shapes::strings"),
    ("alloc", "shapes::collects"),
    ("alloc", "shapes::maps"),
    ("alloc", "shapes::btree"),
    ("sort closure", "shapes::sorts::{{closure}}"),
    ("alloc", "<shapes::D as core::ops::drop::Drop>::drop"),
];

#[test]
fn real_debug_stacks_are_trimmed_to_the_program() {
    let last = ["shapes::main", "shapes::main::{{closure}}", "shapes::main::{{closure}}::{{closure}}"];
    check_shapes(include_str!("shapes/debug.txt"), &FUNCTIONS, &last);
}

#[test]
fn real_release_stacks_are_trimmed_to_the_program() {
    let last = ["shapes::main", "shapes::main::{{closure}}", "shapes::main::{{closure}}::{{closure}}"];
    check_shapes(include_str!("shapes/release.txt"), &FUNCTIONS, &last);
}

#[test]
fn real_libtest_stacks_are_trimmed_to_the_test() {
    let last = ["shapes::tests::in_test::{{closure}}"];
    check_shapes(
        include_str!("shapes/libtest.txt"),
        &[("alloc", "shapes::makes"), ("dealloc", "shapes::frees")],
        &last,
    );
}

/// This test's own stack, as this toolchain names it today.
#[test]
fn a_live_stack_is_trimmed_to_this_test() {
    struct Live;
    impl fencepost_report::Resolver for Live {
        fn resolve(&mut self, address: u64, exact: bool) -> Vec<Symbol> {
            let mut symbols = Vec::new();
            let inside = if exact { address } else { address - 1 };
            backtrace::resolve(inside as *mut std::ffi::c_void, |found| {
                symbols.push(Symbol {
                    function: found.name().map(|name| name.to_string()),
                    file: found.filename().map(|file| file.display().to_string()),
                    line: found.lineno(),
                    column: found.colno(),
                });
            });
            symbols
        }
    }
    #[inline(never)]
    fn walk() -> Vec<u64> {
        let mut addresses = Vec::new();
        backtrace::trace(|frame| {
            // Some unwinders end a stack with a frame at 0.
            addresses.extend(Some(frame.ip() as u64).filter(|address| *address != 0));
            true
        });
        std::hint::black_box(addresses)
    }
    let addresses = walk();
    let mut record = record(&[], &addresses, &[]);
    record.fault = stack(&addresses, false);
    let resolved = Resolved::new(&record, &mut Live, None);
    for which in [Which::Allocated, Which::Fault] {
        let names = names(&resolved, which);
        assert!(names[0].ends_with("a_live_stack_is_trimmed_to_this_test::walk"), "{names:#?}");
        assert!(names[1].ends_with("a_live_stack_is_trimmed_to_this_test"), "{names:#?}");
        assert!(names.len() <= 3, "{names:#?}");
    }
    let mut hit = None;
    resolved.excerpt(&mut |line| hit = line.hit.then(|| line.text.to_owned()).or(hit.take()));
    assert!(
        hit.is_some_and(|text| text.contains("backtrace::trace")),
        "the excerpt marks the line of the walk"
    );
}
