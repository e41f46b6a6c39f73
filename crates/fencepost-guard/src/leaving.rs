//! The ends of a process that are no normal exit, and the start of one that is left alone.

use core::sync::atomic::Ordering;

use fencepost_record::{Summary, Unguarded};
use fencepost_sys::Platform;

use crate::options::When;
use crate::runtime::{Guard, Setup};
use crate::threads::Counters;

impl<P: Platform> Guard<P> {
    /// The process ends at once, by `_exit`: prints the summary. Nothing is verified: a forked child that ends so
    /// must not pay for all the blocks of its parent.
    pub fn on_leaving(&self) {
        if let Some(setup) = self.decided() {
            self.print_summary(setup);
        }
    }

    /// Another program is about to take this one's place: writes the account. Should that fail, a later account of
    /// this process stands for this one.
    pub fn on_replacing(&self) {
        if let Some(setup) = self.decided() {
            self.write_summary_line(setup);
        }
    }

    /// Notes, in the child of a fork, what its parent has counted: that is in the parent's account.
    pub(crate) fn note_inherited(&self) {
        let inherited = &self.threads.inherited;
        inherited.guarded.store(self.threads.sum(Counters::guarded), Ordering::Relaxed);
        for (counter, why) in inherited.unguarded.iter().zip(Unguarded::ALL) {
            counter.store(self.unguarded_by(why), Ordering::Relaxed);
        }
    }

    /// What this process asked for itself and how much of it was guarded, so that the accounts of a program and its
    /// children can be added up.
    pub(crate) fn account(&self, setup: &Setup) -> Summary {
        let mut summary = self.summary(setup);
        let before = self.threads.inherited.guarded();
        summary.guarded = summary.guarded.saturating_sub(before);
        summary.total = summary.total.saturating_sub(before);
        for (count, why) in summary.unguarded.iter_mut().zip(Unguarded::ALL) {
            let before = self.threads.inherited.unguarded_by(why);
            *count = count.saturating_sub(before);
            summary.total = summary.total.saturating_sub(before);
        }
        summary
    }

    /// Does what the runtime does for itself when a program is loaded, and leaves the blocks that are asked for meanwhile
    /// out of the account, and out of those that are made to fail: a program that asks for none itself is not to look as if
    /// it did. Before there are threads.
    pub fn apart_from_account(&self, work: impl FnOnce()) {
        let guarded = self.threads.sum(Counters::guarded);
        let unguarded = Unguarded::ALL.map(|why| self.unguarded_by(why));
        self.apart.store(1, Ordering::Relaxed);
        work();
        self.apart.store(0, Ordering::Relaxed);
        let inherited = &self.threads.inherited;
        let asked = self.threads.sum(Counters::guarded).saturating_sub(guarded);
        inherited.guarded.fetch_add(asked, Ordering::Relaxed);
        for ((counter, why), before) in inherited.unguarded.iter().zip(Unguarded::ALL).zip(unguarded) {
            counter.fetch_add(self.unguarded_by(why).saturating_sub(before), Ordering::Relaxed);
        }
    }

    /// Nothing will be guarded in this process, because `why`: says so where accounts go. Where the runtime has begun
    /// already, what comes from here on is not guarded.
    pub fn decline(&self, why: &str) {
        let (options, from) = match self.decided() {
            Some(setup) => {
                let Summary { engine, mode, .. } = self.summary(setup);
                self.write_start(&setup.options, engine, mode, why);
                (setup.options, "from here on nothing")
            }
            None => {
                let options = self.read_options("");
                self.write_start(&options, "", "", why);
                (options, "nothing")
            }
        };
        if options.summary == When::On {
            self.complain(format_args!("{from} is guarded here: {why}"));
        }
    }

    /// Another runtime guards this process, and gives the account: unless blocks of the program came here before, or an
    /// error did, this one gives none.
    pub fn stand_aside(&self) {
        self.aside.store(1, Ordering::Relaxed);
    }

    /// Whether there is nothing to account for: see [`Guard::stand_aside`].
    pub(crate) fn has_no_part(&self, setup: &Setup) -> bool {
        if self.aside.load(Ordering::Relaxed) == 0 || self.reporter.count.load(Ordering::Relaxed) != 0 {
            return false;
        }
        let account = self.account(setup);
        // Blocks that pass unseen go on passing, and being counted, for as long as a thread's allowance lasts.
        account.guarded == 0 && (account.total == 0 || setup.options.mode.leaves_most())
    }

    /// Counts a block that was asked for after [`Guard::decline`].
    pub fn count_stood_back(&self) {
        self.count_unguarded(self.thread_if_known(), Unguarded::StoodBack);
    }
}
