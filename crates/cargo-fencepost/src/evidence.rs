//! What the programs wrote, and what it proves about their guard.

use std::path::Path;

use fencepost_report::parse::{self, Line, StartDocument};
use fencepost_report::tools::Collection;

use crate::inspect::{Facts, GO};
use crate::session::{Guard, Plan};

/// All reports in a folder; and as text the lines that are none.
pub fn read(folder: &Path) -> (Collection, String) {
    let (mut collection, mut others) = (Collection::new(), String::new());
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    files.retain(|path: &std::path::PathBuf| path.extension().is_some_and(|ending| ending == "jsonl"));
    files.sort();
    for path in files {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        match std::fs::read(&path) {
            Ok(bytes) => {
                let text = String::from_utf8_lossy(&bytes);
                collection.read(&name, &text);
                for line in text.lines() {
                    if matches!(
                        parse::parse_line(line, 1),
                        Ok(Line::Start(_) | Line::Summary(_) | Line::Sites(_))
                    ) {
                        others.push_str(line);
                        others.push('\n');
                    }
                }
            }
            Err(error) => eprintln!("fencepost: a report of process {name} cannot be read: {error}"),
        }
    }
    (collection, others)
}

/// Whether the program itself had a guard, which, and if none, why not.
pub fn judge(plan: &Plan, facts: &Facts, collection: &Collection, pid: u32) -> (Guard, Option<String>) {
    let mine = collection.starts.iter().filter(|start| start.pid == pid);
    let starts = mine.clone().filter(|start| start.why_not.is_none()).count();
    let summaries = collection.summaries.iter().filter(|summary| summary.pid == pid);
    let blocks: u64 = summaries.clone().map(|summary| summary.total).sum();
    let reported = collection.findings.iter().any(|finding| finding.document.process.pid == pid);
    if let Some(declined) = mine.clone().find(|start| start.engine.is_some() && start.why_not.is_some()) {
        return (Guard::None, declined.why_not.clone());
    }
    let spoke = starts > 0 || summaries.clone().next().is_some() || reported;
    if !spoke {
        // What the program itself said is better than what its file tells.
        let said =
            mine.clone().find_map(|start| start.why_not.clone()).filter(|_| facts.own_allocator.is_none());
        return (Guard::None, Some(said.unwrap_or_else(|| why_silent(plan, facts))));
    }
    if facts.own_runtime {
        return (Guard::Own, None);
    }
    match &facts.own_allocator {
        Some(name) if name == "malloc" => {
            let why = "it exports a malloc of its own, which the library leaves alone so that no two heaps are mixed: \
                       build it without that allocator, or with GuardedAlloc";
            (Guard::None, Some(why.to_owned()))
        }
        Some(name) if name == GO => {
            let why = format!(
                "{GO} has a heap of its own, which no library reaches: only what its C code takes from malloc is guarded"
            );
            (Guard::Preload, Some(why))
        }
        Some(name) => {
            let why = format!(
                "{name} is linked into it under names of its own: only what goes to malloc is guarded; \
                 build it without {name}, or with GuardedAlloc over it"
            );
            (Guard::Preload, Some(why))
        }
        None if blocks == 0 && summaries.clone().next().is_some() && !reported => {
            let why = "the library was loaded and no block went through it: the program has an allocator of its own, \
                       as runtimes of languages do, or allocates nothing: look whether the allocator can be told to use \
                       malloc, or build it with GuardedAlloc";
            (Guard::None, Some(why.to_owned()))
        }
        None => (Guard::Preload, None),
    }
}

/// The programs that `pid` or its children became or started and that were left alone, each with why.
pub fn left_alone(collection: &Collection, pid: u32) -> Vec<String> {
    let guarded = |start: &StartDocument| start.pid == pid && start.why_not.is_none();
    let main_is_guarded = collection.starts.iter().any(guarded);
    let mut lines: Vec<String> = Vec::new();
    for start in &collection.starts {
        // One that had begun and stood back is what [`judge`] speaks of.
        let became_another = main_is_guarded && start.engine.is_none();
        let Some(why) = start.why_not.as_ref().filter(|_| start.pid != pid || became_another) else {
            continue;
        };
        let line = format!("{}, which it started: {why}", start.exe.as_deref().unwrap_or("a program"));
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines
}

/// No start line and no summary came back.
fn why_silent(plan: &Plan, facts: &Facts) -> String {
    if let Some(why) = &facts.no_preload
        && !facts.own_runtime
    {
        return why.clone();
    }
    if facts.own_runtime {
        return "it holds fencepost, and no GuardedAlloc of it came into force: \
                make one the #[global_allocator] of this binary"
            .to_owned();
    }
    if facts.own_allocator.as_deref() == Some("malloc") {
        return "it exports a malloc of its own, which the library leaves alone so that no two heaps are mixed: \
                build it without that allocator, or with GuardedAlloc"
            .to_owned();
    }
    if plan.preload.is_none() {
        return "it has no GuardedAlloc, and no library may be preloaded (--no-preload): \
                make GuardedAlloc its #[global_allocator]"
            .to_owned();
    }
    "nothing came back from the library: it was not loaded (the program has special privileges, drops its \
     environment, or the system forbids it), or the program ended before it began"
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: &str = "{\"schema\":\"fencepost-start/1\",\"pid\":7,\"engine\":\"marker\",\"mode\":\"strict\",\"exe\":null}\n";

    fn judged(plan: &Plan, facts: &Facts, text: &str) -> (Guard, String) {
        let mut collection = Collection::new();
        collection.read("a", text);
        assert!(collection.problems.is_empty());
        let (guard, why) = judge(plan, facts, &collection, 7);
        (guard, why.unwrap_or_default())
    }

    #[test]
    fn programs_that_were_left_alone_are_named_once() {
        let child = START.replace(":7", ":8").replace("null}", "\"/bin/x\",\"why_not\":\"it is busy\"}");
        let mut collection = Collection::new();
        collection.read("a", &format!("{START}{child}{}", child.replace(":8", ":9")));
        assert!(collection.problems.is_empty());
        assert_eq!(left_alone(&collection, 7), ["/bin/x, which it started: it is busy"]);
    }

    #[test]
    fn only_what_came_back_proves_a_guard() {
        let plan = Plan { preload: Some("lib".into()), ..Plan::default() };
        let own = Facts { own_runtime: true, ..Facts::default() };
        assert_eq!(judged(&plan, &own, START).0, Guard::Own);
        assert_eq!(judged(&plan, &Facts::default(), START).0, Guard::Preload);
        assert_eq!(judged(&plan, &Facts::default(), "").0, Guard::None);
        assert_eq!(judged(&plan, &own, "").0, Guard::None);
        // Another process's guard proves nothing about this one's.
        assert_eq!(judged(&plan, &own, &START.replace(":7", ":8")).0, Guard::None);
        let fixed = Facts { no_preload: Some("it is static".into()), ..Facts::default() };
        assert_eq!(judged(&plan, &fixed, ""), (Guard::None, "it is static".to_owned()));
        let alone = START.replace("\"strict\"", "null").replace("null}", "null,\"why_not\":\"it is busy\"}");
        assert_eq!(judged(&plan, &Facts::default(), &alone), (Guard::None, "it is busy".to_owned()));
        // It had begun, and then stood back: what follows the first line tells.
        let late = START.replace("null}", "null,\"why_not\":\"it is busy\"}");
        let both = format!("{START}{late}");
        assert_eq!(judged(&plan, &Facts::default(), &both), (Guard::None, "it is busy".to_owned()));
        let exports = Facts { own_allocator: Some("malloc".into()), ..Facts::default() };
        assert!(judged(&plan, &exports, "").1.contains("malloc of its own"));
    }
}
