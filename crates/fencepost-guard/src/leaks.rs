//! `leaks=on`: at exit, the blocks that nothing reaches.
//!
//! A block is reached if a word in memory is an address within it, or one past its end: in the program's statics, its
//! stacks, thread-local variables and unguarded blocks, or in a block that is reached itself. That is what a mapping of
//! the process is made of, so all that may hold pointers are looked through, but for our own tables. What looks like a
//! pointer counts as one: a leak may be missed, and a block that something reaches is not reported.
//!
//! Other threads may go on meanwhile. So only blocks that were alive at the start are looked at, twice, and one has to
//! be found unreached both times. The marks are kept beside the blocks' records, and so is the list of those whose
//! content is still to be looked through. Nothing is allocated but the room for what is read.

use core::sync::atomic::Ordering;

use fencepost_record::{AccessType, Confidence, ErrorKind, LeakInfo, Where};
use fencepost_sys::{Platform, Range};

use crate::diagnose::Beside;
use crate::geometry::{SLOTS_STRIDE, align_up};
use crate::heap::Found;
use crate::options::OnError;
use crate::report::{Case, Frames};
use crate::runtime::{Guard, Setup};
use crate::slot::{Linked, Slot, SlotState, number_of};

/// Alive when the search began, and not reached yet.
const UNREACHED: u32 = 1;
/// Reached.
const REACHED: u32 = 2;
/// Not reached in the first round.
const SUSPECT: u32 = 3;
/// Reached by nothing.
const LOST: u32 = 4;
/// Reached only by what is lost.
const THROUGH: u32 = 5;
/// Counted in a report.
const COUNTED: u32 = 6;

/// Bytes read at once.
const ROOM: usize = 64 << 10;
/// Bytes of memory that are looked through at most: past that nothing is said.
const LOOK_MAX: u64 = 16 << 30;
/// Places of the program that are reported; what others leak is summed up in one line.
const REPORTS_MAX: usize = 64;

/// A search under way.
struct Search {
    room: Range,
    /// Bytes that may still be looked through.
    left: u64,
    /// The blocks whose content is to be looked through: number plus 1 of the first.
    list: u32,
    /// What turns into what when it is reached.
    from: u32,
    to: u32,
    /// What was reached so far.
    blocks: u64,
    bytes: u64,
}

impl<P: Platform> Guard<P> {
    /// Looks for blocks that nothing reaches, and reports them. `anchor` is where on this thread's stack the program's
    /// own frames begin.
    pub(crate) fn report_leaks(&self, setup: &Setup, anchor: usize) {
        let Ok(start) = self.platform.reserve(ROOM, self.platform.page_size()) else { return };
        let room = Range { start, len: ROOM };
        // SAFETY: the range was reserved just now.
        if unsafe { self.platform.commit(room) }.is_ok() {
            let mut search =
                Search { room, left: LOOK_MAX, list: 0, from: UNREACHED, to: REACHED, blocks: 0, bytes: 0 };
            if self.find_lost(setup, &mut search, anchor) {
                self.say_lost(setup, &mut search);
            } else {
                self.complain(format_args!(
                    "leaks=on: the process's memory could not be looked through as a whole: nothing is said of leaks"
                ));
            }
        }
        // SAFETY: the range is ours, and the search is over. What could not be given back ends with the process.
        let released = unsafe { self.platform.release(room) };
        let _ = released;
    }

    /// Marks what nothing reaches; false when not all memory could be looked through.
    fn find_lost(&self, setup: &Setup, search: &mut Search, anchor: usize) -> bool {
        self.each_alive(|_, linked, _| linked.reached.store(UNREACHED, Ordering::Relaxed));
        if !self.look_everywhere(setup, search, anchor) {
            return false;
        }
        let mut suspects = false;
        self.each_alive(|_, linked, _| {
            let reached = linked.reached.load(Ordering::Relaxed);
            suspects |= reached == UNREACHED;
            // What was reached hands on what it reaches a second time, in the second round.
            let next = if reached == UNREACHED { SUSPECT } else { UNREACHED };
            linked.reached.store(next, Ordering::Relaxed);
        });
        if !suspects {
            return true;
        }
        search.left = LOOK_MAX;
        if !self.look_everywhere(setup, search, anchor) {
            return false;
        }
        // Those that another lost block reaches are told with that one, whichever comes first: of a ring, one is told.
        self.each_alive(|slot, linked, number| {
            if linked.reached.load(Ordering::Relaxed) == SUSPECT {
                linked.reached.store(LOST, Ordering::Relaxed);
                (search.from, search.to) = (SUSPECT, THROUGH);
                push(search, linked, number);
                self.look_through_list(setup, search, Some(slot));
            }
        });
        search.left != 0
    }

    /// One round: marks all that is reached from outside.
    fn look_everywhere(&self, setup: &Setup, search: &mut Search, anchor: usize) -> bool {
        let told = self.platform.each_mapping(&mut |range| {
            let from = if range.contains(anchor) { anchor } else { range.start };
            self.look_outside(setup, search, Range { start: from, len: range.end().wrapping_sub(from) });
        });
        self.look_through_list(setup, search, None);
        told && search.left != 0
    }

    /// Looks through the content of all blocks on the list, and of those that this adds to it.
    fn look_through_list(&self, setup: &Setup, search: &mut Search, root: Option<&Slot>) {
        while let Some(number) = (search.list as usize).checked_sub(1) {
            let slot = self.heap.slot(number / SLOTS_STRIDE, number % SLOTS_STRIDE);
            let (Some(slot), Some(linked)) = (slot, self.heap.linked(number)) else { return };
            search.list = linked.next.swap(0, Ordering::Relaxed);
            let view = self.heap.view(slot);
            if view.state == SlotState::Live {
                self.look_through(setup, search, Range { start: view.pointer, len: view.size }, root);
            }
        }
    }

    /// Looks through a mapping, but for what is our own.
    fn look_outside(&self, setup: &Setup, search: &mut Search, range: Range) {
        let tables = self.own_tables();
        let room = search.room;
        let own = || tables.iter().chain([&room]).copied().filter(|table| table.len != 0);
        let mut at = range.start;
        while at < range.end() {
            if let Some(table) = own().find(|table| table.contains(at)) {
                at = table.end();
                continue;
            }
            let starts = own().map(|table| table.start).filter(|start| *start > at);
            let end = starts.fold(range.end(), usize::min);
            self.look_through(setup, search, Range { start: at, len: end.wrapping_sub(at) }, None);
            at = end;
        }
    }

    /// Looks at every word of a range that can be read.
    fn look_through(&self, setup: &Setup, search: &mut Search, range: Range, root: Option<&Slot>) {
        let blocks = self.heap.addresses();
        let mut at = align_up(range.start, size_of::<usize>()).unwrap_or(range.end());
        while at < range.end() && search.left != 0 {
            let len = range.end().wrapping_sub(at).min(search.room.len);
            // SAFETY: the room is committed, ours alone, and as long as that.
            let room = unsafe { core::slice::from_raw_parts_mut(search.room.start as *mut u8, len) };
            let got = self.platform.read_checked(at, room);
            search.left = search.left.saturating_sub(len as u64);
            let count = got >> size_of::<usize>().trailing_zeros();
            // SAFETY: the room begins on a page, and so much of it was written just now.
            let words = unsafe { core::slice::from_raw_parts(search.room.start as *const usize, count) };
            // Nearly no word is one of the heap's: this is the loop that a search is made of.
            for word in words {
                if word.wrapping_sub(blocks.start) < blocks.len {
                    self.reach(setup, search, *word, root);
                }
            }
            // A page that cannot be read is passed over.
            at = if got == len {
                at.wrapping_add(len)
            } else {
                let next = at.wrapping_add(got).wrapping_add(1);
                align_up(next, self.platform.page_size()).unwrap_or(range.end())
            };
        }
    }

    /// A word was found: marks the block that it is an address of.
    fn reach(&self, setup: &Setup, search: &mut Search, address: usize, root: Option<&Slot>) {
        if !self.heap.owns(address) {
            return;
        }
        let (index, within) = match self.heap.find(setup.geometry(), address) {
            Found::Small { index, place, .. } => match place.slot_of_block() {
                Some(within) => (index, within),
                None => return,
            },
            Found::Large { index } => (index, 0),
            _ => return,
        };
        let number = number_of(index, within);
        let (Some(slot), Some(linked)) = (self.heap.slot(index, within), self.heap.linked(number)) else {
            return;
        };
        let reached = linked.reached.load(Ordering::Relaxed);
        let same = root.is_some_and(|root| core::ptr::eq(root, slot));
        // A block that was told for itself is reached from another lost one after all.
        let demoted = search.to == THROUGH && reached == LOST && !same;
        let first = reached == search.from || (search.to == REACHED && reached == SUSPECT);
        if same || !(first || demoted) {
            return;
        }
        let view = self.heap.view(slot);
        if view.state != SlotState::Live || address < view.pointer || address > view.end() {
            return;
        }
        linked.reached.store(search.to, Ordering::Relaxed);
        search.blocks = search.blocks.wrapping_add(1);
        search.bytes = search.bytes.wrapping_add(view.size as u64);
        if first {
            push(search, linked, number);
        }
    }

    /// Reports what is lost, one report for each place that allocated some.
    fn say_lost(&self, setup: &Setup, search: &mut Search) {
        let mut said = 0usize;
        let mut pending: Option<Case> = None;
        let mut rest = LeakInfo::default();
        while let Some(case) = self.next_lost(setup, search) {
            if said == REPORTS_MAX {
                if let Some(leak) = case.leak {
                    rest.blocks = rest.blocks.wrapping_add(leak.blocks);
                    rest.bytes = rest.bytes.wrapping_add(leak.bytes);
                }
                continue;
            }
            said = said.wrapping_add(1);
            if let Some(before) = pending.replace(case) {
                self.report_once(setup, &before, &Frames::Nowhere, true);
            }
        }
        if rest.blocks != 0 {
            self.complain(format_args!(
                "leaks=on: {} more blocks of {} bytes from other places are reached by nothing",
                rest.blocks, rest.bytes
            ));
        }
        // The last one ends the process, if errors do.
        match pending {
            Some(last) if setup.options.on_error == OnError::Continue => {
                self.report_once(setup, &last, &Frames::Nowhere, true);
            }
            Some(last) => self.report(setup, &last, &Frames::Nowhere),
            None => {}
        }
    }

    /// The next lost block that was not counted yet, together with those of the same allocation stack.
    fn next_lost(&self, setup: &Setup, search: &mut Search) -> Option<Case> {
        let mut case: Option<Case> = None;
        let mut trace = 0;
        let mut leak = LeakInfo::default();
        (search.from, search.to) = (THROUGH, COUNTED);
        (search.blocks, search.bytes) = (0, 0);
        self.each_alive(|slot, linked, number| {
            let view = self.heap.view(slot);
            // Blocks whose stack is not known are told one by one.
            let like = case.is_none() || (trace != 0 && view.allocated.trace == trace);
            if linked.reached.load(Ordering::Relaxed) != LOST || !like {
                return;
            }
            linked.reached.store(COUNTED, Ordering::Relaxed);
            leak.blocks = leak.blocks.wrapping_add(1);
            leak.bytes = leak.bytes.wrapping_add(view.size as u64);
            push(search, linked, number);
            search.left = LOOK_MAX;
            self.look_through_list(setup, search, Some(slot));
            if case.is_none() {
                trace = view.allocated.trace;
                let mut found = Case::of(ErrorKind::Leak, AccessType::None, view.pointer);
                found.access.address = None;
                found.block = Some(Beside { slot: view, place: Where::Inside, distance: 0 });
                found.confidence = Confidence::High;
                case = Some(found);
            }
        });
        (leak.through_blocks, leak.through_bytes) = (search.blocks, search.bytes);
        case.map(|case| Case { leak: Some(leak), ..case })
    }

    /// Calls `each` with every block that is alive, what is kept of it beside its record, and its number.
    fn each_alive(&self, mut each: impl FnMut(&'static Slot, &'static Linked, usize)) {
        self.heap.each_record(|slot, _, index, within| {
            let number = number_of(index, within);
            if slot.state() == SlotState::Live
                && let Some(linked) = self.heap.linked(number)
            {
                each(slot, linked, number);
            }
        });
    }

    /// Our own memory that holds addresses of blocks, or is large and holds none.
    fn own_tables(&self) -> [Range; 11] {
        let this = Range { start: core::ptr::from_ref(self) as usize, len: size_of::<Self>() };
        let [slots, larges, linked] = self.heap.record_tables();
        [
            this,
            slots,
            larges,
            linked,
            self.heap.addresses(),
            self.reporter.records(),
            self.arena.addresses(),
            self.misc.range(),
            self.depot.stacks(),
            self.threads.states.range(),
            self.threads.trace_memories.range(),
        ]
    }
}

/// Puts a block on the list of those whose content is still to be looked through.
fn push(search: &mut Search, linked: &Linked, number: usize) {
    let Ok(link) = u32::try_from(number.wrapping_add(1)) else { return };
    linked.next.store(search.list, Ordering::Relaxed);
    search.list = link;
}
