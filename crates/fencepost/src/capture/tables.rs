//! The walk by unwind tables, from the place of the call outwards.
//!
//! It trusts nothing it cannot check: it reads within this thread's own stack only, moves outwards at every step, and
//! where there is no plain rule for an address (code made at run time, a signal handler's frame, a stack that was
//! aligned by hand) it gives up, and the unwinder of the C runtime walks instead. An unwinder that goes on along frame
//! pointers where the tables end, as profilers' do, shows more frames; but some of them may be wrong.

use core::slice::from_raw_parts;

use fencepost_guard::{Keep, Tracing};
use fencepost_record::FRAMES_MAX;
use fencepost_sys::{Code, Host, Loader, Range};
use gimli::{
    BaseAddresses, CfaRule, EhFrame, EhFrameHdr, NativeEndian, Pointer, Register, RegisterRule,
    UnwindContext, UnwindContextStorage, UnwindSection, UnwindTableRow,
};

use super::recall::{self, Key, Reads};
use super::rules::{self, Known, Packed, Rule};

#[cfg(target_arch = "x86_64")]
const FP_AND_SP: (Register, Register) = (gimli::X86_64::RBP, gimli::X86_64::RSP);
#[cfg(target_arch = "aarch64")]
const FP_AND_SP: (Register, Register) = (gimli::AArch64::X29, gimli::AArch64::SP);

/// Addresses of code have no more bits; a signed return address has.
const CODE_BITS: u32 = 47;

/// Where a walk starts: in a function that is running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Start {
    pub(super) ip: usize,
    pub(super) sp: usize,
    pub(super) fp: usize,
}

/// The registers, as they are where this is written.
macro_rules! start_here {
    () => {{
        let (ip, sp, fp): (usize, usize, usize);
        // SAFETY: reading registers changes nothing.
        unsafe {
            #[cfg(target_arch = "x86_64")]
            core::arch::asm!(
                "lea {ip}, [rip]", "mov {sp}, rsp", "mov {fp}, rbp",
                ip = out(reg) ip, sp = out(reg) sp, fp = out(reg) fp,
                options(nomem, nostack, preserves_flags)
            );
            #[cfg(target_arch = "aarch64")]
            core::arch::asm!(
                "adr {ip}, .", "mov {sp}, sp", "mov {fp}, x29",
                ip = out(reg) ip, sp = out(reg) sp, fp = out(reg) fp,
                options(nomem, nostack, preserves_flags)
            );
        }
        $crate::capture::tables::Start { ip, sp, fp }
    }};
}

/// The number of this thread's stack; `None` where another walk must be tried.
#[inline(never)]
pub(super) fn trace(tracing: &Tracing, keep: Keep<'_>) -> Option<u32> {
    let start = start_here!();
    if !tracing.stack.contains(start.sp) {
        return None;
    }
    let end = tracing.stack.end();
    let key = Key { ip: start.ip, sp: start.sp, fp: start.fp, anchor: tracing.anchor };
    if tracing.memory.len < super::MEMORY {
        return fresh(&start, &key, tracing, keep, core::ptr::null_mut());
    }
    let memory = tracing.memory.start as *mut recall::Recall;
    // SAFETY: the runtime gives a thread memory for a `Recall` of its own, zeroed before its first use, and calls this
    // on that thread, never while another call runs there. The stack from `sp` to `end` is this thread's, in use.
    if let Some(number) = unsafe { recall::find(memory, &key, end) } {
        return Some(number);
    }
    fresh(&start, &key, tracing, keep, memory)
}

/// Walks, and remembers what was found.
#[inline(never)]
fn fresh(
    start: &Start,
    key: &Key,
    tracing: &Tracing,
    keep: Keep<'_>,
    memory: *mut recall::Recall,
) -> Option<u32> {
    let mut frames = [0u64; FRAMES_MAX];
    let mut reads = Reads::new();
    let walked = walk(start, tracing, frames.get_mut(..tracing.depth)?, &mut reads)?;
    let number = keep(frames.get(..walked.frames)?);
    if walked.lasting && number != 0 && !memory.is_null() {
        // SAFETY: as in `trace`, which has checked the memory's length.
        unsafe { recall::remember(memory, key, tracing.stack.end(), &reads, number) };
    }
    Some(number)
}

/// What a walk gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Walked {
    frames: usize,
    /// Whether all of its rules hold as long as the process lives.
    lasting: bool,
}

/// The frame pointer of the frame that a walk has come to. Most code uses that register for anything, and the value that
/// a callee saved is of no account then: it is looked at only when a rule asks for it.
#[derive(Clone, Copy)]
enum Fp {
    Start,
    At(usize),
    Known(usize),
}

/// Walks from `start` outwards; `None` where there is no plain rule.
fn walk(start: &Start, tracing: &Tracing, frames: &mut [u64], reads: &mut Reads) -> Option<Walked> {
    let live = Range { start: start.sp, len: tracing.stack.end().checked_sub(start.sp)? };
    let (mut sp, mut fp, mut address) = (start.sp, Fp::Start, start.ip as u64);
    let mut walked = Walked { frames: 0, lasting: true };
    let mut gone = None;
    while walked.frames < frames.len() {
        let rule = match rules::find(address, gone) {
            Known::Lasting(rule) => rule,
            Known::Since(rule, since) => {
                walked.lasting = false;
                let now = match gone {
                    Some(now) => now,
                    None => *gone.insert(Host.departures()?),
                };
                if now != since {
                    continue;
                }
                rule
            }
            Known::Nothing => {
                let (rule, since) = learn(address)?;
                walked.lasting &= since.is_none();
                gone = since.or(gone);
                rule
            }
        };
        if rule.0 & Packed::PLAIN == 0 {
            return rule.is_end().then_some(walked);
        }
        let frame = if rule.0 & Packed::FROM_FP == 0 {
            sp
        } else {
            match fp {
                Fp::Known(value) => value,
                Fp::Start => {
                    reads.uses_fp = true;
                    start.fp
                }
                Fp::At(place) => {
                    let value = read(live, place, reads)? as usize;
                    fp = Fp::Known(value);
                    value
                }
            }
        };
        let frame_end = frame.wrapping_add(rule.end());
        if frame_end <= sp {
            return None;
        }
        let returns = read(live, frame_end.wrapping_add(rule.returns()), reads)?;
        if rule.0 & Packed::SAVES_FP != 0 {
            fp = Fp::At(frame_end.wrapping_add(rule.fp()));
        }
        sp = frame_end;
        if returns == 0 {
            return Some(walked);
        }
        if returns >> CODE_BITS != 0 {
            return None;
        }
        // The caller's own part of the stack begins here.
        if sp > tracing.anchor
            && let Some(place) = frames.get_mut(walked.frames)
        {
            *place = returns;
            walked.frames = walked.frames.wrapping_add(1);
        }
        address = returns.wrapping_sub(1);
    }
    Some(walked)
}

/// A word of the part of the stack that is in use.
#[inline]
fn read(live: Range, address: usize, reads: &mut Reads) -> Option<u64> {
    let offset = address.wrapping_sub(live.start);
    if offset & 7 != 0 || address & 7 != 0 || offset.checked_add(8)? > live.len {
        return None;
    }
    // SAFETY: the word lies in this thread's stack, above the stack pointer of a frame that runs, so it is mapped; it
    // is aligned. Other threads do not write to saved registers, and if one did, a volatile read gives some value.
    let value = unsafe { (address as *const u64).read_volatile() };
    reads.add(offset, value);
    Some(value)
}

/// Makes the rule for an address, and keeps it: also until when it holds, if not for good.
#[cold]
#[inline(never)]
fn learn(address: u64) -> Option<(Packed, Option<u64>)> {
    if rules::are_full() {
        return None;
    }
    let mut learned = None;
    Host.code_at(address as usize, &mut |code| {
        let rule = Packed::of(rule_of(code, address).unwrap_or(Rule::Odd));
        let since = (!code.lasting).then_some(code.departures);
        learned = rules::keep(address, rule, since).then_some((rule, since));
    });
    learned
}

/// In the child of a fork, where the other threads do not exist and may have left the loader's lock behind.
pub(crate) fn after_fork_of_several() {
    Host.leave_loader_alone();
}

/// Room for reading one entry of the tables: no heap. Both processors have fewer registers that are saved.
struct OnStack;

impl UnwindContextStorage<usize> for OnStack {
    type Rules = [(Register, RegisterRule<usize>); 40];
    type Stack = [UnwindTableRow<usize, Self>; 3];
}

/// Reads the tables.
fn rule_of(code: &Code, address: u64) -> Option<Rule> {
    // SAFETY: the loader keeps the module mapped while it is looked at, and has mapped its segments to be read.
    let index = unsafe { from_raw_parts(code.index.start as *const u8, code.index.len) };
    let bases = BaseAddresses::default().set_eh_frame_hdr(code.index.start as u64);
    let index = EhFrameHdr::new(index, NativeEndian).parse(&bases, size_of::<usize>() as u8).ok()?;
    let Pointer::Direct(frames) = index.eh_frame_ptr() else { return None };
    let frames = usize::try_from(frames).ok()?;
    if !code.segment.contains(frames) {
        return None;
    }
    let len = code.segment.end().checked_sub(frames)?;
    // SAFETY: as above; the range ends where the segment does.
    let section = EhFrame::new(unsafe { from_raw_parts(frames as *const u8, len) }, NativeEndian);
    let bases = bases.set_eh_frame(frames as u64);
    let table = index.table()?;
    let found = table.pointer_to_offset(table.lookup(address, &bases).ok()?).ok()?;
    let entry = section.fde_from_offset(&bases, found, EhFrame::cie_from_offset).ok()?;
    if !entry.contains(address) || entry.is_signal_trampoline() {
        return None;
    }
    let mut context: UnwindContext<usize, OnStack> = UnwindContext::new_in();
    let row = entry.unwind_info_for_address(&section, &bases, &mut context, address).ok()?;
    plain(row, entry.cie().return_address_register())
}

/// A row of the tables as a rule, if it is a plain one.
fn plain(row: &UnwindTableRow<usize, OnStack>, returns_in: Register) -> Option<Rule> {
    let (fp_register, sp_register) = FP_AND_SP;
    let returns = match row.register(returns_in)? {
        RegisterRule::Undefined => return Some(Rule::End),
        RegisterRule::Offset(offset) => offset,
        _ => return None,
    };
    let CfaRule::RegisterAndOffset { register, offset } = row.cfa() else { return None };
    let from_fp = *register == fp_register;
    if !(from_fp || *register == sp_register) || row.register(sp_register).is_some() {
        return None;
    }
    let fp = match row.register(fp_register) {
        None | Some(RegisterRule::SameValue | RegisterRule::Undefined) => None,
        Some(RegisterRule::Offset(offset)) => Some(offset),
        Some(_) => return None,
    };
    Some(Rule::Step { from_fp, end: *offset, returns, fp })
}
