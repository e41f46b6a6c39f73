//! Forks: every lock of ours is held across one, and the child makes a process of its own out of what it gets.

use core::sync::atomic::{Ordering, compiler_fence};

use fencepost_sys::Platform;

use super::Guard;
use crate::defer::Poison;
use crate::front::Pass;
use crate::report::Frames;
use crate::threads::ThreadState;

impl<P: Platform> Guard<P> {
    /// Before a fork: nobody else holds a lock of ours while the child is made.
    pub fn fork_prepare(&self) {
        let Some(setup) = self.ready() else { return };
        self.enter();
        if let Some(state) = self.thread_if_known() {
            self.close_waiting(setup, state, Poison::Compared, &Frames::Here(0));
        }
        // Only a handler of the program's that interrupted a change of seals has it already.
        let taken = self.stepping.turn().take_for_change(&self.platform);
        let _ = taken;
        self.reporter.lock_for_fork().acquire(&self.platform);
        self.arena.lock_for_fork().acquire(&self.platform);
        self.seals.lock_for_fork().acquire(&self.platform);
        self.threads.lock_for_fork().acquire(&self.platform);
        self.depot.before_fork(&self.platform);
        self.heap.lock_for_fork().acquire(&self.platform);
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
        self.open_locks();
        // First of all: until then nothing traps here, and an ioctl would act on the parent.
        self.moving_after_fork();
        let own = self.platform.thread_word();
        let others = self.threads.bury_others(own, |state| {
            self.close_waiting(setup, state, Poison::Ignored, &Frames::Here(0));
            Pass::settle_all(state, &self.contexts);
            self.hand_over(state);
        });
        if let Some(state) = ThreadState::of_word(own) {
            self.threads.remember(&self.platform, state.number.load(Ordering::Relaxed));
        }
        self.watch_again(setup);
        self.reporter.after_fork_in_child(&self.platform);
        self.budget.begin_anew();
        self.note_inherited();
        self.leave();
        others
    }

    fn open_locks(&self) {
        self.heap.lock_for_fork().release(&self.platform);
        self.depot.after_fork(&self.platform);
        self.threads.lock_for_fork().release(&self.platform);
        self.seals.lock_for_fork().release(&self.platform);
        self.arena.lock_for_fork().release(&self.platform);
        self.reporter.lock_for_fork().release(&self.platform);
        self.stepping.turn().give_back();
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
