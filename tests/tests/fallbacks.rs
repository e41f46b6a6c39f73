//! What happens when the machine, the kernel or the reporter itself does not play along.

use crate::expected::{Expected, headline};
use crate::harness::{Ran, Run, clean, engines, everywhere, fail_on, victim};
use std::time::Duration;

fn overrun() -> Run {
    victim("overrun write end 24 1")
}

const OVERRUN: Expected<'static> = Expected {
    kind: "heap-buffer-overflow",
    access: "write",
    beside: Some(("after", 0)),
    block: Some((24, 1)),
    ..Expected::FAULT
};

#[test]
fn what_the_kernel_lacks_is_gone_round() {
    let mut wrong = Vec::new();
    for missing in [
        "userfaultfd",
        "move",
        "userfaultfd,markers",
        "userfaultfd,vectored",
        "process_vm_readv",
        "proc",
        "tables",
        "userfaultfd,markers,vectored,process_vm_readv,proc,tables",
    ] {
        wrong.extend(OVERRUN.verify(&overrun().environment("FENCEPOST_DENY", missing).run()));
        let ran = victim("use-after-free read 5000 4999 1000").environment("FENCEPOST_DENY", missing).run();
        let dead = Expected {
            kind: "use-after-free",
            access: "read",
            beside: Some(("inside", 4999)),
            block: Some((5000, 8)),
            state: Some("freed"),
            freed: "victim_frees",
            ..OVERRUN
        };
        wrong.extend(dead.verify(&ran));
        let ran = clean("sizes").environment("FENCEPOST_DENY", missing).run();
        wrong.extend(ran.silent(0));
        let engine = ran.summary()["engine"].as_str().unwrap_or_default().to_owned();
        let gone = match missing {
            _ if missing.contains("markers") => engine != "mprotect",
            _ => (missing.contains("userfaultfd") || missing == "move") && engine == "move",
        };
        if gone {
            wrong.extend(ran.complain(vec![format!("engine {engine}, without {missing}")]));
        }
    }
    fail_on(wrong);
}

#[test]
fn an_engine_that_is_not_there_is_replaced_and_that_is_said() {
    let run = clean("work").options("engine=marker,summary=on").environment("FENCEPOST_DENY", "markers");
    let ran = run.run();
    let mut wrong = Vec::new();
    if ran.status.code() != Some(0) || ran.summary()["engine"] != "mprotect" {
        wrong.push(format!("engine {}", ran.summary()["engine"]));
    }
    if !ran.stderr.lines().any(|line| line.contains("marker") && line.contains("mprotect")) {
        wrong.push("a line must say that mprotect serves instead of marker".into());
    }
    fail_on(ran.complain(wrong));
}

/// Frames by module and offset, and the rest of the report whole.
fn raw_but_whole(ran: &Ran) -> Vec<String> {
    let mut wrong = Vec::new();
    if !ran.died_by(libc::SIGSEGV) || ran.stdout != "armed\n" {
        wrong.push(format!("{}, not by its own signal", ran.ending()));
    }
    let [report] = &ran.reports[..] else {
        wrong.push(format!("{} reports", ran.reports.len()));
        return ran.complain(wrong);
    };
    let unnamed = Expected { fault: "", allocated: "", ..OVERRUN };
    let names = |line: &String| !line.starts_with("fault stack") && !line.starts_with("allocated stack");
    wrong.extend(unnamed.verify_report(report).into_iter().filter(names));
    for stack in [&report["fault"], &report["block"]["allocated"]] {
        let frame = &stack["frames"][0];
        let own = frame["module"].as_str().is_some_and(|module| module.ends_with("/victim"));
        if !own || !frame["offset"].is_string() || !frame["address"].is_string() {
            wrong.push(format!("the innermost frame must be an offset in the victim: {frame}"));
        }
    }
    if ran.headlines() != [headline(report)] {
        wrong.push(format!("text begins {:?}", ran.headlines()));
    }
    ran.complain(wrong)
}

#[test]
fn a_report_without_names_has_its_raw_frames() {
    everywhere(&["right"], |_, options| {
        raw_but_whole(&overrun().options(options).options("symbolize=off").run())
    });
}

#[test]
fn a_reporter_that_breaks_leaves_its_raw_frames() {
    let mut wrong = Vec::new();
    for engine in engines() {
        // One that hangs is ended by the guard's own watch after half a minute.
        for how in ["fault", "hang", "panic"] {
            let run = overrun().options(&format!("engine={engine}"));
            wrong.extend(raw_but_whole(&run.environment("FENCEPOST_TEST_BREAK_SYMBOLIZE", how).run()));
        }
    }
    fail_on(wrong);
}

#[test]
fn the_first_report_of_a_release_build_takes_less_than_a_second() {
    if cfg!(debug_assertions) {
        println!("skipped: this is a debug build");
        return;
    }
    let ran = overrun().run();
    println!("figure: a run with its first report took {:?}", ran.took);
    let mut wrong = OVERRUN.verify(&ran);
    if ran.took > Duration::from_secs(1) {
        wrong.extend(ran.complain(vec![format!("took {:?}", ran.took)]));
    }
    fail_on(wrong);
}

#[test]
fn without_standard_files() {
    let mut wrong = Vec::new();
    for engine in engines() {
        let ran = clean("work").options(&format!("engine={engine},summary=on")).closed().run();
        wrong.extend(ran.silent(0));
        let ran = overrun().options(&format!("engine={engine}")).closed().run();
        let mut here = match &ran.reports[..] {
            [report] => OVERRUN.verify_report(report),
            reports => vec![format!("{} reports", reports.len())],
        };
        if !ran.died_by(libc::SIGSEGV) {
            here.push(format!("{}, not by its own signal", ran.ending()));
        }
        wrong.extend(ran.complain(here));
    }
    fail_on(wrong);
}

#[test]
fn with_little_address_space() {
    let mut wrong = Vec::new();
    for engine in engines() {
        for gib in [1, 4, 64] {
            let options = format!("engine={engine}");
            let limited = |run: Run| run.options(&options).limit(libc::RLIMIT_AS, gib << 30).run();
            wrong.extend(limited(clean("work")).silent(0));
            let ran = limited(clean("many-live 20000"));
            wrong.extend(ran.silent(0));
            let guarded = ran.summary()["guarded"].as_u64().unwrap_or(0);
            let reasons = &ran.summary()["unguarded"];
            println!("figure: {engine} in {gib} GiB of addresses: {guarded} guarded, {reasons}");
            let missing = ran.summary()["total"].as_u64().unwrap_or(0) - guarded;
            if missing > 100
                && reasons["address-space"].as_u64() == Some(0)
                && reasons["memory-limit"].as_u64() == Some(0)
            {
                wrong.extend(
                    ran.complain(vec![format!(
                        "{missing} blocks not guarded, and the reasons are {reasons}"
                    )]),
                );
            }
            wrong.extend(OVERRUN.verify(&limited(overrun())));
        }
    }
    fail_on(wrong);
}

/// What `ulimit -d` counts is what a kernel counts that promises no more than it has: all that is opened, used or not.
#[test]
fn what_is_opened_may_be_charged_whether_it_is_used_or_not() {
    let mut wrong = Vec::new();
    for engine in engines() {
        for mib in [256, 1024] {
            let options = format!("engine={engine}");
            let limited = |run: Run| run.options(&options).limit(libc::RLIMIT_DATA, mib << 20).run();
            wrong.extend(limited(clean("work")).silent(0));
            let ran = limited(clean("many-live 20000"));
            wrong.extend(ran.silent(0));
            println!("figure: {engine} with {mib} MiB of data: {} guarded", ran.summary()["guarded"]);
            wrong.extend(OVERRUN.verify(&limited(overrun())));
        }
    }
    fail_on(wrong);
}

/// Changes a setting of the whole machine for a moment (promises of up to 60 TiB are still kept, so that others do not
/// notice), so it runs only where it is asked for.
#[test]
fn a_kernel_that_overcommits_nothing_is_no_hindrance() {
    if std::env::var_os("FENCEPOST_TEST_SYSCTL").is_none() {
        println!("skipped: it sets vm.overcommit_memory: FENCEPOST_TEST_SYSCTL=1 allows it");
        return;
    }
    let files =
        ["/proc/sys/vm/overcommit_ratio", "/proc/sys/vm/overcommit_kbytes", "/proc/sys/vm/overcommit_memory"];
    let before = files.map(|file| std::fs::read_to_string(file).unwrap_or_default());
    let promises = (60_u64 << 30).to_string();
    let set = std::fs::write(files[1], promises).and_then(|()| std::fs::write(files[2], "2"));
    let wrong: Vec<String> = if set.is_ok() {
        let all = engines().iter().flat_map(|engine| {
            let options = format!("engine={engine}");
            let mut here = clean("many-live 20000").options(&options).run().silent(0);
            here.extend(OVERRUN.verify(&overrun().options(&options).run()));
            here
        });
        all.collect()
    } else {
        println!("skipped: vm.overcommit_memory cannot be set here");
        Vec::new()
    };
    // Of the two that say how much may be promised, setting one clears the other.
    let [ratio, kbytes, memory] = before;
    let amount = if kbytes.trim() == "0" { (files[0], ratio) } else { (files[1], kbytes) };
    for (file, value) in [(files[2], memory), amount] {
        if !value.is_empty() && set.is_ok() {
            std::fs::write(file, value.trim()).expect("what was there can be set again");
        }
    }
    fail_on(wrong);
}

#[test]
fn with_little_memory_the_rest_is_not_guarded() {
    let mut wrong = Vec::new();
    for engine in engines() {
        let ran = clean("many-live 20000").options(&format!("engine={engine},max_memory=16M")).run();
        let mut here = Vec::new();
        let summary = ran.summary();
        let (guarded, refused) = (summary["guarded"].as_u64(), summary["unguarded"]["memory-limit"].as_u64());
        println!("figure: {engine} in 16 MiB: {guarded:?} guarded, {refused:?} not");
        if refused < Some(10_000) || guarded < Some(1000) {
            here.push(format!("{guarded:?} guarded, {refused:?} refused for memory"));
        }
        here.extend(ran.silent(0));
        wrong.extend(ran.complain(here));
    }
    fail_on(wrong);
}

#[test]
fn asking_for_more_than_there_is_gives_null() {
    everywhere(&["right", "left"], |_, options| clean("no-memory").options(options).run().silent(0));
}
