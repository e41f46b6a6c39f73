//! What a report says of the copy that an access was part of: what is known, and nothing else.

use fencepost_record::{AccessType, CopyInfo};
use fencepost_sys::{AfterStep, Fault};

use crate::world::{COPY, COPY_FRAME, World, fault, stack};

const PC: u64 = 0x50_0000;
const FROM: u64 = 0x1000;

/// The copy in the report of a fault past the end of a block of 32 bytes at the address that `what` is given, and the
/// frames that are shown.
fn reported(what: impl Fn(usize) -> (Fault, Option<CopyInfo>)) -> (Option<CopyInfo>, Vec<u64>) {
    let world = World::new("");
    let (fault, call) = what(world.block(32, 8));
    COPY.set(call);
    stack(&[0x99_0000, PC, COPY_FRAME, 0x51_0000]);
    world.begin(&fault);
    assert_eq!(world.sim().step_ends(PC as usize + 3), Some(AfterStep::Done));
    let record = world.record();
    (record.copy, record.fault.trace.frames().to_vec())
}

fn copy(to: u64, from: u64, size: Option<u64>) -> CopyInfo {
    CopyInfo { function: "memcpy", to, from: Some(from), size, left: None }
}

#[test]
fn a_call_on_the_stack_is_told_if_it_holds_the_address() {
    let write = |block: usize| fault(block + 32, AccessType::Write);
    let (told, frames) = reported(|block| (write(block), Some(copy(block as u64, FROM, Some(64)))));
    assert_eq!(told.map(|copy| (copy.size, copy.left)), Some((Some(64), None)));
    assert_eq!(frames, [PC, 0x51_0000], "the frame of ours is left out");
    let read = |block: usize| fault(block + 32, AccessType::Read);
    let (told, _) = reported(|block| (read(block), Some(copy(FROM, block as u64, Some(33)))));
    assert_eq!(told.and_then(|copy| copy.size), Some(33));
    let others: [fn(u64) -> CopyInfo; 5] = [
        |block| copy(block, FROM, Some(32)),
        |block| copy(block + 33, FROM, Some(64)),
        |block| copy(FROM, block, Some(64)),
        |block| copy(block, FROM, None),
        |_| CopyInfo::default(),
    ];
    for other in others {
        let (told, frames) = reported(|block| (write(block), Some(other(block as u64))));
        assert_eq!((told, frames.len()), (None, 2), "{:?}: not what the access was part of", other(0));
    }
    assert_eq!(reported(|block| (write(block), None)), (None, vec![PC, COPY_FRAME, 0x51_0000]));
}

#[test]
fn the_processors_count_is_told_with_the_call_and_without() {
    let rest =
        |block: usize| CopyInfo { function: "", left: Some(40), ..copy(block as u64 + 32, FROM, None) };
    let write = |block: usize| Fault { repeated: Some(rest(block)), ..fault(block + 32, AccessType::Write) };
    let whole = |block: usize| copy(block as u64, FROM, Some(72));
    let told = |what: &dyn Fn(usize) -> (Fault, Option<CopyInfo>)| {
        reported(what).0.map(|copy| (copy.function, copy.size, copy.left))
    };
    assert_eq!(told(&|block| (write(block), None)), Some(("", None, Some(40))));
    assert_eq!(told(&|block| (write(block), Some(whole(block)))), Some(("memcpy", Some(72), Some(40))));
    let elsewhere =
        |block: usize| Fault { repeated: Some(CopyInfo { to: FROM, ..rest(block) }), ..write(block) };
    assert_eq!(told(&|block| (elsewhere(block), Some(whole(block)))), Some(("memcpy", Some(72), None)));
    assert_eq!(told(&|block| (elsewhere(block), None)), None);
}

#[test]
fn an_error_without_a_fault_has_no_copy() {
    let world = World::new("");
    COPY.set(Some(copy(0, FROM, Some(u64::MAX))));
    world.guard.check_buffer(world.block(16, 8), 64, AccessType::Write, 0);
    assert_eq!(world.record().copy, None);
}
