//! Signals go through: what is sent to us is sent on to the program, and its end by a signal becomes ours.

use std::process::ExitCode;
use std::thread;

use rustix::process::{Pid, Signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::{Handle, Signals};

/// The signals that people and systems send to end or to wake a program.
const PASSED_ON: [i32; 6] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2];

/// Sends our signals on to a child, until it is dropped.
pub struct Forwarding {
    handle: Handle,
    waiting: Option<Signals>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Forwarding {
    /// From now on signals wait; [`Forwarding::to`] says for whom. Call it before the child starts, so that none is
    /// lost.
    pub fn prepare() -> std::io::Result<Forwarding> {
        let signals = Signals::new(PASSED_ON)?;
        Ok(Forwarding { handle: signals.handle(), waiting: Some(signals), thread: None })
    }

    /// Sends them to `child`.
    pub fn to(&mut self, child: u32) {
        let Some(mut signals) = self.waiting.take() else { return };
        let Some(child) = i32::try_from(child).ok().and_then(Pid::from_raw) else { return };
        self.thread = Some(thread::spawn(move || {
            for number in signals.forever() {
                // A terminal sends these to the whole group, so the child has had its own.
                if (number == SIGINT || number == SIGQUIT) && is_foreground() {
                    continue;
                }
                if let Some(signal) = Signal::from_named_raw(number) {
                    // The child may be gone already; then nobody is left to tell.
                    let told = rustix::process::kill_process(child, signal);
                    let _ = told;
                }
            }
        }));
    }
}

impl Drop for Forwarding {
    fn drop(&mut self) {
        self.handle.close();
        if let Some(thread) = self.thread.take() {
            // It only sends signals; if it panicked, signals were not passed on, and nothing else.
            drop(thread.join());
        }
    }
}

/// Whether we are the job that the terminal's keys go to.
fn is_foreground() -> bool {
    let Ok(terminal) = std::fs::File::open("/dev/tty") else { return false };
    rustix::termios::tcgetpgrp(&terminal).is_ok_and(|group| group == rustix::process::getpgrp())
}

/// Ends this process as its program ended, so that whoever waits for us sees the same.
pub fn die_by(signal: i32) -> ExitCode {
    // The program has left its core, if one was wanted; ours would tell nothing.
    let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
    let limited = rustix::process::setrlimit(rustix::process::Resource::Core, none);
    let _ = limited;
    drop(signal_hook::low_level::emulate_default_handler(signal));
    // Not reached for signals that end a process; shells say it so.
    ExitCode::from(u8::try_from(signal.saturating_add(128)).unwrap_or(u8::MAX))
}
