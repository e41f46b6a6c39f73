//! Flags, `fencepost.toml`, the environment, and what is wrong with them.

use crate::harness::{clean, fencepost, victim};

#[test]
fn mistakes_are_named_and_nothing_runs() {
    for (arguments, said) in [
        ("exec --place up -- echo ran", "invalid value 'up' for '--place <VALUE>'"),
        ("exec --sample-rate 0 -- echo ran", "option \"sample_rate=0\""),
        ("exec --plase left -- echo ran", "a similar argument exists: '--place'"),
        ("exec --min-coverage 101 -- echo ran", "not from 0 to 100"),
        ("exec --sarif no/such/folder/x -- echo ran", "cannot write no/such/folder/x"),
        ("exec --suppress nothing.toml -- echo ran", "cannot read nothing.toml"),
        ("exec --baseline nothing.json -- echo ran", "cannot read nothing.json"),
        ("exec", "<PROGRAM>"),
        ("exec -- ./no-such-program", "cannot run ./no-such-program"),
        ("frobnicate", "unrecognized subcommand"),
        ("", "Usage:"),
    ] {
        let ran = fencepost(arguments).run().ends_with(2).says(said);
        assert_eq!(ran.stdout, "", "{arguments}");
    }
    let ran = fencepost("exec -- echo ran").environment("FENCEPOST_OPTIONS", "plase=left").run();
    assert_eq!(ran.ends_with(2).says("unknown option \"plase=left\"").stdout, "");
}

#[test]
fn the_file_the_environment_and_the_flags_hold_in_this_order() {
    let run = |flags: &str, file: &str, environment: &str| {
        let run = fencepost(&format!("exec {flags} --")).then([
            &victim(),
            "use-after-free",
            "write",
            "24",
            "0",
            "0",
        ]);
        let run = run.file("fencepost.toml", file).environment("FENCEPOST_OPTIONS", environment);
        run.run().ends_with(100).stderr
    };
    let place = "place = \"left\"\nseed = 5\nonly-size = [24, \"1-4096\"]\n";
    let said = run("", place, "");
    assert!(
        said.contains("replay: FENCEPOST_OPTIONS='place=left,only_size=\"24,1-4K\",seed=0x5' "),
        "{said}"
    );
    let said = run("", place, "place=alternate");
    assert!(said.contains("'place=alternate,only_size="), "{said}");
    let said = run("--place right --only-size 1-9999", place, "place=alternate");
    assert!(said.contains("replay: FENCEPOST_OPTIONS='only_size=1-9999,seed=0x5' "), "{said}");
}

#[test]
fn mistakes_in_the_file_are_named() {
    for (file, said) in [
        ("plase = \"left\"", "plase is no setting"),
        ("place = \"up\"", "option \"place=up\""),
        ("place = ", "cannot read"),
        ("min-coverage = 200", "must be from 0 to 100"),
        ("both-sides = \"yes\"", "must be true or false"),
        ("[[suppression]]\nkind = \"leak\"\nreason = \" \"", "a suppression needs a reason"),
        ("[[suppression]]\nreason = \"why not\"", "must name a kind, function, module or fingerprint"),
        ("[[suppression]]\nkinds = \"leak\"\nreason = \"x\"", "unknown field"),
    ] {
        fencepost("exec -- echo ran").file("fencepost.toml", file).run().ends_with(2).says(said);
    }
}

#[test]
fn too_little_coverage_fails_a_run() {
    let run = |flags: &str| fencepost(&format!("exec {flags} --")).then([&clean(), "work"]).run();
    run("--min-coverage 90").ends_with(0);
    let ran = run("--min-coverage 90 --skip-size 0-1000000");
    ran.ends_with(3).says("less than the 90% of --min-coverage").says("filter: ");
}

#[test]
fn completions_and_the_manual_know_every_option() {
    let manual = fencepost("man").run().ends_with(0).stdout;
    let bash = fencepost("completions bash").run().ends_with(0).stdout;
    for flag in ["sample-rate", "both-sides", "min-coverage", "sarif"] {
        assert!(bash.contains(&format!("--{flag}")), "{flag}");
        assert!(manual.replace("\\-", "-").contains(&format!("--{flag}")), "{flag}");
    }
    fencepost("completions tcsh").run().ends_with(2);
}

#[test]
fn doctor_tries_every_engine() {
    let ran = fencepost("doctor").run().ends_with(0);
    for what in [
        "kernel",
        "engine auto",
        "engine move",
        "engine marker",
        "engine mprotect",
        "vm.max_map_count",
        "seccomp",
        "hardware watchpoints",
    ] {
        assert!(ran.stdout.contains(what), "{what}: {}", ran.stdout);
    }
    assert!(ran.stdout.contains("takes "), "{}", ran.stdout);
}
