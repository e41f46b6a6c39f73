//! From a case to a record: stacks, block, seal, neighbours, process and modules.
//!
//! Only plain data and calls that may run in the fault handler: no allocation, no lock but the reporter's, which the
//! caller holds. The walk of this thread's stack comes ready made, because this runs on another one.

use core::sync::atomic::Ordering;

use fencepost_record::{
    AccessType, Block, BlockState, Coverage, Neighbour, Note, ProcessInfo, Record, SealInfo, Stack, Trace,
    Which,
};
use fencepost_sys::Platform;

use super::copying::known;
use super::{Case, Frames, Walk};
use crate::diagnose::{Beside, state_of};
use crate::runtime::{Guard, Setup};
use crate::slot::{Act, SlotView};

impl<P: Platform> Guard<P> {
    /// Writes down everything about a case but its number. Runs on the report stack, under the reporter's lock.
    pub(super) fn fill(
        &self,
        setup: &Setup,
        case: &Case,
        frames: &Frames<'_>,
        walk: &Walk,
        record: &mut Record,
    ) {
        let now = self.now(setup);
        record.kind = case.kind;
        record.access = case.access;
        record.given_layout = case.given_layout;
        record.damage = case.damage;
        record.confidence = case.confidence;
        record.notes = case.notes;
        self.fill_fault_stack(frames, walk, record);
        record.block = case.block.map(|beside| self.block(&beside, now));
        record.seal = case.seal.map(|seal| SealInfo {
            address: seal.exact.start as u64,
            size: seal.exact.len as u64,
            pages: (seal.pages.start as u64, seal.pages.len as u64),
            old: seal.old,
            new: seal.new,
            sealer: self.stack_of(&seal.act, now),
        });
        record.region = case.region;
        record.leak = case.leak;
        let address = case.access.address.unwrap_or(0);
        for (to, from) in record.neighbours.iter_mut().zip(case.neighbours) {
            *to = from.map(|slot| neighbour(&slot, address));
        }
        self.fill_process(setup, record);
        self.fill_modules(record);
    }

    fn fill_fault_stack(&self, frames: &Frames<'_>, walk: &Walk, record: &mut Record) {
        if matches!(frames, Frames::Nowhere) {
            return;
        }
        let mut info = self.thread_if_known().map_or_else(Default::default, |state| {
            let number = state.number.load(Ordering::Relaxed);
            self.threads.remember(&self.platform, state);
            self.threads.info(number)
        });
        info.id = self.platform.thread_id();
        record.fault = Stack { thread: info, trace: Trace::EMPTY, age_ms: 0 };
        let trace = &mut record.fault.trace;
        let all = walk.frames.get(..walk.count).unwrap_or(&[]);
        let mut left_out = None;
        let from = match frames {
            Frames::Here(_) | Frames::Nowhere => Some(0),
            Frames::Fault(fault) => {
                record.registers = fault.registers;
                record.signal = u32::try_from(fault.signal).unwrap_or(0);
                trace.first_is_exact = true;
                // What lies before the interrupted instruction is the handler.
                let from = all.iter().position(|frame| *frame == fault.pc as u64);
                let call = from.and_then(|from| (self.hooks.copy)(fault.sp, all.get(from..).unwrap_or(&[])));
                record.copy = known(fault, call.map(|call| call.copy));
                left_out = from.zip(call).map(|(from, call)| from.wrapping_add(call.frame));
                from
            }
        };
        match (from, frames) {
            (Some(from), _) => {
                let shown = all.iter().enumerate().skip(from).filter(|(index, _)| Some(*index) != left_out);
                for (_, frame) in shown {
                    trace.push(*frame);
                }
            }
            (None, Frames::Fault(fault)) => {
                // The walk did not come through the signal frame: the caller is on the stack if the fault was a call.
                trace.push(fault.pc as u64);
                let mut word = [0u8; 8];
                if fault.access == AccessType::Execute && self.platform.read_checked(fault.sp, &mut word) == 8
                {
                    trace.push(u64::from_le_bytes(word));
                }
                record.notes.add(Note::StackCutShort);
            }
            (None, Frames::Here(_) | Frames::Nowhere) => {}
        }
    }

    fn block(&self, beside: &Beside, now: u32) -> Block {
        let slot = &beside.slot;
        let state = state_of(slot);
        let slack = slot.pointer.wrapping_add(slot.size);
        let page = self.platform.page_size();
        let to_page_end = crate::geometry::align_up(slack, page).unwrap_or(slack).wrapping_sub(slack);
        Block {
            address: slot.pointer as u64,
            size: slot.size as u64,
            align: slot.align as u64,
            // On the left, or in a page of its own, the space up to the guard is room, not slack of alignment.
            slack: if to_page_end < slot.align { to_page_end as u64 } else { 0 },
            site: self.depot.frames(slot.allocated.trace).and_then(|frames| self.site_of(frames)),
            place: beside.place,
            distance: beside.distance as u64,
            state,
            allocated: self.stack_of(&slot.allocated, now),
            freed: (state == BlockState::Freed).then(|| self.stack_of(&slot.freed, now)),
        }
    }

    pub(crate) fn stack_of(&self, act: &Act, now: u32) -> Stack {
        let mut stack = Stack {
            thread: self.threads.info_of(act),
            trace: Trace::EMPTY,
            age_ms: u64::from(now.saturating_sub(act.ms)),
        };
        self.depot.load(act.trace, &mut stack.trace);
        stack
    }

    /// Writes down which program this is, and its arguments.
    pub(crate) fn fill_command(&self, process: &mut ProcessInfo) {
        let mut room = [0u8; 1024];
        process.pid = self.platform.process_id();
        let len = self.platform.executable(&mut room);
        process.exe.push(room.get(..len).unwrap_or(&[]));
        let len = self.platform.arguments(&mut room);
        process.args.push(room.get(..len).unwrap_or(&[]));
        self.fill_library(process);
    }

    fn fill_process(&self, setup: &Setup, record: &mut Record) {
        self.fill_command(&mut record.process);
        record.options = setup.options_text;
        record.engine = setup.engine().name();
        record.seed = setup.seed;
        let account = self.account(setup);
        record.coverage = Coverage { guarded: account.guarded, total: account.total };
    }

    /// The library that this code is in, where C's functions are exported from one: without it there is no guard when the
    /// program runs again.
    fn fill_library(&self, process: &mut ProcessInfo) {
        if !self.is_exported() {
            return;
        }
        let here = self.hooks.on_fault as usize as u64;
        self.platform.each_module(&mut |module| {
            let (path, is_cut) = (module.path.as_str(), module.path.is_cut());
            if (module.start..module.end).contains(&here) && path != process.exe.as_str() && !is_cut {
                process.preload.push(path.as_bytes());
            }
        });
    }

    fn fill_modules(&self, record: &mut Record) {
        self.platform.each_module(&mut |module| {
            let holds = |trace: &Trace| {
                trace
                    .frames()
                    .iter()
                    .any(|frame| (module.start..module.end).contains(&frame.saturating_sub(1)))
            };
            if Which::ALL.into_iter().filter_map(|which| which.trace(record)).any(holds) {
                // A table that is full leaves the last modules' frames without a name.
                let kept = record.modules.push(*module);
                let _ = kept;
            }
        });
    }
}

fn neighbour(slot: &SlotView, address: u64) -> Neighbour {
    let (start, end) = (slot.pointer as u64, slot.end() as u64);
    Neighbour {
        address: start,
        size: slot.size as u64,
        state: state_of(slot),
        distance: if address >= end { address.wrapping_sub(end) } else { start.saturating_sub(address) },
    }
}
