//! Pages that only those threads may write to that have opened them to themselves, by protection keys of the processor: a
//! part of [`Platform`](crate::Platform).

#[cfg(doc)]
use crate::Protection;

/// Writing by leave of the thread: what [`Protection::Keyed`] asks for.
///
/// The leave is a register of each thread. A new thread has what its maker had, and a signal handler of the program's has
/// no leave, not even to read: the backend gives that back to it at its first read, in silence. So it does in a thread
/// whose register was never told of the key.
///
/// Where there are no such keys nothing is to be done, as the provided functions do.
///
/// # Signal context
/// All may run in a signal handler, but [`Keys::has_write_key`] the first time.
pub trait Keys {
    /// Whether there is such a key, as found out by use. The first call takes it, and is best made before there are other
    /// threads: they have what the thread that took it has.
    fn has_write_key(&self) -> bool {
        false
    }

    /// Lets this thread write to such pages, by one change of a register and no system call; says whether it could
    /// before. [`Keys::close_writes`] with that answer ends it.
    fn open_writes(&self) -> bool {
        true
    }

    /// Ends [`Keys::open_writes`].
    fn close_writes(&self, could_before: bool) {
        let _ = could_before;
    }

    /// Whether this thread may write to such pages now.
    fn can_write(&self) -> bool {
        false
    }

    /// Makes sure that this thread can read such pages, before a system call of its own does.
    fn let_read(&self) {}

    /// Takes away what a new thread has inherited from a maker that had opened the key. To be called when a thread is
    /// first heard of.
    fn drop_inherited_leave(&self) {}

    /// How often a thread's register was set right: in signal handlers, in threads that are older than the key, and in
    /// such as were born while it was open.
    fn keys_set_right(&self) -> u64 {
        0
    }
}
