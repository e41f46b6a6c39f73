//! Forks: every lock of ours is held across one, and the child makes a process of its own out of what it gets.

use core::sync::atomic::{Ordering, compiler_fence};

use fencepost_sys::Platform;

use super::Guard;
use crate::defer::Poison;
use crate::front::Pass;
use crate::lock::Lock;
use crate::report::Frames;
use crate::runtime::Setup;
use crate::threads::ThreadState;

/// How long a fork waits for a lock that the code it interrupted may hold, in milliseconds.
const NESTED_MS: u64 = 300;

impl<P: Platform> Guard<P> {
    /// Before a fork: nobody else holds a lock of ours while the child is made.
    ///
    /// In a signal handler that interrupted this runtime, what this thread holds itself cannot be waited for: after
    /// a while the fork goes on without it. Until the handler has returned the child then does without what would need
    /// that lock.
    pub fn fork_prepare(&self) {
        let Some(setup) = self.ready() else { return };
        let state = self.thread_if_known();
        // A thread that is not known may be in the middle of becoming so.
        let interrupted = state.is_none_or(|state| state.depth.load(Ordering::Relaxed) != 0);
        self.enter();
        if let Some(state) = state.filter(|_| !interrupted) {
            self.close_waiting(setup, state, Poison::Compared, &Frames::Here(0));
        }
        // Only a handler of the program's that interrupted a change of seals has it already.
        let taken = self.stepping.turn().take_for_change(&self.platform);
        let _ = taken;
        let mut held = 0;
        for (bit, lock) in self.locks() {
            if !interrupted {
                lock.acquire(&self.platform);
            } else if !lock.acquire_within(&self.platform, NESTED_MS) {
                continue;
            }
            held |= bit;
        }
        self.held_for_fork.store(held, Ordering::Relaxed);
    }

    /// After a fork, in the parent.
    pub fn fork_parent(&self) {
        if self.ready().is_none() {
            return;
        }
        self.open_locks();
        self.leave();
    }

    /// After a fork, in the child, where only this thread exists. Says whether others did before.
    pub fn fork_child(&self) -> bool {
        let Some(setup) = self.ready() else { return false };
        let all = self.open_locks();
        // First of all: until then nothing traps here, and an ioctl would act on the parent.
        self.moving_after_fork();
        let others = all && self.bury_other_threads(setup);
        self.reporter.after_fork_in_child(&self.platform);
        self.budget.begin_anew();
        self.note_inherited();
        self.leave();
        others
    }

    fn bury_other_threads(&self, setup: &Setup) -> bool {
        let own = self.platform.thread_word();
        let others = self.threads.bury_others(own, |state| {
            self.close_waiting(setup, state, Poison::Ignored, &Frames::Here(0));
            Pass::settle_all(state, &self.contexts);
            self.hand_over(setup, state);
        });
        if let Some(state) = ThreadState::of_word(own) {
            self.threads.remember(&self.platform, state);
        }
        self.watch_again(setup);
        others
    }

    /// Every lock, each with a bit, in the order in which they may be taken.
    fn locks(&self) -> impl DoubleEndedIterator<Item = (u32, &Lock)> {
        [
            (1, self.reporter.lock_for_fork()),
            (2, self.arena.lock_for_fork()),
            (4, self.seals.lock_for_fork()),
            (8, self.threads.lock_for_fork()),
            (16, self.depot.lock_for_fork()),
            (32, self.heap.lock_for_fork()),
        ]
        .into_iter()
    }

    /// Gives back what [`Guard::fork_prepare`] took, and says whether that was everything.
    fn open_locks(&self) -> bool {
        let held = self.held_for_fork.load(Ordering::Relaxed);
        let mut all = true;
        for (bit, lock) in self.locks().rev() {
            if held & bit != 0 {
                lock.release(&self.platform);
            } else {
                all = false;
            }
        }
        self.stepping.turn().clear();
        all
    }

    /// From here this thread's own allocations are not guarded.
    pub(crate) fn enter(&self) {
        if let Some(state) = self.thread_if_known() {
            state.depth.store(state.depth.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
            // A signal handler of the program that interrupts us must see it.
            compiler_fence(Ordering::SeqCst);
        }
    }

    /// The end of [`Guard::enter`].
    pub(crate) fn leave(&self) {
        if let Some(state) = self.thread_if_known() {
            compiler_fence(Ordering::SeqCst);
            state.depth.store(state.depth.load(Ordering::Relaxed).wrapping_sub(1), Ordering::Relaxed);
        }
    }
}
