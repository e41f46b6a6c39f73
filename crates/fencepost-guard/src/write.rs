//! How a report reaches the world: first the raw forms, which cannot fail, then the resolved ones.

use core::fmt::Write;
use core::sync::atomic::{AtomicI32, Ordering};

use fencepost_record::{Note, RawFrames, Record, Summary, Text, UNGUARDED_REASONS, Unguarded, json, text};
use fencepost_sys::Platform;

use crate::options::{Color, PathText, When};
use crate::output::Line;
use crate::report::CLOSED;
use crate::runtime::{Guard, RenderStyle, Rendered, Setup};
use crate::threads::Counters;

/// How long resolving names may take, in milliseconds, before the raw frames are written instead.
const RENDER_MS_MAX: u64 = 30_000;
const STDERR: i32 = 2;

/// One rendering, as the code on the report stack finds it.
struct Job<'a, P: Platform> {
    guard: &'a Guard<P>,
    record: &'a Record,
    style: RenderStyle,
    log: i32,
    file: Option<JsonFile>,
    text_done: bool,
}

/// The file for machine-readable reports, with a raw line that may be replaced.
#[derive(Clone, Copy)]
struct JsonFile {
    file: i32,
    /// Where the raw line starts and ends; `None` when the file is a pipe and nothing was written yet.
    raw: Option<(u64, u64)>,
    done: bool,
}

impl<P: Platform> Guard<P> {
    /// Writes a report that has been filled in. Under the reporter's lock.
    pub(crate) fn write_report(&self, setup: &Setup, record: &mut Record) {
        let log = self.log_file(setup);
        let mut line = Line::new(&self.platform, log);
        let written = text::headline(record, &mut line);
        line.end(written);
        let file = setup.options.report.and_then(|path| self.open(&self.reporter.file, &path));
        let locked = file.is_some_and(|file| self.platform.lock(file));
        let json_file = file.map(|file| self.write_raw_json(file, record));
        let color = match setup.options.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => self.platform.is_terminal(log),
        };
        let style = RenderStyle { color, json: file.is_some() };
        let job = Job { guard: self, record, style, log, file: json_file, text_done: false };
        let job = self.render(setup, job);
        let (text_done, json_file) = (job.text_done, job.file);
        if !text_done {
            if setup.options.symbolize {
                record.notes.add(Note::NotResolved);
            }
            let mut line = Line::new(&self.platform, log);
            let style = text::Style { color, resolved: false };
            let written = text::body(record, &RawFrames(record), style, &mut line);
            line.end(written);
        }
        if let Some(JsonFile { file, raw: None, done: false }) = json_file {
            self.append_raw_json(file, record);
        }
        if let (Some(file), true) = (file, locked) {
            self.platform.unlock(file);
        }
    }

    /// The raw JSON line: at once where it can be replaced later, else only if resolving fails.
    fn write_raw_json(&self, file: i32, record: &Record) -> JsonFile {
        let start = self.platform.file_len(file);
        let raw = start.and_then(|start| {
            let len = self.append_raw_json(file, record)?;
            Some((start, start.wrapping_add(len)))
        });
        JsonFile { file, raw, done: false }
    }

    fn append_raw_json(&self, file: i32, record: &Record) -> Option<u64> {
        let mut line = Line::new(&self.platform, file);
        let written = json::report(record, &RawFrames(record), &mut line).and_then(|()| line.write_str("\n"));
        line.end(written)
    }

    /// Resolves names on a stack of our own. A fault or a hang in there comes back here.
    fn render<'a>(&'a self, setup: &Setup, mut job: Job<'a, P>) -> Job<'a, P> {
        let failed = self.reporter.render_failed.load(Ordering::Relaxed) != 0;
        if !setup.options.symbolize || self.hooks.render.is_none() || failed {
            return job;
        }
        let state = self.thread_if_known();
        let set = |word: u32| {
            if let Some(state) = state {
                state.reporting.store(word, Ordering::Relaxed);
            }
            self.reporter.rendering.store(word, Ordering::SeqCst);
        };
        set(1);
        self.platform.watchdog(RENDER_MS_MAX);
        let argument = &raw mut job as usize;
        // SAFETY: the stack is ours, and the reporter's lock makes us its only user. `render_job` gets the job it
        // expects, which outlives the call; if it is abandoned, the job is left in a state that says so.
        let came_back = unsafe { self.platform.call_on_stack(setup.report_stack, render_job::<P>, argument) };
        self.platform.watchdog(0);
        set(0);
        if !came_back {
            self.reporter.render_failed.store(1, Ordering::Relaxed);
        }
        job
    }

    /// Opens a file of the options once, `%p` standing for the process id.
    fn open(&self, file: &AtomicI32, path: &PathText) -> Option<i32> {
        let open = file.load(Ordering::Relaxed);
        if open != CLOSED {
            return Some(open);
        }
        let mut name = Text::<300>::EMPTY;
        for (index, part) in path.as_str().split("%p").enumerate() {
            let written = match index {
                0 => name.write_str(part),
                _ => write!(name, "{}{part}", self.platform.process_id()),
            };
            written.ok()?;
        }
        match self.platform.open_append(name.as_str().as_bytes()) {
            Ok(opened) => {
                file.store(opened, Ordering::Relaxed);
                Some(opened)
            }
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
        let live = guarded.saturating_sub(freed);
        let count = self.reporter.count.load(Ordering::Relaxed);
        Summary {
            pid: self.platform.process_id(),
            engine: setup.engine().name(),
            mode: setup.options.mode.word(),
            seed: setup.seed,
            total: guarded.wrapping_add(unguarded.iter().fold(0u64, |sum, count| sum.wrapping_add(*count))),
            guarded,
            unguarded,
            live,
            live_max: self.limits.live_max().max(live),
            quarantined_bytes: self.heap.quarantined_bytes(),
            held_bytes: self
                .limits
                .held()
                .wrapping_add(self.heap.overhead.load(Ordering::Relaxed))
                .wrapping_add(self.depot.held_bytes()),
            syscalls: self.platform.calls(),
            fallbacks: self.heap.fallbacks.load(Ordering::Relaxed),
            reports: count,
            reports_lost: self.reporter.repeated.load(Ordering::Relaxed),
            stacks_lost: self.depot.lost(),
        }
    }

    /// The summary as a line of the machine-readable file, if there is one.
    pub(crate) fn write_summary_line(&self, setup: &Setup) {
        let Some(file) = setup.options.report.and_then(|path| self.open(&self.reporter.file, &path)) else {
            return;
        };
        let mut line = Line::new(&self.platform, file);
        let written = json::summary(&self.summary(setup), &mut line).and_then(|()| line.write_str("\n"));
        line.end(written);
    }

    /// The summary in both forms, the text as far as `summary` asks for it.
    pub(crate) fn print_summary(&self, setup: &Setup) {
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
            let written = write!(line, "{}", self.summary(setup));
            line.end(written);
        }
    }
}

/// Runs on the report stack: has the facade render the record, and writes what it makes.
extern "C" fn render_job<P: Platform>(argument: usize) {
    // SAFETY: `render` passes the address of its job, which lives until this returns or is abandoned.
    let job = unsafe { &mut *(argument as *mut Job<'_, P>) };
    let Some(render) = job.guard.hooks.render else { return };
    let platform = &job.guard.platform;
    let (log, text_done, file) = (job.log, &mut job.text_done, &mut job.file);
    let mut text = |text: &str| {
        *text_done = platform.write(log, text.as_bytes()).is_ok();
    };
    let mut json = |json: &str| {
        if let Some(file) = file {
            file.done = replace_line(platform, file, json);
        }
    };
    render(job.record, job.style, &mut Rendered { text: &mut text, json: &mut json });
}

/// Puts the resolved line in the place of the raw one; the raw one stays where that is not possible.
fn replace_line<P: Platform>(platform: &P, file: &mut JsonFile, line: &str) -> bool {
    if let Some((start, end)) = file.raw {
        // Another process may have written behind us: then the raw line, which is whole, stays.
        if platform.file_len(file.file) != Some(end) || platform.truncate(file.file, start).is_err() {
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
