//! How a report reaches the world: first the raw forms, which cannot fail, then the resolved ones.

use core::fmt::Write;

use fencepost_record::{Note, RawFrames, Record, Summary, Text, UNGUARDED_REASONS, Unguarded, json, text};
use fencepost_sys::Platform;
use fencepost_sys::atomic::{AtomicI32, Ordering};

use crate::budget::is_confused;
use crate::hooks::{RenderStyle, Rendered};
use crate::options::{Color, Mode, Options, PathText, When};
use crate::output::Line;
use crate::report::{CLOSED, Case, Frames, Walk};
use crate::runtime::{Guard, Setup};
use crate::threads::Counters;

/// How long resolving names may take, in milliseconds, before the raw frames are written instead.
const RENDER_MS_MAX: u64 = 30_000;
const STDERR: i32 = 2;

/// One report, as the code on the report stack finds it.
struct Job<'a, P: Platform> {
    guard: &'a Guard<P>,
    setup: &'a Setup,
    case: &'a Case,
    frames: &'a Frames<'a>,
    walk: &'a Walk,
    progress: Progress,
}

/// How far a report has come, so that it can be finished when resolving names fails.
#[derive(Clone, Copy)]
struct Progress {
    /// The record's number in the ring; `None` before it is filled, and when it was reported before.
    number: Option<u64>,
    /// Resolving has begun: what follows is the end.
    rendered: bool,
    log: i32,
    color: bool,
    file: Option<JsonFile>,
    text_done: bool,
}

/// The file for machine-readable reports, with a raw line that may be replaced.
#[derive(Clone, Copy)]
struct JsonFile {
    file: i32,
    /// Where the raw line starts and ends; `None` when it is not there (yet): the file is a pipe, say.
    raw: Option<(u64, u64)>,
    /// Whether others who use the file wait for us: only then a line of it may be replaced.
    locked: bool,
    done: bool,
}

impl<P: Platform> Guard<P> {
    /// Fills and writes a report on a stack of our own. Under the reporter's lock.
    pub(crate) fn deliver(&self, setup: &Setup, case: &Case, frames: &Frames<'_>, walk: &Walk) {
        let progress = Progress {
            number: None,
            rendered: false,
            log: STDERR,
            color: false,
            file: None,
            text_done: false,
        };
        let mut job = Job { guard: self, setup, case, frames, walk, progress };
        let argument = &raw mut job as usize;
        // SAFETY: the stack is ours, and the reporter's lock makes us its only user. `work` gets the job it expects,
        // which outlives the call.
        if unsafe { self.platform.call_on_stack(setup.report_stack, work::<P>, argument) } {
            return;
        }
        // Resolving names has failed, and is not tried again. The progress says what is still to be written.
        self.set_rendering(0);
        self.platform.watchdog(0);
        self.reporter.render_failed.store(1, Ordering::Relaxed);
        // SAFETY: as above; the abandoned call has left the stack free again.
        let finished = unsafe { self.platform.call_on_stack(setup.report_stack, work::<P>, argument) };
        // A second failure is one outside of rendering, which never comes back here.
        let _ = finished;
    }

    /// The first line and the raw JSON line: from here nothing can be lost.
    fn write_raw(&self, setup: &Setup, record: &Record, progress: &mut Progress) {
        progress.log = self.log_file(setup);
        let mut line = Line::new(&self.platform, progress.log);
        let written = text::headline(record, &mut line);
        line.end(written);
        progress.color = match setup.options.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => self.platform.is_terminal(progress.log),
        };
        let file = setup.options.report.and_then(|path| self.open(&self.reporter.file, &path));
        progress.file = file.map(|file| {
            let locked = self.platform.lock(file);
            // A pipe's line cannot be replaced: it is written once, resolved or raw.
            let raw = self.platform.file_len(file).and_then(|start| {
                let len = self.append_raw_json(file, record)?;
                Some((start, start.wrapping_add(len)))
            });
            JsonFile { file, raw, locked, done: false }
        });
    }

    /// What resolving has not written.
    fn finish(&self, setup: &Setup, record: &mut Record, progress: &Progress) {
        if !progress.text_done {
            if setup.options.symbolize {
                record.notes.add(Note::NotResolved);
            }
            let mut line = Line::new(&self.platform, progress.log);
            let style = text::Style { color: progress.color, resolved: false };
            let written = text::body(record, &RawFrames(record), style, &mut line);
            line.end(written);
        }
        let Some(file) = progress.file else { return };
        if file.raw.is_none() && !file.done {
            self.append_raw_json(file.file, record);
        }
        if file.locked {
            self.platform.unlock(file.file);
        }
    }

    fn set_rendering(&self, word: u32) {
        if let Some(state) = self.thread_if_known() {
            state.reporting.store(word, Ordering::Relaxed);
            if word == 0 {
                state.give_allowance_back();
            } else {
                state.hold_allowance();
            }
        }
        self.reporter.rendering.store(word, Ordering::SeqCst);
    }

    /// Resolves names. A fault or a hang in there ends the whole call on this stack.
    fn render(&self, setup: &Setup, record: &Record, progress: &mut Progress) {
        progress.rendered = true;
        let failed = self.reporter.render_failed.load(Ordering::Relaxed) != 0;
        let Some(render) = self.hooks.render.filter(|_| setup.options.symbolize && !failed) else { return };
        let style = RenderStyle { color: progress.color, json: progress.file.is_some() };
        let (log, text_done, file) = (progress.log, &mut progress.text_done, &mut progress.file);
        let mut text = |text: &str| {
            *text_done = self.platform.write(log, text.as_bytes()).is_ok();
        };
        let mut json = |json: &str| {
            if let Some(file) = file {
                file.done = replace_line(&self.platform, file, json);
            }
        };
        self.set_rendering(1);
        self.platform.watchdog(RENDER_MS_MAX);
        render(record, style, &mut Rendered { text: &mut text, json: &mut json });
        self.set_rendering(0);
        self.platform.watchdog(0);
    }

    fn append_raw_json(&self, file: i32, record: &Record) -> Option<u64> {
        let mut line = Line::new(&self.platform, file);
        let written = json::report(record, &RawFrames(record), &mut line).and_then(|()| line.write_str("\n"));
        line.end(written)
    }

    /// Says in the machine-readable file that this process has a guard.
    pub(crate) fn write_start_line(&self, setup: &Setup) {
        let Summary { engine, mode, .. } = self.summary(setup);
        self.write_start(&setup.options, engine, mode, "");
    }

    /// Writes the line that a process begins with. The file is closed again: nothing of ours stays open in a program
    /// that has no error.
    pub(crate) fn write_start(&self, options: &Options, engine: &str, mode: &str, why_not: &str) {
        let Some(file) = options.report.and_then(|path| self.open_now(&path)) else { return };
        let mut exe = [0; 256];
        let len = self.platform.executable(&mut exe);
        let exe = Text::<256>::new(exe.get(..len).unwrap_or(&[]));
        let pid = self.platform.process_id();
        let mut line = Line::new(&self.platform, file);
        let written = json::start(&json::Start { pid, engine, mode, exe: exe.as_str(), why_not }, &mut line)
            .and_then(|()| line.write_str("\n"));
        line.end(written);
        self.platform.close(file);
    }

    /// Opens a file of the options once, `%p` standing for the process id.
    fn open(&self, file: &AtomicI32, path: &PathText) -> Option<i32> {
        let open = file.load(Ordering::Relaxed);
        if open != CLOSED {
            return Some(open);
        }
        let opened = self.open_now(path)?;
        file.store(opened, Ordering::Relaxed);
        Some(opened)
    }

    fn open_now(&self, path: &PathText) -> Option<i32> {
        let mut name = Text::<300>::EMPTY;
        for (index, part) in path.as_str().split("%p").enumerate() {
            let written = match index {
                0 => name.write_str(part),
                _ => write!(name, "{}{part}", self.platform.process_id()),
            };
            written.ok()?;
        }
        match self.platform.open_append(name.as_str().as_bytes()) {
            Ok(opened) => Some(opened),
            Err(error) => {
                self.complain(format_args!("cannot write to {}: {error}", name.as_str()));
                None
            }
        }
    }

    fn log_file(&self, setup: &Setup) -> i32 {
        setup.options.log.and_then(|path| self.open(&self.reporter.log, &path)).unwrap_or(STDERR)
    }

    /// Everything that the summary tells.
    pub(crate) fn summary(&self, setup: &Setup) -> Summary {
        let guarded = self.threads.sum(Counters::guarded);
        let freed = self.threads.sum(Counters::freed);
        let mut unguarded = [0; UNGUARDED_REASONS];
        for (count, why) in unguarded.iter_mut().zip(Unguarded::ALL) {
            *count = self.unguarded_by(why);
        }
        let refused = self.moving.refusals();
        let live = guarded.saturating_sub(freed);
        let peaks = self.threads.owned().map(|state| state.live_peak.load(Ordering::Relaxed));
        let untold = peaks.fold(0, u64::saturating_add);
        let count = self.reporter.count.load(Ordering::Relaxed);
        let [regions, regions_reserved, regions_committed] = (self.hooks.regions)();
        let by_budget = setup.options.mode == Mode::Budget;
        let (contexts, contexts_guarded) = if by_budget { self.contexts.counts() } else { (0, 0) };
        let confused = self.contexts.all().filter(|context| by_budget && is_confused(context)).count();
        Summary {
            contexts,
            contexts_guarded,
            guarding_us: self.budget.spent_us(),
            contexts_confused: confused as u64,
            pid: self.platform.process_id(),
            engine: setup.engine().name(),
            mode: setup.options.mode.word(),
            seed: setup.seed,
            total: guarded.wrapping_add(unguarded.iter().fold(0u64, |sum, count| sum.wrapping_add(*count))),
            guarded,
            unguarded,
            live,
            live_max: self.limits.live_max(untold).max(live),
            quarantined_bytes: self.heap.quarantined_bytes(),
            held_bytes: self
                .limits
                .held()
                .wrapping_add(self.heap.overhead.load(Ordering::Relaxed))
                .wrapping_add(self.depot.held_bytes()),
            syscalls: self.platform.calls(),
            fallbacks: refused
                .iter()
                .fold(self.heap.fallbacks.load(Ordering::Relaxed), |sum, count| sum.wrapping_add(*count)),
            refused,
            reports: count,
            reports_lost: self.reporter.repeated.load(Ordering::Relaxed),
            stacks_lost: self.depot.lost(),
            regions,
            regions_reserved,
            regions_committed,
        }
    }

    /// The summary as a line of the machine-readable file, if there is one.
    pub(crate) fn write_summary_line(&self, setup: &Setup) {
        if self.has_no_part(setup) {
            return;
        }
        let Some(file) = setup.options.report.and_then(|path| self.open(&self.reporter.file, &path)) else {
            return;
        };
        let mut line = Line::new(&self.platform, file);
        let written = json::summary(&self.account(setup), &mut line).and_then(|()| line.write_str("\n"));
        line.end(written);
    }

    /// The summary in both forms, the text as far as `summary` asks for it.
    pub(crate) fn print_summary(&self, setup: &Setup) {
        if self.has_no_part(setup) {
            return;
        }
        if let Some(file) = setup.options.report.and_then(|path| self.open(&self.reporter.file, &path)) {
            self.write_sites_line(setup, file);
        }
        self.write_summary_line(setup);
        let wanted = match setup.options.summary {
            When::On => true,
            When::Off => false,
            When::Auto => {
                self.reporter.count.load(Ordering::Relaxed) != 0
                    || (self.platform.is_terminal(STDERR) && self.platform.leads_its_job())
            }
        };
        if wanted {
            let mut line = Line::new(&self.platform, self.log_file(setup));
            let written = write!(line, "{}", self.account(setup));
            line.end(written);
            if self.reporter.count.load(Ordering::Relaxed) == 0 {
                self.print_sites(setup, self.log_file(setup));
            }
        }
    }
}

/// Runs on the report stack: fills and writes the report, or finishes one whose names could not be resolved.
extern "C" fn work<P: Platform>(argument: usize) {
    // SAFETY: `deliver` passes the address of its job, which lives until this returns or is abandoned.
    let job = unsafe { &mut *(argument as *mut Job<'_, P>) };
    let (guard, setup, progress) = (job.guard, job.setup, &mut job.progress);
    if !progress.rendered {
        progress.number = guard.fill_next(setup, job.case, job.frames, job.walk);
    }
    // SAFETY: the reporter's lock is held around this, and no other reference into the ring is kept across it.
    let place = progress.number.and_then(|number| unsafe { guard.reporter.place(number) });
    let Some(place) = place else { return };
    // SAFETY: `fill_next` wrote the record that it gave the number of.
    let record = unsafe { place.assume_init_mut() };
    if !progress.rendered {
        guard.write_raw(setup, record, progress);
        guard.render(setup, record, progress);
    }
    guard.finish(setup, record, progress);
}

/// Puts the resolved line in the place of the raw one; the raw one stays where that is not possible.
fn replace_line<P: Platform>(platform: &P, file: &mut JsonFile, line: &str) -> bool {
    if let Some((start, end)) = file.raw {
        // Another process may write behind us: then the raw line, which is whole, stays.
        if !file.locked
            || platform.file_len(file.file) != Some(end)
            || platform.truncate(file.file, start).is_err()
        {
            return false;
        }
        // From here the raw line is gone: unless the next write succeeds, it has to be written again.
        file.raw = None;
        if platform.write(file.file, line.as_bytes()).is_ok() {
            return true;
        }
        // What the disk had no room for is taken back; if even that fails, a broken line precedes the whole one.
        let cut = platform.truncate(file.file, start);
        let _ = cut;
        return false;
    }
    platform.write(file.file, line.as_bytes()).is_ok()
}
