//! C's allocation functions exported from a Rust program: what C code in the same process allocates is guarded.

use crate::harness::{EXPORTING, Run, everywhere, fail_on};

#[test]
fn what_the_c_library_allocates_is_guarded() {
    if cfg!(target_feature = "crt-static") {
        return println!("skipped: a static program exports nothing");
    }
    let cases =
        [("overrun", "heap-buffer-overflow", "write", "live"), ("twice", "double-free", "free", "freed")];
    everywhere(&["right"], |_, options| {
        let mut wrong = Vec::new();
        for (what, kind, access, state) in cases {
            let ran = Run::new(EXPORTING, what).options(options).run();
            let is_right = match &ran.reports[..] {
                [report] => {
                    report["kind"] == kind
                        && report["access"]["type"] == access
                        && report["block"]["size"] == 16
                        && report["block"]["state"] == state
                }
                _ => false,
            };
            if !is_right || ran.stdout != "armed\n" || ran.status.success() {
                wrong.extend(ran.complain(vec![format!("no report of a {kind}: {:?}", ran.reports)]));
            }
        }
        wrong
    });
    fail_on(Run::new(EXPORTING, "").run().silent(0));
}
