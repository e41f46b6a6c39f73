//! Time spent by this process: what the kernel charged it (user and system), and what the wall clock says. Other
//! programs on the machine stretch the second far more than the first.

use std::time::{Duration, Instant};

/// A reading of both clocks.
#[derive(Clone, Copy)]
pub struct Reading {
    wall: Instant,
    user: Duration,
    system: Duration,
}

/// Nanoseconds for one repetition.
#[derive(Clone, Copy, Default)]
pub struct Spent {
    pub cpu: f64,
    pub system: f64,
    pub wall: f64,
    pub rounds: u64,
}

impl Reading {
    /// Both clocks now.
    pub fn now() -> Reading {
        // SAFETY: `rusage` is made of integers, for which all zeroes is a value.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: `usage` is a valid `rusage` to write to; RUSAGE_SELF always exists.
        let result = unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
        assert_eq!(result, 0, "getrusage of this process cannot fail");
        Reading { wall: Instant::now(), user: duration(usage.ru_utime), system: duration(usage.ru_stime) }
    }

    /// What one of `rounds` repetitions took since this reading.
    pub fn per_round(&self, rounds: u64) -> Spent {
        Total::since(self).per_round(rounds)
    }
}

/// Time of several stretches, for work that needs unmeasured pauses.
#[derive(Clone, Copy, Default)]
pub struct Total {
    wall: Duration,
    user: Duration,
    system: Duration,
}

impl Total {
    fn since(reading: &Reading) -> Total {
        let mut total = Total::default();
        total.add(reading);
        total
    }

    /// Adds the time from `reading` to now.
    pub fn add(&mut self, reading: &Reading) {
        let now = Reading::now();
        self.wall += now.wall - reading.wall;
        self.user += now.user.saturating_sub(reading.user);
        self.system += now.system.saturating_sub(reading.system);
    }

    /// Wall time so far.
    pub fn wall(&self) -> Duration {
        self.wall
    }

    /// The share of one repetition.
    pub fn per_round(&self, rounds: u64) -> Spent {
        let share = |time: Duration| time.as_nanos() as f64 / rounds.max(1) as f64;
        Spent {
            cpu: share(self.user + self.system),
            system: share(self.system),
            wall: share(self.wall),
            rounds,
        }
    }
}

fn duration(time: libc::timeval) -> Duration {
    Duration::from_secs(time.tv_sec.unsigned_abs()) + Duration::from_micros(time.tv_usec.unsigned_abs())
}

/// Repeats `work` (which does `step` rounds each time) until `enough` has passed; the first tenth warms up.
pub fn repeat(
    enough: Duration,
    step: u64,
    mut work: impl FnMut() -> Result<(), String>,
) -> Result<Spent, String> {
    let warm = Instant::now();
    while warm.elapsed() < enough / 10 {
        work()?;
    }
    let start = Reading::now();
    let mut rounds = 0;
    while start.wall.elapsed() < enough {
        work()?;
        rounds += step;
    }
    Ok(start.per_round(rounds))
}
