//! Memory that is closed by a protection key: open to the threads that have leave.

use fencepost_guard::Purpose;
use fencepost_record::{AccessType, ErrorKind};
use fencepost_sys::{AfterStep, Fault, Keys, Protection, Verdict};

use crate::seals::other_memory;
use crate::world::{World, fault};

#[test]
fn what_a_key_closes_is_open_to_threads_with_leave_and_to_no_other() {
    let world = World::new("on_error=continue");
    world.block(24, 8);
    let other = other_memory(world);
    // SAFETY: the range stays mapped, and the runtime does not use it.
    let ticket = unsafe { world.guard.seal_other(Purpose::Keyed, other, 0) }.expect("sealed");
    let closed = || world.sim().protection(other.start);
    assert_eq!(closed(), Some(Protection::Keyed));
    let write = fault(other.start + 9, AccessType::Write);
    assert_eq!(world.raise(&write), Verdict::Step);
    assert_eq!(world.sim().step_ends(write.pc + 1), Some(AfterStep::Done));
    assert_eq!(world.record().kind, ErrorKind::SealViolation);
    assert_eq!(closed(), Some(Protection::Keyed), "by its key again");
    // Another thread's step had the page, so that the owner's own write trapped.
    let own = Fault { can_write: true, ..write };
    assert_eq!(world.raise(&own), Verdict::Step);
    assert_eq!(world.sim().step_ends(own.pc + 1), Some(AfterStep::Done));
    assert!(world.records().is_empty(), "it has leave");
    assert_eq!(world.guard.hits(&ticket), 1);
    // A watch of the same pages closes them to all, and then they are its key's again.
    // SAFETY: as above.
    let watch = unsafe { world.guard.seal_other(Purpose::Watch, other, 0) }.expect("watched");
    assert_eq!(closed(), Some(Protection::Read));
    world.guard.unseal(watch, || ());
    assert_eq!(closed(), Some(Protection::Keyed));
    world.guard.unseal(ticket, || ());
    assert_eq!(closed(), Some(Protection::ReadWrite));
    world.sim().assert_no_violations();
}

#[test]
fn a_system_call_of_a_thread_with_leave_is_none_of_ours() {
    let world = World::new("on_error=continue");
    world.block(24, 8);
    let other = other_memory(world);
    // SAFETY: the range stays mapped, and the runtime does not use it.
    let ticket = unsafe { world.guard.seal_other(Purpose::Keyed, other, 0) }.expect("sealed");
    let check = |access| world.guard.check_buffer(other.start, 16, access, 0);
    let closed = || world.sim().protection(other.start);
    check(AccessType::Read);
    assert_eq!(closed(), Some(Protection::Keyed), "the kernel reads it for every thread");
    let could_before = world.sim().open_writes();
    check(AccessType::Write);
    assert_eq!((could_before, closed()), (false, Some(Protection::Keyed)));
    world.sim().close_writes(could_before);
    assert!(world.records().is_empty() && world.guard.hits(&ticket) == 0);
    check(AccessType::Write);
    assert_eq!(world.record().kind, ErrorKind::SealViolation);
    assert_eq!(closed(), Some(Protection::ReadWrite), "for the call");
    world.guard.after_call();
    assert_eq!(closed(), Some(Protection::Keyed));
    world.guard.unseal(ticket, || ());
}
