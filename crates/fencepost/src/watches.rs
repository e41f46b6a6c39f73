//! Watches, which note every write, and tripwires, which tell of the first access.

use core::fmt;
use core::marker::PhantomData;
use core::time::Duration;
use std::time::Instant;

use fencepost_guard::{Log, Purpose};
use parking_lot::Mutex;

use crate::closing::Closed;
use crate::questions::Origin;
use crate::runtime::{GUARD, here};
use crate::seals::{SealError, system_calls};

/// Which writes a [`Watch`] hands out.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct WatchOptions {
    /// Only writes that leave other bytes than there were.
    pub changes_only: bool,
    /// Only writes of threads with this name.
    pub thread: Option<String>,
    /// Close pages even where watchpoints of the processor would do: then notes have exactly what each instruction writes.
    pub by_pages: bool,
}

impl WatchOptions {
    /// All writes.
    pub fn new() -> WatchOptions {
        WatchOptions::default()
    }

    /// Only writes that leave other bytes than there were.
    pub fn changes_only(mut self) -> WatchOptions {
        self.changes_only = true;
        self
    }

    /// Only writes of threads with this name.
    pub fn thread(mut self, name: &str) -> WatchOptions {
        self.thread = Some(name.to_owned());
        self
    }

    /// Close pages even where watchpoints of the processor would do.
    pub fn by_pages(mut self) -> WatchOptions {
        self.by_pages = true;
        self
    }
}

/// How a [`Watch`] sees writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Way {
    /// By watchpoints of the processor: what lies beside the watched bytes costs nothing.
    Watchpoints,
    /// By closing pages: a write to something else on them costs a fault and a step.
    Pages,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Way::Watchpoints => "watchpoints of the processor",
            Way::Pages => "closed pages",
        })
    }
}

/// One write to watched memory.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Write {
    /// The first byte that the instruction wrote: it may lie before the watched bytes. Of a [watchpoint](Way::Watchpoints)
    /// the first byte that it covers.
    pub address: usize,
    /// What was there: as many bytes as the instruction writes, at most 32; one where the instruction is not understood. Of a
    /// watchpoint the bytes that it covers, and all others of the watch that have changed since they were last looked at.
    pub old: Vec<u8>,
    /// What is there since.
    pub new: Vec<u8>,
    /// The thread and its stack, the writing instruction first (of a watchpoint its last byte, since the processor tells
    /// which instruction is next). No stack where the thread held SIGTRAP back when it wrote.
    pub writer: Origin,
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = if self.writer.thread_name.is_empty() { "?" } else { &self.writer.thread_name };
        write!(
            f,
            "{:#x}: {:02x?} -> {:02x?} by thread {} '{name}'",
            self.address, self.old, self.new, self.writer.thread
        )?;
        match self.writer.frames.first() {
            Some(instruction) => write!(f, " at {instruction:#x}"),
            None => Ok(()),
        }
    }
}

/// Memory whose every write is noted until this is dropped. The writes have their effect.
#[must_use = "nothing is noted any more as soon as this is dropped"]
#[derive(Debug)]
pub struct Watch<'a> {
    closed: Closed,
    log: Mutex<(Log, u64)>,
    options: WatchOptions,
    memory: PhantomData<&'a ()>,
}

/// Notes every write to some bytes: thread, stack, and the bytes before and after.
///
/// Up to four aligned words of 8 bytes are watched by the processor, where the system allows that and they are not taken:
/// then nothing else costs anything. Else pages are closed, and writes to something else on them are let through without a
/// note, each at the price of a fault and a step. [`Watch::way`] says which.
///
/// # Errors
/// [`SealError`] says why not; nothing is changed then.
#[inline(never)]
pub fn watch(bytes: &[u8], options: WatchOptions) -> Result<Watch<'_>, SealError> {
    Watch::new(bytes.as_ptr().addr(), bytes.len(), options, here())
}

/// The same for any memory: part of a guarded heap block, of a mapping, or whole pages of a static. Where the processor
/// watches, any bytes, also of a static or of a stack.
///
/// # Errors
/// [`SealError`] says why not; nothing is changed then.
///
/// # Safety
/// The memory must stay mapped until the watch drops, or be a block that is freed.
#[inline(never)]
pub unsafe fn watch_raw(
    pointer: *const u8,
    len: usize,
    options: WatchOptions,
) -> Result<Watch<'static>, SealError> {
    Watch::new(pointer.addr(), len, options, here())
}

impl<'a> Watch<'a> {
    pub(crate) fn new(
        start: usize,
        len: usize,
        options: WatchOptions,
        anchor: usize,
    ) -> Result<Watch<'a>, SealError> {
        let log = GUARD.start_log().map_err(|error| SealError::System(error.to_string().into()))?;
        let by_watchpoints = if options.by_pages { None } else { Closed::by_watchpoints(start, len, anchor) };
        let closed = match by_watchpoints {
            Some(closed) => closed,
            None => Closed::new(Purpose::Watch, start, len, anchor)?,
        };
        Ok(Watch { closed, log: Mutex::new((log, 0)), options, memory: PhantomData })
    }

    /// The writes since the last call, oldest first. All watches share room for 4,096: call it often enough, or see
    /// [`Watch::lost`].
    pub fn writes(&self) -> Vec<Write> {
        let mut writes = Vec::new();
        let mut log = self.log.lock();
        let lost = GUARD.changes(self.closed.serial(), &mut log.0, &mut |change| {
            let write = Write {
                address: change.address,
                old: change.old.as_slice().to_vec(),
                new: change.new.as_slice().to_vec(),
                writer: Origin::of(&change.writer),
            };
            if self.is_wanted(&write) {
                writes.push(write);
            }
        });
        log.1 = log.1.saturating_add(lost);
        writes
    }

    fn is_wanted(&self, write: &Write) -> bool {
        (!self.options.changes_only || write.old != write.new)
            && self.options.thread.as_ref().is_none_or(|name| *name == write.writer.thread_name)
    }

    /// How many writes there were, also those that are not handed out.
    pub fn count(&self) -> u32 {
        self.closed.hits()
    }

    /// How many notes, of this watch or others, were overwritten before they were read.
    pub fn lost(&self) -> u64 {
        self.log.lock().1
    }

    /// How it sees writes.
    pub fn way(&self) -> Way {
        if self.closed.is_by_watchpoints() { Way::Watchpoints } else { Way::Pages }
    }

    /// Whether system calls that write here are seen, as [`Seal::system_calls`](crate::Seal::system_calls). Their notes do not say
    /// what they left. Watchpoints see them all, and note them as other writes, if the system lets this process watch the
    /// kernel; and where no call is seen it still has its effect.
    pub fn system_calls(&self) -> &'static str {
        if self.way() == Way::Watchpoints && GUARD.watchpoints_see_kernel() {
            return "system calls: covered, by watchpoints";
        }
        system_calls()
    }
}

/// Memory whose first access of any kind is reported as `tripwire`, whatever `on_error` says; then the program goes on,
/// and the memory is as it was.
#[must_use = "the wire is cut as soon as this is dropped"]
#[derive(Debug)]
pub struct Tripwire<'a> {
    closed: Closed,
    memory: PhantomData<&'a ()>,
}

/// Sets a tripwire on some bytes.
///
/// # Errors
/// [`SealError`] says why not; nothing is changed then.
#[inline(never)]
pub fn tripwire(bytes: &[u8]) -> Result<Tripwire<'_>, SealError> {
    let closed = Closed::new(Purpose::Tripwire, bytes.as_ptr().addr(), bytes.len(), here())?;
    Ok(Tripwire { closed, memory: PhantomData })
}

/// The same for any memory: part of a guarded heap block, of a mapping, or whole pages of a static.
///
/// # Errors
/// [`SealError`] says why not; nothing is changed then.
///
/// # Safety
/// The memory must stay mapped until the tripwire drops, or be a block that is freed.
#[inline(never)]
pub unsafe fn tripwire_raw(pointer: *const u8, len: usize) -> Result<Tripwire<'static>, SealError> {
    let closed = Closed::new(Purpose::Tripwire, pointer.addr(), len, here())?;
    Ok(Tripwire { closed, memory: PhantomData })
}

impl Tripwire<'_> {
    /// Whether somebody has touched it.
    pub fn is_tripped(&self) -> bool {
        self.closed.hits() != 0
    }

    /// Waits until somebody touches it, for a time at most, and says whether somebody has. So an alarm is answered in a
    /// thread of the program's own, outside the fault handler.
    pub fn wait(&self, timeout: Duration) -> bool {
        let begun = Instant::now();
        while !self.is_tripped() {
            if begun.elapsed() >= timeout {
                return false;
            }
            self.closed.wait_for_hit();
        }
        true
    }

    /// Sets it again.
    ///
    /// # Errors
    /// [`SealError`] says why not.
    #[inline(never)]
    pub fn rearm(&mut self) -> Result<(), SealError> {
        let exact = self.closed.exact();
        self.closed = Closed::new(Purpose::Tripwire, exact.start, exact.len, here())?;
        Ok(())
    }

    /// Whether system calls on this memory are seen, as [`Seal::system_calls`](crate::Seal::system_calls).
    pub fn system_calls(&self) -> &'static str {
        system_calls()
    }
}

impl Tripwire<'static> {
    /// Calls a function once somebody touches it: in a thread of its own, outside the fault handler. The thread ends
    /// after that.
    ///
    /// # Errors
    /// The system's, when no thread can be had.
    pub fn on_trip(self, alarm: impl FnOnce(&Tripwire<'static>) + Send + 'static) -> std::io::Result<()> {
        std::thread::Builder::new().name("tripwire".into()).spawn(move || {
            while !self.wait(Duration::from_secs(3600)) {}
            alarm(&self);
        })?;
        Ok(())
    }
}

/// How often an instruction was run by itself.
#[cfg(feature = "test-hooks")]
#[doc(hidden)]
pub fn __steps() -> u64 {
    GUARD.steps()
}
