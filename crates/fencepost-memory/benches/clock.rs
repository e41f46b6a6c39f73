//! What this thread has computed. Other programs on the machine do not stretch it, as they do the wall clock.

/// Nanoseconds that this thread has computed, its time in the kernel included. Other programs do not stretch it.
pub fn cpu_ns() -> u64 {
    // SAFETY: all zeroes is a valid time.
    let mut time: libc::timespec = unsafe { std::mem::zeroed() };
    // SAFETY: the clock exists and `time` can be written to.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(result, 0, "every thread has this clock");
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}
