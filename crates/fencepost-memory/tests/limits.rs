//! Running into the limits for real. Each is set for a process of its own, which runs one of the tests of `inside` and
//! checks the error; a limit that cannot be set here is skipped, and says why.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs one ignored test of this program under what a line of shell sets up first.
fn under(setting: &str, test: &str) {
    let program = std::env::current_exe().expect("a path");
    let mut shell = Command::new("sh");
    shell.args([
        "-c",
        &format!("{setting}; exec \"$0\" --ignored --exact \"$1\" --nocapture --test-threads=1"),
    ]);
    let output = shell.arg(program).arg(test).output().expect("sh runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{}\n{text}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    text.lines().filter(|line| line.contains("failed to")).for_each(|line| println!("{line}"));
}

#[test]
fn a_limit_on_address_space_is_named() {
    under("ulimit -v 4000000", "inside::address_space");
}

#[test]
fn a_limit_on_writable_memory_is_named() {
    under("ulimit -d 1000000", "inside::data");
}

#[test]
fn a_limit_on_locked_memory_is_named() {
    under("ulimit -l 4096", "inside::locked");
}

/// Where the machine allows many more than usual, it would take gigabytes of page tables.
#[test]
fn a_limit_on_mappings_is_named() {
    let most = fs::read_to_string("/proc/sys/vm/max_map_count").expect("the system has such a limit");
    match most.trim().parse::<u64>().expect("a number") {
        0..=300_000 => under("true", "inside::mappings"),
        more => println!("skipped: a process may have {more} mappings here"),
    }
}

/// A control group below this process's own, while it exists.
struct Group(PathBuf);

impl Group {
    /// Version 1 or 2 of control groups, whichever has the memory controller here.
    fn with_limit(bytes: usize) -> Result<Group, String> {
        let groups = fs::read_to_string("/proc/self/cgroup").map_err(|error| error.to_string())?;
        let own = |wanted: &str| {
            groups.lines().find_map(|line| {
                let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
                controllers.split(',').any(|word| word == wanted).then(|| path.to_owned())
            })
        };
        let tries = [
            own("memory").map(|path| (format!("/sys/fs/cgroup/memory{path}"), "memory.limit_in_bytes")),
            own("memory").map(|_| ("/sys/fs/cgroup/memory".to_owned(), "memory.limit_in_bytes")),
            own("").map(|path| (format!("/sys/fs/cgroup{path}"), "memory.max")),
        ];
        let mut why = "no control groups here".to_owned();
        for (parent, file) in tries.into_iter().flatten() {
            let folder = Path::new(&parent).join(format!("fencepost-test-{}", std::process::id()));
            let made = fs::create_dir(&folder).map(|()| Group(folder.clone()));
            match made.and_then(|group| fs::write(folder.join(file), bytes.to_string()).map(|()| group)) {
                Ok(group) => return Ok(group),
                Err(error) => why = format!("{}: {error}", folder.display()),
            }
        }
        Err(why)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // It is empty by now; one that stays is found by its name.
        if let Err(error) = fs::remove_dir(&self.0) {
            println!("{} could not be removed: {error}", self.0.display());
        }
    }
}

#[test]
fn a_limit_of_a_control_group_is_an_error_before_it_is_a_kill() {
    match Group::with_limit(64 << 20) {
        Ok(group) => {
            under(&format!("echo $$ > '{}/cgroup.procs'", group.0.display()), "inside::control_group")
        }
        Err(why) => println!("skipped: no control group with a limit of its own could be made: {why}"),
    }
}

/// A setting of the kernel's, put back at the end.
struct Setting(&'static str, String);

impl Setting {
    fn set(name: &'static str, value: &str) -> std::io::Result<Setting> {
        let before = fs::read_to_string(name)?;
        fs::write(name, value)?;
        Ok(Setting(name, before))
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        // Of the two that say how much may be promised, setting one clears the other, also where it is set to 0.
        if self.1.trim() != "0" || self.0.ends_with("overcommit_memory") {
            fs::write(self.0, self.1.trim()).expect("what was there can be set again");
        }
    }
}

/// Changes a setting of the whole machine for a moment (promises of up to 60 TiB are still kept, so that others do not
/// notice), so it runs only where it is asked for.
#[test]
fn overcommit_off_is_named() {
    if std::env::var_os("FENCEPOST_TEST_SYSCTL").is_none() {
        println!("skipped: it sets vm.overcommit_memory: FENCEPOST_TEST_SYSCTL=1 allows it");
        return;
    }
    let settings = [
        // Set to what it is: so that it is put back.
        ("/proc/sys/vm/overcommit_ratio", None),
        ("/proc/sys/vm/overcommit_kbytes", Some((60_u64 << 30).to_string())),
        ("/proc/sys/vm/overcommit_memory", Some("2".to_owned())),
    ];
    let mut set = Vec::new();
    for (name, value) in settings {
        let value = value.map_or_else(|| fs::read_to_string(name), Ok);
        match value.and_then(|value| Setting::set(name, value.trim())) {
            Ok(setting) => set.insert(0, setting),
            Err(error) => println!("skipped: {name} cannot be set here: {error}"),
        }
    }
    if set.len() == 3 {
        under("true", "inside::overcommit");
    }
}

mod inside {
    use fencepost_memory::growing::{GrowVec, Options};
    use fencepost_memory::{Limit, MemoryError, Reservation};

    const GIB: usize = 1 << 30;

    fn show(error: MemoryError) -> String {
        let text = format!("failed to {error}");
        println!("{text}");
        text
    }

    #[test]
    #[ignore = "run by the test above, under a limit"]
    fn address_space() {
        let error = Reservation::reserve(8 * GIB).expect_err("past the limit");
        let Some(Limit::AddressSpace { limit, used }) = error.limit() else { panic!("{error}") };
        assert!(limit == 4_096_000_000 && used < limit, "{error}");
        assert!(show(error).contains("ulimit -v"));
        Reservation::reserve(GIB).expect("within the limit");
    }

    #[test]
    #[ignore = "run by the test above, under a limit"]
    fn data() {
        let mut vector = GrowVec::<u8>::reserve(8 * GIB).expect("addresses are no data");
        let error = vector.reserve_more(2 * GIB).expect_err("past the limit");
        // The allocators ask what is left before they take much; a reservation just tries.
        assert!(
            matches!(error.limit(), Some(Limit::Memory { available }) if available < GIB as u64),
            "{error}"
        );
        let mut space = Reservation::reserve(8 * GIB).expect("addresses");
        let error = space.commit(0..2 * GIB).expect_err("past the limit");
        assert!(matches!(error.limit(), Some(Limit::Data { limit: 1_024_000_000, .. })), "{error}");
        assert!(show(error).contains("ulimit -d"));
        assert_eq!((vector.len(), vector.committed(), space.committed()), (0, 0, 0), "nothing was changed");
        vector.extend_from_slice(&[1; 1 << 20]).expect("within the limit");
    }

    #[test]
    #[ignore = "run by the test above, under a limit"]
    fn locked() {
        // SAFETY: the calls touch no memory of ours. The superuser has no such limit, so that is what this process gives up.
        unsafe {
            assert!(libc::geteuid() != 0 || libc::setuid(65534) == 0);
            assert_eq!(libc::mlockall(libc::MCL_FUTURE), 0);
        }
        let held = vec![1_u8; 1 << 20];
        let error = Reservation::reserve(GIB).expect_err("past the limit");
        assert!(
            matches!(error.limit(), Some(Limit::Locked { limit: 4_194_304, used }) if used >= 1 << 20),
            "{error}"
        );
        assert!(show(error).contains("ulimit -l"));
        Reservation::reserve(1 << 20).expect("within the limit");
        drop(held);
    }

    #[test]
    #[ignore = "run by the test above, under a limit"]
    fn mappings() {
        let page = fencepost_memory::page_size();
        let mut space = Reservation::reserve(600_000 * page).expect("addresses");
        space.commit(0..space.len()).expect("promises");
        let mut guards = (0..300_000).map(|n| 2 * n * page..(2 * n + 1) * page);
        let error = guards.find_map(|range| space.guard(range).err()).expect("past the limit");
        assert!(
            matches!(error.limit(), Some(Limit::Mappings { limit, used }) if used <= limit + 2),
            "{error}"
        );
        assert!(show(error).contains("sysctl vm.max_map_count"));
        let (held, len) = (space.committed(), space.len());
        assert!(
            held < len && space.decommit(0..len).is_ok(),
            "what was guarded until then is so, and all goes back"
        );
    }

    #[test]
    #[ignore = "run by the test above, under a limit"]
    fn control_group() {
        let arena = Options::new(8 * GIB).name("large").arena().expect("addresses");
        // Touched megabyte by megabyte: without the error the kernel would kill this process on the way.
        let error = loop {
            if let Err(error) = arena.alloc_slice_with(1 << 20, |_| 1_u8) {
                break error;
            }
            assert!(arena.used() < GIB, "the limit was passed");
        };
        assert!(matches!(error.limit(), Some(Limit::Memory { .. })), "{error}");
        assert!(show(error).contains("memory.max"));
    }

    #[test]
    #[ignore = "run by the test above, under a limit"]
    fn overcommit() {
        let bytes = 70 << 40;
        let mut space = Reservation::reserve(bytes).expect("addresses are never charged");
        let error = space.commit(0..bytes).expect_err("past what may be promised");
        assert!(matches!(error.limit(), Some(Limit::Overcommit { .. })), "{error}");
        assert!(show(error).contains("vm.overcommit_ratio"));
        space.commit(0..1 << 20).expect("within what may be promised");
    }
}
