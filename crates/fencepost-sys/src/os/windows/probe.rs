//! What a test wants to be treated as missing.

use core::sync::atomic::{AtomicU32, Ordering};

use super::environment::environment;

/// What can be treated as missing.
#[derive(Clone, Copy)]
#[repr(u32)]
pub(super) enum Feature {
    /// Running one instruction by itself.
    Steps = 1,
    /// One-shot guard pages, for tripwires.
    GuardPages = 2,
    /// Large pages.
    LargePages = 4,
    /// The thread that ends what hangs.
    Watchdog = 8,
    /// Watchpoints of the processor.
    Watchpoints = 16,
}

static DENIED: AtomicU32 = AtomicU32::new(0);

/// Whether a test wants a feature to be treated as missing.
pub(super) fn denied(feature: Feature) -> bool {
    DENIED.load(Ordering::Relaxed) & feature as u32 != 0
}

/// Reads the list.
pub(super) fn prepare() {
    DENIED.store(environment(c"FENCEPOST_DENY").map_or(0, parse), Ordering::Relaxed);
}

fn parse(list: &[u8]) -> u32 {
    list.split(|byte| *byte == b',').fold(0, |denied, word| {
        denied
            | match word {
                b"steps" => Feature::Steps as u32,
                b"guard-pages" => Feature::GuardPages as u32,
                b"large-pages" => Feature::LargePages as u32,
                b"watchdog" => Feature::Watchdog as u32,
                b"watchpoints" => Feature::Watchpoints as u32,
                _ => 0,
            }
    })
}
