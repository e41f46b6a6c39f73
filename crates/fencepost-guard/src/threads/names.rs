//! The numbers of threads, and their names, which outlive them.
//!
//! A block's record has room for [`THREAD_BITS`] of a number, and some programs have more threads than that in their life.
//! So numbers begin anew, but for those of threads that still run, and then it takes a look at the time to tell an ended
//! thread from a later one of its number.

use fencepost_record::{Text, ThreadInfo};
use fencepost_sys::Threads;
use fencepost_sys::atomic::{AtomicU32, AtomicU64, Ordering};

use super::{ThreadState, ThreadTable};
use crate::slot::{Act, THREAD_BITS};

/// Threads whose names are remembered; a power of two.
const NAMES: usize = 1 << 14;
/// Bytes of the table of names.
pub(super) const NAMES_BYTES: usize = NAMES * size_of::<Name>();
/// The largest number of a thread.
const NUMBERS_MAX: u64 = (1 << THREAD_BITS) - 1;
/// Bytes of a name as the operating system keeps it.
const NAME_WORDS: usize = 2;

/// The name of one thread, kept after its end.
#[repr(C)]
struct Name {
    number: AtomicU32,
    id: AtomicU32,
    began_ms: AtomicU32,
    spare: AtomicU32,
    words: [AtomicU64; NAME_WORDS],
}

impl ThreadTable {
    /// A number that no other thread has: those from 1 on, and then once more.
    pub(super) fn next_number(&self) -> u32 {
        loop {
            let count = self.numbers.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
            let number = u32::try_from(count & NUMBERS_MAX).unwrap_or(0);
            let is_taken = || self.owned().any(|state| state.number.load(Ordering::Relaxed) == number);
            if number != 0 && (count <= NUMBERS_MAX || !is_taken()) {
                return number;
            }
        }
    }

    /// Writes down this thread's id and present name under its number.
    pub(crate) fn remember<P: Threads>(&self, platform: &P, state: &ThreadState) {
        let number = state.number.load(Ordering::Relaxed);
        let Some(entry) = self.name_entry(number) else { return };
        let mut bytes = [0u8; NAME_WORDS * 8];
        let len = if platform.thread_id() == platform.process_id() {
            // The system calls a process's first thread by the name of the program.
            let main = b"main";
            bytes.iter_mut().zip(main).for_each(|(to, from)| *to = *from);
            main.len()
        } else {
            platform.thread_name(&mut bytes).min(bytes.len())
        };
        if let Some(rest) = bytes.get_mut(len..) {
            rest.fill(0);
        }
        entry.number.store(number, Ordering::Relaxed);
        entry.id.store(platform.thread_id(), Ordering::Relaxed);
        entry.began_ms.store(state.began_ms.load(Ordering::Relaxed), Ordering::Relaxed);
        for (word, chunk) in entry.words.iter().zip(bytes.as_chunks::<8>().0) {
            word.store(u64::from_le_bytes(*chunk), Ordering::Relaxed);
        }
    }

    /// Id and name of the thread that did something, if they are still known.
    pub(crate) fn info_of(&self, act: &Act) -> ThreadInfo {
        let came_round = self.numbers.load(Ordering::Relaxed) > NUMBERS_MAX;
        let is_later = |entry: &Name| entry.began_ms.load(Ordering::Relaxed) > act.ms;
        if came_round && self.name_entry(act.thread).is_some_and(is_later) {
            return ThreadInfo::default();
        }
        self.info(act.thread)
    }

    /// Id and name of a thread by its number, if they are still known.
    pub(crate) fn info(&self, number: u32) -> ThreadInfo {
        let known = self.name_entry(number).filter(|entry| entry.number.load(Ordering::Relaxed) == number);
        let (Some(entry), true) = (known, number != 0) else { return ThreadInfo::default() };
        let mut bytes = [0u8; NAME_WORDS * 8];
        for (chunk, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(&entry.words) {
            *chunk = word.load(Ordering::Relaxed).to_le_bytes();
        }
        let len = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        let name = Text::new(bytes.get(..len).unwrap_or(&[]));
        ThreadInfo { id: entry.id.load(Ordering::Relaxed), name }
    }

    fn name_entry(&self, number: u32) -> Option<&'static Name> {
        // SAFETY: the region holds a table of `Name` only, made of atomics and valid when zeroed.
        unsafe { self.names.get::<Name>(number as usize & NAMES.wrapping_sub(1)) }
    }
}

#[cfg(test)]
mod tests {
    use fencepost_sys::sim::Sim;

    use super::*;

    const BEFORE: u32 = 7;
    const LATER: u32 = 5000;

    fn is_known(table: &ThreadTable, thread: u32, ms: u32) -> bool {
        table.info_of(&Act { trace: 0, thread, ms }).id != 0
    }

    #[test]
    fn a_number_that_comes_round_is_nobodys_else_and_names_nobody_else() {
        let (sim, table) = (Sim::new(), ThreadTable::new());
        table.start(&sim, false, 0).expect("room");
        let lasting = table.take(&sim, 1, BEFORE).expect("a state");
        let ended = table.take(&sim, 1, BEFORE).expect("a state");
        let numbers = [lasting, ended].map(|state| state.number.load(Ordering::Relaxed));
        assert_eq!(numbers, [1, 2]);
        table.give_back(&sim, ended);
        assert!(is_known(&table, 2, BEFORE), "known after its end");

        table.numbers.store(NUMBERS_MAX - 1, Ordering::Relaxed);
        let last = table.take(&sim, 1, LATER).expect("a state");
        assert_eq!(last.number.load(Ordering::Relaxed), NUMBERS_MAX as u32);
        let next = table.take(&sim, 1, LATER).expect("a state");
        assert_eq!(next.number.load(Ordering::Relaxed), 2, "0 is nobody, and 1 still runs");
        assert!(!is_known(&table, 2, LATER - 1), "an ended thread's deed");
        assert!(is_known(&table, 2, LATER));
        assert!(is_known(&table, 1, LATER + 1), "of before and now");
        table.release(&sim);
        sim.assert_all_released();
    }
}
