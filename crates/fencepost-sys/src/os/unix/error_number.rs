//! The error number of the C library's functions.

use super::signal_calls::errno_place;

/// This thread's error number.
#[derive(Clone, Copy, Debug)]
pub struct ErrorNumber(i32);

impl ErrorNumber {
    /// No memory (`ENOMEM`).
    pub const NO_MEMORY: ErrorNumber = ErrorNumber(libc::ENOMEM);
    /// An argument that is not allowed (`EINVAL`).
    pub const INVALID: ErrorNumber = ErrorNumber(libc::EINVAL);

    /// There is no such function (`ENOSYS`).
    pub const NOT_THERE: ErrorNumber = ErrorNumber(libc::ENOSYS);

    /// The one in force.
    pub fn get() -> ErrorNumber {
        // SAFETY: the C library gives each thread its own errno, which lives as long as the thread.
        ErrorNumber(unsafe { *errno_place() })
    }

    /// Puts it in force.
    pub fn set(self) {
        // SAFETY: as above.
        unsafe { *errno_place() = self.0 };
    }

    /// The number itself, as functions give it that do not use `errno`.
    pub const fn number(self) -> i32 {
        self.0
    }
}
