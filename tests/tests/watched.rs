//! Memory that is watched: by watchpoints of the processor where there are any, else by closing pages.

use crate::expected::Expected;
use crate::harness::{Ran, engines, everywhere, fail_on, victim};

/// Runs `watch WHAT` by watchpoints, or with these taken away.
fn watched(what: &str, deny: &str) -> Ran {
    victim(&format!("watch {what}"))
        .options("on_error=continue,exitcode=0")
        .environment("FENCEPOST_DENY", deny)
        .run()
}

/// Whether this machine has watchpoints for us; said if not.
fn has_watchpoints() -> bool {
    let has = watched("hot", "").stdout.contains("by watchpoints\n");
    if !has {
        println!("skipped: no watchpoints here (`cargo fencepost doctor` says why)");
    }
    has
}

fn prints(ran: &Ran, stdout: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if ran.stdout != stdout || ran.status.code() != Some(0) {
        wrong.push(format!("{}, prints {:?}, not {stdout:?}", ran.ending(), ran.stdout));
    }
    ran.complain(wrong)
}

#[test]
fn other_fields_of_a_hot_page_cost_nothing_under_watchpoints() {
    let notes = "7 -> 1 at 64 in victim_writes\n1 -> 501 at 64 in victim_writes\ncount 2 lost 0\nsurvived\n";
    if has_watchpoints() {
        let ran = watched("hot", "");
        fail_on(prints(&ran, &format!("by watchpoints\narmed\nstepped 0\n{notes}")));
    }
    let ran = watched("hot", "watchpoints");
    fail_on(prints(&ran, &format!("by pages\narmed\nstepped 2002\n{notes}")));
}

#[test]
fn help_says_what_watchpoints_there_are() {
    let said =
        |deny: &str| victim("watch hot").options("help=1").environment("FENCEPOST_DENY", deny).run().stderr;
    let (with, without) = (said("watch-kernel"), said("watchpoints"));
    assert!(without.contains("hardware watchpoints: none: forbidden to this process"), "{without}");
    let there = "hardware watchpoints: four a thread; what the kernel writes in system calls is not seen";
    assert_eq!(with.contains(there), has_watchpoints(), "{with}");
}

#[test]
fn a_watchpoint_is_set_on_any_bytes_and_pages_are_closed_only_where_they_may_be() {
    let notes = "5 -> 6 by \"main\"\ncount 1 lost 0\n1 -> 4 by \"main\"\ncount 1 lost 0\nlocal 4\nsurvived\n";
    if has_watchpoints() {
        fail_on(prints(&watched("own", ""), &format!("armed\n{notes}")));
    }
    let ran = watched("own", "watchpoints");
    let mut wrong = Vec::new();
    // The static is eight bytes long, and what shares its page is the victim's.
    let shared = regex::Regex::new(
        r"closed by whole pages of \d+ bytes, and (\d+) bytes before it and (\d+) behind of \S*victim share",
    )
    .expect("a pattern");
    let beside = shared
        .captures(&ran.stdout)
        .and_then(|found| Some(found[1].parse::<usize>().ok()? + found[2].parse::<usize>().ok()?));
    if !beside.is_some_and(|bytes| (bytes + 8).is_multiple_of(4096))
        || !ran.stdout.contains("on this thread's stack")
    {
        wrong.push(format!("must say why not: {:?}", ran.stdout));
    }
    fail_on(ran.complain(wrong));
}

#[test]
fn threads_of_before_and_after_are_watched_and_theirs() {
    let stdout = "armed\n1 -> 2 by \"old\"\n2 -> 3 by \"child\"\n3 -> 4 by \"new\"\n4 -> 5 by \"main\"\ncount 4 lost 0\nsurvived\n";
    for deny in ["", "watchpoints"] {
        fail_on(prints(&watched("threads", deny), stdout));
    }
}

#[test]
fn writes_of_two_threads_at_once_are_all_noted() {
    if has_watchpoints() {
        let ran = watched("raced 1000", "");
        fail_on(prints(&ran, "armed\nby watchpoints noted 2000 of 2000, counted 2000\nsurvived\n"));
    }
}

/// Whether the kernel's writes are seen is a matter of permissions; that they have their effect is not.
#[test]
fn the_kernels_writes_are_noted_where_that_may_be() {
    if !has_watchpoints() {
        return;
    }
    let ran = watched("kernel", "");
    let covered = "armed\nread 8\nsystem calls: covered, by watchpoints\n1 -> 7523094288207667809 by \"main\"\ncount 1 lost 0\n7523094288207667809 -> 2 by \"main\"\ncount 2 lost 0\nsurvived\n";
    let not = "armed\nread 8\nsystem calls: not covered\ncount 0 lost 0\n1 -> 2 by \"main\"\ncount 1 lost 0\nsurvived\n";
    let is_covered = ran.stdout.contains("system calls: covered");
    println!("{}", if is_covered { "covered" } else { "not covered: the kernel is not ours to watch" });
    fail_on(prints(&ran, if is_covered { covered } else { not }));
    let ran = watched("kernel", "watch-kernel");
    fail_on(prints(&ran, not));
}

#[test]
fn the_programs_own_traps_stay_its_own() {
    let stdout = "armed\ntrapped 2\n1 -> 2 by \"main\"\n2 -> 3 by \"main\"\ncount 2 lost 0\ntrapped 2 and later 1\n3 -> 4 by \"main\"\ncount 3 lost 0\nsurvived\n";
    for deny in ["", "watchpoints"] {
        fail_on(prints(&watched("trap", deny), stdout));
    }
}

#[test]
fn a_child_and_its_parent_watch_each_for_itself() {
    for (deny, way) in [("", "watchpoints"), ("watchpoints", "pages")] {
        if deny.is_empty() && !has_watchpoints() {
            continue;
        }
        let stdout = format!(
            "armed\nchild by {way}\n1 -> 2 by \"main\"\ncount 1 lost 0\nparent by {way}\n1 -> 3 by \"main\"\ncount 1 lost 0\nsurvived\n"
        );
        fail_on(prints(&watched("forked", deny), &stdout));
    }
}

#[test]
fn a_program_that_closes_all_descriptors_is_watched_by_its_pages() {
    if has_watchpoints() {
        let ran = watched("closed", "");
        fail_on(prints(&ran, "armed\nby pages\n1 -> 2 by \"main\"\ncount 1 lost 0\nsurvived\n"));
        assert!(ran.stderr.contains("goes on by closing its pages"), "{}", ran.stderr);
    }
}

#[test]
fn a_thread_that_holds_every_signal_back_is_not_harmed() {
    // Where pages are closed, as with any fault, a write ends such a thread's process.
    if has_watchpoints() {
        fail_on(prints(&watched("held-back", ""), "armed\nlast 3 -> 4\nby watchpoints\nsurvived\n"));
    }
}

#[test]
fn what_the_processor_has_no_room_for_is_watched_by_pages() {
    if has_watchpoints() {
        let ways = r#"["watchpoints", "watchpoints", "watchpoints", "watchpoints", "pages", "pages"]"#;
        let stdout = format!("{ways}\narmed\n[1, 1, 1, 1, 1, 1]\nwide by watchpoints\nsurvived\n");
        fail_on(prints(&watched("many", ""), &stdout));
        let ways = r#"["watchpoints", "watchpoints", "watchpoints", "watchpoints"]"#;
        fail_on(prints(&watched("freed", ""), &format!("armed\ncount 1\n{ways}\nsurvived\n")));
    }
}

#[test]
fn one_instruction_may_write_to_several_watched_words() {
    for deny in ["", "watchpoints"] {
        fail_on(prints(&watched("wide", deny), "armed\n[4, 0, 2, 3]\nsurvived\n"));
    }
}

#[test]
fn what_is_watched_may_be_sealed_as_well() {
    for deny in ["", "watchpoints", "keys"] {
        let stdout = "armed\nviolations 1\n1 -> 2 by \"main\"\n2 -> 3 by \"main\"\ncount 2 lost 0\nread 0x3\nsurvived\n";
        let ran = watched("sealed", deny);
        fail_on(prints(&ran, stdout));
        assert_eq!(ran.reports.len(), 1, "{}", ran.stderr);
    }
}

/// What a run of `watch audit` is to print: by the page table, or by watching, where the kernel writes nothing.
fn audited(size: Option<usize>, by_page_table: bool) -> String {
    let page = |number, writes| format!("page {number} of block {size:?}: {writes} writes, unseen false\n");
    if by_page_table {
        let way = "by the page table (userfaultfd and PAGEMAP_SCAN), system calls included";
        format!("armed\n{way}\n{}{}{}read 8 lost 0\nsurvived\n", page(0, 0), page(1, 0), page(3, 0))
    } else {
        let way = "by watching every write";
        format!("armed\n{way}\n{}{}read -1 lost 0\nsurvived\n", page(0, 1), page(1, 1))
    }
}

#[test]
fn an_audit_lists_what_the_kernel_wrote_where_the_page_table_tells() {
    let run = |what: &str, engine: &str, deny: &str| {
        victim(&format!("watch audit {what}"))
            .options(&format!("engine={engine}"))
            .environment("FENCEPOST_DENY", deny)
            .run()
    };
    let has = run("large", "mprotect", "").stdout.contains("PAGEMAP_SCAN");
    if !has {
        println!("skipped: the kernel does not note written pages (Linux 6.7 does)");
    }
    for engine in engines() {
        for (what, size) in [("large", Some(1 << 20)), ("small", Some(16384)), ("static", None)] {
            fail_on(prints(&run(what, engine, ""), &audited(size, has)));
            fail_on(prints(&run(what, engine, "pagemap"), &audited(size, false)));
        }
    }
}

#[test]
fn a_block_that_was_audited_is_guarded_as_before() {
    everywhere(&["right"], |_, options| {
        let ran = victim("watch audited").options(options).run();
        let expected = Expected {
            kind: "use-after-free",
            access: "read",
            beside: Some(("inside", 8192)),
            block: Some((12288, 4096)),
            state: Some("freed"),
            freed: "victim_frees",
            ..Expected::FAULT
        };
        let mut wrong = expected.verify(&ran);
        if ran.stdout != "armed\n1 written\n" {
            wrong.extend(ran.complain(vec![format!("prints {:?}", ran.stdout)]));
        }
        wrong
    });
}
