//! What changes a fingerprint, and what must not.

use fencepost_record::{ErrorKind, Frames, RawFrames, Record};
use fencepost_report::Resolved;

mod symbols;

use symbols::{Table, record, shapes, symbol};

fn of(functions: &[&str], change: impl FnOnce(&mut Record)) -> u64 {
    let mut table = Table::default();
    let addresses = table.stack(functions);
    let mut record = record(&addresses, &addresses, &[]);
    change(&mut record);
    Resolved::new(&record, &mut table, None).fingerprint()
}

const BUG: [&str; 4] =
    ["fencepost::x", "demo::Ring::push::h0123456789abcdef", "alloc::vec::Vec<T>::retain", "demo::main"];

#[test]
fn builds_and_runs_do_not_change_it() {
    let bug = of(&BUG, |_| ());
    let same = [
        vec!["demo::Ring::push::hfedcba9876543210", "demo::main"],
        vec![
            "fencepost::y",
            "__rust_alloc",
            "demo::Ring::push",
            "core::other::Inner::function",
            "demo::main",
        ],
        vec!["demo[1f]::Ring::push", "demo[1f]::main", "std::rt::lang_start", "main", "_start"],
    ];
    for functions in same {
        assert_eq!(of(&functions, |_| ()), bug, "{functions:?}");
    }
    // Nor do addresses, lines, the seed, the process, or the size of the block.
    let mut table = Table::default();
    table.stack(&["demo::unrelated", "demo::moves_all_addresses"]);
    let addresses = [
        table.frame(vec![symbol("demo::Ring::push", "/other/src/ring.rs", 999)]),
        table.frame(vec![symbol("demo::main", "/other/src/main.rs", 1)]),
    ];
    let mut other = record(&addresses, &addresses, &addresses);
    (other.seed, other.process.pid, other.block.as_mut().unwrap().size) = (9, 9, 9);
    assert_eq!(Resolved::new(&other, &mut table, None).fingerprint(), bug);
    let closure = |number| of(&[&format!("demo::f::{{closure#{number}}}")], |_| ());
    assert_eq!(closure(0), closure(7));
    assert_eq!(closure(0), of(&["demo::f::{{closure}}"], |_| ()));
}

#[test]
fn another_bug_changes_it() {
    let bug = of(&BUG, |_| ());
    let mut all = vec![
        bug,
        of(&BUG, |record| record.kind = ErrorKind::DoubleFree),
        of(&["demo::Ring::pop", "demo::main"], |_| ()),
        of(&["demo::main", "demo::Ring::push"], |_| ()),
        of(&["demo::Ring::push"], |_| ()),
        of(&BUG, |record| record.block = None),
    ];
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 6);
}

#[test]
fn without_names_it_is_that_of_the_raw_line() {
    let bare = record(&[0x10, 0x20], &[0x30], &[]);
    let resolved = Resolved::new(&bare, &mut Table::default(), None);
    assert_eq!(resolved.fingerprint(), RawFrames(&bare).fingerprint());
}

/// The same program built twice, without and with optimisation: its stacks have the same fingerprints, where
/// the optimiser left the same functions.
#[test]
fn debug_and_release_agree_where_their_stacks_do() {
    let prints = |text: &str| -> Vec<(String, u64)> {
        let each = shapes(text).into_iter().map(|mut shape| {
            let record = record(&[], &shape.addresses, &[]);
            let print = Resolved::new(&record, &mut shape.table, None).fingerprint();
            (shape.what, print)
        });
        each.collect()
    };
    let debug = prints(include_str!("shapes/debug.txt"));
    let release = prints(include_str!("shapes/release.txt"));
    let shared = debug.iter().filter(|print| release.contains(print)).count();
    assert!(shared >= 8, "{shared} of {} in both", debug.len());
}
